"""Tests of what a submit raises, against a server that notes whether it has the whole request."""

from __future__ import annotations

import asyncio
import contextlib
import io
import time
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import orjson
import pytest
from fault_server import Exchange, FaultServer, accepted, after_reading, answering, raw_answer
from jobs import CREDENTIALS, QUICK, UUID, job, mask, picture, session
from PIL import Image

from picpik_async import (
    Dialect,
    Endpoint,
    Image2Image,
    ImageSource,
    InferenceParams,
    Mask,
    Model,
    ModifyMaskedPixels,
    PicpikError,
    PicpikSession,
)
from picpik_async.errors import (
    ApiError,
    ConfigurationError,
    HttpStatusError,
    ImageError,
    InvalidRequestError,
    MaskError,
    RequestTimeoutError,
    SubmitOutcomeUnknownError,
    TransportError,
)
from picpik_async.testing import Answer, FakeTransport

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio

CANARY = "canary-private-key"


@pytest.fixture(params=[64, 1200], ids=["small", "large"])
def request_(request: pytest.FixtureRequest) -> ModifyMaskedPixels:
    """A request of one buffer, and one that is streamed."""
    return job(request.param)


async def settle(server: FaultServer) -> None:
    """Wait until *server* has got all it will get."""
    await anyio.to_thread.run_sync(server.settle)


async def failure(
    server: FaultServer, request: ModifyMaskedPixels, kind: type[PicpikError], **options: Any
) -> PicpikError:
    """Submit to *server* and return the error, which must be of *kind* and carry the uuid and no secret."""
    async with session(server.url, **options) as picpik:
        with pytest.raises(PicpikError) as caught:
            await picpik.submit(request, request_uuid=UUID)
    assert kind is type(caught.value), repr(caught.value)
    assert UUID == caught.value.request_uuid
    assert CANARY not in repr(caught.value)
    return caught.value


async def test_accepted(request_: ModifyMaskedPixels) -> None:
    """A submit that is taken gives its task, which the session knows from then on."""
    with FaultServer(answering(accepted)) as server:
        async with session(server.url) as picpik:
            task = await picpik.submit(request_, request_uuid=UUID)

            assert [f"task-{UUID}"] == [known.uid for known in picpik.tasks]
        (received,) = server.complete

    assert f"task-{UUID}" == task.uid
    assert "public-key" == received.document["PublicKey"]
    assert 2 == len(received.document["ImageAndMaskList"])


def reset(exchange: Exchange) -> None:
    """Send RST."""
    exchange.reset()


def finish(exchange: Exchange) -> None:
    """Send FIN."""
    exchange.finish()


HALF = raw_answer(b'{"RetCode":0,"TaskUID":"ta', headers={"Content-Length": 99})


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(answering(b"<html>canary-private-key</html>"), id="HTML"),
        pytest.param(answering([]), id="list"),
        pytest.param(answering(b""), id="empty"),
        pytest.param(answering(b"", status=204, headers={"Content-Length": None}), id="204"),
        pytest.param(answering({"TaskUID": "task"}), id="no RetCode"),
        pytest.param(answering({"RetCode": False, "TaskUID": "task"}), id="RetCode False"),
        pytest.param(answering({"RetCode": 0}), id="no TaskUID"),
        pytest.param(answering({"RetCode": 0, "TaskUID": None}), id="TaskUID null"),
        pytest.param(answering({"RetCode": 0, "TaskUID": ""}), id="TaskUID empty"),
        pytest.param(answering({"RetCode": 0, "TaskUID": 7}), id="TaskUID number"),
        pytest.param(answering(b"[" * 100_000), id="deep"),
        pytest.param(answering(b" " * 9_000_000), id="long"),
        pytest.param(after_reading(HALF, finish), id="half a body, FIN"),
        pytest.param(after_reading(HALF, reset), id="half a body, RST"),
        pytest.param(after_reading(b"HTTP/1.1 2", finish), id="half a status line"),
        pytest.param(after_reading(b"HTTP/1.1 garbled\r\n\r\n", finish), id="garbled status line"),
        pytest.param(after_reading(reset), id="RST"),
        pytest.param(after_reading(finish), id="FIN"),
        *[
            pytest.param(answering(accepted, status=status), id=str(status))
            for status in (301, 302, 303, 307, 308, 408, 409, 418, 500, 502, 503, 504)
        ],
    ],
)
async def test_unknown_outcome(script: Callable[[Exchange], None], request_: ModifyMaskedPixels) -> None:
    """Whatever goes wrong after the tail, unless it is a clear refusal, leaves the outcome unknown."""
    with FaultServer(script) as server:
        error = await failure(server, request_, SubmitOutcomeUnknownError)

        assert isinstance(error, SubmitOutcomeUnknownError)
        assert error.reason
        assert error.reason in str(error)
        assert UUID in str(error)
        assert error.stage in {"headers", "body", "answer"}
        assert 1 == len(server.requests) == len(server.complete)


