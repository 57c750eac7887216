"""The builders: documented parameters, builder methods, what is missing, and the size that is asked for."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobs import CREDENTIALS, job, picture

from picpik_async import (
    Dialect,
    GetCreditBalance,
    Image2Image,
    ImageSource,
    InferenceParams,
    ListModels,
    ListRunningTasks,
    ListTasksDetails,
    Mask,
    Model,
    ModifyMaskedPixels,
    PicpikSession,
    TerminateTask,
)
from picpik_async._blobs import MemoryBlob
from picpik_async._opened import OpenImage
from picpik_async._requests import Job
from picpik_async._requests._generation import scaled_size
from picpik_async.errors import ImageError, InvalidRequestError, MaskError
from picpik_async.testing import FakeTransport

if TYPE_CHECKING:
    from collections.abc import Callable

# The common parameters of https://picpik.ai/api-docs/api-reference/ModifyMaskedPixels.
TABLE = [
    ("seed", [-1, 0, 2**31 - 1, np.int32(7)], [-2, 2**31, 1.0, True, "1"], "from -1 to 2147483647"),
    ("width", [64, 1024, 2560, np.uint16(64)], [63, 2561, 512.0, True], "from 64 to 2560"),
    ("height", [64, 1024, 2560], [63, 2561, "512", False], "from 64 to 2560"),
    ("batch_size", [1, 16], [0, 17, 1.5, True], "from 1 to 16"),
    ("translate_prompts", [True, False], [0, 1, "false"], "True or False"),
    ("use_main_model_vae", [True, False], [0, 1], "True or False"),
]


def opened(width: int = 100, height: int = 80, kind: str = "png", **data: Any) -> OpenImage:
    """An opened picture with these facts in its header."""
    return OpenImage(format=kind, width=width, height=height, blob=MemoryBlob(b"data"), source="bytes", **data)


def settled(
    request: ModifyMaskedPixels, image: OpenImage, *, dialect: Dialect | None = None, **others: OpenImage
) -> ModifyMaskedPixels:
    """The request with its picture opened as *image*; its mask fits unless another one is given."""
    facts = {"masked.image": image, "masked.mask": attrs.evolve(image, format="png")}
    facts |= {name.replace("__", "."): other for name, other in others.items()}
    sources = request.images()
    return request.settled({sources[name]: facts[name] for name in sources}, dialect or Dialect())


@pytest.mark.parametrize(("field", "accepted", "refused", "allowed"), TABLE)
def test_documented_values(field: str, accepted: list[Any], refused: list[Any], allowed: str) -> None:
    """What the page allows is taken, anything else is refused with field, value and range."""
    new: Any = ModifyMaskedPixels
    for value in accepted:
        assert value == getattr(new(**{field: value}), field)
    for value in refused:
        with pytest.raises(InvalidRequestError) as caught:
            new(**{field: value})
        error = caught.value
        assert (field, value) == (error.field, error.value)
        assert f"{field} is {value!r}, but must be {error.allowed}" == str(error)
        assert allowed in str(error.allowed)


def test_nothing_is_set_by_default() -> None:
    """The service's own defaults hold for what is not set."""
    assert {None} == set(attrs.asdict(ModifyMaskedPixels()).values())


@pytest.mark.parametrize("field", ["positive_prompts", "negative_prompts"])
@pytest.mark.parametrize(
    ("value", "expected"), [("a cat", ("a cat",)), (["a", "猫"], ("a", "猫")), ([], ()), (None, None), ((), ())]
)
def test_prompts_are_a_tuple(field: str, value: Any, expected: Any) -> None:
    """One string is one prompt, not one per letter; an empty list is kept, since it can be sent."""
    new: Any = ModifyMaskedPixels

    assert expected == getattr(new(**{field: value}), field)


@pytest.mark.parametrize("field", ["positive_prompts", "negative_prompts"])
def test_prompts_are_strings(field: str) -> None:
    """The message names the list that holds something else."""
    new: Any = ModifyMaskedPixels

    with pytest.raises(InvalidRequestError, match=f"{field} is 5, but must be a string, or a list of strings"):
        new(**{field: ["a", 5]})


