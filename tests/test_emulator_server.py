"""Tests of the emulator as a whole, over HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import io
import subprocess
import sys
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import anyio
import anyio.lowlevel
import numpy as np
import pytest
from aiohttp import web
from emulator_client import MASK, PICTURE, Client, encoded, file_of, masked_pixels, signed
from PIL import Image

from picpik_async import ModifyMaskedPixels
from picpik_async.emulator import Emulator, ImageRecord
from picpik_async.emulator._server import collected
from picpik_async.emulator._studio import Studio
from picpik_async.emulator._tasks import EmulatedTask, LedgerEntry
from picpik_async.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[tuple[Emulator, Client]]:
    """An emulator without latency, and a client for it."""
    async with Emulator(**{"run_time": 0, **options}) as emulator, aiohttp.ClientSession() as http:
        with anyio.fail_after(60):
            yield emulator, Client(emulator, http)


def pixels(file: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The RGB pixels of a file."""
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


async def redrawn(**changes: Any) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    """The pictures of a task."""
    async with serving() as (_, client):
        uid = await client.submit(**{"Seed": 1, **changes})
        return [pixels(file) for file in await client.results(uid)]


async def test_a_task_gives_pictures() -> None:
    """A finished row has everything the documentation lists, and its addresses give PNG files."""
    async with serving() as (emulator, client):
        answer = await client.post(signed(masked_pixels(BatchSize=2, Seed=7, request_uuid="u")))
        row = await client.ended(answer["TaskUID"])
        files = await client.results(answer["TaskUID"])

    assert {
        "Action": "ModifyMaskedPixels",
        "RetCode": 0,
        "Message": "",
        "request_uuid": "u",
        "TaskUID": answer["TaskUID"],
    } == answer
    urls = row.pop("ImgList")
    assert {
        "TaskUID": answer["TaskUID"],
        "Action": "ModifyMaskedPixels",
        "Status": "Finished",
        "Seed": 7,
        "TxtList": [],
        "ConsumeApiPoint": 2,
        "ErrorCode": 0,
        "ErrorMassage": "",
    } == row
    assert all(url.startswith(emulator.url + "/results/") and url.endswith(".png") for url in urls)
    assert [PICTURE.size] * 2 == [Image.open(io.BytesIO(file)).size for file in files]


async def test_the_mask_says_what_changes() -> None:
    """Away from the mask every pixel stays, inside it the picture changes."""
    original = np.asarray(PICTURE)
    inside = np.asarray(MASK) > 0
    [blurred] = await redrawn(Masked={"ImageIndex": 0, "MaskIndex": 1, "MaskBlur": 8})
    [hard] = await redrawn(Masked={"ImageIndex": 0, "MaskIndex": 1, "MaskBlur": 0})
    changed = (blurred != original).any(axis=2)

    assert ((hard != original).any(axis=2) <= inside).all()
    assert changed[inside].mean() > 0.9
    assert changed[20:40, 33:40].any()
    assert not changed[:12].any()
    assert not changed[:, 68:].any()


async def test_an_inverted_mask_changes_the_rest() -> None:
    """InvertMask redraws what is black."""
    inside = np.asarray(MASK) > 0
    [picture] = await redrawn(Masked={"ImageIndex": 0, "MaskIndex": 1, "InvertMask": True, "MaskBlur": 0})
    changed = (picture != np.asarray(PICTURE)).any(axis=2)

    assert not changed[inside].any()
    assert changed[~inside].mean() > 0.9


async def test_a_batch_counts_its_seeds_up() -> None:
    """The second picture of a batch is the first one of the next seed; the same seed gives the same picture."""
    first, second = await redrawn(BatchSize=2, Seed=5)
    [again] = await redrawn(Seed=6)

    assert (second == again).all()
    assert (first != second).any()


async def test_the_size_is_as_asked_or_as_documented() -> None:
    """Width and Height decide, and 1024 is the default of both."""
    [small] = await redrawn(Width=64, Height=128)
    [default] = await redrawn(Width=None, Height=None)

    assert (128, 64, 3) == small.shape
    assert (1024, 1024, 3) == default.shape


async def test_a_reference_tints() -> None:
    """Image2Image shifts the filling towards the colours of the reference."""
    images = [encoded(file_of(image)) for image in (PICTURE, MASK, Image.new("RGB", (9, 9), "red"))]
    [plain] = await redrawn(ImageAndMaskList=images)
    [tinted] = await redrawn(ImageAndMaskList=images, Image2Image={"ImageIndex": 2, "ReferStrength": 1})

    assert tinted[20:40, 40:60, 0].mean() > plain[20:40, 40:60, 0].mean() + 20


