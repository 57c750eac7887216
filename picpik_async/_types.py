"""The data types of the API: what requests are made of, and what queries answer.

Every parameter is optional unless it says otherwise; None means "not sent", so that the service's own default holds.
The tables are on https://picpik.ai/api-docs/api-reference/ModifyMaskedPixels and …/ListModels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from picpik_async._images import ImageSource
from picpik_async._ranges import flag, integer, number, one_text, refused, text, to_texts
from picpik_async._sealed import sealed_class
from picpik_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from picpik_async._inputs import ImageInput

__all__ = ["CreditBalance", "Image2Image", "InferenceParams", "Mask", "Model", "Models"]


# One converter a field, since type checkers read what a field accepts off a named function.


def _to_image(value: ImageInput | None) -> ImageSource | None:
    return None if value is None else ImageSource.of(value, field="masked.image")


def _to_mask(value: ImageInput | None) -> ImageSource | None:
    return None if value is None else ImageSource.of(value, field="masked.mask")


def _to_reference(value: ImageInput | None) -> ImageSource | None:
    return None if value is None else ImageSource.of(value, field="image2image.image")


def _to_code(value: str) -> str:
    return one_text(value, "model_code")


def _to_words(values: Iterable[str] | None) -> tuple[str, ...] | None:
    return None if values is None else to_texts(values, "trigger_word_list")


def _to_extra(values: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(values, Mapping):
        raise refused(field="extra", value=values, allowed="a mapping")
    return dict(values)


@attrs.frozen(kw_only=True)
class InferenceParams:
    """An open map of inference parameters with the known ones typed; each is valid only under its kind of parent.

    Attributes:
        steps: 6 to 100, on an older page; other values only warn.
        sampler: such as `Euler`; no list is published.
        clip_skip: 1 to 12, on an older page; other values only warn.
        cfg_scale: 1 to 30, on an older page; other values only warn.
        lora_weight: LoRA models; -1 to 2 in steps of 0.01.
        resolution: pre-processors; pixels, 64 to 2048 in steps of 64.
        control_weight: control models; 0 to 2 in steps of 0.01.
        starting_step: control models; share of the steps, 0 to 1 in steps of 0.01.
        ending_step: control models; share of the steps, 0 to 1 in steps of 0.01.
        extra: any other parameter, by the API's own name.
    """

    steps: int | None = integer(6, 100, older=True)
    sampler: str | None = text()
    clip_skip: int | None = integer(1, 12, older=True)
    cfg_scale: float | None = number(1, 30, older=True)
    lora_weight: float | None = number(-1, 2, step=0.01)
    resolution: int | None = integer(64, 2048, step=64)
    control_weight: float | None = number(0, 2, step=0.01)
    starting_step: float | None = number(0, 1, step=0.01)
    ending_step: float | None = number(0, 1, step=0.01)
    extra: Mapping[str, Any] = attrs.field(factory=dict, converter=_to_extra, hash=False)

    API_NAMES = {  # noqa: RUF012 - a constant
        "Steps": "steps",
        "Sampler": "sampler",
        "ClipSkip": "clip_skip",
        "CFGScale": "cfg_scale",
        "LoraWeight": "lora_weight",
        "Resolution": "resolution",
        "ControlWeight": "control_weight",
        "StartingStep": "starting_step",
        "EndingStep": "ending_step",
    }

    @classmethod
    def of(cls, values: InferenceParams | Mapping[str, Any]) -> InferenceParams:
        """Sort a mapping by the API's names, or by the names here, into the known parameters and `extra`."""
        if isinstance(values, InferenceParams):
            return values
        if not isinstance(values, Mapping):
            raise refused(field="inference_params", value=values, allowed="an InferenceParams, or a mapping")
        names = cls.API_NAMES | {name: name for name in cls.API_NAMES.values()}
        known = {names[name]: value for name, value in values.items() if name in names}
        return cls(**known, extra={name: value for name, value in values.items() if name not in names})


