"""Options that several commands share, and how words of the command line become parameters."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import attrs
from cyclopts import Parameter, validators

from picpik_async._types import Image2Image
from picpik_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from types import EllipsisType

__all__ = ["COMMON", "DRAWING", "WAITING", "Common", "Drawing", "Waiting", "box_of", "choice_of"]


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class Common:
    """Options of every command that asks the service.

    Attributes:
        json: print one JSON document on standard output, for scripts.
        emulator: try without keys: talk to an emulated service that lives as long as this command.
    """

    json: bool = False
    emulator: bool = False


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class Waiting(Common):
    """Options of commands that wait for pictures.

    Attributes:
        timeout: seconds to wait for the task, by default 1800; a task that is not waited for goes on.
        out: folder for the pictures, by default the current one.
    """

    timeout: Annotated[float | None, Parameter(validator=validators.Number(gt=0))] = None
    out: Annotated[Path, Parameter(validator=validators.Path(file_okay=False))] = Path()

    @property
    def limit(self) -> float | EllipsisType:
        """The timeout as the session takes it."""
        return ... if self.timeout is None else self.timeout


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class Drawing(Waiting):
    """Options of commands that make pictures.

    Attributes:
        prompt: what should appear; may be repeated.
        negative: what should not appear; may be repeated.
        seed: -1 (random) to 2147483647; the same seed draws the same picture.
        batch: number of pictures, 1 to 16.
        model: code of the main model.
        size: size of the pictures in pixels, such as 1024x768; by default that of the picture.
        reference: a reference picture.
        detach: print the task's id on standard output and do not wait.
    """

    prompt: tuple[str, ...] | None = None
    negative: tuple[str, ...] | None = None
    seed: int | None = None
    batch: int | None = None
    model: str | None = None
    size: str | None = None
    reference: Path | None = None
    detach: bool = False

    def parameters(self) -> dict[str, Any]:
        """The options as parameters of `ModifyMaskedPixels`.

        Raises:
            InvalidRequestError: the size is not legible.
        """
        width, height = (None, None) if self.size is None else size_of(self.size)
        return {
            "prompts": self.prompt,
            "negative_prompts": self.negative,
            "seed": self.seed,
            "batch_size": self.batch,
            "main_model": self.model,
            "width": width,
            "height": height,
            "image2image": None if self.reference is None else Image2Image(image=self.reference),
        }


COMMON: Final = Common()
WAITING: Final = Waiting()
DRAWING: Final = Drawing()


def size_of(text: str) -> tuple[int, int]:
    """Width and height out of "1024x768".

    Raises:
        InvalidRequestError: it is something else.
    """
    match = re.fullmatch(r"([0-9]{1,9})[x×]([0-9]{1,9})", text)
    if match is None:
        msg = f"--size {text!r} is not WIDTHxHEIGHT in pixels, such as 1024x768"
        raise InvalidRequestError(msg, field="size", value=text, allowed="WIDTHxHEIGHT")
    return int(match[1]), int(match[2])


def box_of(text: str) -> tuple[int, int, int, int]:
    """The numbers out of "40,60,120,140".

    Raises:
        InvalidRequestError: it is something else.
    """
    match = re.fullmatch(r"([0-9]{1,9}),([0-9]{1,9}),([0-9]{1,9}),([0-9]{1,9})", text)
    if match is None:
        msg = f"--box {text!r} is not LEFT,TOP,RIGHT,BOTTOM in pixels, such as 40,60,120,140"
        raise InvalidRequestError(msg, field="box", value=text, allowed="LEFT,TOP,RIGHT,BOTTOM")
    return int(match[1]), int(match[2]), int(match[3]), int(match[4])


def choice_of(text: str) -> tuple[str, str]:
    """The key and the `TaskUID` out of "room-1=ckt3uqlrh4miq8mr9lgg".

    Raises:
        InvalidRequestError: it is something else.
    """
    key, _, task_uid = text.rpartition("=")
    if not key or not task_uid:
        msg = f"--adopt-task {text!r} is not KEY=UID, such as room-1=ckt3uqlrh4miq8mr9lgg"
        raise InvalidRequestError(msg, field="adopt_task", value=text, allowed="KEY=UID")
    return key, task_uid
