"""Tests of reading, saving and showing results."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import re
import stat
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from fault_server import FaultServer, answering, details, in_turn, service
from hypothesis import given
from hypothesis import strategies as st
from jobs import picture, session
from PIL import ImageShow

from picpik_async import ResultImage, TaskDetail, TaskResult
from picpik_async._config import Secret
from picpik_async._results import file_name
from picpik_async._verification import Picture
from picpik_async.errors import (
    ConfigurationError,
    DownloadError,
    InvalidImageError,
    InvalidRequestError,
    ResultExpiredError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from PIL.Image import Image

T = TypeVar("T")
CANARY = "canary-signature"


class Shelf:
    """What pictures need of a session: here they lie ready, by address."""

    def __init__(self, **pictures: bytes | Exception) -> None:
        self.pictures = pictures
        self.fetched: list[str] = []

    def check_place(self, task_uid: str) -> None:
        """See `Fetcher.check_place`."""

    async def fetch(
        self, url: Secret, *, task_uid: str, index: int, expires: float, use: Callable[[Picture], Awaitable[T]]
    ) -> T:
        """See `Fetcher.fetch`."""
        del task_uid, index, expires
        self.fetched.append(url.reveal())
        await anyio.lowlevel.checkpoint()
        found = self.pictures[url.reveal()]
        if isinstance(found, Exception):
            raise found
        return await use(Picture(found))

    async def in_thread(self, function: Callable[..., T], *args: Any) -> T:
        """See `Fetcher.in_thread`."""
        return await anyio.to_thread.run_sync(function, *args)


def image(data: bytes | Exception | None = None, *, uid: str = "a-task", index: int = 0) -> ResultImage:
    """A picture that can be fetched."""
    return ResultImage("a", Shelf(a=picture() if data is None else data), task_uid=uid, index=index)


def result(*pictures: bytes | Exception) -> TaskResult:
    """A result whose pictures can be fetched."""
    shelf = Shelf(**{str(index): data for index, data in enumerate(pictures)})
    images = [ResultImage(str(index), shelf, task_uid="a-task", index=index) for index in range(len(pictures))]
    detail = TaskDetail(task_uid="a-task", seed=7, cost=3, texts=("a text",))
    return TaskResult(detail=detail, images=tuple(images))


def names(folder: Path) -> list[str]:
    """All files below a folder, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


@pytest.mark.anyio
async def test_read_once() -> None:
    """A picture is fetched once and kept."""
    shelf = Shelf(a=picture())
    found = ResultImage("a", shelf, task_uid="a-task", index=0)

    assert picture() == await found.read() == await found.read()
    assert (64, 64) == (await found.pil()).size
    assert ["a"] == shelf.fetched


@pytest.mark.anyio
async def test_many_readers_share_one_fetch(tmp_path: Path) -> None:
    """However many ask at once for a picture, by reading and by saving, it is fetched once."""
    shelf = Shelf(a=picture())
    found = ResultImage("a", shelf, task_uid="a-task", index=0)
    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(found.read)
        group.start_soon(found.save, tmp_path)

    assert ["a"] == shelf.fetched


@pytest.mark.anyio
async def test_a_reader_who_gives_up_leaves_it_to_the_next() -> None:
    """Cancelling one reader, or failing one, fails no other."""
    shelf = Shelf(a=ResultExpiredError("gone"))
    found = ResultImage("a", shelf, task_uid="a-task", index=0)
    cancelled, failing, lucky = [asyncio.ensure_future(found.read()) for _ in range(3)]
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(ResultExpiredError):
        await failing
    shelf.pictures["a"] = picture()

    assert picture() == await lucky
    assert cancelled.cancelled()


def test_another_loop() -> None:
    """A picture on its way is not waited for on another event loop, where it would never arrive."""
    asked, go_on = threading.Event(), threading.Event()

    def download(exchange: Any) -> None:
        asked.set()
        go_on.wait(10)
        answering(picture())(exchange)

    async def first(server: FaultServer, other: Callable[[ResultImage], None]) -> bytes:
        async with session(server.url) as picpik:
            found = await picpik.task("a-task").wait()
            reading = asyncio.ensure_future(found.images[0].read())
            await anyio.to_thread.run_sync(asked.wait)
            await anyio.to_thread.run_sync(other, found.images[0])
            go_on.set()
            return await reading

    def second(found: ResultImage) -> None:
        for act in (found.read, lambda: found.save("nowhere")):
            with pytest.raises(ConfigurationError, match="belongs to another event loop") as caught:
                asyncio.run(asyncio.wait_for(act(), 5))
            assert "a-task" == caught.value.task_uid

    with FaultServer() as server:
        server._scripts.append(service(ListTasksDetails=details(f"{server.url}/0"), download=download))
        assert picture() == asyncio.run(first(server, second))