async def test_hang_after_the_tail(request_: ModifyMaskedPixels) -> None:
    """No answer in time leaves the outcome unknown."""
    with FaultServer(after_reading(lambda exchange: exchange.hang())) as server:
        error = await failure(server, request_, SubmitOutcomeUnknownError, limits=QUICK)

        assert "no whole answer within 0.3 s" in str(error)
        assert 1 == len(server.complete)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 413, 422, 425, 429, 501, 505])
async def test_refused(status: int, request_: ModifyMaskedPixels) -> None:
    """A status that says "not taken" is told as it is, with what the server asks for."""
    with FaultServer(answering(b"canary-private-key", status=status, headers={"Retry-After": "12"})) as server:
        error = await failure(server, request_, HttpStatusError)

        assert isinstance(error, HttpStatusError)
        assert status == error.status
        assert 12 == error.retry_after
        assert 1 == len(server.complete)


async def test_refused_by_the_service(request_: ModifyMaskedPixels) -> None:
    """A `RetCode` other than 0 is the service's own refusal, its words made harmless."""
    with FaultServer(answering({"RetCode": 171, "Message": "no\ncredits"})) as server:
        error = await failure(server, request_, ApiError)

        assert isinstance(error, ApiError)
        assert (171, r"no\ncredits", "ModifyMaskedPixels") == (error.ret_code, error.message, error.action)
        assert 1 == len(server.complete)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(413, HttpStatusError), (200, TransportError), (301, HttpStatusError), (500, HttpStatusError)],
)
async def test_answer_before_the_tail(status: int, kind: type[PicpikError]) -> None:
    """Who answers before the request is complete does not get its tail, so nothing is unknown."""
    early = raw_answer(b"{}", status=status)
    with FaultServer(after_reading(early, lambda exchange: exchange.drain(), size=1000)) as server:
        await failure(server, job(2000), kind)
        await settle(server)

        assert [] == server.complete


@pytest.mark.parametrize("step", [reset, finish])
@pytest.mark.parametrize("size", [0, 1000, 1_000_000])
async def test_end_before_the_tail(step: Callable[[Exchange], None], size: int) -> None:
    """A connection that ends before the tail gives a `TransportError`: certainly not taken."""
    with FaultServer(after_reading(step, size=size)) as server:
        await failure(server, job(2000), TransportError)
        await settle(server)

        assert [] == server.complete
        assert 1 == len(server.requests)


async def test_stall_before_the_tail() -> None:
    """A server that does not read is given up in time, and was not paid."""
    with FaultServer(lambda exchange: exchange.hang()) as server:
        request = job(2000)
        start = time.monotonic()
        await failure(server, request, RequestTimeoutError, limits=QUICK)

        assert [] == server.complete
        assert time.monotonic() - start < 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirected(status: int, request_: ModifyMaskedPixels) -> None:
    """A signed body goes to one host only."""
    with FaultServer(answering(accepted)) as other:
        with FaultServer(answering({}, status=status, headers={"Location": other.url})) as server:
            await failure(server, request_, SubmitOutcomeUnknownError)

        assert 0 == other.connections