async def test_a_random_seed_is_drawn_and_told() -> None:
    """Seed -1 becomes a seed that draws the same picture again."""
    async with serving() as (_, client):
        uid = await client.submit(Seed=-1)
        [file] = await client.results(uid)
        seed = (await client.ended(uid))["Seed"]
        [again] = await client.results(await client.submit(Seed=seed))

    assert seed >= 0
    assert file == again


async def test_tasks_queue_and_run_on_the_emulated_clock() -> None:
    """One task runs, one waits; time brings them on."""
    async with serving(run_time=1000, queue_time=50, concurrency=1) as (emulator, client):
        uids = [await client.submit(), await client.submit()]

        async def statuses() -> list[str]:
            return [row["Status"] for row in await client.details(*uids)]

        assert ["Queuing", "Queuing"] == await statuses()
        emulator.advance(50)
        assert ["Running", "Queuing"] == await statuses()
        assert uids == (await client.call("ListRunningTasks"))["TaskUIDList"]
        emulator.advance(1000)
        assert "Running" == (await statuses())[1]
        assert "Finished" == (await client.ended(uids[0]))["Status"]
        assert uids[1:] == (await client.call("ListRunningTasks"))["TaskUIDList"]


async def test_a_waiting_task_starts_without_being_asked_about() -> None:
    """The emulator itself wakes up for the next start, and draws before anybody asks."""
    async with serving(queue_time=0.05) as (_, client):
        uid = await client.submit()
        row = await client.ended(uid)

    assert "Finished" == row["Status"]


async def test_results_expire() -> None:
    """After the retention the row is missing and the address gives 404, as does a number that never was."""
    async with serving() as (emulator, client):
        uid = await client.submit()
        [url] = (await client.ended(uid))["ImgList"]
        async with client.http.get(url.replace("/0.png", "/1.png")) as response:
            assert 404 == response.status
        emulator.advance(24 * 3600)
        async with client.http.get(url) as response:
            assert 404 == response.status
        assert [] == await client.details(uid, "unknown")


async def test_a_terminated_task_stays_terminated() -> None:
    """TerminateTask ends a task for good, before or while it runs."""
    async with serving(run_time=1000, concurrency=1) as (emulator, client):
        uids = [await client.submit(), await client.submit()]
        for uid in uids:
            answer = await client.call("TerminateTask", TaskUID=uid, request_uuid="u")
            assert {"Action": "TerminateTask", "RetCode": 0, "Message": "", "request_uuid": "u"} == answer
        emulator.advance(5000)
        rows = await client.details(*uids)

    assert [("Terminated", [])] * 2 == [(row["Status"], row["ImgList"]) for row in rows]


async def test_credits_run_out() -> None:
    """Each task is charged, and one that costs too much is refused."""
    async with serving(credits=5, cost=2) as (emulator, client):
        await client.submit()
        await client.submit()
        answer = await client.post(signed(masked_pixels()))
        balance = await client.call("GetCreditBalance")

    assert (301, "insufficient credits: the task costs 2") == (answer["RetCode"], answer["Message"])
    assert (5, 4) == (balance["TotalCredits"], balance["UsedCredits"])
    assert balance["ExpireTimestamp"] > emulator.ledger[0].time
    assert 2 == len(emulator.ledger)


@pytest.mark.parametrize(("width", "height", "batch", "cost"), [(1024, 1024, 1, 1), (1025, 1024, 2, 4), (64, 64, 3, 3)])
async def test_cost_grows_with_pixels(width: int, height: int, batch: int, cost: int) -> None:
    """One credit per started megapixel of each picture."""
    async with serving(queue_time=1000) as (emulator, client):
        await client.submit(Width=width, Height=height, BatchSize=batch)

    assert cost == emulator.ledger[0].cost


async def test_tasks_fail_on_demand() -> None:
    """A text from `fail` is the error of the task; other tasks are not concerned."""

    def fail(parameters: Any) -> str | None:
        return "too wide" if parameters["Width"] > 96 else None

    async with serving(fail=fail) as (_, client):
        rows = [await client.ended(await client.submit(Width=width)) for width in (96, 97)]

    assert [("Finished", 0, ""), ("Error", 500, "too wide")] == [
        (row["Status"], row["ErrorCode"], row["ErrorMassage"]) for row in rows
    ]


async def test_a_share_of_tasks_fails() -> None:
    """The same tasks fail in every run."""
    runs = []
    for _ in range(2):
        async with serving(error_share=0.5) as (_, client):
            runs.append([(await client.ended(await client.submit(Width=64)))["Status"] for _ in range(12)])

    assert runs[0] == runs[1]
    assert {"Finished", "Error"} == set(runs[0])