def test_models_are_codes_or_models() -> None:
    """Wherever a model stands, its code will do; one sub-model is a list of one."""
    lora = Model("lora", inference_params={"LoraWeight": 0.5})
    request = ModifyMaskedPixels(main_model="main", sub_model_list=["a", lora])

    assert (Model("main"), (Model("a"), lora)) == (request.main_model, request.sub_model_list)
    assert (Model("a"),) == ModifyMaskedPixels(sub_model_list="a").sub_model_list
    assert (lora,) == ModifyMaskedPixels(sub_model_list=lora).sub_model_list


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("main_model", 5, "model_code is 5, but must be a string"),
        ("main_model", "", "model_code is '', but must be a string"),
        ("sub_model_list", 5, "sub_model_list is 5, but must be a list of models"),
        ("sub_model_list", ["a", 5], "model_code is 5, but must be a string"),
        ("masked", "room.jpg", "masked is 'room.jpg', but must be Mask(image=…, mask=…)"),
        ("image2image", b"data", "image2image is b'data', but must be Image2Image(image=…)"),
    ],
)
def test_other_types_are_refused(field: str, value: Any, words: str) -> None:
    """Each message names the parameter, and what stands there."""
    new: Any = ModifyMaskedPixels

    with pytest.raises(InvalidRequestError) as caught:
        new(**{field: value})

    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda r: r.with_prompts("a", "b", negative="c"),
            {"positive_prompts": ("a", "b"), "negative_prompts": ("c",)},
        ),
        (lambda r: r.with_prompts("a"), {"positive_prompts": ("a",), "negative_prompts": ("old",)}),
        (lambda r: r.with_prompts("a", negative=()), {"positive_prompts": ("a",), "negative_prompts": ()}),
        (lambda r: r.with_model("m"), {"main_model": Model("m")}),
        (lambda r: r.with_sub_model("m"), {"sub_model_list": (Model("first"), Model("m"))}),
        (
            lambda r: r.with_lora("l", 0.29),
            {"sub_model_list": (Model("first"), Model("l", inference_params=InferenceParams(lora_weight=0.29)))},
        ),
        (lambda r: r.with_lora("l"), {"sub_model_list": (Model("first"), Model("l"))}),
        (lambda r: r.with_size(64, 128), {"width": 64, "height": 128}),
        (lambda r: r.with_seed(7), {"seed": 7}),
        (lambda r: r.with_batch(3), {"batch_size": 3}),
    ],
)
def test_builder_methods_return_a_new_request(
    change: Callable[[ModifyMaskedPixels], ModifyMaskedPixels], expected: dict[str, Any]
) -> None:
    """Each method changes what it names, keeps the rest, and leaves the template as it was."""
    template = ModifyMaskedPixels(negative_prompts="old", sub_model_list="first", seed=1, use_main_model_vae=True)
    before = attrs.evolve(template)

    changed = change(template)

    assert attrs.evolve(template, **expected) == changed
    assert before == template
    assert changed is not template


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda r: r.with_lora("l", -1.5), "lora_weight"),
        (lambda r: r.with_lora("l", 0.005), "lora_weight"),
        (lambda r: r.with_lora("", 1), "model_code"),
        (lambda r: r.with_size(63, 64), "width"),
        (lambda r: r.with_size(64, 2561), "height"),
        (lambda r: r.with_seed(2**31), "seed"),
        (lambda r: r.with_batch(17), "batch_size"),
        (lambda r: r.with_mask(b"m", mask_blur=65), "masked.mask_blur"),
        (lambda r: r.with_mask(b"m", refer_strength=2.5), "masked.refer_strength"),
        (lambda r: r.with_reference(b"r", refer_strength=1.5), "image2image.refer_strength"),
        (lambda r: r.with_reference(5), "image2image.image"),
        (lambda r: r.with_prompts(5), "positive_prompts"),
    ],
)
def test_builder_methods_check_at_once(change: Callable[[ModifyMaskedPixels], object], field: str) -> None:
    """A wrong value is found where it is written, not at submit."""
    with pytest.raises(InvalidRequestError) as caught:
        change(ModifyMaskedPixels())

    assert field == caught.value.field


