"""Variations of one picture: the same requests as one by one, but read, encoded and hashed once."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
from typing import TYPE_CHECKING, Any

import anyio
import plain
import pytest
from jobs import CREDENTIALS, THREADS, mask, picture

from picpik_async import Limits, ModifyMaskedPixels, PicpikSession
from picpik_async._blobs import MemoryBlob
from picpik_async._encoding import encoded
from picpik_async._images import ImageSource
from picpik_async._layout import Layout, lay_out
from picpik_async._opened import OpenImage
from picpik_async._requests._base import Job, Kin
from picpik_async._stems import Stems
from picpik_async.errors import ImageError, InvalidRequestError
from picpik_async.testing import FakeTransport

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


class CountingBlob(MemoryBlob):
    """Counts how many bytes were read of it."""

    count = 0

    def read_at(self, offset: int, size: int) -> memoryview:
        """A view of the bytes."""
        self.count += size
        return super().read_at(offset, size)


def layout_of(blob: MemoryBlob, seed: int, **parameters: Any) -> Layout:
    """A request with one picture, and a seed behind it."""
    source = ImageSource.of(b"")
    opened = OpenImage(format="png", width=1, height=1, source="room.png", blob=blob)
    return lay_out({"RawImage": source, "Seed": seed, **parameters}, {source: opened}, data_uri=True)


def plainly(layout: Layout) -> tuple[bytes, bytes]:
    """The head of a body and the hash over what is signed of it, by no detour."""
    digest = hashlib.sha1(usedforsecurity=False)
    return b"".join(encoded(layout.pieces, 999, digest.update)), digest.digest()


@pytest.mark.parametrize("most", [10**6, 0])
async def test_the_same_bytes_and_hash(most: int) -> None:
    """With a stem, kept or not, a body is the same to the byte, and signed the same."""
    blob, stems, kin = MemoryBlob(os.urandom(10_000)), Stems(999, THREADS, most), Kin()
    for seed in range(3):
        layout = layout_of(blob, seed)
        stem = await stems.stem_of(kin, layout)
        assert stem is not None
        digest = stem.digest.copy()

        assert plainly(layout) == (b"".join(stem.continued(layout, 999, digest.update)), digest.digest())
        assert (most > 0) == bool(stem.kept)


async def test_read_once() -> None:
    """However many ask for it at the same time, a picture is read once."""
    blob, stems, kin = CountingBlob(os.urandom(10_000)), Stems(999, THREADS, 10**6), Kin()
    found = await asyncio.gather(*[stems.stem_of(kin, layout_of(blob, seed)) for seed in range(20)])

    assert 1 == len(set(found))
    assert 10_000 == blob.count


async def test_memory_is_bounded() -> None:
    """What is beyond the memory of all stems is not kept, and room is made when requests are gone."""
    stems, kin = Stems(999, THREADS, 30_000), [Kin() for _ in range(3)]
    blobs = [MemoryBlob(os.urandom(10_000)) for _ in kin]
    made = [await stems.stem_of(each, layout_of(blob, 1)) for each, blob in zip(kin, blobs, strict=True)]

    assert [True, True, False] == [stem is not None and bool(stem.kept) for stem in made]
    del made, kin[0]
    gc.collect()
    another = await stems.stem_of(Kin(), layout_of(blobs[0], 1))
    assert another is not None
    assert another.kept


async def test_memory_is_bounded_while_stems_are_made() -> None:
    """Stems that are made at the same time share the memory, too; one that fails leaves its share to others."""

    class Torn(MemoryBlob):
        def verify(self) -> None:
            msg = "the file changed"
            raise ImageError(msg)

    data = os.urandom(10_000)
    stems, kin = Stems(999, THREADS, 30_000), [Kin() for _ in range(10)]
    torn = [stems.stem_of(each, layout_of(Torn(data), 1)) for each in kin[:3]]
    assert [ImageError] * 3 == [type(error) for error in await asyncio.gather(*torn, return_exceptions=True)]
    made = await asyncio.gather(*[stems.stem_of(each, layout_of(MemoryBlob(data), 1)) for each in kin])

    assert 2 == sum(stem is not None and bool(stem.kept) for stem in made)


async def test_without_a_picture() -> None:
    """A request of the kin that has no picture has nothing to share."""
    assert await Stems(999, THREADS, 10**6).stem_of(Kin(), lay_out({"Seed": 1}, {}, data_uri=True)) is None


async def test_what_begins_in_another_way() -> None:
    """A request of the kin that has another picture or size is made on its own."""
    blob, stems, kin = MemoryBlob(bytes(100)), Stems(999, THREADS, 10**6), Kin()
    first = await stems.stem_of(kin, layout_of(blob, 1))

    assert await stems.stem_of(kin, layout_of(MemoryBlob(bytes(100)), 1)) is None
    assert await stems.stem_of(kin, layout_of(blob, 1, Height=64)) is None
    assert first is await stems.stem_of(kin, layout_of(blob, 2))


async def test_failure_and_cancellation_leave_it_to_the_next() -> None:
    """Who makes the stem may fail or be cancelled, and the next one makes it."""

    class Torn(MemoryBlob):
        def verify(self) -> None:
            if len(failures) < 1:
                failures.append(True)
                msg = "the file changed"
                raise ImageError(msg)

    failures: list[bool] = []
    blob, stems, kin = Torn(bytes(100)), Stems(999, THREADS, 10**6), Kin()
    with pytest.raises(ImageError, match=r"room\.png: the file changed"):
        await stems.stem_of(kin, layout_of(blob, 1))
    first = asyncio.ensure_future(stems.stem_of(kin, layout_of(blob, 1)))
    second = asyncio.ensure_future(stems.stem_of(kin, layout_of(blob, 2)))
    await asyncio.sleep(0)
    first.cancel()

    assert await second is not None


# --- in a session ------------------------------------------------------------------------------------------------------


def test_each_prompt_with_each_seed() -> None:
    """Prompts and seeds are crossed, and everything else stays."""
    base = ModifyMaskedPixels.inpaint(picture(), mask(), prompts="a sofa", batch_size=2)
    found = base.variations(prompts=["red", ("green", "matt")], seeds=range(2))

    assert [(("red",), 0), (("red",), 1), (("green", "matt"), 0), (("green", "matt"), 1)] == [
        (each.positive_prompts, each.seed) for each in found
    ]
    assert base.with_seed(7) == base.variations(seeds=[7])[0]
    assert base.with_prompts("red") == base.variations(prompts=["red"])[0]


def test_a_job_has_no_kin_of_itself() -> None:
    """Only what is made as variations shares anything: an Action without them keeps nothing."""

    class Other(Job):
        """An Action of its own."""

    assert Other().kin is None
    assert ModifyMaskedPixels.inpaint(picture(), mask()).kin is None


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({}, "prompts"),
        ({"prompts": "one string"}, "prompts"),
        ({"prompts": []}, "prompts"),
        ({"prompts": [None]}, "prompts"),
        ({"prompts": [1]}, "positive_prompts"),
        ({"seeds": 5}, "seeds"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [-2]}, "seed"),
    ],
)
def test_wrong_variations(given: dict[str, Any], field: str) -> None:
    """A wrong value is refused before there is any request."""
    with pytest.raises(InvalidRequestError) as caught:
        ModifyMaskedPixels.inpaint(picture(), mask()).variations(**given)
    assert field == caught.value.field


def signed_rightly(request: dict[str, Any]) -> bool:
    """Whether the vendor's plain rule gives the same signature."""
    signature: str = request.pop("Signature")
    return signature == plain.signature(request)