async def test_foreign_exception_after_the_commit_point() -> None:
    """Whatever a transport raises after the tail, the outcome is unknown; its text is not quoted."""
    transport = FakeTransport(lambda _request: RuntimeError(CANARY))
    async with PicpikSession(CREDENTIALS, transport=transport) as picpik:
        with pytest.raises(SubmitOutcomeUnknownError, match="RuntimeError") as caught:
            await picpik.submit(job(), request_uuid=UUID)

    assert "answer" == caught.value.stage
    assert CANARY not in str(caught.value)


class Deaf(FakeTransport):
    """A transport that ends before the tail."""

    async def send(self, body: Any, *, before_tail: Any = None) -> Answer:
        """Refuse."""
        del body, before_tail
        raise TransportError(stage="connect")


async def test_exception_before_the_commit_point() -> None:
    """An error before the tail comes out as it is, with the uuid."""
    async with PicpikSession(CREDENTIALS, transport=Deaf(lambda _request: {})) as picpik:
        with pytest.raises(TransportError) as caught:
            await picpik.submit(job(), request_uuid=UUID)

    assert UUID == caught.value.request_uuid
    assert "connect" == caught.value.stage


async def test_interrupted_after_the_commit_point() -> None:
    """A transport that is cancelled from within, as by a broken connection, is a failure like any other."""

    async def stray(_request: dict[str, Any]) -> dict[str, Any]:
        raise asyncio.CancelledError

    async with PicpikSession(CREDENTIALS, transport=FakeTransport(stray)) as picpik:
        other = asyncio.create_task(picpik.submit(job()))
        with pytest.raises(SubmitOutcomeUnknownError, match="cancelled from within"):
            await picpik.submit(job(), request_uuid=UUID)
        with pytest.raises(SubmitOutcomeUnknownError):
            await other

        assert UUID in picpik.unknown_submits
        with pytest.raises(TransportError, match="cancelled from within"):
            await picpik.balance()


async def test_unknown_outcome_of_a_caller_that_is_gone() -> None:
    """A submit that may be charged stays on record, though its caller was cancelled; a late answer clears it."""
    gate = anyio.Event()

    async def late(request: dict[str, Any]) -> dict[str, Any]:
        if request["Action"] != "ModifyMaskedPixels":
            return {"RetCode": 0, "TotalCredits": 1, "UsedCredits": 0}
        await gate.wait()
        return {"RetCode": 0, "TaskUID": "late"}

    async with PicpikSession(CREDENTIALS, transport=FakeTransport(late)) as picpik:
        with pytest.raises(SubmitOutcomeUnknownError, match="still awaited") as caught:
            await picpik.run(job(), timeout=0.2, request_uuid=UUID)
        assert [UUID] == list(picpik.unknown_submits)
        assert UUID == caught.value.request_uuid
        gate.set()
        while not picpik.tasks:
            await anyio.lowlevel.checkpoint()

        assert {} == picpik.unknown_submits
        assert "late" == picpik.tasks[0].uid


@pytest.mark.parametrize(
    "answer",
    [{"TaskUID": "paid-1"}, {"RetCode": "0", "TaskUID": "paid-1"}, {"RetCode": 0.0, "TaskUID": "paid-1"}],
)
async def test_task_of_an_odd_answer(answer: dict[str, Any]) -> None:
    """An answer that cannot be believed may still name a task, and then the error does so."""
    async with PicpikSession(CREDENTIALS, transport=FakeTransport(lambda _request: answer)) as picpik:
        with pytest.raises(SubmitOutcomeUnknownError) as caught:
            await picpik.submit(job())

    assert "paid-1" == caught.value.task_uid


