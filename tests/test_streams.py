"""Streams: read once for all who wait for them, whichever of them is cancelled, and never sent in part."""

from __future__ import annotations

import asyncio
import io
import os
import threading
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest
from anyio.from_thread import start_blocking_portal
from jobs import CREDENTIALS, mask, picture

from picpik_async import ModifyMaskedPixels, PicpikSession
from picpik_async._config import Limits
from picpik_async._images import ImageSource
from picpik_async._opened import OpenImage
from picpik_async.errors import ConfigurationError, ImageError
from picpik_async.testing import FakeTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from PIL import Image

PNG = picture()
LARGE = picture(700)  # more than 1 MiB


class Upload:
    """An upload whose reads take until `gate` opens; it notes what became of it."""

    def __init__(self, data: bytes = LARGE) -> None:
        self.begun = anyio.Event()
        self.gate = anyio.Event()
        self.reads = 0
        self.cancelled = False
        self._file = io.BytesIO(data)

    async def read(self, size: int) -> bytes:
        """The next bytes."""
        self.reads += 1
        self.begun.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return self._file.read(size)


async def opened(source: ImageSource, **limits: Any) -> OpenImage:
    """Open a source with room for two threads."""
    return await source.open(anyio.CapacityLimiter(2), Limits(**limits))


async def problem(source: ImageSource, **limits: Any) -> str:
    """The message of the `ImageError` that opening gives."""
    with pytest.raises(ImageError) as caught:
        await opened(source, **limits)
    return str(caught.value)


def contents(image: OpenImage) -> bytes:
    """The bytes of an opened picture."""
    with image.reader() as reader:
        return bytes(reader.read(image.size))