@pytest.mark.anyio
@pytest.mark.parametrize("was_read", [False, True])
async def test_a_failed_save_does_not_show_the_picture(was_read: bool) -> None:
    """The bytes of a picture are no help to whoever reads a traceback with locals, and fill a log."""
    found = image()
    if was_read:
        await found.read()

    with pytest.raises(DownloadError, match=r"cannot write /proc/nowhere/1\.png: No such file or directory") as caught:
        await found.save("/proc/nowhere/1.png")

    assert None is caught.value.__cause__ is caught.value.__context__
    report = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert "IHDR" not in "".join(report.format())


@pytest.mark.anyio
async def test_a_failed_decoding_does_not_show_the_picture() -> None:
    """Nor do they where the pixels are asked for."""
    with pytest.raises(InvalidImageError) as caught:
        await image(picture()[:-1]).pil()

    report = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert "IHDR" not in "".join(report.format())


@pytest.mark.anyio
async def test_undecodable() -> None:
    """Pillow's failures are errors of ours that name the task."""
    with pytest.raises(InvalidImageError, match="not one whole") as caught:
        await image(picture()[:-1]).pil()

    assert "a-task" == caught.value.task_uid


@pytest.mark.anyio
@pytest.mark.parametrize(("kind", "suffix"), [("PNG", ".png"), ("JPEG", ".jpg"), ("WEBP", ".webp")])
async def test_save_in_folder(tmp_path: Path, kind: str, suffix: str) -> None:
    """In a folder the name comes from the task, and the suffix from the bytes."""
    data = picture(kind=kind)

    saved = await image(data, uid="task_1-A", index=3).save(tmp_path)

    assert tmp_path / f"task_1-A-3{suffix}" == saved
    assert data == saved.read_bytes()
    assert [saved.name] == names(tmp_path)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["pipe", "device"])
async def test_save_spares_what_is_no_file(tmp_path: Path, kind: str) -> None:
    """A pipe or a device is not replaced by a picture."""
    target = tmp_path / "pipe"
    os.mkfifo(target)
    path = target if kind == "pipe" else tmp_path / "link"
    if kind == "device":
        path.symlink_to(target)

    with pytest.raises(DownloadError, match="not a regular file"):
        await image().save(path)
    assert target.is_fifo()


@pytest.mark.anyio
@pytest.mark.parametrize("path", [5, None])
async def test_save_to_what_is_no_path(path: Any) -> None:
    """Something else than a path is refused before anything is fetched."""
    with pytest.raises(InvalidRequestError, match="must be the path of a file or of a folder"):
        await image().save(path)


@pytest.mark.anyio
async def test_save_in_new_folder(tmp_path: Path) -> None:
    """A path that ends with a separator is a folder, which is made."""
    saved = await image().save(f"{tmp_path}/new/folder/")

    assert tmp_path / "new/folder/a-task-0.png" == saved


@pytest.mark.anyio
@pytest.mark.parametrize("kind", [str, Path, os.fsencode])
async def test_save_as(tmp_path: Path, kind: Callable[[Path], Any]) -> None:
    """A path that is no folder is the name, kept as it is; folders above it are made."""
    target = tmp_path / "new" / "room.jpeg"

    assert target == await image().save(kind(target))
    assert picture() == target.read_bytes()
    assert 0o666 & ~umask() == stat.S_IMODE(target.stat().st_mode)


def umask() -> int:
    """The process's file mode mask."""
    old = os.umask(0)
    os.umask(old)
    return old