async def test_answer_cut_off_unnoticed() -> None:
    """Half an answer that claims to be whole is salvaged like one that broke off."""

    def respond(request: dict[str, Any]) -> dict[str, Any] | Answer:
        if request["Action"] == "ListTasksDetails":
            return {"RetCode": 0, "TaskDetailList": [{"TaskUID": "paid-1", "Status": "Running"}]}
        return Answer(200, b'{"RetCode":0,"TaskUID":"paid-1","Mess')

    async with PicpikSession(CREDENTIALS, transport=FakeTransport(respond)) as picpik:
        assert "paid-1" == (await picpik.submit(job())).uid


async def test_task_of_a_refusal() -> None:
    """A refusal that names a task keeps it."""
    answer = {"RetCode": 3, "TaskUID": "paid-1"}
    async with PicpikSession(CREDENTIALS, transport=FakeTransport(lambda _request: answer)) as picpik:
        with pytest.raises(ApiError) as caught:
            await picpik.submit(job())

    assert "paid-1" == caught.value.task_uid


@pytest.mark.parametrize("answer", [None, Answer(200, None)])  # type: ignore[arg-type]
async def test_transport_that_gives_no_answer(answer: Any) -> None:
    """What a transport of somebody's own gives after the tail cannot make an outcome known that is not."""

    class Odd(FakeTransport):
        async def send(self, body: Any, *, before_tail: Any = None) -> Answer:
            await super().send(body, before_tail=before_tail)
            result: Answer = answer
            return result

    async with PicpikSession(CREDENTIALS, transport=Odd(lambda _request: {})) as picpik:
        with pytest.raises(SubmitOutcomeUnknownError, match="the transport gave no Answer"):
            await picpik.submit(job(), request_uuid=UUID)

        assert [UUID] == list(picpik.unknown_submits)


@pytest.mark.parametrize("reply", [{"RetCode": 0, "TaskUID": "u1"}, {"RetCode": 5}])
async def test_answer_in_the_moment_of_the_timeout(reply: dict[str, Any]) -> None:
    """If answer and timeout come together, the answer is what counts, and nothing is left unknown."""
    async with PicpikSession(CREDENTIALS, transport=FakeTransport(lambda _request: reply)) as picpik:
        engine = await picpik._open()
        submit = picpik._new_submit(job(), request_uuid=UUID)
        with contextlib.suppress(ApiError):
            await engine.submit(submit)

        if "TaskUID" in reply:
            assert "u1" == submit.uid
        else:
            assert isinstance(submit.timed_out(1), ApiError)
        assert {} == picpik.unknown_submits


async def test_images_under_names_that_are_no_strings() -> None:
    """A name that JSON cannot hold is an error of ours, also if a picture is behind it."""
    odd: Any = {1: ImageSource.of(picture())}
    request = job().with_sub_model(Model("x", inference_params=InferenceParams(extra={"a": odd})))
    async with PicpikSession(CREDENTIALS, transport=FakeTransport(lambda _request: {})) as picpik:
        with pytest.raises(InvalidRequestError, match="has a name that is a int"):
            await picpik.submit(request)


async def test_parameters_nested_too_deeply() -> None:
    """Lists in lists in lists end in an error of ours."""
    deep: Any = []
    for _ in range(700):
        deep = [deep]
    request = job().with_sub_model(Model("x", inference_params=InferenceParams(extra={"a": deep})))
    async with PicpikSession(CREDENTIALS, transport=FakeTransport(lambda _request: {})) as picpik:
        with pytest.raises(InvalidRequestError, match="nested too deeply"):
            await picpik.submit(request)