async def turns_of_the_loop(count: int = 10) -> None:
    """Let all other tasks run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def in_two(data: bytes) -> AsyncIterator[bytes]:
    """The data as an async stream, with empty chunks around."""
    for chunk in (b"", data[:100], b"", data[100:], b""):
        yield chunk


@pytest.mark.anyio
async def test_concurrent_opens_read_a_stream_once() -> None:
    """However many open one upload at the same time, it is read once."""
    upload = Upload()
    upload.gate.set()
    source = ImageSource.of(upload)

    results = await asyncio.gather(*[opened(source) for _ in range(5)])

    assert 1 == len({id(result.blob) for result in results})
    assert len(LARGE) // 2**20 + 2 == upload.reads


@pytest.mark.anyio
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: memoryview(data).cast("H")])
async def test_chunks_are_any_kind_of_bytes(kind: Callable[[bytes], Any]) -> None:
    """A chunk counts by its bytes, whatever a buffer calls an item."""

    async def chunks() -> AsyncIterator[Any]:
        yield kind(PNG[: len(PNG) // 2 * 2])
        yield PNG[len(PNG) // 2 * 2 :]

    assert PNG == contents(await opened(ImageSource.of(chunks())))


@pytest.mark.anyio
@pytest.mark.parametrize("cancel", ["scope", "task"])
async def test_a_cancelled_opener_leaves_the_stream_to_the_others(cancel: str) -> None:
    """Whoever opened it first may go: who still waits gets the whole picture."""
    upload = Upload()
    source = ImageSource.of(upload)
    scope = anyio.CancelScope()

    async def first() -> None:
        with scope:
            await opened(source)

    tasks = [asyncio.create_task(first()), asyncio.create_task(opened(source))]
    await upload.begun.wait()
    tasks[0].cancel() if cancel == "task" else scope.cancel()
    await asyncio.wait(tasks[:1])
    upload.gate.set()

    found = await tasks[1]
    assert isinstance(found, OpenImage)
    assert LARGE == contents(found)
    assert not upload.cancelled


@pytest.mark.anyio
async def test_pictures_made_from_a_stream_keep_it_alive_too() -> None:
    """Who waits for a picture made from an upload waits for the upload."""
    upload = Upload()

    def same(image: Image.Image) -> Image.Image:
        return image

    source = ImageSource.derived("same", (ImageSource.of(upload),), same)
    tasks = [asyncio.create_task(opened(source)) for _ in range(2)]
    await upload.begun.wait()
    tasks[0].cancel()
    await asyncio.wait(tasks[:1])
    upload.gate.set()

    assert (700, 700) == ((await tasks[1]).width, (await tasks[1]).height)


@pytest.mark.anyio
async def test_the_last_opener_ends_the_reading() -> None:
    """When nobody waits any more the stream is cancelled, before the last one goes on, and is not sent in part."""
    upload = Upload()
    source = ImageSource.of(upload)
    tasks = [asyncio.create_task(opened(source)) for _ in range(3)]
    await upload.begun.wait()

    for task in tasks:
        assert not upload.cancelled
        task.cancel()
        await asyncio.wait([task])

    assert upload.cancelled
    assert "image: Upload: reading it failed or was cancelled halfway; pass a fresh one" == await problem(source)


@pytest.mark.anyio
async def test_an_opener_that_comes_too_late_is_told() -> None:
    """A stream that is being given up is broken for those who ask for it now."""
    cleaning, cleaned = anyio.Event(), anyio.Event()

    async def stall() -> AsyncIterator[bytes]:
        yield PNG[:100]
        try:
            await anyio.sleep_forever()
        finally:
            cleaning.set()
            with anyio.CancelScope(shield=True):
                await cleaned.wait()

    source = ImageSource.of(stall())
    first = asyncio.create_task(opened(source))
    await turns_of_the_loop()
    first.cancel()
    await cleaning.wait()
    late = asyncio.create_task(problem(source))
    await turns_of_the_loop()
    cleaned.set()

    assert "pass a fresh one" in await late
    await asyncio.wait([first])
    assert first.cancelled()


@pytest.mark.anyio
async def test_a_blocked_file_can_be_cancelled() -> None:
    """A pipe that never answers does not hold a cancelled open."""
    read_end, write_end = os.pipe()
    pipe = open(read_end, "rb", buffering=0)  # noqa: ASYNC230, SIM115, PTH123
    begun = threading.Event()

    class Slow:
        def read(self, size: int) -> bytes:
            begun.set()
            return pipe.read(size)

    source = ImageSource.of(Slow())
    async with anyio.create_task_group() as group:
        group.start_soon(opened, source)
        await anyio.to_thread.run_sync(begun.wait)
        group.cancel_scope.cancel()
    os.close(write_end)

    assert "pass a fresh one" in await problem(source)
    pipe.close()


@pytest.mark.anyio
async def test_blocked_files_keep_no_thread_from_other_pictures() -> None:
    """A file of the user's has a thread of its own: others are opened, however few threads there are."""
    limiter = anyio.CapacityLimiter(1)
    answer = threading.Event()

    class Blocked:
        def read(self, size: int) -> bytes:
            answer.wait()
            return bytes(size)[:0]

    idle = [asyncio.create_task(problem(ImageSource.of(Blocked()))) for _ in range(3)]
    await turns_of_the_loop()
    with anyio.fail_after(5):
        for value in (PNG, io.BytesIO(PNG), in_two(PNG)):
            assert PNG == contents(await ImageSource.of(value).open(limiter, Limits()))
    answer.set()

    assert "is empty" in (await asyncio.gather(*idle))[0]


class TestStrayCancellation:
    """A stream may raise `CancelledError` though nobody cancelled us."""

    @pytest.mark.anyio
    @pytest.mark.parametrize("openers", [1, 3])
    async def test_it_is_an_error_of_the_picture(self, openers: int) -> None:
        """It does not pass for a cancellation of those who wait."""

        async def stray() -> AsyncIterator[bytes]:
            yield PNG[:100]
            cancelled = asyncio.get_running_loop().create_future()
            cancelled.cancel()
            await cancelled

        source = ImageSource.of(stray())
        messages = await asyncio.gather(*[problem(source) for _ in range(openers)])

        assert {"image: async_generator: reading it was cancelled by the stream itself; pass a fresh one"} == set(
            messages
        )

    @pytest.mark.anyio
    async def test_somebody_cancels_every_task(self) -> None:
        """If the reading is cancelled from outside, who waits gets an error, too."""
        upload = Upload()
        source = ImageSource.of(upload)
        others = asyncio.all_tasks()
        waiting = asyncio.create_task(problem(source))
        await upload.begun.wait()
        for task in asyncio.all_tasks() - others - {waiting}:
            task.cancel()

        assert "pass a fresh one" in await waiting

    @pytest.mark.anyio
    async def test_somebody_cancels_the_opening_of_one_picture(self) -> None:
        """A submit whose picture was given up by others reports it."""
        upload = Upload()
        async with PicpikSession(CREDENTIALS, transport=FakeTransport(lambda _: {"RetCode": 0})) as session:
            waiting = asyncio.create_task(session.submit(ModifyMaskedPixels.inpaint(upload, mask())))
            await upload.begun.wait()
            for task in asyncio.all_tasks():
                if "_each" in task.get_name():
                    task.cancel()

            with pytest.raises(ImageError, match=r"^masked\.image: Upload: opening it was cancelled") as caught:
                await waiting
        assert ("masked.image", "Upload") == (caught.value.field, caught.value.source)


