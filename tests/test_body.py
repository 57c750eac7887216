"""The one-pass body: it is the plain request, has the length it says, and is signed like the plain way."""

from __future__ import annotations

import base64
import json
import os
import random
import threading
from enum import IntEnum
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anyio
import numpy as np
import plain
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jobs import THREADS
from plain import PRIVATE_KEY, Picture

from picpik_async._blobs import MemoryBlob, PathBlob
from picpik_async._body import Body
from picpik_async._config import Secret
from picpik_async._images import ImageSource
from picpik_async._layout import Layout, lay_out
from picpik_async._opened import OpenImage
from picpik_async._signature import sign
from picpik_async.errors import ImageError, InvalidRequestError

if TYPE_CHECKING:
    from pathlib import Path

    from picpik_async._blobs import Blob

SLICES = [3, 4, 5, 12, 99, 384 * 1024]


def opened(blob: Blob | bytes, kind: str = "png") -> OpenImage:
    """A picture at rest; only its bytes and format matter here."""
    blob = MemoryBlob(blob) if isinstance(blob, bytes) else blob
    return OpenImage(format=kind, width=1, height=1, field="masked.image", source="room.png", blob=blob)


def laid_out(parameters: dict[str, Any], *, data_uri: bool = True) -> Layout:
    """The layout of parameters with plain pictures in them."""
    images: dict[ImageSource, OpenImage] = {}

    def source(picture: Picture) -> ImageSource:
        new = ImageSource.of(picture.data)
        images[new] = opened(picture.data, picture.kind)
        return new

    return lay_out(plain.with_pictures(parameters, source), images, data_uri=data_uri)


def body_of(layout: Layout, slice_size: int = 12) -> Body:
    """A body for one attempt."""
    return Body(layout, Secret(PRIVATE_KEY), slice_size=slice_size, executor=THREADS)


async def whole(body: Body) -> bytes:
    """All that goes over the wire."""
    head, tail = await sent(body)
    return b"".join(head) + tail


async def sent(body: Body) -> tuple[list[bytes], bytes]:
    """What goes over the wire: the writes of the head, and the tail."""
    return [data async for data in body.head()], body.tail()


def read_strictly(text: bytes) -> dict[str, Any]:
    """The JSON object, which repeats no name, sorts names at every level, and has the signature last."""

    def checked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs if name != "Signature"]
        assert sorted(set(names)) == names
        return dict(pairs)

    document: dict[str, Any] = json.loads(text, object_pairs_hook=checked)
    assert "Signature" == list(document)[-1]
    return document


def check(parameters: dict[str, Any], head: list[bytes], tail: bytes, body: Body, *, data_uri: bool = True) -> None:
    """Hold the bytes that were sent against the plain way."""
    text = b"".join(head) + tail
    document = read_strictly(text)
    signature = document.pop("Signature")
    expected = plain.with_pictures(parameters, lambda picture: picture.text(data_uri=data_uri))

    assert body.size == len(text)
    assert json.dumps(plain.with_plain_numbers(expected), sort_keys=True) == json.dumps(document, sort_keys=True)
    assert plain.signature(expected) == signature == sign(expected, Secret(PRIVATE_KEY))
    assert f',"Signature":"{signature}"}}'.encode() == tail


@given(plain.parameters(plain.scalars() | plain.pictures()), st.sampled_from(SLICES), st.booleans())
@example({"ImageAndMaskList": [Picture(b"a" * 100), Picture(b"b" * 100)], "Action": "M"}, 12, True)  # noqa: FBT003
@example({"RawImage": Picture(b""), "Quotes": '"\\\n\u2028', "猫": Picture(b"x"), "z": {}}, 3, False)  # noqa: FBT003
def test_the_body_is_the_plain_request(parameters: dict[str, Any], slice_size: int, data_uri: bool) -> None:
    """Any request parses to the same object as the plain way, has the declared length, and carries the same signature."""
    body = body_of(laid_out(parameters, data_uri=data_uri), slice_size)

    head, tail = anyio.run(sent, body)

    check(parameters, head, tail, body, data_uri=data_uri)


@given(plain.parameters(plain.scalars() | plain.pictures()))
def test_each_attempt_sends_the_same(parameters: dict[str, Any]) -> None:
    """Two bodies of one layout give the same bytes, whatever the slices."""
    layout = laid_out(parameters)

    assert anyio.run(whole, body_of(layout)) == anyio.run(whole, body_of(layout, 10**6))