async def test_session_that_is_closed_while_the_answer_is_awaited() -> None:
    """Closing ends the wait for an answer that does not come, and the outcome is unknown."""
    sent = anyio.Event()

    async def never(_request: dict[str, Any]) -> dict[str, Any]:
        sent.set()
        await anyio.sleep_forever()
        return {}

    picpik = PicpikSession(CREDENTIALS, transport=FakeTransport(never))

    async def submit() -> None:
        with pytest.raises(SubmitOutcomeUnknownError, match="the session ended") as caught:
            await picpik.submit(job(), request_uuid=UUID)
        assert UUID == caught.value.request_uuid

    async with anyio.create_task_group() as group:
        group.start_soon(submit)
        await sent.wait()
        assert picpik._engine is not None
        picpik._engine.owner.cancel()

    assert [UUID] == list(picpik.unknown_submits)


async def test_aborted_while_the_transport_goes_on() -> None:
    """A transport that sends in a task of its own, which nobody cancels, is stopped at the commit point."""
    gate = anyio.Event()

    class Detour(FakeTransport):
        sending: asyncio.Task[Answer]

        async def send(self, body: Any, *, before_tail: Any = None) -> Answer:
            async def held_back() -> None:
                await gate.wait()
                await before_tail()

            self.sending = asyncio.create_task(super().send(body, before_tail=held_back))
            return await asyncio.shield(self.sending)

    transport = Detour(lambda _request: {"RetCode": 0, "TaskUID": "a"})
    picpik = PicpikSession(CREDENTIALS, transport=transport)

    async def submit() -> None:
        with pytest.raises(TransportError, match="nothing was paid") as caught:
            await picpik.submit(job(), request_uuid=UUID)
        assert UUID == caught.value.request_uuid

    async with anyio.create_task_group() as group:
        group.start_soon(submit)
        while not hasattr(transport, "sending"):
            await anyio.lowlevel.checkpoint()
        await picpik.aclose()
    gate.set()
    with pytest.raises(TransportError, match="nothing was paid"):
        await transport.sending

    assert [] == transport.requests
    assert () == picpik.tasks


# --- what is wrong is found before a byte is sent ----------------------------------------------------------------------


def save(folder: Path, name: str, data: bytes) -> str:
    """A file with *data*."""
    path = folder / name
    path.write_bytes(data)
    return str(path)


@pytest.mark.parametrize(
    ("image", "mask_", "kind", "words"),
    [
        pytest.param("missing.png", None, ImageError, ("masked.image", "no such file", "check the path"), id="missing"),
        pytest.param("folder", None, ImageError, ("masked.image", "folder"), id="directory"),
        pytest.param(b"", None, ImageError, ("masked.image", "empty", "0 bytes"), id="empty"),
        pytest.param(b"just some text", None, ImageError, ("masked.image", "text", "file name"), id="text"),
        pytest.param(picture(kind="GIF"), None, ImageError, ("masked.image", "GIF", "convert it to PNG"), id="GIF"),
        pytest.param(picture()[:20], None, ImageError, ("masked.image", "header", "cut off"), id="truncated header"),
        pytest.param(None, b"", ImageError, ("masked.mask", "empty"), id="empty mask"),
        pytest.param(None, mask(65), MaskError, ("masked.mask", "65", "64", "masks.fit"), id="mask of another size"),
        pytest.param(None, mask(kind="JPEG"), MaskError, ("masked.mask", "JPEG", "PNG"), id="JPEG mask"),
    ],
)
async def test_wrong_picture(
    tmp_path: Path,
    image: bytes | str | None,
    mask_: bytes | None,
    kind: type[InvalidRequestError],
    words: tuple[str, ...],
) -> None:
    """A picture that cannot be used is told by its parameter, and by what to change, before a byte is sent."""
    (tmp_path / "folder").mkdir()
    if image is None:
        source = save(tmp_path, "image.png", picture())
    else:
        source = str(tmp_path / image) if isinstance(image, str) else save(tmp_path, "image.png", image)
    cover = save(tmp_path, "mask.png", mask() if mask_ is None else mask_)
    with FaultServer(answering(accepted)) as server:
        error = await failure(server, ModifyMaskedPixels.inpaint(source, cover), kind)

        assert 0 == server.connections
    for word in words:
        assert word in str(error)


