"""Image sources: every kind of input, at rest, turned upright, and every wrong input with its message."""

from __future__ import annotations

import asyncio
import gc
import io
import os
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageChops
from PIL.PngImagePlugin import PngInfo

from picpik_async._blobs import MemoryBlob, PathBlob, Spool, as_file, in_words
from picpik_async._config import Limits
from picpik_async._images import ImageSource
from picpik_async._opened import OpenImage, require_format
from picpik_async._pixels import read_header
from picpik_async.errors import ImageError, InvalidRequestError, MaskError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

ORIENTATION = 0x0112


def noise(width: int = 40, height: int = 30, mode: str = "RGB") -> Image.Image:
    """A picture that compresses badly."""
    return Image.effect_noise((width, height), 90).convert(mode)


def encoded(image: Image.Image, image_format: str = "PNG", **options: Any) -> bytes:
    """The picture, encoded."""
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def sideways(orientation: int, image_format: str = "JPEG") -> bytes:
    """A picture of 40 x 30 with an EXIF orientation."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encoded(noise(), image_format, exif=exif)


PNG = encoded(noise())
JPEG = encoded(noise(), "JPEG")
LARGE = encoded(noise(900, 700))  # more than 1 MiB


class Upload:
    """As much of starlette's UploadFile as is used."""

    def __init__(self, data: bytes) -> None:
        self.file = io.BytesIO(data)
        self.reads = 0

    async def read(self, size: int = -1) -> bytes:
        """Some bytes, after giving way to other tasks."""
        self.reads += 1
        await asyncio.sleep(0)
        return self.file.read(size)


class LateAwaitable:
    """A `read` that is no coroutine function, but gives something to await."""

    def __init__(self, data: bytes) -> None:
        self.upload = Upload(data)

    def read(self, size: int) -> Any:
        """A coroutine."""
        return self.upload.read(size)