@pytest.mark.anyio
@pytest.mark.parametrize("slice_size", [9, 10, 11, 12])
@pytest.mark.parametrize("size", [*range(11), *range(17, 29), 99])
async def test_slices_join_at_every_length(size: int, slice_size: int) -> None:
    """Pictures that end before, on and after a slice or a Base64 group are whole, wherever the slices are cut."""
    data = random.Random(size).randbytes(size)
    parameters = {"ImageList": [Picture(data), Picture(data[::-1])]}
    body = body_of(laid_out(parameters), slice_size)

    head, tail = await sent(body)

    check(parameters, head, tail, body)
    assert all(head)


@pytest.mark.anyio
async def test_a_write_is_no_longer_than_a_slice() -> None:
    """What is in memory at a time is one slice, and the little text before it."""
    body = body_of(laid_out({"Action": "A", "RawImage": Picture(bytes(1000))}), 99)

    head, _ = await sent(body)

    assert 11 == len(head)  # 10 whole slices, and what is left with what follows the picture
    assert max(map(len, head)) <= 99 * 4 // 3 + len('{"Action":"A","RawImage":"data:image/png;base64,')


@pytest.mark.anyio
async def test_a_small_body_is_one_write() -> None:
    """Up to a slice, everything before the tail goes in one buffer, pictures included."""
    head, _ = await sent(body_of(laid_out({"RawImage": Picture(bytes(100))}), 999))

    assert 1 == len(head)


@pytest.mark.parametrize("parameters", [{"Action": "ListModels"}, {"Prompts": ["猫"] * 1000}])
def test_a_body_without_pictures_needs_no_thread(parameters: dict[str, Any]) -> None:
    """Queries do not wait for uploads: the only step runs without even an event loop, in one write."""
    head = body_of(laid_out(parameters)).head()

    with pytest.raises(StopIteration) as step:
        head.__anext__().__await__().send(None)
    with pytest.raises(StopAsyncIteration):
        head.__anext__().__await__().send(None)

    assert json.dumps(parameters, separators=(",", ":"), ensure_ascii=False)[:-1].encode() == step.value.value


class WatchedBlob(MemoryBlob):
    """Notes which threads read it."""

    threads: set[int]

    def read_at(self, offset: int, size: int) -> memoryview:
        """A view of the bytes."""
        self.threads = {*getattr(self, "threads", ()), threading.get_ident()}
        return super().read_at(offset, size)


@pytest.mark.anyio
@pytest.mark.parametrize("slice_size", [12, 10**6])
async def test_pictures_are_read_in_worker_threads(slice_size: int) -> None:
    """Reading and encoding never run on the event loop, for large bodies and for small ones."""
    source, blob = ImageSource.of(b""), WatchedBlob(bytes(100))

    await sent(body_of(lay_out({"RawImage": source}, {source: opened(blob)}, data_uri=True), slice_size))

    assert threading.get_ident() not in blob.threads