async def test_first_wrong_picture_is_told() -> None:
    """Of several wrong pictures the first in order of the parameters is told."""
    with FaultServer(answering(accepted)) as server:
        error = await failure(server, ModifyMaskedPixels.inpaint(b"", bytearray()), ImageError)

    assert isinstance(error, ImageError)
    assert "masked.image" == error.field


@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param(lambda: Mask(mask_blur=65), ("mask_blur", "65", "0 to 64"), id="mask_blur"),
        pytest.param(lambda: Mask(refer_strength=2.5), ("refer_strength", "2.5", "0 to 2"), id="mask refer_strength"),
        pytest.param(
            lambda: Image2Image(refer_strength=1.5), ("refer_strength", "1.5", "0 to 1"), id="image refer_strength"
        ),
        pytest.param(lambda: job().with_seed(2**31), ("seed", "2147483648", "-1 to 2147483647"), id="seed"),
        pytest.param(lambda: job().with_size(63, 64), ("width", "63", "64 to 2560"), id="width"),
        pytest.param(lambda: job().with_batch(17), ("batch_size", "17", "1 to 16"), id="batch"),
        pytest.param(lambda: job().with_lora("x", -1.5), ("lora_weight", "-1.5", "-1 to 2"), id="lora weight"),
    ],
)
def test_out_of_range(make: Callable[[], object], words: tuple[str, ...]) -> None:
    """A value out of the documented range never becomes a request."""
    with pytest.raises(InvalidRequestError) as caught:
        make()

    for word in words:
        assert word in str(caught.value)
    assert words[0] == str(caught.value.field).rpartition(".")[2]


async def test_template_is_incomplete() -> None:
    """What a half-built request lacks is told at submit."""
    with FaultServer(answering(accepted)) as server:
        error = await failure(server, ModifyMaskedPixels(positive_prompts="a sofa"), InvalidRequestError)

        assert 0 == server.connections
    assert "masked is missing; use ModifyMaskedPixels.inpaint(image, mask)" in str(error)


async def test_not_a_job() -> None:
    """Only jobs can be submitted; the message says where queries go."""
    with FaultServer(answering(accepted)) as server:
        async with session(server.url) as picpik:
            with pytest.raises(InvalidRequestError, match=r"dict is not a job.*session\.call"):
                await picpik.submit({})  # type: ignore[arg-type]
            with pytest.raises(InvalidRequestError, match="request_uuid is ''"):
                await picpik.submit(job(), request_uuid="")

        assert 0 == server.connections