def test_with_mask_keeps_what_is_there() -> None:
    """The picture and the options of the mask stay unless they are given anew."""
    request = ModifyMaskedPixels.inpaint("room.jpg", "old.png").with_mask("new.png", mask_blur=3)
    again = request.with_mask("newer.png", invert_mask=True)

    assert again.masked is not None
    assert "<ImageSource room.jpg>" == repr(again.masked.image)
    assert "<ImageSource newer.png>" == repr(again.masked.mask)
    assert (3, True) == (again.masked.mask_blur, again.masked.invert_mask)


def test_a_template_gets_picture_and_mask_later() -> None:
    """One template serves many pictures."""
    template = ModifyMaskedPixels(seed=1).with_prompts("a sofa")
    request = template.with_mask("mask.png", image="room.jpg").with_reference("green.jpg", refer_strength=0.3)

    request.check()
    assert ["masked.image", "masked.mask", "image2image.image"] == list(request.images())
    assert {} == template.images()


@pytest.mark.parametrize(
    ("request_", "field", "remedy"),
    [
        (ModifyMaskedPixels(), "masked", "ModifyMaskedPixels.inpaint"),
        (ModifyMaskedPixels(masked=Mask()), "masked.image", "with_mask(mask, image=…)"),
        (ModifyMaskedPixels(masked=Mask(mask=b"m")), "masked.image", "with_mask(mask, image=…)"),
        (ModifyMaskedPixels(masked=Mask(image=b"i")), "masked.mask", "picpik_async.masks"),
        (
            ModifyMaskedPixels(masked=Mask(image=b"i", mask=b"m"), image2image=Image2Image(refer_strength=0.5)),
            "image2image.image",
            "with_reference(image)",
        ),
    ],
)
def test_what_is_missing_is_reported(request_: ModifyMaskedPixels, field: str, remedy: str) -> None:
    """A half-built request says what it lacks and where to get it."""
    with pytest.raises(InvalidRequestError) as caught:
        request_.check()

    assert (field, "required") == (caught.value.field, caught.value.allowed)
    assert f"{field} is missing" in str(caught.value)
    assert remedy in str(caught.value)


def test_a_whole_request_passes_its_check() -> None:
    """Picture and mask are all that is required."""
    ModifyMaskedPixels.inpaint(b"image", b"mask").check()
    ModifyMaskedPixels.inpaint(b"image", b"mask").with_reference(b"other").check()


def test_inpaint_takes_every_parameter() -> None:
    """The short way sets prompts and automatic size, and any parameter of the Action besides."""
    request = ModifyMaskedPixels.inpaint(b"i", b"m", prompts="a sofa", seed=3, negative_prompts=["text"])

    assert (("a sofa",), ("text",), 3, True) == (
        request.positive_prompts,
        request.negative_prompts,
        request.seed,
        request.auto_size,
    )


def test_outpaint_makes_its_canvas_and_mask() -> None:
    """Both come from the one picture, and nothing is read yet."""
    request = ModifyMaskedPixels.outpaint("room.jpg", left=10, prompts="a wall", batch_size=2)

    labels = [source.label for source in request.images().values()]
    assert ["masks.outpaint(room.jpg)[0]", "masks.outpaint(room.jpg)[1]"] == labels
    assert (("a wall",), 2, True) == (request.positive_prompts, request.batch_size, request.auto_size)


def test_outpaint_needs_a_margin() -> None:
    """Without any margin there is nothing to draw."""
    with pytest.raises(InvalidRequestError, match="all margins are 0"):
        ModifyMaskedPixels.outpaint("room.jpg")


def test_the_plain_constructor_asks_for_no_size() -> None:
    """It sends only what is set."""
    request = ModifyMaskedPixels(masked=Mask(image=b"i", mask=b"m"))

    assert request is settled(request, opened(3000, 2000))