@pytest.mark.anyio
async def test_save_keeps_nothing_in_memory(tmp_path: Path) -> None:
    """Saving a picture does not keep its bytes; saving one that was read does not fetch it again."""
    found = image()
    await found.save(tmp_path)

    assert "not fetched yet" in repr(found)

    shelf = Shelf(a=picture())
    found = ResultImage("a", shelf, task_uid="a-task", index=0)
    await found.read()
    await found.save(tmp_path)

    assert ["a"] == shelf.fetched


@pytest.mark.anyio
async def test_save_over(tmp_path: Path) -> None:
    """An existing file is replaced, and a link is not followed."""
    other = tmp_path / "other"
    other.write_bytes(b"precious")
    link = tmp_path / "link.png"
    link.symlink_to(other)

    await image().save(link)

    assert not link.is_symlink()
    assert picture() == link.read_bytes()
    assert b"precious" == other.read_bytes()


HOSTILE = [
    "../../etc/passwd",
    "/etc/passwd",
    "a/b",
    "C:\\x",
    "nul\0byte",
    "\u202etxt.exe",
    ".",
    "..",
    "a.png",
    " ",
    "x" * 129,
    "\ud800",
    "a\n",
    "../" * 40 + "etc/passwd",
    "..\\..\\x",
    "//host/share",
    "~/x",
    "CON",
    "aux.",
    "trailing ",
    "\x1b[2J",
    "\N{FULLWIDTH SOLIDUS}x",
    "A" * 5000,
    "-rf",
]


@pytest.mark.anyio
@pytest.mark.parametrize("uid", HOSTILE, ids=ascii)
async def test_hostile_task_uid(tmp_path: Path, uid: str) -> None:
    """An id that is not harmless as a name is spelled anew, with a hash, and nothing is written but the picture."""
    folder = tmp_path / "out"
    folder.mkdir()

    saved = await image(uid=uid).save(folder)

    harmless = uid in {"CON", "-rf", "a.png"}  # on this system, and with the index behind it
    digest = hashlib.sha256(uid.encode(errors="replace")).hexdigest()
    assert f"{uid}-0.png" == saved.name if harmless else digest[:16] in saved.name
    assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,90}", saved.name)
    assert [f"out/{saved.name}"] == names(tmp_path)


@pytest.mark.anyio
async def test_names_of_ones_own(tmp_path: Path) -> None:
    """Files may be called after the job; whoever keeps a journal is told where they are."""
    told: list[list[Path]] = []

    async def note(files: list[Path]) -> None:
        told.append(files)

    result = TaskResult(detail=TaskDetail(task_uid="t"), images=(image(), image(index=1)), on_saved=note)
    saved = await result.save(tmp_path, name="room-7")

    assert ["room-7-0.png", "room-7-1.png"] == [file.name for file in saved]
    assert [saved] == told
    with pytest.raises(InvalidRequestError, match="name"):
        await result.save(tmp_path, name=7)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("room.v2", "room.v2"),
        ("räum 1", "raum_1-" + hashlib.sha256("räum 1".encode()).hexdigest()[:16]),
        ("部屋", hashlib.sha256("部屋".encode()).hexdigest()),
    ],
)
def test_natural_names(name: str, stem: str) -> None:
    """A name stays readable as far as it can."""
    assert f"{stem}-0.png" == file_name(name, 0, picture())


@pytest.mark.anyio
async def test_files_of_others_are_kept(tmp_path: Path) -> None:
    """Under a name of one's own nothing else is replaced; what is there already is no trouble."""
    (tmp_path / "room-0.png").write_bytes(b"precious")
    (tmp_path / "room-1.png").write_bytes(picture())
    (tmp_path / "room-2.png").symlink_to("nowhere")
    (tmp_path / "room-3.png").mkdir()
    result = TaskResult(detail=TaskDetail(task_uid="t"), images=tuple(image(index=index) for index in range(4)))

    saved = [await result.save(tmp_path, name="room") for _ in range(2)]

    assert ["room-t-0.png", "room-1.png", "room-t-2.png", "room-t-3.png"] == [file.name for file in saved[0]]
    assert saved[0] == saved[1]
    assert b"precious" == (tmp_path / "room-0.png").read_bytes()
    assert 6 == len(names(tmp_path))