async def test_the_ledger_shows_what_arrived() -> None:
    """Uuid, Action, parameters without images, and the digest of every image; a repeated request is charged again."""
    files = [file_of(PICTURE), file_of(MASK)]
    body = signed(masked_pixels(request_uuid="u", PositivePrompts=["sea"]))
    async with serving() as (emulator, client):
        answers = [await client.post(body), await client.post(body)]

    entry, again = emulator.ledger
    assert [entry.task_uid, again.task_uid] == [answer["TaskUID"] for answer in answers]
    assert ("u", "ModifyMaskedPixels") == (entry.request_uuid, entry.action)
    assert {"Signature", "ImageAndMaskList"} == body.keys() - entry.parameters.keys()
    assert ["sea"] == entry.parameters["PositivePrompts"]
    assert (
        tuple(ImageRecord(n, hashlib.sha256(file).hexdigest(), len(file)) for n, file in enumerate(files))
        == entry.images
    )


async def test_models_are_listed() -> None:
    """ListModels has four maps, and the model of the documentation's example with its defaults."""
    async with serving() as (emulator, client):
        answer = await client.call("ListModels")

    assert {"MainModels", "LoraModels", "EmbeddingModels", "HypernetworkModels"} < answer.keys()
    assert 10 == answer["MainModels"]["PICPIK General"]["InferenceParams"]["Steps"]
    assert {"ListModels": 1} == emulator.requests


@pytest.mark.parametrize("body", [b"<html>", b"", b'{"a": NaN}', b"[" * 5000])
async def test_a_body_that_is_not_json_is_a_bad_request(body: bytes) -> None:
    """HTTP 400, before anything else."""
    async with serving() as (emulator, client), client.http.post(emulator.url, data=body) as response:
        assert 400 == response.status


async def test_a_body_too_large_is_refused() -> None:
    """A body is read up to the limit and no further."""

    async def chunks() -> AsyncIterator[bytes]:
        for chunk in (b"1234", b"5678"):
            yield chunk

    seen: list[bytes] = []
    assert [b"1234", b"5678"] == await collected(chunks(), seen.append, limit=8) == seen
    with pytest.raises(web.HTTPRequestEntityTooLarge):
        await collected(chunks(), seen.append, limit=7)


async def test_an_effect_that_breaks_is_an_error_of_the_task(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever goes wrong while drawing ends the task, with a log line, and the painters go on."""
    entry = LedgerEntry(request_uuid=None, task_uid="t", action="None", time=0, cost=1, parameters={}, images=())
    tasks = [EmulatedTask(entry=entry, seed=1, token="", files=(b"",), ready=0) for _ in range(2)]
    studio = Studio(painters=1)
    studio.take(tasks)
    with anyio.fail_after(10):
        while tasks[1].failure is None:
            await anyio.lowlevel.checkpoint()
    await studio.aclose()

    assert ["the picture could not be drawn"] * 2 == caplog.messages == [task.failure for task in tasks]


async def test_leaving_drops_what_is_not_drawn() -> None:
    """With hundreds of tasks under way, leaving takes no longer than the pictures at hand, and no task stays behind."""
    before = asyncio.all_tasks()
    async with serving(concurrency=500) as (_, client):
        for _ in range(60):
            await client.submit(Width=512, Height=512)
    await asyncio.sleep(0)

    assert before == asyncio.all_tasks()


async def test_a_taken_port_is_reported() -> None:
    """A port in use is a configuration error that says what to change."""
    async with serving() as (emulator, _):
        port = int(emulator.url.rpartition(":")[2])
        with pytest.raises(ConfigurationError, match=f"port {port} .*choose another port"):
            await Emulator(port=port).__aenter__()


async def test_other_threads_may_advance() -> None:
    """A test on another thread moves the clock."""
    async with serving(queue_time=1000) as (emulator, client):
        uid = await client.submit()
        thread = threading.Thread(target=emulator.advance, args=(2000,))
        thread.start()
        row = await client.ended(uid)
        thread.join()

    assert "Finished" == row["Status"]


async def test_its_session_goes_the_whole_way() -> None:
    """The client and the emulator understand each other."""
    async with Emulator(run_time=0) as emulator, emulator.session() as picpik:
        result = await picpik.run(ModifyMaskedPixels.inpaint(PICTURE, MASK, seed=3), timeout=60)
        file = await result.images[0].read()

    assert 3 == result.seed
    assert (np.asarray(PICTURE)[:, 75:] == pixels(file)[:, 75:]).all()


def test_the_client_does_not_need_it() -> None:
    """Neither OpenCV, numpy nor the emulator come with `import picpik_async`."""
    code = "import sys, picpik_async; print(sorted({'cv2', 'numpy', 'picpik_async.emulator'} & sys.modules.keys()))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603 (ours)

    assert "[]" == run.stdout.strip()
