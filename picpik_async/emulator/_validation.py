"""What the documentation rejects: types, ranges, missing fields, wrong indexes, broken images.

A check takes a value and its dotted name and raises `Refusal` where they do not fit. The tables are written down from
the vendor's pages, not from the client, so that a mistake there is not repeated here.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import attrs

__all__ = ["Check", "Refusal", "RetCode", "check_indexes", "flag", "integer", "number", "record", "sequence", "text"]

Check: TypeAlias = Callable[[Any, str], None]


class RetCode(enum.IntEnum):
    """The emulator's own codes, since the service publishes none but 0."""

    SUCCESS = 0
    UNKNOWN_ACTION = 101
    WRONG_PUBLIC_KEY = 102
    WRONG_SIGNATURE = 103
    INVALID_PARAMETER = 201
    INSUFFICIENT_CREDITS = 301
    UNKNOWN_TASK = 401
    UNREADABLE_TASK = 402


@attrs.frozen
class Refusal(Exception):  # noqa: N818 (not an error of ours: it becomes an answer)
    """A request is turned down; becomes `Message` and a non-zero `RetCode`."""

    message: str
    code: RetCode = RetCode.INVALID_PARAMETER


def text(value: Any, name: str) -> None:
    """A string."""
    _kind(value, name, str, "a string")


def flag(value: Any, name: str) -> None:
    """A boolean."""
    _kind(value, name, bool, "true or false")


def integer(low: int | None = None, high: int | None = None) -> Check:
    """A whole number from *low* to *high*; true and false are none."""

    def check(value: Any, name: str) -> None:
        _kind(value, name, int, "an integer")
        _within(value, name, low, high)

    return check


def number(low: float | None = None, high: float | None = None, *, step: float | None = None) -> Check:
    """A number from *low* to *high*, in multiples of *step*; true and false are none."""

    def check(value: Any, name: str) -> None:
        _kind(value, name, (int, float), "a number")
        _within(value, name, low, high)
        if step is not None and not math.isclose(value / step, round(value / step), rel_tol=0, abs_tol=1e-9 / step):
            msg = f"{name} must be a multiple of {step}"
            raise Refusal(msg)

    return check


def sequence(item: Check) -> Check:
    """A list whose members all pass *item*."""

    def check(value: Any, name: str) -> None:
        _kind(value, name, list, "a list")
        for index, member in enumerate(value):
            item(member, f"{name}[{index}]")

    return check


def record(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """An object with the *required* fields; unknown fields are let through, as the documentation forbids none."""
    known = {**required, **(optional or {})}

    def check(value: Any, name: str) -> None:
        _kind(value, name, dict, "an object")
        prefix = f"{name}." if name else ""
        for field in required:
            if field not in value:
                msg = f"{prefix}{field} is missing"
                raise Refusal(msg)
        for field in value.keys() & known.keys():
            known[field](value[field], f"{prefix}{field}")

    return check


def _kind(value: Any, name: str, kind: type | tuple[type, ...], words: str) -> None:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        msg = f"{name or 'the body'} must be {words}"
        raise Refusal(msg)


def _within(value: float, name: str, low: float | None, high: float | None) -> None:
    if (low is not None and value < low) or (high is not None and value > high):
        msg = f"{name} must be from {low} to {high}"
        raise Refusal(msg)


# https://picpik.ai/api-docs/api-reference/ModifyMaskedPixels: the complex types and the parameters most Actions share.
# Ranges of Steps, ClipSkip and CFGScale stand only on an older version of the page and are not enforced.
INFERENCE_PARAMS: Final = record(
    {},
    {
        "Steps": integer(),
        "Sampler": text,
        "ClipSkip": integer(),
        "CFGScale": number(),
        "LoraWeight": number(-1, 2, step=0.01),
        "Resolution": integer(64, 2048),
        "ControlWeight": number(0, 2, step=0.01),
        "StartingStep": number(0, 1, step=0.01),
        "EndingStep": number(0, 1, step=0.01),
    },
)
MODEL: Final = record(
    {"ModelCode": text},
    {"Name": text, "IsOfficial": flag, "TriggerWordList": sequence(text), "InferenceParams": INFERENCE_PARAMS},
)
IMAGE_TO_IMAGE: Final = record({"ImageIndex": integer()}, {"ReferStrength": number(0, 1)})
MASK: Final = record(
    {"ImageIndex": integer(), "MaskIndex": integer()},
    {
        "ReferStrength": number(0, 2),
        "InvertMask": flag,
        "MaskBlur": integer(0, 64),
        "PromptsMoreImportant": flag,
    },
)
GENERATION: Final[Mapping[str, Check]] = {
    "SubModelList": sequence(MODEL),
    "PositivePrompts": sequence(text),
    "NegativePrompts": sequence(text),
    "TranslatePrompts": flag,
    "Seed": integer(-1, 2**31 - 1),
    "Width": integer(64, 2560),
    "Height": integer(64, 2560),
    "BatchSize": integer(1, 16),
    "UseMainModelVAE": flag,
    "Image2Image": IMAGE_TO_IMAGE,
}


def check_indexes(parameters: Mapping[str, Any], sizes: Sequence[tuple[int, int]]) -> None:
    """Every `ImageIndex` and `MaskIndex` points at an image, and a mask has the size of its image.

    Args:
        parameters: a request that has passed its check.
        sizes: width and height of every image, in order.

    Raises:
        Refusal: one does not; the message names it.
    """
    for name, holder in _index_holders(parameters, ""):
        for field in holder.keys() & {"ImageIndex", "MaskIndex"}:
            if not 0 <= holder[field] < len(sizes):
                msg = f"{name}.{field} must be from 0 to {len(sizes) - 1}, as there are {len(sizes)} images"
                raise Refusal(msg)
        if "MaskIndex" in holder and sizes[holder["MaskIndex"]] != sizes[holder["ImageIndex"]]:
            msg = f"{name}.MaskIndex points at a mask of another size than the image of {name}.ImageIndex"
            raise Refusal(msg)


def _index_holders(parameters: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, value in parameters.items():
        if isinstance(value, dict):
            if "ImageIndex" in value:
                yield f"{prefix}{name}", value
            yield from _index_holders(value, f"{prefix}{name}.")
