"""A file of jobs, one JSON object per line: checked whole before anything is sent, then read piece by piece."""

from __future__ import annotations

import codecs
import contextlib
import itertools
import os.path
import stat
from typing import TYPE_CHECKING, Any, Final

import anyio
import attrs
import orjson

from picpik_async import masks
from picpik_async._ranges import one_text, refused, shown
from picpik_async._requests import ModifyMaskedPixels
from picpik_async._threads import in_thread
from picpik_async.errors import InvalidRequestError, legible

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from picpik_async._requests import Job

__all__ = ["JobLine", "JobsFile"]

LONGEST_LINE: Final = 1024 * 1024  # bytes; prompts and boxes need far less, and another kind of file is no single line
PIECE: Final = 64  # lines read in one go
MARGINS: Final = ("left", "right", "top", "bottom")
PARAMETERS: Final = {  # names in the file, and those of `ModifyMaskedPixels.inpaint`
    "prompts": "prompts",
    "negative": "negative",
    "seed": "seed",
    "mask_blur": "mask_blur",
    "width": "width",
    "height": "height",
    "batch_size": "batch_size",
    "model": "main_model",
}
NAMES: Final = ("key", "image", "mask", "boxes", *MARGINS, *PARAMETERS)


@attrs.frozen(kw_only=True)
class JobLine:
    """A line.

    Attributes:
        number: of the line, from 1.
        key: names the job, if the line gives it a name.
        request: what is asked for.
    """

    number: int
    key: str | None
    request: ModifyMaskedPixels

    @property
    def label(self) -> str:
        """Names the job for people."""
        return f"line {self.number}" if self.key is None else legible(self.key)


class JobsFile:
    """The jobs in a file; iterating reads it line by line, and keeps nothing.

    Args:
        path: the file; empty lines and those that start with # are skipped.

    Raises:
        InvalidRequestError: on iterating: the file cannot be read, or a line is wrong.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._limiter = anyio.CapacityLimiter(1)
        self._out: dict[int, JobLine] = {}

    def __iter__(self) -> Iterator[JobLine]:
        try:
            if not stat.S_ISREG(self.path.stat().st_mode):
                msg = f"{legible(self.path)} is a pipe or the like, and jobs are read twice; write them to a file"
                raise InvalidRequestError(msg, field="jobs", allowed="a regular file")
            with self.path.open("rb") as file:
                for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), 1):
                    text = (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).strip()
                    if text and not text.startswith(b"#"):
                        yield self._read(number, text)
        except OSError as error:
            msg = f"cannot read {legible(self.path)}: {error.strerror}"
            raise InvalidRequestError(msg, field="jobs") from error

    def check(self) -> int:
        """Look at every line, and return the number of jobs.

        Raises:
            InvalidRequestError: the file cannot be read, a line is wrong, a key is given twice, or there are no jobs.
        """
        count = 0
        lines: dict[str, int] = {}
        for job in self:
            count += 1
            if job.key is not None and (first := lines.setdefault(job.key, job.number)) != job.number:
                msg = f"key {shown(job.key)} is on line {first}, too; give each job a key of its own"
                raise self._wrong(job.number, InvalidRequestError(msg, field="key", value=job.key))
        if not count:
            msg = f"{legible(self.path)} holds no jobs; write one JSON object per line"
            raise InvalidRequestError(msg, field="jobs")
        return count

    async def requests(self) -> AsyncIterator[Job | tuple[str, Job]]:
        """The requests for `PicpikSession.map`, with their keys where they have any.

        Raises:
            InvalidRequestError: the file has changed for the worse since it was checked.
        """
        jobs = iter(self)
        while piece := await in_thread(lambda: list(itertools.islice(jobs, PIECE)), limiter=self._limiter):
            for job in piece:
                self._out[id(job.request)] = job
                yield job.request if job.key is None else (job.key, job.request)

    def take_back(self, request: Job) -> JobLine:
        """The line of a request that `requests` gave; to be asked once."""
        return self._out.pop(id(request))

    def _read(self, number: int, text: bytes) -> JobLine:
        try:
            key, request = job_of(_object(text))
        except InvalidRequestError as error:
            raise self._wrong(number, error) from None
        return JobLine(number=number, key=key, request=request)

    def _wrong(self, number: int, error: InvalidRequestError) -> InvalidRequestError:
        msg = f"{legible(self.path)}, line {number}: {error}"
        return InvalidRequestError(msg, field=error.field, value=error.value, allowed=error.allowed)


def job_of(values: dict[str, Any]) -> tuple[str | None, ModifyMaskedPixels]:
    """The key and the request that a line stands for; what is null is not set.

    Raises:
        InvalidRequestError: a name is not known, a value is wrong, or a file is not there.
    """
    for name in values:
        if name not in NAMES:
            allowed = ", ".join(NAMES)
            msg = f"{shown(name)} is not known; known are {allowed}"
            raise InvalidRequestError(msg, field=legible(name), allowed=allowed)
    given = {name: value for name, value in values.items() if value is not None}
    key = one_text(given["key"], "key") if "key" in given else None
    image = _file(given, "image")
    parameters = {theirs: given[ours] for ours, theirs in PARAMETERS.items() if ours in given}
    margins = {side: given[side] for side in MARGINS if side in given}
    if [bool(margins), "mask" in given, "boxes" in given].count(True) != 1:
        allowed = "either mask, or boxes, or margins (left, right, top, bottom)"
        msg = f"give {allowed}"
        raise InvalidRequestError(msg, field="mask", allowed=allowed)
    if margins:
        return key, ModifyMaskedPixels.outpaint(image, **margins, **parameters)
    mask = masks.from_boxes(image, *_boxes(given["boxes"])) if "boxes" in given else _file(given, "mask")
    return key, ModifyMaskedPixels.inpaint(image, mask, **parameters)


def _object(text: bytes) -> dict[str, Any]:
    with contextlib.suppress(orjson.JSONDecodeError):
        values = orjson.loads(text)
        if isinstance(values, dict):
            return values
    msg = 'this is not one JSON object, such as {"image": "room.jpg", "mask": "mask.png"}'
    raise InvalidRequestError(msg, allowed="a JSON object")


def _file(given: dict[str, Any], field: str) -> str:
    path = given.get(field)
    if not isinstance(path, str):
        raise refused(field, path, "the path of a picture")
    if not os.path.isfile(path):  # noqa: PTH113 - Path.is_file() raises for names that are too long
        msg = f"{field}: there is no file {shown(path)}"
        raise InvalidRequestError(msg, field=field, value=path, allowed="a file that is there")
    return path


def _boxes(boxes: Any) -> list[Any]:
    if not isinstance(boxes, list):
        raise refused(field="boxes", value=boxes, allowed="a list of boxes, [left, top, right, bottom] each")
    return boxes