async def in_chunks(data: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    """The data as an async stream, with an empty chunk in the middle."""
    for start in range(0, len(data), size):
        yield data[start : start + size]
        yield b""


async def opened(value: Any, **options: Any) -> OpenImage:
    """Open a picture with the default limits."""
    return await ImageSource.of(value).open(anyio.CapacityLimiter(4), options.pop("limits", Limits()), **options)


async def problem(value: Any, **options: Any) -> str:
    """The message of the `ImageError` that opening gives."""
    with pytest.raises(ImageError) as caught:
        await opened(value, field="masked.image", **options)
    assert "masked.image" == caught.value.field
    return str(caught.value)


def same_pixels(expected: Image.Image, actual: Image.Image) -> bool:
    """Whether two pictures have the same size, mode and pixels."""
    return (expected.size, expected.mode) == (actual.size, actual.mode) and expected.tobytes() == actual.tobytes()


def open_descriptors() -> int:
    """How many files this process has open; asked while no event loop runs."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a file and gives its path."""

    def write(data: bytes, name: str = "room.jpg") -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


ENCODED_KINDS: dict[str, Callable[[bytes], Any]] = {
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": memoryview,
    "words": lambda data: memoryview(data + bytes(-len(data) % 4)).cast("I"),
    "binary file": io.BytesIO,
    "upload": Upload,
    "late awaitable": LateAwaitable,
    "async stream": in_chunks,
}


@pytest.mark.anyio
@pytest.mark.parametrize("data", [PNG, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("kind", ENCODED_KINDS)
async def test_encoded_pictures_come_back_byte_for_byte(kind: str, data: bytes) -> None:
    """Whatever holds an encoded picture, its bytes are sent unchanged, again and again."""
    source = ImageSource.of(ENCODED_KINDS[kind](data))

    assert data == (await source.read())[: len(data)]
    assert data == (await source.read())[: len(data)]


@pytest.mark.anyio
@pytest.mark.parametrize("as_text", [True, False])
async def test_a_path_comes_back_byte_for_byte(file: Callable[..., Path], as_text: bool) -> None:
    """A path is a string or anything with __fspath__."""
    path = file(JPEG)

    assert JPEG == await ImageSource.of(str(path) if as_text else path).read()


@pytest.mark.anyio
async def test_a_real_file_is_read_from_where_it_stands(file: Callable[..., Path]) -> None:
    """The current position of a file object counts."""
    path = file(b"preamble" + PNG)

    def open_it() -> Any:
        handle = path.open("rb")
        handle.seek(8)
        return handle

    handle = await anyio.to_thread.run_sync(open_it)
    with handle:
        assert PNG == await ImageSource.of(handle).read()


@pytest.mark.anyio
async def test_an_async_file_is_read(file: Callable[..., Path]) -> None:
    """The async files of anyio (and of aiofiles) are streams."""
    async with await anyio.open_file(file(PNG), "rb") as handle:
        assert PNG == await ImageSource.of(handle).read()


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
async def test_a_pil_image_keeps_its_pixels(mode: str) -> None:
    """A PIL image becomes a PNG with the same pixels, in each mode PNG has."""
    image = Image.new("I;16", (4, 3), 40000) if mode == "I;16" else noise(mode=mode)
    source = ImageSource.of(image)

    assert "png" == (await source.open(anyio.CapacityLimiter(1), Limits())).format
    assert same_pixels(image.convert(mode), await source.pil())


@pytest.mark.anyio
@pytest.mark.parametrize(("mode", "becomes"), [("CMYK", "RGB"), ("YCbCr", "RGB"), ("La", "LA"), ("RGBa", "RGBA")])
async def test_a_pil_mode_without_png_is_converted(mode: str, becomes: str) -> None:
    """Modes that PNG lacks are converted, and the colour profile of the old mode is dropped."""
    image = noise(mode=becomes).convert(mode)
    image.info["icc_profile"] = b"a profile"
    decoded = await ImageSource.of(image).pil()

    assert same_pixels(image.convert(becomes), decoded)
    assert "icc_profile" not in decoded.info


@pytest.mark.anyio
async def test_a_pil_image_from_a_file_is_sent_as_its_pixels_are(file: Callable[..., Path]) -> None:
    """EXIF orientation is not applied to a PIL image, and not sent along either."""
    path = file(sideways(6))
    with Image.open(io.BytesIO(await anyio.Path(path).read_bytes())) as image:
        found = await opened(image)

    assert (40, 30, 1) == (found.width, found.height, found.orientation)


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["I", "F"])
async def test_a_pil_mode_without_conversion_is_refused(mode: str) -> None:
    """32 bit pictures have no obvious brightness range."""
    assert "masked.image: PIL image, 40x30: has PIL mode" in await problem(noise(mode=mode))


@pytest.mark.anyio
@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 1), (3, 4, 3), (3, 4, 4)])
@pytest.mark.parametrize("kind", ["uint8", "bool"])
async def test_an_array_keeps_its_pixels(shape: tuple[int, ...], kind: str) -> None:
    """Arrays of uint8 become PNG with the same values; True becomes 255."""
    array = np.random.default_rng(5).integers(0, 256 if kind == "uint8" else 2, shape).astype(kind)
    expected = array.astype("uint8") * (255 if kind == "bool" else 1)
    decoded = np.asarray(await ImageSource.of(array).pil())

    assert np.array_equal(expected.reshape(decoded.shape), decoded)


@pytest.mark.anyio
async def test_an_array_mask_of_zeros_and_ones_is_refused() -> None:
    """What segmentation gives would be all black to the service, and charged; bool and 0-255 are fine."""
    ones = np.zeros((20, 20), "uint8")
    ones[5:10] = 1
    limiter = anyio.CapacityLimiter(1)

    with pytest.raises(MaskError, match=r"masked\.mask: .* only the values 0 and 1.* mask \* 255") as caught:
        await ImageSource.of(ones, field="masked.mask").open(limiter, Limits(), field="masked.mask")
    assert "masked.mask" == caught.value.field
    for fine in (ones.astype(bool), ones * 255, np.zeros((20, 20), "uint8")):
        await ImageSource.of(fine, field="masked.mask").open(limiter, Limits(), field="masked.mask")


