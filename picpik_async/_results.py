"""What a finished task gives: pictures to read, save and show."""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import re
import sys
import time
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import anyio
import attrs

from picpik_async._config import Secret
from picpik_async._files import write_atomically
from picpik_async._pixels import sniff
from picpik_async._ranges import one_text
from picpik_async._slots import RESULT_LIFETIME
from picpik_async._verification import Picture, picture_of
from picpik_async.errors import DownloadError, InvalidImageError, InvalidRequestError, bare, legible

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from PIL.Image import Image

    from picpik_async._tasks import TaskDetail

__all__ = ["ResultImage", "TaskResult"]

T = TypeVar("T")
_SUFFIXES: Final = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
_READABLE: Final = 60  # characters of a name that is no safe one
_SAFE_NAME: Final = re.compile(r"(?=.{1,128}\Z)[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


class Fetcher(Protocol):
    """What pictures need of their session."""

    def check_place(self, task_uid: str) -> None:
        """Raise a `ConfigurationError` if nothing can be fetched here: from another event loop, or after the end."""
        ...

    async def fetch(
        self, url: Secret, *, task_uid: str, index: int, expires: float, use: Callable[[Picture], Awaitable[T]]
    ) -> T:
        """What *use* makes of the verified picture at *url*.

        It is number *index* of the task, and there until *expires* (Unix time).
        """
        ...

    async def in_thread(self, function: Callable[..., T], *args: Any) -> T:
        """Run blocking work in a worker thread."""
        ...


class ResultImage:
    """One picture of a result; fetched when first asked for, through the session that made it.

    In a notebook it shows itself once it was read.
    """

    def __init__(self, url: str, fetcher: Fetcher, *, task_uid: str, index: int, expires: float | None = None) -> None:
        self._url = Secret(url)
        self._expires = time.time() + RESULT_LIFETIME if expires is None else expires
        self._fetcher = fetcher
        self._task_uid = task_uid
        self._index = index
        self._data: bytes | None = None
        self._fetching = anyio.Lock()

    @property
    def url(self) -> str:
        """The service's address of the picture, valid for 24 hours; it may hold a signature, so do not publish it."""
        return self._url.reveal()

    async def read(self) -> bytes:
        """The encoded picture, whole and verified; fetched once, however many ask, and kept for the next call.

        Raises:
            DownloadError: it could not be fetched; the kinds are `ResultExpiredError`, `UnsafeUrlError` and
                `InvalidImageError`.
            ConfigurationError: it is not fetched yet, and its session is closed, or of another event loop.
        """
        return await self._with_picture(self._keep)

    async def _keep(self, picture: Picture) -> bytes:
        self._data = picture.data
        return picture.data

    async def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the picture to *path*, whole or not at all, and return where it is.

        Args:
            path: a file, whose suffix is kept as it is, and which is replaced; or a folder, where the name is made of `TaskUID` and index and
                the suffix of what the picture is. Parent folders are made.

        Raises:
            InvalidRequestError: *path* is no path.
            DownloadError: it could not be fetched, as in `read`, or written.
            ConfigurationError: as in `read`.
        """
        return await self._save(_path(path), self._task_uid)

    async def _save(self, target: str, stem: str, *, spare: str | None = None) -> Path:
        async def store(picture: Picture) -> Path | DownloadError:
            return await self._fetcher.in_thread(self._write, picture, target, stem, spare)

        outcome = await self._with_picture(store)
        if isinstance(outcome, DownloadError):
            raise outcome
        return outcome

    async def pil(self) -> Image:
        """The picture as a `PIL.Image`, decoded.

        Raises:
            DownloadError: as in `read`; an `InvalidImageError` if there is no memory for the pixels.
            ConfigurationError: as in `read`.
        """
        await self.read()
        outcome = await self._fetcher.in_thread(self._decode)
        if isinstance(outcome, InvalidImageError):
            raise outcome
        return outcome

    async def show(self) -> None:
        """Fetch the picture and display it in the system's viewer.

        Raises:
            DownloadError: as in `pil`, or there is no viewer.
            ConfigurationError: as in `read`.
        """
        picture = await self.pil()
        await self._fetcher.in_thread(self._show, picture)

    async def _with_picture(self, use: Callable[[Picture], Awaitable[T]]) -> T:
        """What *use* makes of the picture; of those who ask at once, one fetches it."""
        kept = self._kept()
        if kept is not None:
            return await use(kept)
        self._fetcher.check_place(self._task_uid)  # a lock that is awaited on two loops would never be given
        where: Any = {"task_uid": self._task_uid, "index": self._index, "expires": self._expires}
        async with self._fetching:
            kept = self._kept()
            return await (self._fetcher.fetch(self._url, use=use, **where) if kept is None else use(kept))

    def _kept(self) -> Picture | None:
        return None if self._data is None else Picture(self._data)

    def _decode(self) -> Image | InvalidImageError:
        try:
            return picture_of(self._data or b"")
        except InvalidImageError as error:
            error.task_uid = self._task_uid
            return bare(error)

    def _show(self, picture: Image) -> None:
        from PIL import ImageShow  # noqa: PLC0415 - keeps the import of the package light

        problem = "no viewer was found"
        try:
            if ImageShow.show(picture):
                return
        except Exception as error:  # noqa: BLE001 - a viewer is somebody's code
            problem = type(error).__name__
        msg = f"cannot show the picture: {problem}; save() it and open the file"
        raise DownloadError(msg, task_uid=self._task_uid)

    def _write(self, picture: Picture, path: str, stem: str, spare: str | None) -> Path | DownloadError:
        """Where it is, or why not; returned, since the frames below show the picture."""
        try:
            name = file_name(stem, self._index, picture.data)
            target = Path(path, name) if path.endswith(os.sep) or Path(path).is_dir() else Path(path)
            if spare is not None and _holds_something_else(target, picture.data):
                target = target.with_name(file_name(spare, self._index, picture.data))
            if target.exists() and not target.is_file():
                msg = f"cannot write {legible(path)}: it is not a regular file; give another name"
                return DownloadError(msg, task_uid=self._task_uid)
            write_atomically(picture.data, target)
        except (OSError, ValueError) as error:  # a path with a NUL is a ValueError
            number = getattr(error, "errno", None)
            reason = os.strerror(number) if number else type(error).__name__
            hint = "; free some space and save again" if number == errno.ENOSPC else ""
            msg = f"cannot write {legible(path)}: {reason}{hint}"
            return DownloadError(msg, task_uid=self._task_uid)
        return target

    def __repr__(self) -> str:
        state = "not fetched yet" if self._data is None else f"{len(self._data)} bytes"
        return f"<ResultImage {self._index} of task {self._task_uid}: {state}>"

    def _repr_mimebundle_(self, **_options: object) -> dict[str, Any]:
        """What a notebook shows: the picture if it was read, one line of text if not, never the address."""
        return {"text/plain": repr(self)} | ({} if self._data is None else {"text/html": self._html()})

    def _html(self) -> str:
        if self._data is None:
            return f"<p>picture {self._index}: not fetched yet; <code>await result.show()</code></p>"
        text = base64.b64encode(self._data).decode()
        return f'<img alt="picture {self._index}" style="max-width: 100%" src="data:image/{sniff(self._data)};base64,{text}">'


@attrs.frozen(kw_only=True, eq=False)
class TaskResult:
    """What a finished task gave.

    Attributes:
        detail: the final `TaskDetail`.
        images: the pictures.
    """

    detail: TaskDetail
    images: tuple[ResultImage, ...]
    _on_saved: Callable[[list[Path]], Awaitable[None]] | None = attrs.field(default=None, repr=False)

    @property
    def texts(self) -> tuple[str, ...]:
        """Descriptions, from `DescribeImages`."""
        return self.detail.texts

    @property
    def seed(self) -> int | None:
        """The seed of the pictures; one value, also for a batch."""
        return self.detail.seed

    @property
    def cost(self) -> int | None:
        """Credits consumed."""
        return self.detail.cost

    async def save(self, directory: str | os.PathLike[str], *, name: str | None = None) -> list[Path]:
        """Fetch all pictures and write them to *directory*, each whole or not at all; the paths in order of the pictures.

        A picture that fails does not keep the others from being saved. With a journal, the job is done by this.

        Args:
            directory: a folder, made if need be.
            name: how the names of the files begin, instead of with `TaskUID`. One with anything but ASCII letters, digits,
                `_`, `-` and inner dots, or with more than 128 of them, is spelled with these and has a hash at its end. A
                file of such a name that holds something else is not replaced: `TaskUID` is added to the name.

        Raises:
            InvalidRequestError: *directory* is no path, or *name* no text.
            DownloadError: a picture could not be fetched or written; the first such error, after the others are saved.
            ConfigurationError: a picture is not fetched yet, and the session is closed.
        """
        folder = os.path.join(_path(directory), "")  # noqa: PTH118 - a Path would lose the separator that says "folder"
        stem = self.detail.task_uid if name is None else one_text(name, "name")
        spare = None if name is None else f"{stem}-{self.detail.task_uid}"
        files = await self._for_each(
            lambda image: image._save(folder, stem, spare=spare)  # noqa: SLF001 - one noun, two classes
        )
        if self._on_saved is not None:
            await self._on_saved(files)
        return files

    async def show(self) -> None:
        """Fetch all pictures and display them: in the notebook, or in the system's viewer.

        Raises:
            DownloadError: a picture could not be fetched or shown; the first such error, after the others are shown.
            ConfigurationError: a picture is not fetched yet, and the session is closed.
        """
        ipython = sys.modules.get("IPython")
        if ipython is not None and ipython.get_ipython() is not None:
            await self._for_each(ResultImage.read)
            ipython.display.display(self)
            return
        await self._for_each(ResultImage.show)

    async def _for_each(self, action: Any) -> list[Any]:
        if len(self.images) == 1:  # without a task of its own, which would take 0.1 ms
            return [await action(self.images[0])]
        done: list[Any] = [None] * len(self.images)
        errors: list[Exception] = []

        async def run(position: int) -> None:
            try:
                done[position] = await action(self.images[position])
            except Exception as error:  # noqa: BLE001 - raised below, alone; the task group would wrap it
                errors.append(error)

        async with anyio.create_task_group() as group:
            for position in range(len(self.images)):
                group.start_soon(run, position)
        if errors:
            raise errors[0]
        return done

    def _repr_html_(self) -> str:
        """What a notebook shows: every picture that was read."""
        return "".join(image._html() for image in self.images)  # noqa: SLF001 - one noun, two classes


def file_name(stem: str, index: int, data: bytes) -> str:
    """A harmless name for a picture; *stem* may be the service's own text."""
    return f"{_harmless(stem)}-{index}{_SUFFIXES[str(sniff(data))]}"


def _harmless(stem: str) -> str:
    if _SAFE_NAME.fullmatch(stem):
        return stem
    digest = hashlib.sha256(stem.encode(errors="replace")).hexdigest()
    letters = unicodedata.normalize("NFKD", stem[:_READABLE]).encode("ascii", "ignore").decode()
    words = re.sub(r"[^A-Za-z0-9]+", "_", letters)[:_READABLE].strip("_")
    return f"{words}-{digest[:16]}" if words else digest


def _holds_something_else(target: Path, data: bytes) -> bool:
    if not os.path.lexists(target):
        return False
    return not target.is_file() or target.stat().st_size != len(data) or target.read_bytes() != data


def _path(path: str | os.PathLike[str]) -> str:
    try:
        return os.fsdecode(path)
    except TypeError:
        msg = f"path is a {type(path).__name__}, but must be the path of a file or of a folder"
        raise InvalidRequestError(msg, field="path", allowed="a path") from None