@pytest.mark.parametrize(
    ("size", "max_pixels", "expected"),
    [
        ((800, 600), 1024**2, (800, 600)),
        ((1024, 1024), 1024**2, (1024, 1024)),
        ((2048, 2048), 1024**2, (1024, 1024)),
        ((4000, 3000), 1024**2, (1182, 886)),
        ((5120, 2560), 2560 * 2560, (2560, 1280)),
        ((2560, 2560), 2560 * 2560, (2560, 2560)),
        ((10_000, 300), 2560 * 2560, (2560, 76)),
        ((64, 64), 1024**2, (64, 64)),
    ],
)
def test_inpaint_asks_for_the_pictures_own_size(
    size: tuple[int, int], max_pixels: int, expected: tuple[int, int]
) -> None:
    """Scaled down in proportion to the documented sides and the pixels of the dialect, never up."""
    request = ModifyMaskedPixels.inpaint(b"i", b"m")

    sized = settled(request, opened(*size), dialect=Dialect(max_auto_pixels=max_pixels))

    assert expected == (sized.width, sized.height)


@given(st.integers(1, 30_000), st.integers(1, 30_000), st.integers(64 * 64, 2560 * 2560))
def test_scaled_sizes_keep_the_limits_and_the_proportion(width: int, height: int, max_pixels: int) -> None:
    """Neither side nor area is above its limit, no side grows, and each is at most a pixel off the proportion."""
    new_width, new_height = scaled_size(width, height, max_pixels=max_pixels)

    assert 1 <= new_width <= min(width, 2560)
    assert 1 <= new_height <= min(height, 2560)
    assert new_width * new_height <= max_pixels or 1 in {new_width, new_height}
    scale = max(new_width / width, new_height / height)
    assert abs(width * scale - new_width) <= max(1, width / height)
    assert abs(height * scale - new_height) <= max(1, height / width)


@pytest.mark.parametrize(("size", "field", "side"), [((10_000, 100), "height", 25), ((63, 500), "width", 63)])
def test_a_picture_too_narrow_is_refused(size: tuple[int, int], field: str, side: int) -> None:
    """The service draws no side below 64; the message names the sizes and the ways out."""
    with pytest.raises(InvalidRequestError, match=r"crop or pad the picture, or set with_size\(\)") as caught:
        settled(ModifyMaskedPixels.inpaint(b"i", b"m"), opened(*size))

    assert (field, side, "from 64 to 2560") == (caught.value.field, caught.value.value, caught.value.allowed)
    assert f"the picture is {size[0]}×{size[1]}" in str(caught.value)


def test_a_size_that_is_set_is_kept() -> None:
    """Automatic size is for requests without any."""
    request = ModifyMaskedPixels.inpaint(b"i", b"m", width=512, height=256)

    assert request is settled(request, opened(3000, 2000))


@pytest.mark.parametrize(
    ("side", "expected"), [({"width": 600}, (600, 400)), ({"height": 600}, (900, 600)), ({"width": 601}, (601, 401))]
)
def test_a_side_that_is_missing_follows_in_proportion(side: dict[str, Any], expected: tuple[int, int]) -> None:
    """A picture is not stretched because only one side was set."""
    found = settled(ModifyMaskedPixels.inpaint(b"i", b"m", **side), opened(3000, 2000))

    assert expected == (found.width, found.height)


def test_a_side_in_proportion_has_its_limits_too() -> None:
    """What follows from the other side must be a size the service draws."""
    with pytest.raises(InvalidRequestError, match="width would be 25600"):
        settled(ModifyMaskedPixels.inpaint(b"i", b"m", height=2560), opened(1000, 100))


def test_prompts_that_are_not_given_stay() -> None:
    """Negative prompts alone do not erase what should appear, and a list of prompts is a list of prompts."""
    request = ModifyMaskedPixels().with_prompts("a sofa").with_prompts(negative="text")

    assert (("a sofa",), ("text",)) == (request.positive_prompts, request.negative_prompts)
    assert ("a", "b") == request.with_prompts(["a", "b"]).positive_prompts