@pytest.mark.anyio
async def test_a_slice_of_an_array_keeps_its_pixels() -> None:
    """Strides do not matter."""
    array = np.arange(200, dtype="uint8").reshape(10, 20)[::2, ::-3]

    assert np.array_equal(array, np.asarray(await ImageSource.of(array).pil()))


@pytest.mark.anyio
async def test_a_large_array_keeps_its_pixels() -> None:
    """An array that is copied in several bands comes out whole."""
    array = np.random.default_rng(6).integers(0, 2, (1500, 1501)).astype(bool)

    assert np.array_equal(array * np.uint8(255), np.asarray(await ImageSource.of(array).pil()))


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((3, 4)), r"(array * 255).round().astype('uint8')"),
        (np.zeros((3, 30, 40), "uint8"), "height x width"),
        (np.zeros(3, "uint8"), "height x width"),
        (np.zeros((0, 4), "uint8"), "height x width"),
    ],
)
def test_an_array_that_is_no_picture_is_refused_at_once(array: Any, words: str) -> None:
    """Type and shape of an array are known before anything is opened."""
    with pytest.raises(ImageError) as caught:
        ImageSource.of(array, field="masked.mask")

    assert str(caught.value).startswith("masked.mask: array ")
    assert words in str(caught.value)
    assert "masked.mask" == caught.value.field


@pytest.mark.anyio
@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "GIF"])
async def test_the_header_tells_format_and_size(image_format: str) -> None:
    """The format comes from the first bytes, the size from the header."""
    data = encoded(noise(), image_format)
    found = await opened(data)

    assert (image_format.lower(), 40, 30, len(data)) == (found.format, found.width, found.height, found.size)
    assert f"image/{image_format.lower()}" == found.media_type


@pytest.mark.anyio
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
async def test_a_sideways_picture_is_sent_upright(orientation: int, image_format: str) -> None:
    """A picture with an EXIF orientation becomes a PNG that looks as viewers show it."""
    from PIL import ImageOps  # noqa: PLC0415

    data = sideways(orientation, image_format)
    found = await opened(data)
    with Image.open(io.BytesIO(data)) as image:
        expected = ImageOps.exif_transpose(image)

    assert expected.size == (found.width, found.height)
    assert orientation == found.orientation
    assert (image_format.lower() if orientation == 1 else "png") == found.format
    assert ImageChops.difference(expected.convert("RGB"), await ImageSource.of(data).pil()).getbbox() is None


@pytest.mark.anyio
async def test_a_sideways_picture_may_stay_as_it_is() -> None:
    """Without `upright` the bytes stay, and the size is still that of the upright picture."""
    data = sideways(6)
    found = await opened(data, upright=False)

    assert ("jpeg", 30, 40, len(data)) == (found.format, found.width, found.height, found.size)


@pytest.mark.anyio
async def test_a_sideways_file_is_turned_again_only_if_it_changed(file: Callable[..., Path]) -> None:
    """The upright picture is kept, until the file is another one."""
    path = file(sideways(6))
    source = ImageSource.of(path)
    limiter = anyio.CapacityLimiter(1)
    first = await source.open(limiter, Limits())
    second = await source.open(limiter, Limits())
    await anyio.Path(path).write_bytes(sideways(8) + b"!")
    third = await source.open(limiter, Limits())

    assert first.blob is second.blob
    assert third.blob is not second.blob
    assert (6, 8) == (first.orientation, third.orientation)


@pytest.mark.anyio
@pytest.mark.parametrize("value", [0, 9])
async def test_a_strange_orientation_counts_as_none(value: Any) -> None:
    """Only 1 to 8 mean anything."""
    exif = Image.Exif()
    exif[ORIENTATION] = value

    assert 1 == (await opened(encoded(noise(), "JPEG", exif=exif))).orientation


@pytest.mark.anyio
async def test_unreadable_exif_data_count_as_none() -> None:
    """Broken EXIF data do not spoil a good picture."""
    info = PngInfo()
    info.add_text("Raw profile type exif", "\nexif\n2\nno hexadecimal numbers")

    assert 1 == (await opened(encoded(noise(), pnginfo=info))).orientation


