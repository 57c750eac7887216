"""The Actions that make pictures with a model: common parameters, builder methods, and `ModifyMaskedPixels`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import attrs

from picpik_async import masks
from picpik_async._config import DOCUMENTED_MAX_SIDE, DOCUMENTED_MIN_SIDE
from picpik_async._opened import require_format
from picpik_async._ranges import flag, integer, refused, to_texts
from picpik_async._requests._base import Job, Kin
from picpik_async._sealed import sealed, sealed_class
from picpik_async._types import Image2Image, InferenceParams, Mask, Model, required
from picpik_async.errors import InvalidRequestError, MaskError

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from picpik_async._config import Dialect
    from picpik_async._images import ImageSource
    from picpik_async._inputs import ImageInput
    from picpik_async._opened import OpenImage

__all__ = ["GenerationJob", "ModifyMaskedPixels"]

RANDOM_SEED: Final = -1
MAX_SEED: Final = 2**31 - 1
_DEFAULT_SIDE: Final = 1024  # pixels, the service's own


def _to_model(value: Model | str | None) -> Model | None:
    return None if value is None else Model.of(value)


def _to_models(values: Iterable[Model | str] | Model | str | None) -> tuple[Model, ...] | None:
    if values is None:
        return None
    if isinstance(values, (Model, str)):
        return (Model.of(values),)
    if not isinstance(values, Iterable):
        raise refused(field="sub_model_list", value=values, allowed="a list of models")
    return tuple(map(Model.of, values))


def _to_positive(values: str | Iterable[str] | None) -> tuple[str, ...] | None:
    return None if values is None else to_texts(values, "positive_prompts")


def _to_negative(values: str | Iterable[str] | None) -> tuple[str, ...] | None:
    return None if values is None else to_texts(values, "negative_prompts")


def _to_masked(value: Mask | None) -> Mask | None:
    if value is None or isinstance(value, Mask):
        return value
    raise refused(field="masked", value=value, allowed="Mask(image=…, mask=…)")


def _to_image2image(value: Image2Image | None) -> Image2Image | None:
    if value is None or isinstance(value, Image2Image):
        return value
    raise refused(field="image2image", value=value, allowed="Image2Image(image=…)")


def _several(values: Any, field: str, what: str) -> list[Any]:
    several = [] if isinstance(values, str) or not isinstance(values, Iterable) else list(values)
    if not several or None in several:
        raise refused(field=field, value=values, allowed=f"a list of {what}, one for each variation")
    return several


@attrs.frozen(kw_only=True, eq=False, repr=False)  # what inherits has its own; generating either takes 0.1 ms
class GenerationJob(Job):
    """The common parameters of the generating Actions; what is None is not sent.

    Attributes:
        main_model: a `Model` or a `ModelCode`; unset sends `Dialect.default_model`.
        sub_model_list: LoRA, Embedding and HyperNetwork models.
        positive_prompts: what should appear; one string is a list of one.
        negative_prompts: what should not appear.
        translate_prompts: translate prompts to English; the service's default is True.
        seed: -1 (random, the service's default) to 2147483647.
        width: pixels, 64 to 2560, the service's default is 1024.
        height: pixels, 64 to 2560, the service's default is 1024.
        batch_size: number of pictures, 1 to 16, the service's default is 1.
        use_main_model_vae: use the main model's own codec; the service's default is False.
    """

    main_model: Model | None = attrs.field(default=None, converter=_to_model)
    sub_model_list: tuple[Model, ...] | None = attrs.field(default=None, converter=_to_models)
    positive_prompts: tuple[str, ...] | None = attrs.field(default=None, converter=_to_positive)
    negative_prompts: tuple[str, ...] | None = attrs.field(default=None, converter=_to_negative)
    translate_prompts: bool | None = flag()
    seed: int | None = integer(RANDOM_SEED, MAX_SEED)
    width: int | None = integer(DOCUMENTED_MIN_SIDE, DOCUMENTED_MAX_SIDE)
    height: int | None = integer(DOCUMENTED_MIN_SIDE, DOCUMENTED_MAX_SIDE)
    batch_size: int | None = integer(1, 16)
    use_main_model_vae: bool | None = flag()
    _kin: Kin | None = attrs.field(default=None, alias="_kin", eq=False, repr=False)

    @property
    def kin(self) -> Kin | None:
        """See `Job.kin`."""
        return self._kin

    @property
    def kind(self) -> Hashable:
        """Action, model, and pixels in all, in steps of √2."""
        pixels = (self.width or _DEFAULT_SIDE) * (self.height or _DEFAULT_SIDE) * (self.batch_size or 1)
        return self.action, self.main_model and self.main_model.model_code, round(2 * math.log2(pixels))

    def with_prompts(self, *prompts: str | Iterable[str], negative: str | Iterable[str] | None = None) -> Self:
        """The same request with these prompts, one by one or as one list; what is not given is kept as it is.

        Raises:
            InvalidRequestError: a prompt is not a string.
        """
        positive: Any = prompts[0] if len(prompts) == 1 else prompts
        return attrs.evolve(
            self,
            positive_prompts=positive if prompts else self.positive_prompts,
            negative_prompts=self.negative_prompts if negative is None else negative,
        )

    def with_model(self, model: Model | str) -> Self:
        """The same request with this main model."""
        return attrs.evolve(self, main_model=model)

    def with_sub_model(self, model: Model | str) -> Self:
        """The same request with one more LoRA, Embedding or HyperNetwork model."""
        return attrs.evolve(self, sub_model_list=(*(self.sub_model_list or ()), Model.of(model)))

    def with_lora(self, code: str, weight: float | None = None) -> Self:
        """The same request with one more LoRA model; *weight* is -1 to 2 in steps of 0.01.

        Raises:
            InvalidRequestError: the weight is out of range.
        """
        params = None if weight is None else InferenceParams(lora_weight=weight)
        return self.with_sub_model(Model(code, inference_params=params))

    def with_size(self, width: int, height: int) -> Self:
        """The same request for pictures of this size in pixels, each side 64 to 2560.

        Raises:
            InvalidRequestError: a side is out of range.
        """
        return attrs.evolve(self, width=width, height=height)

    def with_seed(self, seed: int) -> Self:
        """The same request with this seed, -1 (random) to 2147483647.

        Raises:
            InvalidRequestError: the seed is out of range.
        """
        return attrs.evolve(self, seed=seed)

    def seeded(self, seed: int) -> Self:
        """See `Job.seeded`."""
        return self if self.seed not in {None, RANDOM_SEED} else attrs.evolve(self, seed=seed)

    def variations(
        self, *, prompts: Iterable[str | Iterable[str]] | None = None, seeds: Iterable[int] | None = None
    ) -> tuple[Self, ...]:
        """The same request with each of the *prompts* and each of the *seeds*, to be submitted with one session.

        Its pictures are read, encoded and hashed once for all of them, and kept in memory, up to `Limits.reuse_memory`, as
        long as there is one of them. Each is a job of its own, and is paid for.

        Args:
            prompts: what should appear: for each variation a string, or a list of strings; left out, as it is.
            seeds: for each variation -1 (random) to 2147483647; left out, as it is.

        Returns:
            All seeds with the first prompts, then all with the second, and so on.

        Raises:
            InvalidRequestError: both are left out, one is empty, or a value is wrong.
        """
        if prompts is None and seeds is None:
            msg = "variations need prompts, seeds, or both"
            raise InvalidRequestError(msg, field="prompts", allowed="a list of prompts, or seeds=…")
        kin = self._kin or Kin()
        texts = [self.positive_prompts] if prompts is None else _several(prompts, "prompts", "prompts")
        numbers = [self.seed] if seeds is None else _several(seeds, "seeds", "seeds, such as range(8)")
        return tuple(
            attrs.evolve(self, positive_prompts=text, seed=number, _kin=kin) for text in texts for number in numbers
        )

    def with_batch(self, batch_size: int) -> Self:
        """The same request for this many pictures, 1 to 16.

        Raises:
            InvalidRequestError: the number is out of range.
        """
        return attrs.evolve(self, batch_size=batch_size)


_MASK_OPTIONS: Final = {field.name for field in attrs.fields(Mask)} - {"image", "mask"}


@sealed_class
@attrs.frozen(kw_only=True)
class ModifyMaskedPixels(GenerationJob):
    """Redraw the masked part of a picture: inpainting and outpainting.

    See https://picpik.ai/api-docs/api-reference/ModifyMaskedPixels. `inpaint` and `outpaint` are the easy ways to make
    one. A request without its picture is a template: what is missing is reported at submit.

    Attributes:
        masked: the picture and its mask; required.
        image2image: an extra reference picture.
        auto_size: ask for the picture's own size, scaled down to the documented maximum and `Dialect.max_auto_pixels`;
            if only one of width and height is set, the other follows in proportion; not a parameter of the API.
    """

    action: ClassVar[str] = "ModifyMaskedPixels"
    image_list: ClassVar[str] = "ImageAndMaskList"

    masked: Mask | None = attrs.field(default=None, converter=_to_masked)
    image2image: Image2Image | None = attrs.field(default=None, converter=_to_image2image)
    auto_size: bool | None = flag()

    @classmethod
    @sealed
    def inpaint(
        cls,
        image: ImageInput,
        mask: ImageInput,
        *,
        prompts: str | Iterable[str] | None = None,
        negative: str | Iterable[str] | None = None,
        **parameters: Any,
    ) -> ModifyMaskedPixels:
        """Redraw the white part of *mask* in *image*, at the picture's own size where the service allows it.

        Args:
            image: the picture, in any form `ImageSource` takes.
            mask: black and white, of the same size; see `picpik_async.masks` for ways to make one.
            prompts: what should appear.
            negative: what should not appear.
            parameters: any other field of `Mask`, such as *mask_blur*, and of `ModifyMaskedPixels`, such as *seed*.

        Raises:
            InvalidRequestError: a parameter is wrong.
        """
        short: dict[str, Any] = {"masked": mask, "positive_prompts": prompts, "negative_prompts": negative}
        for name in short.keys() & parameters.keys():
            if short[name] is not None:
                msg = (
                    f"{name} is given twice; use image, mask, prompts and negative, or the plain ModifyMaskedPixels(…)"
                )
                raise InvalidRequestError(msg, field=name)
        options = {name: parameters.pop(name) for name in _MASK_OPTIONS & parameters.keys()}
        short["masked"] = Mask(image=image, mask=mask, **options)
        return cls(**{"auto_size": True, **short, **parameters})

    @classmethod
    @sealed
    def outpaint(
        cls,
        image: ImageInput,
        *,
        left: int = 0,
        right: int = 0,
        top: int = 0,
        bottom: int = 0,
        prompts: str | Iterable[str] | None = None,
        negative: str | Iterable[str] | None = None,
        **parameters: Any,
    ) -> ModifyMaskedPixels:
        """Widen *image* by margins, in pixels, and let the service draw them.

        Args:
            image: the picture, in any form `ImageSource` takes.
            left: pixels to add at this side; likewise *right*, *top*, *bottom*.
            right: see *left*.
            top: see *left*.
            bottom: see *left*.
            prompts: what should appear.
            negative: what should not appear.
            parameters: as in `inpaint`.

        Raises:
            InvalidRequestError: no margin is set, or a parameter is wrong.
        """
        canvas, mask = masks.outpaint(image, left=left, right=right, top=top, bottom=bottom)
        return cls.inpaint(canvas, mask, prompts=prompts, negative=negative, **parameters)

    @sealed
    def with_mask(self, mask: ImageInput, **options: Any) -> ModifyMaskedPixels:
        """The same request with this mask; *options* are the other fields of `Mask`, such as *image* or *mask_blur*.

        Raises:
            InvalidRequestError: an option is out of range.
        """
        return attrs.evolve(self, masked=attrs.evolve(self.masked or Mask(), mask=mask, **options))

    @sealed
    def with_reference(self, image: ImageInput, *, refer_strength: float | None = None) -> ModifyMaskedPixels:
        """The same request with an extra reference picture; *refer_strength* is 0 to 1, the service's default is 0.5.

        Raises:
            InvalidRequestError: the strength is out of range.
        """
        return attrs.evolve(self, image2image=Image2Image(image=image, refer_strength=refer_strength))

    def check(self) -> None:
        """Report what is missing.

        Raises:
            InvalidRequestError: the picture, the mask or the reference is not set.
        """
        masked = required(self.masked, "masked", "use ModifyMaskedPixels.inpaint(image, mask) or with_mask()")
        required(masked.image, "masked.image", "pass the picture, e.g. with_mask(mask, image=…)")
        required(masked.mask, "masked.mask", "pass a mask of the picture's size, e.g. with picpik_async.masks")
        if masked.image.key == masked.mask.key:
            msg = "masked.mask is the picture itself; pass a mask, e.g. masks.from_boxes(image, …) or masks.from_alpha(image)"
            raise MaskError(msg, field="masked.mask", allowed="another picture than masked.image")
        if self.image2image is not None:
            required(self.image2image.image, "image2image.image", "use with_reference(image)")

    def settled(self, images: Mapping[ImageSource, OpenImage], dialect: Dialect) -> ModifyMaskedPixels:
        """See `Job.settled`.

        Raises:
            ImageError: an image has a format the service does not take.
            MaskError: the mask has another size than the picture, or is a JPEG.
            InvalidRequestError: the picture is too narrow for the service.
        """
        sources = self.images()
        image, mask = images[sources["masked.image"]], images[sources["masked.mask"]]
        masks.preflight(image, mask, dialect=dialect)
        for field, source in sources.items():
            if field not in {"masked.image", "masked.mask"}:
                opened = images[source]
                require_format(opened, dialect.image_formats, field=field, source=opened.source)
        if not self.auto_size or (self.width is not None and self.height is not None):
            return self
        return self._sized(image.width, image.height, max_pixels=dialect.max_auto_pixels)

    def _sized(self, width: int, height: int, *, max_pixels: int) -> ModifyMaskedPixels:
        if self.width is not None:
            size = self.width, round(height * self.width / width)
        elif self.height is not None:
            size = round(width * self.height / height), self.height
        else:
            size = scaled_size(width, height, max_pixels=max_pixels)
        for field, side in zip(("width", "height"), size, strict=True):
            if not DOCUMENTED_MIN_SIDE <= side <= DOCUMENTED_MAX_SIDE:
                allowed = f"from {DOCUMENTED_MIN_SIDE} to {DOCUMENTED_MAX_SIDE}"
                msg = (
                    f"{field} would be {side}: the picture is {width}×{height}, in proportion {size[0]}×{size[1]}, and the"
                    f" service draws sides {allowed}; crop or pad the picture, or set with_size()"
                )
                raise InvalidRequestError(msg, field=field, value=side, allowed=allowed)
        return attrs.evolve(self, width=size[0], height=size[1])


def scaled_size(width: int, height: int, *, max_pixels: int) -> tuple[int, int]:
    """*width* × *height* scaled down in proportion, never up, to the documented sides and *max_pixels*."""
    scale = min(1.0, DOCUMENTED_MAX_SIDE / max(width, height), math.sqrt(max_pixels / (width * height)))
    return max(1, int(width * scale + 1e-6)), max(1, int(height * scale + 1e-6))
