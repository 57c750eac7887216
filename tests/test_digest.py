"""Tests of what tells a job from others."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobs import CREDENTIALS, job, mask, picture

from picpik_async import Dialect, ImageSource, InferenceParams, Model, ModifyMaskedPixels, PicpikSession
from picpik_async._digest import digest
from picpik_async.errors import InvalidRequestError
from picpik_async.testing import FakeTransport

if TYPE_CHECKING:
    from pathlib import Path

IMAGE, MASK = ImageSource.of(picture()), ImageSource.of(mask())
FINGERPRINTS = {IMAGE: "1", MASK: "2"}
REQUEST = ModifyMaskedPixels.inpaint(IMAGE, MASK, prompts="a sofa")


def told(request: ModifyMaskedPixels, fingerprints: dict[ImageSource, str] = FINGERPRINTS, **dialect: Any) -> str:
    """The digest."""
    return digest(request, fingerprints, Dialect(**dialect))


def test_same_in_another_process() -> None:
    """A rerun in another process comes to the same digest, whatever the seed of its hashes."""
    text = """
        from picpik_async import Dialect, ModifyMaskedPixels
        from picpik_async._digest import digest
        request = ModifyMaskedPixels.inpaint(b"image", b"mask", prompts=("a sofa", "green"), negative="text")
        request = request.with_lora("x", 0.5).with_lora("y", -1)
        print(digest(request, {image: str(len(image.label)) for image in request.images().values()}, Dialect()))
    """
    command = [sys.executable, "-c", textwrap.dedent(text)]
    answers = [
        subprocess.run(  # noqa: S603 - Python
            command, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True, text=True
        ).stdout
        for seed in ("1", "2")
    ]

    assert answers[0] == answers[1]
    assert 65 == len(answers[0])


def test_equal_requests() -> None:
    """Requests that ask for the same are one job, though they were made one after the other."""
    assert told(REQUEST) == told(ModifyMaskedPixels.inpaint(IMAGE, MASK, prompts="a sofa"))


@pytest.mark.parametrize("seed", [None, -1])
def test_automatic_seed_does_not_count(seed: int | None) -> None:
    """A seed that is drawn anew each time does not make another job."""
    assert told(REQUEST) == told(attrs.evolve(REQUEST, seed=seed))


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(REQUEST.with_seed(0), id="seed 0"),
        pytest.param(REQUEST.with_prompts("a chair"), id="prompt"),
        pytest.param(REQUEST.with_batch(2), id="batch"),
        pytest.param(REQUEST.with_size(64, 64), id="size"),
        pytest.param(attrs.evolve(REQUEST, auto_size=None), id="automatic size"),
        pytest.param(ModifyMaskedPixels.inpaint(MASK, IMAGE, prompts="a sofa"), id="pictures exchanged"),
        pytest.param(REQUEST.with_reference(IMAGE), id="reference"),
    ],
)
def test_other_jobs(other: ModifyMaskedPixels) -> None:
    """Whatever else is asked for makes another job."""
    assert told(REQUEST) != told(other)


def test_model_of_the_dialect() -> None:
    """The default model is part of what is asked for, since it decides what comes out."""
    assert told(REQUEST) != told(REQUEST, default_model="another")


def test_fingerprints_count() -> None:
    """Pictures count by what stands for them."""
    assert told(REQUEST) != told(REQUEST, {IMAGE: "1", MASK: "3"})


@given(st.dictionaries(st.text(min_size=1), st.integers() | st.text() | st.booleans(), min_size=2))
def test_order_of_maps(extra: dict[str, Any]) -> None:
    """The order of names in a map does not count."""
    backwards = dict(reversed(extra.items()))
    one, other = (
        REQUEST.with_sub_model(Model("x", inference_params=InferenceParams(extra={"a": names})))
        for names in (extra, backwards)
    )

    assert told(one) == told(other)


@pytest.mark.parametrize("odd", [{1, 2}, object(), ImageSource.of(b"unknown"), {(1, 2): 3}, b"bytes"])
def test_what_json_cannot_hold(odd: Any) -> None:
    """A parameter that cannot be sent is told here, before it is sent."""
    request = REQUEST.with_sub_model(Model("x", inference_params=InferenceParams(extra={"a": odd})))
    with pytest.raises(InvalidRequestError, match="cannot be written as JSON"):
        told(request)


# --- in a session ------------------------------------------------------------------------------------------------------


def session(path: Path) -> PicpikSession:
    """A session with a service that takes everything."""
    transport = FakeTransport(lambda request: {"RetCode": 0, "TaskUID": f"task-{request['request_uuid']}"})
    return PicpikSession(CREDENTIALS, transport=transport, journal=path)


@pytest.mark.anyio
async def test_pictures_by_their_contents(tmp_path: Path) -> None:
    """Without a key, equal pictures are one job wherever they lie, and others of equal size are another."""
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(picture())
    flipped = bytearray(picture())
    flipped[-1] ^= 1  # in the checksum of the end, which nobody looks at before it is sent
    (tmp_path / "c.png").write_bytes(flipped)
    async with session(tmp_path / "jobs.sqlite") as picpik:
        one, two, three = [
            await picpik.submit(ModifyMaskedPixels.inpaint(tmp_path / f"{name}.png", mask(), prompts="a sofa"))
            for name in "abc"
        ]

    assert one.uid == two.uid != three.uid


@pytest.mark.anyio
async def test_pictures_by_their_sizes(tmp_path: Path) -> None:
    """With a key, a rerun reads no picture: only its size must be as it was."""
    path, place = tmp_path / "jobs.sqlite", tmp_path / "a.png"
    place.write_bytes(picture())
    request = ModifyMaskedPixels.inpaint(place, mask(), prompts="a sofa")
    async with session(path) as picpik:
        first = await picpik.submit(request, key="one")
    place.write_bytes(bytes(len(picture())))
    async with session(path) as picpik:
        again = await picpik.submit(ModifyMaskedPixels.inpaint(place, mask(), prompts="a sofa"), key="one")
        place.write_bytes(b"shorter")
        with pytest.raises(
            InvalidRequestError, match=r"key 'one' names another job.*give the changed request another key"
        ):
            await picpik.submit(ModifyMaskedPixels.inpaint(place, mask(), prompts="a sofa"), key="one")
        with pytest.raises(InvalidRequestError, match="key 'one' names another job"):
            await picpik.submit(job().with_batch(2), key="one")

    assert first.uid == again.uid