@pytest.mark.anyio
async def test_opening_decodes_no_pixel() -> None:
    """A picture that is cut off behind its header can be opened, and not be decoded."""
    source = ImageSource.of(PNG[:200])
    found = await source.open(anyio.CapacityLimiter(1), Limits())

    assert (40, 30) == (found.width, found.height)
    with pytest.raises(ImageError, match="image: bytes, 200 bytes: its pixels cannot be decoded"):
        await source.pil()


@pytest.mark.anyio
async def test_one_unread_stream_has_one_source() -> None:
    """A picture and a mask made from the same upload share the source; once it is read, a new source is needed."""
    upload = Upload(PNG)
    first = ImageSource.of(upload)

    assert first is ImageSource.of(upload)
    await first.read()
    upload.file.seek(0)
    second = ImageSource.of(upload)
    assert first is not second
    assert first.key != second.key
    assert PNG == await second.read()


def test_keys_are_equal_for_one_object_and_for_one_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal keys are sent once: the same object, or paths that lead to the same place by their text alone."""
    monkeypatch.chdir(tmp_path)
    image = noise()

    assert ImageSource.of("a.png").key == ImageSource.of(tmp_path / "a.png").key == ImageSource.of("./a.png").key
    assert ImageSource.of("a.png").key != ImageSource.of("b.png").key
    assert ImageSource.of(PNG).key == ImageSource.of(PNG).key
    assert ImageSource.of(image).key == ImageSource.of(image).key
    assert ImageSource.of(image).key != ImageSource.of(image.copy()).key


def test_a_source_is_a_source_of_itself() -> None:
    """`of` gives a source back, and sources are equal to themselves only."""
    source = ImageSource.of(PNG)

    assert source is ImageSource.of(source)
    assert source != ImageSource.of(PNG)


def test_the_repr_shows_what_was_handed_over_and_no_contents() -> None:
    """A repr is short, whatever is behind it."""
    reprs = [
        repr(ImageSource.of(value))
        for value in ("room.jpg", b"x" * 1_200_000, bytearray(5), memoryview(bytes(2000)), Upload(b""), noise())
    ]

    assert [
        "<ImageSource room.jpg>",
        "<ImageSource bytes, 1.2 MB>",
        "<ImageSource bytearray, 5 bytes>",
        "<ImageSource memoryview, 2 kB>",
        "<ImageSource Upload>",
        "<ImageSource PIL image, 40x30>",
    ] == reprs
    assert "<ImageSource array 3x4x3 uint8>" == repr(ImageSource.of(np.zeros((3, 4, 3), "uint8")))
    assert 230 > len(repr(ImageSource.of("x/\n" * 1000)))
    assert "\n" not in repr(ImageSource.of("x\n.png"))


@given(st.integers(0, 10**9))
def test_sizes_are_in_three_digits(size: int) -> None:
    """A size in words is short."""
    assert 12 >= len(in_words(size))


@pytest.mark.anyio
async def test_a_relative_path_stays_where_it_was_given(
    file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source finds its file, even if the working directory changes after it was made."""
    monkeypatch.chdir(file(PNG).parent)
    source = ImageSource.of("room.jpg")
    monkeypatch.chdir("/")

    assert PNG == await source.read()


def test_a_relative_path_without_a_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the working directory is gone, making a source still works; opening will report the file."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    assert ("path", "a.png") == ImageSource.of("a.png").key


