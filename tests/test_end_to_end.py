"""A real photograph through the whole path, against the emulator, in every form a user may have it."""

from __future__ import annotations

import hashlib
import io
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from picpik_async import ModifyMaskedPixels, PicpikSession
from picpik_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

CENTRE, RADIUS = (172, 387), 42  # the mission patch
BLUR = 12  # pixels around the mask that may change; the documented default of MaskBlur


def photograph() -> Image.Image:
    """The portrait that ships with the package."""
    return Image.open(io.BytesIO((files("picpik_async.cli") / "astronaut.jpg").read_bytes()))


def patch_mask(size: tuple[int, int], scale: float = 1.0) -> Image.Image:
    """White over the mission patch, black elsewhere."""
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).circle((CENTRE[0] * scale, CENTRE[1] * scale), RADIUS * scale, fill=255)
    return mask


def regions(mask: Image.Image, blur: int = BLUR) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Where the mask is white, and where it is farther than *blur* from white."""
    near = mask
    for _ in range(blur):
        near = near.filter(ImageFilter.MaxFilter(3))
    return np.asarray(mask) > 0, np.asarray(near) == 0


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    """An emulator that takes no time."""
    async with Emulator(run_time=0.0) as emulator:
        yield emulator


@pytest.fixture
async def picpik(emulator: Emulator) -> AsyncIterator[PicpikSession]:
    """A session with it."""
    async with emulator.session() as session:
        yield session


@pytest.fixture
def room(tmp_path: Path) -> tuple[Path, Path]:
    """The photograph and its mask as files."""
    image, mask = tmp_path / "photo.jpg", tmp_path / "mask.png"
    image.write_bytes((files("picpik_async.cli") / "astronaut.jpg").read_bytes())
    patch_mask(photograph().size).save(mask)
    return image, mask


async def redrawn(picpik: PicpikSession, image: Any, mask: Any, **parameters: Any) -> Image.Image:
    """The one picture of an inpainting."""
    result = await picpik.run(ModifyMaskedPixels.inpaint(image, mask, **parameters), timeout=60)
    return await result.images[0].pil()


def assert_redrawn_inside_only(before: Image.Image, after: Image.Image, mask: Image.Image) -> None:
    """Pixels away from the mask are identical, and most inside it are not."""
    inside, away = regions(mask)
    changed = (np.asarray(before) != np.asarray(after)).any(axis=2)
    assert before.size == after.size
    assert not changed[away].any()
    assert changed[inside].mean() > 0.9


def decoded(jpeg: bytes) -> Image.Image:
    """A JPEG as the emulator's own decoder reads it; decoders differ in the last bit."""
    pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    return Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))


async def test_files(picpik: PicpikSession, emulator: Emulator, room: tuple[Path, Path]) -> None:
    """Files arrive as they are, at their places; the seed decides about the filling, and only about that."""
    image, mask = room

    first = await redrawn(picpik, image, mask, seed=1)
    same = await redrawn(picpik, str(image), str(mask), seed=1)
    with mask.open("rb") as file:
        other = await redrawn(picpik, image.read_bytes(), file, seed=2)

    assert_redrawn_inside_only(decoded(image.read_bytes()), first, Image.open(mask))
    assert first.tobytes() == same.tobytes()
    inside, _ = regions(Image.open(mask))
    differs = (np.asarray(first) != np.asarray(other)).any(axis=2)
    assert differs[inside].any()
    expected = [hashlib.sha256(path.read_bytes()).hexdigest() for path in room]
    for entry in emulator.ledger:
        assert expected == [record.sha256 for record in entry.images]
        assert [0, 1] == [record.index for record in entry.images]
    assert 3 == len(emulator.ledger)


async def test_large_photograph(picpik: PicpikSession, emulator: Emulator, tmp_path: Path) -> None:
    """A photograph of over 2560 pixels a side is sent as it is, and drawn at its largest allowed size in proportion."""
    large = photograph().resize((3000, 2000))
    path = tmp_path / "large.png"
    large.save(path, compress_level=1)
    mask = Image.new("L", large.size)
    mask.paste(255, (500, 500, 1000, 1000))

    after = await redrawn(picpik, path, mask, seed=1)

    assert (1254, 836) == after.size
    assert hashlib.sha256(path.read_bytes()).hexdigest() == emulator.ledger[0].images[0].sha256
    before = np.asarray(large.resize(after.size, Image.Resampling.BOX), np.int16)
    difference = np.abs(np.asarray(after, np.int16) - before).mean(axis=2)
    inside, away = regions(mask.resize(after.size, Image.Resampling.BOX))
    assert difference[away].mean() < 2
    assert difference[inside].mean() > 5


async def test_phone_photograph(picpik: PicpikSession, tmp_path: Path) -> None:
    """A portrait photograph that lies on its side in the file, with a mask as the user sees it, just works."""
    upright = photograph().crop((0, 0, 384, 512))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90° clockwise to see it upright
    path = tmp_path / "phone.jpg"
    upright.transpose(Image.Transpose.ROTATE_90).save(path, quality=95, exif=exif)
    mask = patch_mask(upright.size)
    mask.save(tmp_path / "mask.png")

    after = await redrawn(picpik, path, tmp_path / "mask.png", seed=1)

    assert_redrawn_inside_only(ImageOps.exif_transpose(Image.open(path)), after, mask)


class Upload:
    """As web frameworks hand over an uploaded file."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    async def read(self, size: int = -1) -> bytes:
        """Read as from a file."""
        return self._file.read(size)


@pytest.mark.parametrize("kind", ["PIL image", "array", "upload"])
async def test_objects(picpik: PicpikSession, emulator: Emulator, kind: str) -> None:
    """A PIL image, an array and an upload give the same picture as the file they are."""
    before = photograph().convert("RGB")
    mask = patch_mask(before.size)
    buffer = io.BytesIO()
    before.save(buffer, "PNG")
    image, its_mask = {
        "PIL image": (before, mask),
        "array": (np.asarray(before), np.asarray(mask)),
        "upload": (Upload(buffer.getvalue()), mask),
    }[kind]

    after = await redrawn(picpik, image, its_mask, seed=1)

    assert_redrawn_inside_only(before, after, mask)
    if kind == "upload":
        assert hashlib.sha256(buffer.getvalue()).hexdigest() == emulator.ledger[0].images[0].sha256


async def test_outpainting(picpik: PicpikSession, emulator: Emulator) -> None:
    """A widened picture keeps the old one in its middle."""
    before = photograph().convert("RGB")
    request = ModifyMaskedPixels.outpaint(before, left=96, top=32, seed=1).with_batch(2)
    result = await picpik.run(request, timeout=60)

    assert 2 == len(result.images)
    after = await result.images[1].pil()
    assert (608, 544) == after.size
    middle = after.crop((96 + BLUR, 32 + BLUR, 608, 544))
    assert before.crop((BLUR, BLUR, 512, 512)).tobytes() == middle.tobytes()
    assert {"Width": 608, "Height": 544}.items() <= dict(emulator.ledger[0].parameters).items()