def test_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without keys the message names both variables, and the way to try without."""
    monkeypatch.delenv("PICPIK_PUBLIC_KEY", raising=False)
    monkeypatch.delenv("PICPIK_PRIVATE_KEY", raising=False)

    with pytest.raises(ConfigurationError, match=r"PICPIK_PUBLIC_KEY and PICPIK_PRIVATE_KEY .*Emulator"):
        PicpikSession()


@pytest.mark.parametrize("endpoint", ["http://api.example.com", Endpoint.INTERNATIONAL.url.replace("https", "http")])
def test_plain_http(endpoint: str) -> None:
    """Plain http to another machine is refused, with the way out."""
    with pytest.raises(ConfigurationError, match=r"plain http to another machine.*use https.*allow_insecure_http"):
        PicpikSession(CREDENTIALS, endpoint=endpoint)


async def test_picture_that_changes_on_the_way(tmp_path: Path) -> None:
    """A file that changes while it is sent is noticed before the tail."""
    path = tmp_path / "image.png"
    path.write_bytes(picture(2000))

    def change(exchange: Exchange) -> None:
        exchange.read(1000)
        path.write_bytes(picture(1200))
        exchange.drain()

    with FaultServer(change) as server:
        error = await failure(server, ModifyMaskedPixels.inpaint(path, mask(2000)), ImageError)
        await settle(server)

        assert "masked.image" in str(error)
        assert [] == server.complete


async def test_picture_is_sent_as_the_dialect_says() -> None:
    """Two parameters with one picture send it once, and bare if the dialect says so."""
    source = picture()
    request = ModifyMaskedPixels.inpaint(source, mask()).with_reference(source)
    with FaultServer(answering(accepted)) as server:
        async with session(server.url, dialect=Dialect(data_uri=False)) as picpik:
            await picpik.submit(request)
        (received,) = server.complete

    first, second = received.document["ImageAndMaskList"]
    assert first.startswith("iVBOR")
    assert second.startswith("iVBOR")
    assert 0 == received.document["Image2Image"]["ImageIndex"]


async def test_upright_unless_the_service_turns() -> None:
    """A picture with an orientation is turned here, or left to the service if it does that."""
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(io.BytesIO(picture())).save(file, "JPEG", exif=exif)
    request = ModifyMaskedPixels.inpaint(file.getvalue(), mask())
    for applies, start in ((False, "data:image/png"), (True, "data:image/jpeg")):
        with FaultServer(answering(accepted)) as server, contextlib.suppress(MaskError):
            async with session(server.url, dialect=Dialect(server_applies_exif=applies)) as picpik:
                await picpik.submit(request)

            assert server.complete[0].document["ImageAndMaskList"][0].startswith(start)


class Hasty(FakeTransport):
    """A transport that sends the tail without asking, or whatever the answer."""

    def __init__(self, *, asks: bool) -> None:
        super().__init__(lambda _request: {"RetCode": 0, "TaskUID": "paid"})
        self.asks = asks

    async def send(self, body: Any, *, before_tail: Any = None) -> Answer:
        """Send all of it."""
        data = b"".join([piece async for piece in body.head()])
        if self.asks and before_tail is not None:
            with contextlib.suppress(PicpikError):
                await before_tail()
        self.requests.append(orjson.loads(data + body.tail()))
        return Answer(200, b'{"RetCode": 0, "TaskUID": "paid"}')


async def test_a_transport_that_does_not_ask_gets_no_tail() -> None:
    """Whoever does not await `before_tail` cannot make the service take what the session calls not taken."""
    transport = Hasty(asks=False)
    async with PicpikSession(CREDENTIALS, transport=transport) as picpik:
        with pytest.raises(ConfigurationError, match="before_tail"):
            await picpik.submit(job())

    assert [] == transport.requests


async def test_a_transport_that_does_not_listen_gets_no_tail(tmp_path: Path) -> None:
    """Nor can one that goes on although the journal could not be written."""
    transport = Hasty(asks=True)
    async with PicpikSession(CREDENTIALS, transport=transport, journal=tmp_path / "jobs.sqlite") as picpik:
        for name in ("jobs.sqlite", "jobs.sqlite-wal", "jobs.sqlite-shm"):
            await anyio.Path(tmp_path / name).unlink()
        with pytest.raises(ConfigurationError, match="let through what it raises"):
            await picpik.submit(job())

    assert [] == transport.requests


async def test_foreign_errors_before_the_tail() -> None:
    """What somebody's own transport raises becomes an error of ours, which quotes nothing."""

    class Broken(FakeTransport):
        async def send(self, body: Any, *, before_tail: Any = None) -> Answer:
            del body, before_tail
            raise RuntimeError(CANARY)

    async with PicpikSession(CREDENTIALS, transport=Broken(lambda _request: {})) as picpik:
        with pytest.raises(TransportError, match="RuntimeError") as caught:
            await picpik.submit(job())

    assert CANARY not in str(caught.value)
    assert not caught.value.retryable
