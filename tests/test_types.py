"""The API's data types: fields, defaults and ranges as documented, conversions, values that are frozen."""

from __future__ import annotations

import warnings
from typing import Any

import attrs
import pytest

from picpik_async import ImageSource, InferenceParams, Mask, Model
from picpik_async._types import CreditBalance, Image2Image, Models, fits_params, required
from picpik_async.errors import InvalidRequestError

# The tables of https://picpik.ai/api-docs/api-reference/ModifyMaskedPixels: accepted and refused values, and the words.
MASK = [
    ("refer_strength", [0, 1, 1.5, 2], [-0.1, 2.5, True, "1"], "from 0 to 2"),
    ("invert_mask", [True, False], [0, 1, "true"], "True or False"),
    ("mask_blur", [0, 12, 64], [-1, 65, 12.5, True], "from 0 to 64"),
    ("prompts_more_important", [True, False], [0, None.__class__], "True or False"),
]
IMAGE2IMAGE = [("refer_strength", [0, 0.5, 1], [-0.1, 1.5, False, "0.5"], "from 0 to 1")]
PARAMS = [
    ("lora_weight", [-1, 0, 0.29, 1, 2], [-1.5, 2.01, "1"], "from -1 to 2"),
    ("lora_weight", [0.01], [0.005, 0.291], "a multiple of 0.01"),
    ("resolution", [64, 512, 2048], [0, 2112], "from 64 to 2048"),
    ("resolution", [128], [100, 513], "a multiple of 64"),
    ("control_weight", [0, 1, 1.23, 2], [-0.01, 2.01], "from 0 to 2"),
    ("control_weight", [], [0.005], "a multiple of 0.01"),
    ("starting_step", [0, 0.07, 1], [-0.01, 1.01], "from 0 to 1"),
    ("starting_step", [], [0.001], "a multiple of 0.01"),
    ("ending_step", [0, 0.57, 1], [-0.01, 1.01], "from 0 to 1"),
    ("ending_step", [], [0.999], "a multiple of 0.01"),
    ("steps", [6, 10, 100], ["10", 10.5, True], "a whole number from 6 to 100"),
    ("clip_skip", [1, 12], ["1", 1.5, False], "a whole number from 1 to 12"),
    ("cfg_scale", [1, 7.5, 30], ["7.5", True], "a number from 1 to 30"),
    ("sampler", ["Euler"], ["", 5], "a string that is not empty"),
]
TABLE = [
    *[(Mask, "masked.", *row) for row in MASK],
    *[(Image2Image, "image2image.", *row) for row in IMAGE2IMAGE],
    *[(InferenceParams, "", *row) for row in PARAMS],
]


@pytest.mark.parametrize(("kind", "path", "field", "accepted", "refused", "allowed"), TABLE)
def test_documented_values(  # noqa: PLR0917 - a row of the table
    kind: Any, path: str, field: str, accepted: list[Any], refused: list[Any], allowed: str
) -> None:
    """What the pages allow is taken as it is, anything else is refused with field, value and range."""
    for value in accepted:
        assert value == getattr(kind(**{field: value}), field)
    for value in refused:
        with pytest.raises(InvalidRequestError) as caught:
            kind(**{field: value})
        error = caught.value
        assert (path + field, value) == (error.field, error.value)
        assert f"{path}{field} is {value!r}, but must be {error.allowed}" == str(error)
        assert allowed in str(error.allowed)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("steps", 5, "from 6 to 100"),
        ("steps", 101, "from 6 to 100"),
        ("clip_skip", 0, "from 1 to 12"),
        ("clip_skip", 13, "from 1 to 12"),
        ("cfg_scale", 0.5, "from 1 to 30"),
        ("cfg_scale", 31, "from 1 to 30"),
    ],
)
def test_ranges_of_the_older_page_only_warn(field: Any, value: Any, words: str) -> None:
    """The current table does not list these parameters, so the service decides."""
    with pytest.warns(UserWarning, match=f"{field} is {value}.*; an older page of the service says {words}"):
        params = InferenceParams(**{field: value})

    assert value == getattr(params, field)


@pytest.mark.parametrize("kind", [InferenceParams, Mask, Image2Image])
def test_nothing_is_set_by_default(kind: Any) -> None:
    """The service's own defaults hold for what is not set."""
    assert {None} == {value for value in attrs.asdict(kind()).values() if value != {}}


@pytest.mark.parametrize("kind", [InferenceParams, Mask, Image2Image, CreditBalance, Models])
def test_fields_are_given_by_name(kind: Any) -> None:
    """Parameters of the same type are never mixed up by their order."""
    with pytest.raises(TypeError, match="positional"):
        kind(1)