@given(uid=st.text(min_size=1))
def test_any_task_uid(uid: str) -> None:
    """No id leads out of the folder."""
    name = file_name(uid, 0, picture())

    assert Path(name).name == name
    assert name.endswith("-0.png")
    assert name.isascii()
    assert len(name) < 200


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("where", "reason"),
    [
        pytest.param("file/", "File exists", id="file as folder"),
        pytest.param("file/1.png", "File exists", id="file as parent"),
        pytest.param("/proc/nowhere/1.png", "", id="unwritable"),
        pytest.param("x" * 300, "File name too long", id="long"),
        pytest.param("a\0b", "ValueError", id="NUL"),
    ],
)
async def test_save_where_it_cannot_be(tmp_path: Path, where: str, reason: str) -> None:
    """A place that cannot be written is told, with its path and the reason."""
    (tmp_path / "file").write_bytes(b"precious")

    with pytest.raises(DownloadError, match="cannot write") as caught:
        await image().save(os.path.join(tmp_path, where))  # noqa: PTH118 - a Path would lose the separator

    assert reason in str(caught.value)
    assert "\0" not in str(caught.value)
    assert "a-task" == caught.value.task_uid
    assert ["file"] == names(tmp_path)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "No space left on device; free some space"), (errno.EIO, "Input/output error")]
)
async def test_disk_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str) -> None:
    """A disk that fails leaves the old file, and nothing else."""
    target = tmp_path / "1.png"
    target.write_bytes(b"old")

    def fail(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DownloadError, match=words):
        await image().save(target)

    assert b"old" == target.read_bytes()
    assert ["1.png"] == names(tmp_path)