@pytest.mark.parametrize("side", [64, 400])
@pytest.mark.parametrize("reuse_memory", [64 * 1024**2, 0])
async def test_submitted_at_once(side: int, reuse_memory: int) -> None:
    """Variations arrive whole and signed, each with its own prompt and seed, all with the same pictures."""
    transport = FakeTransport(lambda request: {"RetCode": 0, "TaskUID": f"{request['Seed']}"})
    requests = ModifyMaskedPixels.inpaint(picture(side), mask(side)).variations(prompts=["a", "b"], seeds=range(8))
    async with PicpikSession(CREDENTIALS, transport=transport, limits=Limits(reuse_memory=reuse_memory)) as picpik:
        await asyncio.gather(*[picpik.submit(request) for request in requests])

    assert 16 == len({(*sent["PositivePrompts"], sent["Seed"]) for sent in transport.requests})
    assert 1 == len({tuple(sent["ImageAndMaskList"]) for sent in transport.requests})
    assert all(map(signed_rightly, transport.requests))


async def test_a_picture_that_was_replaced(tmp_path: Path) -> None:
    """A file that changes between two variations is sent as it is then."""
    path = anyio.Path(tmp_path / "room.png")
    await path.write_bytes(picture(64))
    transport = FakeTransport(lambda _request: {"RetCode": 0, "TaskUID": "a"})
    first, second = ModifyMaskedPixels.inpaint(tmp_path / "room.png", mask()).variations(seeds=[1, 2])
    async with PicpikSession(CREDENTIALS, transport=transport) as picpik:
        await picpik.submit(first)
        await path.write_bytes(picture(64, mode="L"))
        await picpik.submit(second)

    texts = [sent["ImageAndMaskList"][0] for sent in transport.requests]
    assert [plain.Picture(picture(64)).text(), plain.Picture(picture(64, mode="L")).text()] == texts
    assert all(map(signed_rightly, transport.requests))