def test_inpaint_takes_the_options_of_a_mask() -> None:
    """What belongs to the mask goes there, and negative prompts have a short name."""
    request = ModifyMaskedPixels.inpaint(b"i", b"m", mask_blur=3, invert_mask=True, negative="text", seed=1)

    assert request.masked is not None
    assert (3, True) == (request.masked.mask_blur, request.masked.invert_mask)
    assert ("text",) == request.negative_prompts


@pytest.mark.parametrize("name", ["masked", "positive_prompts", "negative_prompts"])
def test_inpaint_takes_nothing_twice(name: str) -> None:
    """What is given by its short name and by its long one is refused, so that neither is dropped in silence."""
    with pytest.raises(InvalidRequestError, match=f"{name} is given twice") as caught:
        ModifyMaskedPixels.inpaint(b"i", b"m", prompts="a", negative="b", **{name: None})

    assert name == caught.value.field


def test_a_picture_is_not_its_own_mask() -> None:
    """The same file twice is a mistake that would cost."""
    with pytest.raises(MaskError, match=r"masked\.mask is the picture itself") as caught:
        ModifyMaskedPixels.inpaint("room.png", "room.png").check()

    assert "masked.mask" == caught.value.field


def test_requests_have_a_hash() -> None:
    """A frozen value can be a key, with its models."""
    request = ModifyMaskedPixels().with_lora("x", 0.5)

    assert {request: 1}[ModifyMaskedPixels().with_lora("x", 0.5)] == 1


def test_auto_size_can_be_switched_off() -> None:
    """Then the service's own default size holds."""
    request = ModifyMaskedPixels.inpaint(b"i", b"m", auto_size=False)

    assert request is settled(request, opened(3000, 2000))


def test_settling_checks_picture_mask_and_reference() -> None:
    """Formats and sizes are held against each other before anything is sent."""
    request = ModifyMaskedPixels.inpaint(b"i", b"m").with_reference(b"r")
    png = opened()

    settled(request, opened(kind="jpeg"), image2image__image=opened(9, 9, kind="webp"))
    with pytest.raises(MaskError, match=r"masks\.fit"):
        settled(request, png, masked__mask=opened(50, 80), image2image__image=png)
    with pytest.raises(MaskError, match="is a JPEG"):
        settled(request, png, masked__mask=opened(kind="jpeg"), image2image__image=png)
    with pytest.raises(ImageError, match="is a GIF picture"):
        settled(request, opened(kind="gif"), image2image__image=png)
    with pytest.raises(ImageError, match=r"image2image\.image: bytes: is a GIF picture") as caught:
        settled(request, png, image2image__image=opened(kind="gif", field="image2image.image"))
    assert "image2image.image" == caught.value.field


def test_images_are_listed_in_order() -> None:
    """Picture, mask, reference: by the dotted name of their parameter."""
    request = ModifyMaskedPixels.inpaint(b"i", b"m").with_reference(b"r")

    assert ["masked.image", "masked.mask", "image2image.image"] == list(request.images())
    assert all(isinstance(source, ImageSource) for source in request.images().values())


def with_extra(extra: dict[Any, Any]) -> ModifyMaskedPixels:
    """A request whose model has parameters of no documented name."""
    model = Model("m", inference_params=InferenceParams(extra=extra))
    return ModifyMaskedPixels.inpaint(b"i", b"m", main_model=model, sub_model_list=[model])


def test_images_are_found_in_maps_and_lists() -> None:
    """A picture may stand wherever a text may; each is named down to its position, and none hides another."""
    source = ImageSource.of(b"x")
    nested = {
        "RawImage": source,
        "List": [1, [source], (source,)],
        "a": {"b": source},
        "a.b": source,
        "\n": source,
        5: source,
    }
    names = [".RawImage", ".List[1][0]", ".List[2][0]", ".a.b", ".a.b'", r".\n", "[5]"]

    images = with_extra(nested).images()

    params = [f"{model}.inference_params.extra" for model in ("main_model", "sub_model_list[0]")]
    assert [*(extra + name for extra in params for name in names), "masked.image", "masked.mask"] == list(images)
    assert {source} == {images[name] for name in images if name not in {"masked.image", "masked.mask"}}