@pytest.mark.anyio
async def test_cancelled_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelling leaves no half file: the write at hand is finished."""
    started, go_on = threading.Event(), threading.Event()
    fsync = os.fsync

    def slowly(descriptor: int) -> None:
        started.set()
        go_on.wait(10)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", slowly)
    async with anyio.create_task_group() as group:
        group.start_soon(image().save, tmp_path)
        await anyio.to_thread.run_sync(started.wait, 10)
        group.cancel_scope.cancel()
        threading.Timer(0.05, go_on.set).start()

    assert ["a-task-0.png"] == names(tmp_path)
    assert picture() == (tmp_path / "a-task-0.png").read_bytes()


# --- batches -----------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_save_all(tmp_path: Path) -> None:
    """A result is saved picture by picture; the paths are in their order."""
    whole = result(picture(), picture(kind="JPEG"), picture(65))

    paths = await whole.save(tmp_path / "out")

    assert ["a-task-0.png", "a-task-1.jpg", "a-task-2.png"] == [path.name for path in paths]
    assert {tmp_path / "out"} == {path.parent for path in paths}
    assert picture(65) == paths[2].read_bytes()
    assert (7, 3, ("a text",)) == (whole.seed, whole.cost, whole.texts)


@pytest.mark.anyio
async def test_one_failing_picture(tmp_path: Path) -> None:
    """A picture that fails does not keep the others from being saved."""
    gone = ResultExpiredError("gone")

    with pytest.raises(ResultExpiredError) as caught:
        await result(picture(), gone, picture()).save(tmp_path)

    assert gone is caught.value
    assert ["a-task-0.png", "a-task-2.png"] == names(tmp_path)


@pytest.mark.anyio
async def test_folder_is_a_file(tmp_path: Path) -> None:
    """A result is saved in a folder, never over a file."""
    (tmp_path / "out").write_bytes(b"precious")

    with pytest.raises(DownloadError, match=r"cannot write .*: File exists"):
        await result(picture()).save(tmp_path / "out")

    assert b"precious" == (tmp_path / "out").read_bytes()


@pytest.mark.anyio
async def test_a_foreign_error_comes_alone(tmp_path: Path) -> None:
    """What is no error of ours does not come as a group either."""
    surprise = RuntimeError("surprise")

    with pytest.raises(RuntimeError) as caught:
        await result(picture(), surprise).save(tmp_path)

    assert surprise is caught.value


@pytest.mark.anyio
async def test_whole_way(tmp_path: Path) -> None:
    """With a real session a batch is fetched in parallel, and what is gone does not disturb the rest."""
    with FaultServer() as server:
        urls = [f"{server.url}/{index}?{CANARY}" for index in range(6)]

        def download(exchange: Any) -> None:
            gone = exchange.target.startswith("/3")
            answering(picture(), status=404 if gone else 200)(exchange)

        server._scripts.append(service(ListTasksDetails=details(*urls), download=download))
        async with session(server.url) as picpik:
            found = await picpik.task("a-task").wait()
            with pytest.raises(ResultExpiredError) as caught:
                await found.save(tmp_path)

    del urls, download
    report = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert CANARY not in f"{caught.value!r}{vars(caught.value)}{''.join(report.format())}"
    assert None is caught.value.__cause__ is caught.value.__context__
    assert [f"a-task-{index}.png" for index in (0, 1, 2, 4, 5)] == names(tmp_path)
    assert all(one.url.endswith(f"/{index}?{CANARY}") for index, one in enumerate(found.images))
    assert CANARY not in repr(found)


async def fetch_again(first: Any, *details_: Any, download: Any) -> tuple[bytes | DownloadError, list[str]]:
    """Read the second picture of a task whose details are asked for twice; its bytes or the error, and what was asked."""
    with FaultServer(service(ListTasksDetails=in_turn(first, *details_), download=download)) as server:
        async with session(server.url) as picpik:
            found = await picpik.task("a-task").wait()
            found.images[1]._url = Secret(f"{server.url}/old?{CANARY}")
            try:
                outcome: bytes | DownloadError = await found.images[1].read()
            except DownloadError as error:
                outcome = error
        return outcome, [request.target for request in server.requests]


def by_name(exchange: Any) -> None:
    """A script: pictures whose address is new are there."""
    answering(picture(), status=200 if exchange.target.startswith("/new") else 403)(exchange)


def at_server(*paths: str) -> Callable[[Any], None]:
    """A script: details whose addresses are at the server that is asked."""
    return lambda exchange: details(*(f"http://{exchange.headers['host']}{path}" for path in paths))(exchange)


@pytest.mark.anyio
async def test_fresh_address() -> None:
    """An address that is gone is replaced by the one the service gives now, for the same picture."""
    outcome, targets = await fetch_again(at_server("/0", "/1"), at_server("/0", "/new"), download=by_name)

    assert picture() == outcome
    assert ["/", "/old?canary-signature", "/", "/new"] == targets


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("again", "requests"),
    [
        pytest.param(at_server("/0", "/other"), 4, id="gone, too"),
        pytest.param(at_server("/0", "/old?canary-signature"), 3, id="the same"),
        pytest.param(at_server("/new"), 3, id="not that many"),
        pytest.param(answering({"RetCode": 0, "TaskDetailList": []}), 3, id="vanished"),
    ],
)
async def test_no_fresh_address(again: Any, requests: int) -> None:
    """Without a fresh address that works the result is expired; it is asked for once."""
    outcome, targets = await fetch_again(at_server("/0", "/1"), again, download=by_name)

    assert isinstance(outcome, ResultExpiredError)
    assert "a-task" == outcome.task_uid
    assert requests == len(targets)


@pytest.mark.anyio
async def test_fresh_address_not_to_be_had() -> None:
    """A service that does not answer leaves open whether the result is expired, so that is not said."""
    outcome, _ = await fetch_again(at_server("/0", "/1"), answering(b"", status=400), download=by_name)

    assert DownloadError is type(outcome)
    assert "(HTTP 403)" in str(outcome)
    assert "a fresh address could not be asked for: ListTasksDetails: HTTP 400" in str(outcome)
    assert "http://localhost/old" == outcome.url
    assert "a-task" == outcome.task_uid


@pytest.mark.anyio
async def test_expires() -> None:
    """Results are there for 24 hours from when they are known, or until it is said."""
    expires: list[float] = []

    class Note(Shelf):
        async def fetch(self, url: Secret, **where: Any) -> Any:
            """See `Fetcher.fetch`."""
            expires.append(where["expires"])
            return await super().fetch(url, **where)

    before = time.time()
    await ResultImage("a", Note(a=picture()), task_uid="a-task", index=0).read()
    await ResultImage("a", Note(a=picture()), task_uid="a-task", index=0, expires=5.0).read()

    assert before + 86400 <= expires[0] <= time.time() + 86400
    assert 5.0 == expires[1]


def test_after_the_session(tmp_path: Path) -> None:
    """What was read can be saved after the session and its loop; what was not says that the session is closed."""
    with FaultServer() as server:
        urls = [f"{server.url}/{index}" for index in range(2)]
        server._scripts.append(service(ListTasksDetails=details(*urls), download=answering(picture())))

        async def first() -> TaskResult:
            async with session(server.url) as picpik:
                found = await picpik.task("a-task").wait()
                await found.images[0].read()
                return found

        async def second(found: TaskResult) -> None:
            await found.images[0].save(tmp_path)
            with pytest.raises(ConfigurationError, match="session is closed"):
                await found.images[1].read()

        async def same_loop() -> None:
            found = await first()
            await found.images[0].save(tmp_path)
            with pytest.raises(ConfigurationError, match="session is closed"):
                await found.images[1].read()

        asyncio.run(second(asyncio.run(first())))
        asyncio.run(same_loop())

    assert ["a-task-0.png"] == names(tmp_path)


# --- showing -----------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_notebook_shows_what_was_read() -> None:
    """A notebook shows the bytes that were read, one line for the others, and never an address."""
    shelf = Shelf(**{CANARY: picture(kind="JPEG")})
    found = ResultImage(CANARY, shelf, task_uid="a-task", index=0)
    whole = TaskResult(detail=TaskDetail(task_uid="a-task", image_urls=(CANARY,)), images=(found,))

    assert {"text/plain": "<ResultImage 0 of task a-task: not fetched yet>"} == found._repr_mimebundle_(include=None)
    assert "<p>picture 0: not fetched yet; <code>await result.show()</code></p>" == whole._repr_html_()

    data = await found.read()
    bundle = found._repr_mimebundle_()

    assert f"<ResultImage 0 of task a-task: {len(data)} bytes>" == bundle["text/plain"]
    assert 'src="data:image/jpeg;base64,/9j/' in bundle["text/html"]
    assert bundle["text/html"] == whole._repr_html_()
    assert CANARY not in f"{bundle}{whole!r}{found}{whole.detail}"


@pytest.fixture
def viewed() -> Iterator[list[tuple[int, int]]]:
    """The sizes of the pictures that the system's viewer was asked to show."""
    sizes: list[tuple[int, int]] = []

    class Viewer(ImageShow.Viewer):
        def show(self, image: Image, **_options: Any) -> int:
            sizes.append(image.size)
            return 1

    before = list(ImageShow._viewers)
    ImageShow.register(Viewer, 0)
    yield sizes
    ImageShow._viewers[:] = before