class Watched:
    """An async iterator that can be closed, and notes it."""

    def __init__(self, chunk: Any) -> None:
        self.chunk = chunk
        self.closed = 0

    def __aiter__(self) -> Watched:
        return self

    async def __anext__(self) -> Any:
        await asyncio.sleep(0)
        return self.chunk

    async def aclose(self) -> None:
        """Count."""
        await asyncio.sleep(0)
        self.closed += 1


class Endless:
    """An async iterator that cannot be closed."""

    def __aiter__(self) -> Endless:
        return self

    async def __anext__(self) -> bytes:
        return PNG


@pytest.mark.anyio
async def test_an_iterator_is_closed_when_reading_stops_early() -> None:
    """A generator runs its clean-up at once, not when it is collected."""
    for chunk in ("text", PNG):
        watched = Watched(chunk)

        assert "image: Watched" in await problem(ImageSource.of(watched), max_image_bytes=10**5)
        assert 1 == watched.closed
    assert "has more than" in await problem(ImageSource.of(Endless()), max_image_bytes=10**5)


@pytest.mark.anyio
async def test_a_stream_that_gives_text(tmp_path: Path) -> None:
    """Text mode is found out at the first chunk."""
    await anyio.Path(tmp_path / "text").write_text("text")
    async with await anyio.open_file(tmp_path / "text", "r") as handle:
        source = ImageSource.of(handle)  # type: ignore[arg-type]

        assert "gives str instead of bytes; open it in binary mode" in await problem(source)


@pytest.mark.anyio
async def test_a_stream_that_fails() -> None:
    """What a stream raises becomes an error for all who wait; the stream counts as broken from then on."""

    class Broken:
        async def read(self, size: int) -> bytes:
            msg = f"client gone, {size} bytes wanted"
            raise EOFError(msg)

    source = ImageSource.of(Broken())

    messages = await asyncio.gather(*[problem(source) for _ in range(2)])
    assert ["image: Broken: reading it failed with EOFError"] * 2 == messages
    assert "pass a fresh one" in await problem(source)


class TestSeveralLoops:
    """Sources are values: they may be kept in a module and used by whoever needs them."""

    def test_one_after_another(self) -> None:
        """What was read in one loop is there in the next."""
        source = ImageSource.of(in_two(PNG))

        assert [PNG, PNG] == [contents(anyio.run(opened, source)) for _ in range(2)]

    def test_a_stream_belongs_to_the_loop_that_reads_it(self) -> None:
        """Another loop is told so while it is being read, also by pictures made from it."""

        async def begin() -> None:
            begun.append(asyncio.create_task(opened(source)))
            await upload.begun.wait()

        begun: list[asyncio.Task[OpenImage]] = []
        upload = Upload(PNG)
        source = ImageSource.of(upload)
        derived = ImageSource.derived("same", (source,), pytest.fail)
        with start_blocking_portal() as portal:
            portal.call(begin)
            for one in (source, derived):
                with pytest.raises(ConfigurationError, match="is being read in another event loop"):
                    anyio.run(opened, one)
            portal.call(upload.gate.set)
            portal.call(asyncio.wait, begun)

        assert PNG == contents(anyio.run(opened, source))

    def test_other_pictures_at_the_same_time(self, tmp_path: Path) -> None:
        """Paths, images and what is made from them may be opened by several loops at a time, each with many openers."""
        path = tmp_path / "room.png"
        path.write_bytes(PNG)

        def same(image: Image.Image) -> Image.Image:
            inside.wait(10)  # until both loops are there, with openers that wait for their turn
            return image

        async def many() -> int:
            return len({found.width for found in await asyncio.gather(*[opened(source) for _ in range(20)])})

        inside = threading.Barrier(2)
        source = ImageSource.derived("same", (ImageSource.of(path),), same)
        with start_blocking_portal() as one, start_blocking_portal() as two:
            answers = [portal.start_task_soon(many) for portal in (one, two)]
            assert [1, 1] == [answer.result(10) for answer in answers]