def fits_params(field: str, value: Any) -> bool:
    """Whether *value* can be the parameter *field* without an error or a warning."""
    low, high = getattr(attrs.fields(InferenceParams), field).metadata.get("range", (None, None))
    if low is not None and not (type(value) in {int, float} and low <= value <= high):
        return False
    try:
        InferenceParams(**{field: value})
    except InvalidRequestError:
        return False
    return True


def _to_params(values: InferenceParams | Mapping[str, Any] | None) -> InferenceParams | None:
    return None if values is None else InferenceParams.of(values)


@attrs.frozen
class Model:
    """A main model or a sub-model (LoRA, Embedding, HyperNetwork); one returned by `ListModels` can be sent as it is.

    Attributes:
        model_code: `ModelCode`, such as `PICPIK General`; required.
        name: display name.
        is_official: whether PICPIK made it.
        trigger_word_list: words that wake a LoRA.
        inference_params: an `InferenceParams`, or a mapping.
    """

    model_code: str = attrs.field(converter=_to_code)
    name: str | None = attrs.field(default=None, kw_only=True)
    is_official: bool | None = attrs.field(default=None, kw_only=True)
    trigger_word_list: tuple[str, ...] | None = attrs.field(default=None, kw_only=True, converter=_to_words)
    inference_params: InferenceParams | None = attrs.field(default=None, kw_only=True, converter=_to_params)

    @classmethod
    def of(cls, value: Model | str) -> Model:
        """A `ModelCode` as a `Model`."""
        return value if isinstance(value, Model) else cls(value)


@sealed_class
@attrs.frozen(kw_only=True)
class Mask:
    """What to redraw: a picture, and a mask of the same size; white is redrawn.

    Attributes:
        image: the picture, in any form `ImageSource` takes.
        mask: black and white, as PNG or WebP.
        refer_strength: 0 to 2, the service's default is 1.
        invert_mask: redraw the black part instead.
        mask_blur: feathering in pixels, 0 to 64, the service's default is 12.
        prompts_more_important: follow the prompts more than the picture.
    """

    image: ImageSource | None = attrs.field(default=None, converter=_to_image)
    mask: ImageSource | None = attrs.field(default=None, converter=_to_mask)
    refer_strength: float | None = number(0, 2, within="masked")
    invert_mask: bool | None = flag(within="masked")
    mask_blur: int | None = integer(0, 64, within="masked")
    prompts_more_important: bool | None = flag(within="masked")


@sealed_class
@attrs.frozen(kw_only=True)
class Image2Image:
    """An extra reference picture.

    Attributes:
        image: the reference, in any form `ImageSource` takes.
        refer_strength: 0 to 1, the service's default is 0.5.
    """

    image: ImageSource | None = attrs.field(default=None, converter=_to_reference)
    refer_strength: float | None = number(0, 1, within="image2image")


@attrs.frozen(kw_only=True)
class Models:
    """The answer of `ListModels`, each kind by the key the service gives, or by `ModelCode`."""

    main_models: dict[str, Model]
    lora_models: dict[str, Model] = attrs.field(factory=dict)
    embedding_models: dict[str, Model] = attrs.field(factory=dict)
    hypernetwork_models: dict[str, Model] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class CreditBalance:
    """The answer of `GetCreditBalance`, in credits.

    Attributes:
        total_credits: credits ever given.
        used_credits: credits used.
        expire_timestamp: when they expire; the unit is not documented, the published example is in Unix seconds.
    """

    total_credits: int
    used_credits: int
    expire_timestamp: int | None = None

    @property
    def remaining_credits(self) -> int:
        """Total minus used; inferred, the documentation does not say so."""
        return self.total_credits - self.used_credits


def required(value: Any, field: str, remedy: str) -> Any:
    """*value*, unless it is missing.

    Raises:
        InvalidRequestError: it is None; the message says what to do.
    """
    if value is None:
        msg = f"{field} is missing; {remedy}"
        raise InvalidRequestError(msg, field=field, allowed="required")
    return value