@pytest.mark.parametrize("value", [InferenceParams(), Mask(), Image2Image(), Model("m"), Models(main_models={})])
def test_values_are_frozen(value: Any) -> None:
    """A request can be shared and kept."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(value, attrs.fields(type(value))[0].name, None)


@pytest.mark.parametrize(
    "values",
    [
        {"Steps": 10, "CFGScale": 7, "LoraWeight": 1, "Sampler": "Euler", "Eta": 0.1},
        {"steps": 10, "cfg_scale": 7, "lora_weight": 1, "sampler": "Euler", "Eta": 0.1},
    ],
)
def test_params_come_from_a_mapping_by_either_name(values: dict[str, Any]) -> None:
    """The API's names and the names here mean the same; what is unknown is kept by the name it has."""
    expected = InferenceParams(steps=10, cfg_scale=7, lora_weight=1, sampler="Euler", extra={"Eta": 0.1})

    assert expected == InferenceParams.of(values)


def test_params_are_an_open_map() -> None:
    """Any other parameter goes into `extra`, a copy of its own."""
    mine = {"Eta": 0.1}
    params = InferenceParams(extra=mine)
    mine["Eta"] = 5

    assert {"Eta": 0.1} == params.extra
    assert params is InferenceParams.of(params)


@pytest.mark.parametrize("value", [5, "Steps=10", [("Steps", 10)]])
def test_params_are_a_mapping(value: Any) -> None:
    """Something else is refused by name."""
    with pytest.raises(InvalidRequestError, match=r"inference_params is .* an InferenceParams, or a mapping"):
        Model("m", inference_params=value)
    with pytest.raises(InvalidRequestError, match=r"extra is .* a mapping"):
        InferenceParams(extra=value)


def test_every_param_has_its_api_name() -> None:
    """The table of names and the fields are the same set."""
    assert {field.name for field in attrs.fields(InferenceParams)} == {*InferenceParams.API_NAMES.values(), "extra"}


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("steps", 10, True),
        ("steps", 5, False),
        ("steps", 7.5, False),
        ("steps", True, False),
        ("steps", None, False),
        ("steps", "10", False),
        ("lora_weight", 0.29, True),
        ("lora_weight", 0.005, False),
        ("lora_weight", float("nan"), False),
        ("sampler", "Euler", True),
        ("sampler", "", False),
        ("sampler", [], False),
    ],
)
def test_fitting_params_give_neither_error_nor_warning(field: str, value: Any, *, expected: bool) -> None:
    """A server's own values are tried quietly before they become typed ones."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert expected == fits_params(field, value)


def test_a_model_needs_its_code() -> None:
    """The code is the one required parameter, and the only one given by position."""
    assert Model("PICPIK General") == Model(model_code="PICPIK General")
    for value in ("", None, 5):
        with pytest.raises(InvalidRequestError, match=f"model_code is {value!r}, but must be a string"):
            Model(value)  # type: ignore[arg-type]


def test_a_model_is_made_of_its_code() -> None:
    """A string stands for a model, and a model for itself."""
    model = Model("m", name="n", is_official=True, trigger_word_list=["a", "b"], inference_params={"Steps": 10})

    assert model is Model.of(model)
    assert Model("m") == Model.of("m")
    assert (("a", "b"), InferenceParams(steps=10)) == (model.trigger_word_list, model.inference_params)


def test_trigger_words_are_strings() -> None:
    """One word is a list of one, and another type is refused by name."""
    assert ("sks",) == Model("m", trigger_word_list="sks").trigger_word_list
    with pytest.raises(InvalidRequestError, match="trigger_word_list is 5, but must be a string, or a list of strings"):
        Model("m", trigger_word_list=[5])  # type: ignore[list-item]


def test_pictures_become_sources() -> None:
    """Any kind of picture is taken, a source as it is, and nothing is read."""
    source = ImageSource.of(b"data")
    mask = Mask(image="room.jpg", mask=source)

    assert "<ImageSource room.jpg>" == repr(mask.image)
    assert source is mask.mask
    assert source is Image2Image(image=source).image


@pytest.mark.parametrize(
    ("kind", "name", "field"),
    [(Mask, "image", "masked.image"), (Mask, "mask", "masked.mask"), (Image2Image, "image", "image2image.image")],
)
def test_what_is_no_picture_is_refused_by_name(kind: Any, name: str, field: str) -> None:
    """The error says which of the pictures is meant."""
    with pytest.raises(InvalidRequestError) as caught:
        kind(**{name: 5})

    assert field == caught.value.field


def test_required_values() -> None:
    """What is there is given back; what is missing is named, with what to do about it."""
    assert 0 == required(0, "masked", "use inpaint()")
    with pytest.raises(InvalidRequestError, match=r"^masked is missing; use inpaint\(\)$") as caught:
        required(None, "masked", "use inpaint()")
    assert ("masked", "required") == (caught.value.field, caught.value.allowed)


def test_remaining_credits() -> None:
    """What remains is what was given minus what was used."""
    assert 799_359 == CreditBalance(total_credits=804_000, used_credits=4_641).remaining_credits
