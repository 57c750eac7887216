"""Tests of going on where a transfer broke off."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picpik_async._transfers import Transfer
from picpik_async._verification import HopelessImageError
from picpik_async.errors import TransportError

DATA = bytes(range(100))
ALL = {"Accept-Encoding": "identity"}


def begun(*, etag: str = '"v1"', length: str = "100", size: int = 40) -> Transfer:
    """A transfer that broke off after *size* bytes."""
    transfer = Transfer(1000)
    transfer.begin(200, {"ETag": etag, "Content-Length": length})
    transfer.add(DATA[:size])
    return transfer


def test_whole() -> None:
    """What arrives in one go is handed over, and only once."""
    transfer = Transfer(100)
    assert ALL == transfer.request_headers()
    transfer.begin(200, {"Content-Length": "100"})
    transfer.add(DATA[:50])
    transfer.add(DATA[50:])

    assert DATA == transfer.take()
    assert b"" == transfer.take()
    assert ALL == transfer.request_headers()


@given(cuts=st.lists(st.integers(1, 99), max_size=5))
def test_continued(cuts: list[int]) -> None:
    """However often it breaks off, the pieces make the whole."""
    transfer, start = begun(size=0), 0
    for end in [*sorted(cuts), 100]:
        if start:
            assert ALL | {"Range": f"bytes={start}-", "If-Range": '"v1"'} == transfer.request_headers()
            transfer.begin(206, {"Content-Range": f"bytes {start}-{end}/100", "ETag": '"v1"'})
        transfer.add(DATA[start:end])
        start = end

    assert DATA == transfer.take()


def test_missing_bytes() -> None:
    """A piece that ends early is missed, and the rest asked for."""
    transfer = begun()

    with pytest.raises(TransportError, match="40 of 100 bytes arrived"):
        transfer.take()
    assert "bytes=40-" == transfer.request_headers()["Range"]


def test_too_many_bytes() -> None:
    """More bytes than announced are of something else."""
    transfer = begun()
    transfer.begin(206, {"Content-Range": "bytes 40-99/100"})
    transfer.add(bytes(61))

    with pytest.raises(TransportError, match="101 of 100 bytes arrived"):
        transfer.take()
    assert ALL == transfer.request_headers()


@pytest.mark.parametrize("etag", ["", 'W/"v1"', "v1", '"v1', '"v"1"', '"\x7f"', '"ä"', '""x'])
def test_weak_tag(etag: str) -> None:
    """Without a strong tag all is asked for again."""
    assert ALL == begun(etag=etag).request_headers()


def test_nothing_arrived() -> None:
    """Nothing is continued before something has arrived."""
    assert ALL == begun(size=0).request_headers()
    assert not begun(size=0).accepts(206)
    assert not begun(size=0).accepts(416)
    assert not begun().accepts(404)


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        pytest.param(416, {}, id="416"),
        pytest.param(206, {}, id="no range"),
        pytest.param(206, {"Content-Range": "bytes 39-99/100"}, id="start"),
        pytest.param(206, {"Content-Range": "bytes 40-99/101"}, id="total"),
        pytest.param(206, {"Content-Range": "bytes 40-99/*"}, id="unknown total"),
        pytest.param(206, {"Content-Range": "bytes 40-99/100", "ETag": '"v2"'}, id="tag"),
        pytest.param(206, {"Content-Range": "lines 40-99/100"}, id="unit"),
        pytest.param(206, {"Content-Range": f"bytes 40-99/{'9' * 5000}"}, id="huge"),
        pytest.param(206, {"Content-Type": "multipart/byteranges; boundary=x"}, id="parts"),
    ],
)
def test_mismatch(status: int, headers: dict[str, str]) -> None:
    """An answer that is not the rest of the same starts it anew."""
    transfer = begun()
    assert transfer.accepts(status)

    with pytest.raises(TransportError, match="not of what has arrived"):
        transfer.begin(status, headers)
    assert ALL == transfer.request_headers()


def test_changed() -> None:
    """All of another picture, in answer to the wish for a rest, is the picture."""
    transfer = begun()
    transfer.begin(200, {"ETag": '"v2"', "Content-Length": "3"})
    transfer.add(b"new")

    assert b"new" == transfer.take()


@pytest.mark.parametrize("length", ["", "x", "-1", "9" * 5000])
def test_total_from_the_rest(length: str) -> None:
    """A total that was not known at first is learnt from the rest."""
    transfer = begun(length=length)
    transfer.begin(206, {"Content-Range": "bytes 40-99/100"})

    with pytest.raises(TransportError, match="40 of 100"):
        transfer.take()


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        pytest.param(200, {"Content-Length": "1001"}, id="length"),
        pytest.param(206, {"Content-Range": "bytes 40-99/1001"}, id="total"),
        pytest.param(200, {"Content-Encoding": "gzip"}, id="gzip"),
        pytest.param(206, {"Content-Encoding": "identity, br"}, id="twice"),
    ],
)
def test_hopeless(status: int, headers: dict[str, str]) -> None:
    """What is too large or compressed is not even read."""
    with pytest.raises(HopelessImageError):
        begun(length="").begin(status, headers)


def test_limit() -> None:
    """What turns out too large is dropped at once."""
    transfer = begun(length="")
    transfer.add(bytes(960))

    with pytest.raises(HopelessImageError, match=r"more than 1000 bytes \(Limits.max_image_bytes\)"):
        transfer.add(b"x")
    assert b"" == transfer.take()