CONTENTS = bytes(range(200))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A file that takes several slices."""
    path = tmp_path / "room.png"
    path.write_bytes(CONTENTS)
    os.utime(path, ns=(0, 0))
    return path


async def body_of_file(path: Path) -> Body:
    """A body with the file as it is now."""
    source = ImageSource.of(path)
    images = {source: opened(await anyio.to_thread.run_sync(PathBlob.at, str(path)))}
    return body_of(lay_out({"Action": "A", "RawImage": source, "ZLast": 1}, images, data_uri=True))


@pytest.mark.anyio
async def test_a_file_is_sent_as_it_is(picture: Path) -> None:
    """A file that stays the same arrives whole."""
    body = await body_of_file(picture)

    head, tail = await sent(body)

    check({"Action": "A", "RawImage": Picture(CONTENTS), "ZLast": 1}, head, tail, body)


@pytest.mark.anyio
@pytest.mark.parametrize("change", ["shorter", "longer", "rewritten", "touched"])
@pytest.mark.parametrize("writes", [0, 1, 5])
async def test_a_file_that_changes_is_noticed_before_the_tail(picture: Path, change: str, writes: int) -> None:
    """Nothing can be signed that is a mixture of two pictures: the head fails, so that the tail is never sent."""
    body = await body_of_file(picture)
    head = body.head()
    for _ in range(writes):
        await anext(head)

    new = {"shorter": CONTENTS[:50], "longer": CONTENTS + b"x", "rewritten": CONTENTS[::-1], "touched": CONTENTS}
    await anyio.Path(picture).write_bytes(new[change])

    with pytest.raises(ImageError, match=r"^masked\.image: room\.png: the file changed") as caught:
        async for _ in head:
            pass
    assert ("masked.image", "room.png") == (caught.value.field, caught.value.source)


@pytest.mark.anyio
async def test_a_file_that_vanished_is_named(picture: Path) -> None:
    """It is missed when it is read, and nothing is sent of it."""
    body = await body_of_file(picture)
    await anyio.Path(picture).unlink()

    with pytest.raises(ImageError, match="no such file"):
        await sent(body)


class Shouting(str):
    """A text that has an opinion about its own bytes."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        """Another text."""
        return self.upper().encode(encoding, errors)


class Level(IntEnum):
    """A number that shows its name."""

    HIGH = 3


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Shouting("quiet"), "quiet"),
        ({Shouting("quiet"): 1}, {"quiet": 1}),
        (np.int64(7), 7),
        (np.uint8(255), 255),
        (np.bool_(1), True),
        (np.bool_(0), False),
        (np.float32(0.5), 0.5),
        (np.float64(0.1), 0.1),
        (np.array(3), 3),
        ([np.int8(-1), {"B": np.True_}], [-1, {"B": True}]),
        (Level.HIGH, 3),
    ],
)
def test_relatives_of_pythons_own_types(value: Any, expected: Any) -> None:
    """Subclasses of str and numbers of NumPy are sent and signed as the plain value they stand for."""
    body = body_of(lay_out({"A": value}, {}, data_uri=True))

    head, tail = anyio.run(sent, body)

    check({"A": expected}, head, tail, body)


CANARY = "canary prompt"


def test_nothing_shows_contents() -> None:
    """Bodies can be replayed for money, so no repr has a byte of them, nor of prompts and keys."""
    layout = laid_out({"PublicKey": CANARY, "Prompts": [CANARY], "RawImage": Picture(CANARY.encode())})
    body = body_of(layout)

    assert f"<Body of {body.size} bytes>" == repr(body) == str(body)
    for shown in (repr(layout), repr(layout.pieces), repr(body.head()), repr(vars(body))):
        assert CANARY not in shown
        assert base64.b64encode(CANARY.encode()).decode()[:12] not in shown
        assert PRIVATE_KEY not in shown


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"Prompts": ["a", "\ud800"]}, "Prompts[1]"),
        ({"A": {"B": [{"C": "x\udfff"}]}}, "A.B[0].C"),
        ({"\ud800": 1}, "\ud800"),
        ({"A": float("nan")}, "A"),
        ({"A": [1.0, float("inf")]}, "A[1]"),
        ({"A": {"B": float("-inf")}}, "A.B"),
        pytest.param({"A": {"B": 10**5000}}, "A.B", id="5000 digits"),
        ({"A": b"bytes"}, "A"),
        ({"A": [bytearray(b"bytes")]}, "A[0]"),
        ({"A": memoryview(b"bytes")}, "A"),
        ({"A": {"B": {1, 2}}}, "A.B"),
        ({"A": object()}, "A"),
        ({"A": np.array([True])}, "A"),
        ({"A": np.datetime64(1, "s")}, "A"),
        ({"A": np.float32("nan")}, "A"),
        ({"A": SimpleNamespace(shape=())}, "A"),
        ({"A": {"B": {1: 2}}}, "A.B"),
        ({"A": {"B": {"C": 1, None: 2}}}, "A.B"),
    ],
)
def test_what_json_cannot_hold_is_refused_by_path(value: dict[str, Any], path: str) -> None:
    """Before a byte is sent, with the parameter named down to the position in a list."""
    with pytest.raises(InvalidRequestError) as caught:
        lay_out(value, {}, data_uri=True)

    assert path == caught.value.field
    assert caught.value.allowed
    assert str(caught.value).startswith(path.encode("ascii", "backslashreplace").decode())
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("kind", [list, dict])
def test_endless_parameters_are_refused(kind: Any) -> None:
    """Something that contains itself ends in our own error."""
    endless = kind()
    if kind is list:
        endless.append(endless)
    else:
        endless["a"] = endless

    with pytest.raises(InvalidRequestError, match="nested too deeply, or contain themselves"):
        lay_out({"A": endless}, {}, data_uri=True)


@given(plain.values(st.floats() | st.text(st.characters()) | st.binary() | st.integers() | st.complex_numbers()))
def test_any_value_is_laid_out_or_refused(value: Any) -> None:
    """Nothing but our own error comes out of it, and what is laid out is JSON."""
    try:
        body = body_of(lay_out({"A": value}, {}, data_uri=True))
    except InvalidRequestError:
        return
    assert ["A", "Signature"] == list(json.loads(anyio.run(whole, body)))