@pytest.mark.anyio
async def test_show_in_viewer(viewed: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside a notebook the system's viewer shows the pictures, with or without IPython around."""
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    await result(picture(), picture(65)).show()

    assert {(64, 64), (65, 65)} == set(viewed)

    import IPython  # noqa: F401, PLC0415 - as if somebody had imported it

    await image().show()

    assert 3 == len(viewed)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("answer", "words"), [(0, "no viewer was found"), (FileNotFoundError("display"), "FileNotFoundError")]
)
async def test_no_viewer(viewed: list[Any], answer: Any, words: str) -> None:
    """Without a viewer, or with one that fails, there is something else to do."""

    class Viewer(ImageShow.Viewer):
        def show(self, image: Image, **_options: Any) -> int:
            del image
            if isinstance(answer, Exception):
                raise answer
            return 0

    ImageShow._viewers[:] = [Viewer()]
    with pytest.raises(DownloadError, match=rf"^cannot show the picture: {words}; save\(\) it") as caught:
        await result(picture(), picture()).show()

    assert "a-task" == caught.value.task_uid
    assert [] == viewed


@pytest.mark.anyio
async def test_show_in_notebook(capsys: pytest.CaptureFixture[str], viewed: list[tuple[int, int]]) -> None:
    """In IPython the result is displayed there, once its pictures are fetched."""
    from IPython.core.interactiveshell import InteractiveShell  # noqa: PLC0415 - takes a while
    from traitlets.config import Config  # noqa: PLC0415 - comes with IPython

    InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    try:
        whole = result(picture())
        await whole.show()
    finally:
        InteractiveShell.clear_instance()

    assert "TaskResult(" in capsys.readouterr().out
    assert f"{len(picture())} bytes" in repr(whole.images[0])
    assert [] == viewed