class TestWrongInputs:
    """Each wrong input names the field and says what to change."""

    @pytest.mark.parametrize(
        ("value", "words"),
        [
            ("", "empty path"),
            ("https://example.org/room.jpg", "fetch it first and pass the bytes"),
            ("S3://bucket/room.jpg", "fetch it first and pass the bytes"),
            ("data:image/png;base64,iVBORw0KGgo", "base64.b64decode(uri"),
            ("iVBORw0KGgo" + "A" * 300 + "==", "base64.b64decode(text)"),
            ("x" * 5000, "is no path"),
            ("a\0b", "is no path"),
            (io.StringIO("text"), "open(path, 'rb')"),
            (None, "pass a path, bytes"),
            (["a.png"], "pass a path, bytes"),
            (object(), "pass a path, bytes"),
        ],
    )
    def test_what_is_no_picture_is_refused_at_once(self, value: Any, words: str) -> None:
        """Making a source refuses kinds that cannot be a picture, without echoing them."""
        with pytest.raises(InvalidRequestError) as caught:
            ImageSource.of(value, field="masked.image")

        assert str(caught.value).startswith("masked.image: ")
        assert words in str(caught.value)
        assert "masked.image" == caught.value.field
        assert 400 > len(str(caught.value))

    @pytest.mark.anyio
    async def test_a_missing_file(self) -> None:
        """A missing file is reported with its path."""
        assert (await problem("missing.png")).startswith("masked.image: missing.png: no such file")

    @pytest.mark.anyio
    async def test_a_path_through_a_file(self, file: Callable[..., Path]) -> None:
        """A path through something that is no directory is a missing file."""
        assert "no such file" in await problem(file(PNG) / "inner.png")

    @pytest.mark.anyio
    async def test_a_name_that_is_too_long(self) -> None:
        """Some text that passes as a path is none."""
        assert "too long" in await problem("x" * 300)

    @pytest.mark.anyio
    async def test_an_unusual_refusal_of_the_system(self, tmp_path: Path) -> None:
        """Other errors of the operating system are named by their code."""
        loop = tmp_path / "loop.png"
        loop.symlink_to(loop)

        assert "cannot be read (ELOOP)" in await problem(loop)

    @pytest.mark.anyio
    async def test_a_directory(self, tmp_path: Path) -> None:
        """A directory is no picture."""
        assert "is a directory" in await problem(tmp_path)

    @pytest.mark.anyio
    async def test_a_pipe(self, tmp_path: Path) -> None:
        """A named pipe would block for ever, and is refused."""
        os.mkfifo(tmp_path / "pipe")

        assert "not a regular file" in await problem(tmp_path / "pipe")

    @pytest.mark.anyio
    async def test_a_file_without_permission(self, file: Callable[..., Path]) -> None:
        """A file that must not be read says so."""
        path = file(PNG)
        await anyio.Path(path).chmod(0)
        user = os.geteuid()
        os.seteuid(65534 if user == 0 else user)
        try:
            message = await problem(path)
        finally:
            os.seteuid(user)

        assert "permission denied" in message

    @pytest.mark.anyio
    @pytest.mark.parametrize("kind", ["bytes", "path"])
    async def test_an_empty_picture(self, file: Callable[..., Path], kind: str) -> None:
        """0 bytes are no picture."""
        assert (await problem(file(b"") if kind == "path" else b"")).endswith("is empty (0 bytes)")

    @pytest.mark.anyio
    @pytest.mark.parametrize("kind", ["binary file", "upload", "async stream"])
    async def test_an_empty_stream(self, kind: str) -> None:
        """A stream at its end may just need to be rewound."""
        assert "seek(0)" in await problem(ENCODED_KINDS[kind](b""))

    @pytest.mark.anyio
    @pytest.mark.parametrize(
        ("head", "words"),
        [
            (b"A text that pretends.\n", "is text"),
            (b"<svg></svg>", "is text"),
            (b"iVBORw0KGgoAAAA", "is Base64 text"),
            (b"data:image/png;base64,", "is Base64 text"),
            (b"\0\1\2\3", "not a picture in a known format"),
            (b"BM\0\0\0\0", "is a BMP picture, which cannot be sent; convert it to PNG"),
            (b"\0\0\0\x18ftypheic\0\0\0\0", "is a HEIC picture"),
            (b"\0\0\0\x18ftypisom\0\0\0\0", "not a picture in a known format"),
            (b"RIFF\0\0\0\0WAVE\0\0\0\0", "not a picture in a known format"),
        ],
    )
    async def test_what_is_not_a_picture_inside(self, file: Callable[..., Path], head: bytes, words: str) -> None:
        """The first bytes count, the ending of the name does not."""
        assert words in await problem(file(head, "room.png"))

    @pytest.mark.anyio
    @pytest.mark.parametrize("data", [PNG[:20], JPEG[:30], encoded(noise(), "WEBP")[:25], b"GIF89a\1"])
    async def test_a_damaged_header(self, data: bytes) -> None:
        """A header that is cut off is told from a wrong format."""
        assert "header is damaged or cut off" in await problem(data)

    @pytest.mark.anyio
    @pytest.mark.parametrize("kind", ["bytes", "binary file", "async stream"])
    async def test_too_many_bytes(self, kind: str) -> None:
        """The cap on bytes holds for all kinds, while reading where the size is not known."""
        message = await problem(ENCODED_KINDS[kind](LARGE), limits=Limits(max_image_bytes=len(LARGE) - 1))

        assert "has more than" in message
        assert "Limits.max_image_bytes" in message

    @pytest.mark.anyio
    async def test_too_many_bytes_upright(self) -> None:
        """A picture that only becomes too large by being turned is refused, too."""
        data = sideways(6)

        assert "has more than" in await problem(data, limits=Limits(max_image_bytes=len(data)))

    @pytest.mark.anyio
    @pytest.mark.parametrize("value", [PNG, noise(), np.zeros((30, 40), "uint8")])
    async def test_too_many_pixels(self, value: Any) -> None:
        """The cap on pixels is applied before anything is decoded or encoded."""
        assert "has 40x30 pixels" in await problem(value, limits=Limits(max_image_pixels=1199))

    @pytest.mark.anyio
    async def test_a_decompression_bomb(self) -> None:
        """A header that promises a gigapixel is refused without a warning of Pillow's."""
        ihdr = b"IHDR" + (30000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
        idat = b"IDAT" + zlib.compress(bytes(100))
        chunks = b"".join(
            (len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big") for chunk in (ihdr, idat)
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            message = await problem(b"\x89PNG\r\n\x1a\n" + chunks)
            huge = await opened(b"\x89PNG\r\n\x1a\n" + chunks, limits=Limits(max_image_pixels=10**9))

        assert "30000x30000 pixels" in message
        assert (30000, 30000) == (huge.width, huge.height)


def test_temporary_files_vanish_with_their_source() -> None:
    """A large stream has one temporary file; it is gone with the source, also after a cancellation."""
    before = open_descriptors()

    async def spool() -> ImageSource:
        source = ImageSource.of(Upload(LARGE))
        await source.read()
        return source

    async def cancel() -> None:
        async def stall() -> AsyncIterator[bytes]:
            yield LARGE
            yield b"x"
            group.cancel_scope.cancel()
            await anyio.sleep_forever()

        async with anyio.create_task_group() as group:
            group.start_soon(ImageSource.of(stall()).open, anyio.CapacityLimiter(1), Limits())

    source = anyio.run(spool)
    assert before + 1 == open_descriptors()
    assert LARGE == anyio.run(source.read)  # from another event loop
    del source
    anyio.run(cancel)
    assert before == open_descriptors()


def test_a_temporary_file_lives_as_long_as_an_open_image() -> None:
    """An opened picture stays readable when its source is gone."""

    async def open_it() -> OpenImage:
        return await opened(Upload(LARGE))

    with anyio.run(open_it).reader() as reader:
        gc.collect()
        assert LARGE == reader.read(len(LARGE))


@pytest.fixture
def open_file(file: Callable[..., Path]) -> tuple[Path, OpenImage]:
    """A file and its opened picture."""
    path = file(PNG)
    return path, anyio.run(opened, path)


class TestReader:
    """Readers give the bytes of one and the same file, or an error."""

    @pytest.mark.parametrize("kind", ["bytes", "bytearray", "upload"])
    @pytest.mark.parametrize("size", [1, 1000, 384 * 1024, 10**9])
    def test_slices_have_the_size_asked_for(self, kind: str, size: int) -> None:
        """Every slice is complete; only the last one is shorter."""

        async def open_it() -> OpenImage:
            return await opened(ENCODED_KINDS[kind](LARGE if size > 1 else PNG))

        found = anyio.run(open_it)
        with found.reader() as reader:
            slices = [bytes(reader.read(size)) for _ in range(-(-found.size // size))]
            reader.verify()

            assert b"" == bytes(reader.read(size))
        assert (LARGE if size > 1 else PNG) == b"".join(slices)
        assert {size} >= {len(piece) for piece in slices[:-1]}

    def test_memory_is_not_copied(self) -> None:
        """Bytes are read as views."""
        with anyio.run(opened, PNG).reader() as reader:
            view = reader.read(10)

        assert isinstance(view, memoryview)
        assert PNG is view.obj

    def test_two_readers_are_independent(self, open_file: tuple[Path, OpenImage]) -> None:
        """Each reader has its own position."""
        with open_file[1].reader() as one, open_file[1].reader() as two:
            one.read(100)

            assert PNG[:50] == two.read(50)
            assert PNG[100:150] == one.read(50)

    def test_a_reader_is_used_in_a_with_statement(self, open_file: tuple[Path, OpenImage]) -> None:
        """A reader that was not entered, or was left, opens nothing."""
        with pytest.raises(RuntimeError, match="within `with`"):
            open_file[1].reader().read(1)

    def test_a_shorter_file_is_noticed(self, open_file: tuple[Path, OpenImage]) -> None:
        """A file that lost its end cannot be read to the end."""
        path, found = open_file
        with found.reader() as reader:
            reader.read(10)
            os.truncate(path, 100)
            with pytest.raises(ImageError, match=r"^image: .*room.jpg: the file changed") as caught:
                reader.read(10**6)

        assert str(path) == caught.value.source

    @pytest.mark.parametrize("change", ["longer", "touched"])
    def test_a_changed_file_is_noticed_at_the_end(self, open_file: tuple[Path, OpenImage], change: str) -> None:
        """A file that grew or was written to is noticed after the last slice."""
        path, found = open_file
        with found.reader() as reader:
            reader.read(10**6)
            if change == "longer":
                path.write_bytes(PNG + b"!")
            else:
                os.utime(path, ns=(0, 1))
            with pytest.raises(ImageError, match="the file changed"):
                reader.verify()

    def test_a_replaced_file_is_noticed_at_the_start(self, open_file: tuple[Path, OpenImage]) -> None:
        """Another file under the same name, with the same size and time, is another file."""
        path, found = open_file
        status = path.stat()
        other = path.with_name("other.png")
        other.write_bytes(PNG)
        os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
        other.replace(path)

        with pytest.raises(ImageError, match="the file changed"), found.reader():
            pass

    def test_a_removed_file_is_noticed_at_the_start(self, open_file: tuple[Path, OpenImage]) -> None:
        """A file that is gone is a missing file."""
        path, found = open_file
        path.unlink()

        with pytest.raises(ImageError, match="no such file"), found.reader():
            pass


@pytest.mark.anyio
async def test_a_changed_path_is_opened_anew(file: Callable[..., Path]) -> None:
    """A path is looked at on every opening."""
    source = ImageSource.of(file(PNG))
    first = await source.read()
    await anyio.Path(file(JPEG)).stat()

    assert (PNG, JPEG) == (first, await source.read())


class TestDerived:
    """Pictures made from others."""

    @pytest.mark.anyio
    async def test_it_is_made_from_upright_parents_once(self) -> None:
        """The parents come upright, and the result is kept."""
        sizes: list[tuple[int, int]] = []

        def make(one: Image.Image, two: Image.Image) -> Image.Image:
            sizes.extend([one.size, two.size])
            return Image.new("L", one.size, 7)

        parents = (ImageSource.of(sideways(6)), ImageSource.of(PNG))
        source = ImageSource.derived("a mixture", parents, make)
        decoded = await source.pil()
        await source.read()

        assert [(30, 40), (40, 30)] == sizes
        assert same_pixels(Image.new("L", (30, 40), 7), decoded)
        assert "<ImageSource a mixture>" == repr(source)
        assert source.key != ImageSource.derived("a mixture", parents, make).key

    @pytest.mark.anyio
    async def test_its_errors_name_the_field(self) -> None:
        """What goes wrong in a parent, in the pixels or in `make` is reported with the field."""

        def fail(_: Image.Image) -> Image.Image:
            msg = "does not suit"
            raise InvalidRequestError(msg)

        def load(image: Image.Image) -> Image.Image:
            return image.convert("L")

        def derived(value: Any, make: Callable[..., Image.Image]) -> ImageSource:
            return ImageSource.derived("it", (ImageSource.of(value),), make)

        assert "masked.image: missing.png: no such file" in await problem(derived("missing.png", load))
        assert "masked.image: it: its pixels cannot be decoded" in await problem(derived(PNG[:200], load))
        with pytest.raises(InvalidRequestError, match=r"^masked.mask: it: does not suit$"):
            await opened(derived(PNG, fail), field="masked.mask")

    @pytest.mark.anyio
    async def test_its_size_is_checked_before_it_is_made(self) -> None:
        """A gigantic result is refused before it takes memory."""
        source = ImageSource.derived(
            "huge", (ImageSource.of(PNG),), pytest.fail, size=lambda sides: (sides[0] * 10**4, sides[1])
        )

        assert "has 400000x30 pixels" not in repr(source)
        assert "masked.image: huge: has 400000x30 pixels" in await problem(
            source, limits=Limits(max_image_pixels=10**6)
        )


@pytest.mark.anyio
async def test_formats_are_held_against_those_accepted() -> None:
    """A format the service does not take is refused by name."""
    found = await opened(encoded(noise(), "GIF"))
    require_format(found, {"gif"}, field="masked.image", source="cat.gif")

    with pytest.raises(ImageError) as caught:
        require_format(found, {"webp", "png"}, field="masked.image", source="cat.gif")
    assert "masked.image: cat.gif: is a GIF picture, accepted are PNG, WEBP; convert it to PNG" == str(caught.value)
    assert ("masked.image", "cat.gif") == (caught.value.field, caught.value.source)


@given(st.lists(st.binary(max_size=700_000), max_size=4))
def test_a_spool_gives_back_what_it_got(pieces: list[bytes]) -> None:
    """A spool is the pieces written to it, in memory or on disk."""
    spool = Spool()
    for piece in pieces:
        spool.write(piece)
    handle = spool.open()
    handle.verify()

    assert b"".join(pieces) == bytes(handle.read_at(0, spool.size))
    handle.close()


@given(st.binary(min_size=1, max_size=300), st.data())
def test_a_blob_is_a_seekable_file(data: bytes, draw: st.DataObject) -> None:
    """A blob as a file behaves as BytesIO does."""
    blob, plain = as_file(MemoryBlob(data)), io.BytesIO(data)
    for _ in range(5):
        whence = draw.draw(st.sampled_from([io.SEEK_SET, io.SEEK_CUR, io.SEEK_END]))
        offset = draw.draw(st.integers(0, 310)) if whence != io.SEEK_END else -draw.draw(st.integers(0, len(data)))
        count = draw.draw(st.integers(0, 40))

        assert plain.seek(offset, whence) == blob.seek(offset, whence)
        assert plain.read(count) == blob.read(count)
    blob.close()
    assert blob.raw.closed


def test_a_change_within_the_header_is_not_taken_for_damage(file: Callable[..., Path]) -> None:
    """A file that shrinks while its header is read has changed; it is not called damaged."""
    path = file(JPEG)
    with as_file(PathBlob.at(str(path))) as handle:
        os.truncate(path, 5)
        with pytest.raises(ImageError, match="the file changed"):
            read_header(handle, "jpeg")


def test_a_path_blob_is_a_moment(file: Callable[..., Path]) -> None:
    """Two looks at an unchanged file are equal."""
    path = str(file(PNG))

    assert PathBlob.at(path) == PathBlob.at(path)