@pytest.mark.parametrize("kind", [list, dict])
def test_parameters_that_contain_themselves_are_refused(kind: Any) -> None:
    """The search for images ends in our own error."""
    endless = kind()
    endless.append(endless) if kind is list else endless.update(a=endless)

    with pytest.raises(InvalidRequestError, match="nested too deeply, or contain themselves"):
        with_extra({"A": endless}).images()


def test_settling_checks_images_of_other_parameters() -> None:
    """A format the service does not take is refused wherever it stands."""
    request = with_extra({"RawImage": ImageSource.of(b"x")})
    images = {
        source: opened(kind="png" if name.startswith("masked") else "gif") for name, source in request.images().items()
    }

    with pytest.raises(ImageError, match=r"^main_model\.inference_params\.extra\.RawImage: bytes: is a GIF picture"):
        request.settled(images, Dialect())


@pytest.mark.anyio
async def test_an_image_of_any_parameter_is_sent_there() -> None:
    """Pictures in open maps are opened, encoded and signed like the documented ones."""
    transport = FakeTransport(lambda _: {"RetCode": 0, "TaskUID": "t"})
    pictures = [ImageSource.of(picture(side)) for side in (64, 65)]
    model = Model("m", inference_params={"RawImage": pictures[0], "More": [{"ImageList": pictures}]})
    async with PicpikSession(CREDENTIALS, endpoint="http://localhost:1", transport=transport) as session:
        await session.submit(job().with_model(model))

    texts = ["data:image/png;base64," + base64.b64encode(picture(side)).decode() for side in (64, 65)]
    sent = transport.requests[0]["MainModel"]["InferenceParams"]
    assert {"RawImage": texts[0], "More": [{"ImageList": texts}]} == sent


def test_requests_are_frozen() -> None:
    """A request can be kept and sent again."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        ModifyMaskedPixels().seed = 5  # type: ignore[misc]


def test_a_job_says_itself_what_it_needs() -> None:
    """The base class has no rules of its own, so a new Action cannot forget them."""
    with pytest.raises(NotImplementedError):
        Job().check()
    with pytest.raises(NotImplementedError):
        Job().settled({}, Dialect())
    with pytest.raises(NotImplementedError):
        Job().seeded(1)


@pytest.mark.parametrize(
    ("query", "action"),
    [
        (ListTasksDetails(task_uid_list=["t"]), "ListTasksDetails"),
        (ListRunningTasks(), "ListRunningTasks"),
        (TerminateTask(task_uid="t"), "TerminateTask"),
        (ListModels(), "ListModels"),
        (GetCreditBalance(), "GetCreditBalance"),
        (ModifyMaskedPixels(), "ModifyMaskedPixels"),
    ],
)
def test_actions_have_the_names_of_the_pages(query: Any, action: str) -> None:
    """Every class is named like its Action."""
    assert action == query.action == type(query).__name__


def test_task_uids_are_strings() -> None:
    """One id is a list of one; an empty or missing id is refused by name."""
    assert ("t",) == ListTasksDetails(task_uid_list="t").task_uid_list
    for uid in ("", None, 5):
        with pytest.raises(InvalidRequestError, match=f"task_uid is {uid!r}, but must be a string"):
            TerminateTask(task_uid=uid)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError, match="task_uid_list is 5"):
        ListTasksDetails(task_uid_list=[5])  # type: ignore[list-item]


class _Song(Job):
    action = "Sing"


def test_kinds() -> None:
    """Tasks that take about as long have Action, model and pixels in common, the service's defaults included."""
    request = ModifyMaskedPixels()

    assert request.kind == request.with_size(1024, 1024).with_batch(1).with_seed(7).with_prompts("a sofa").kind
    assert request.kind == request.with_size(1000, 1100).kind
    assert request.kind != request.with_size(1024, 1536).kind
    assert request.kind != request.with_batch(2).kind
    assert request.kind != request.with_model("another").kind
    assert request.with_batch(2).kind == request.with_size(1024, 2048).kind
    assert "Sing" == _Song().kind
