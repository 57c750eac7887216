"""Keys, signatures, pictures, signed addresses and passwords stay where they belong, however an exchange goes."""

from __future__ import annotations

import asyncio
import base64
import io
import logging
import os
import re
import ssl
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trustme
from canaries import PRIVATE_KEY, PROXY_PASSWORD, URL_QUERY, Sinks, marked_picture, with_checksums
from fault_server import Exchange, FaultServer, after_reading, answering, service
from jobs import THREADS
from PIL import Image

from picpik_async import (
    Credentials,
    Dialect,
    Endpoint,
    Image2Image,
    ImageSource,
    Limits,
    Mask,
    ModifyMaskedPixels,
    PicpikSession,
    PollPolicy,
    RetryPolicy,
    TaskDetail,
    TaskResult,
    masks,
)
from picpik_async._body import Body
from picpik_async._layout import lay_out
from picpik_async._link import Link
from picpik_async._results import ResultImage
from picpik_async._transport import AiohttpTransport, Answer
from picpik_async.errors import ConfigurationError, InvalidRequestError, TaskFailedError
from picpik_async.testing import FakeTransport

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

KEYS = Credentials("public-key", PRIVATE_KEY)
IMAGE, MASK = marked_picture(), marked_picture(mode="L")
SECONDS = 0.25


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Asyncio's debug mode, which logs and keeps more than usual."""
    return "asyncio", {"debug": True}


@pytest.fixture
def sinks() -> Iterator[Sinks]:
    """All logs, of everybody and at all levels, and all warnings."""
    found = Sinks()
    root = logging.getLogger()
    level = root.level
    root.addHandler(found)
    root.setLevel(logging.DEBUG)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield found
        for each in caught:
            found.add("warning", each.message)
    finally:
        root.removeHandler(found)
        root.setLevel(level)


def job() -> ModifyMaskedPixels:
    """A request whose pictures tell themselves."""
    return ModifyMaskedPixels.inpaint(IMAGE, MASK, prompts="a sofa")


def session(url: str, *, seconds: float = 10, **options: Any) -> PicpikSession:
    """A session that sends pictures in many slices, and waits so many *seconds* at most."""
    defaults: dict[str, Any] = {
        "limits": Limits(connect_timeout=seconds, stall_timeout=seconds, request_timeout=seconds, slice_size=1200),
        "poll": PollPolicy(tick=0.01, timeout=seconds, request_timeout=seconds),
        "retry": RetryPolicy(attempts=2, base_delay=0, throttle_delay=0, submit_attempts=2),
    }
    return PicpikSession(KEYS, endpoint=url, **(defaults | options))


def address(server: FaultServer) -> str:
    """The signed address of a result."""
    return f"{server.url}/result.png?signature={URL_QUERY}"


def echo(exchange: Exchange) -> None:
    """Answer with the request, as a badly set up gateway does."""
    exchange.read()
    exchange.answer(bytes(exchange.body) + repr(exchange.headers).encode(), status=200)


def blame(exchange: Exchange) -> None:
    """Refuse with a message that quotes the signature."""
    exchange.read()
    if exchange.complete and exchange.body:
        exchange.answer(
            {"RetCode": 7, "Message": f"bad signature {exchange.document['Signature']}", "Data": exchange.document}
        )


def misshapen(exchange: Exchange) -> None:
    """Answer a query with the right fields of the wrong types."""
    exchange.read()
    text = bytes(exchange.body).decode()
    odd = {"TaskUID": text, "TaskDetailList": text, "TaskUIDList": text, "MainModels": text, "TotalCredits": text}
    exchange.answer({"RetCode": 0, "TaskDetail": text} | odd)


def bounce(exchange: Exchange) -> None:
    """Redirect to another address that holds a secret."""
    exchange.read()
    exchange.answer(b"", status=307, headers={"Location": f"http://[::1]/?signature={URL_QUERY}"})


FAULTS: dict[str, Callable[[Exchange], None]] = {
    "reset at once": after_reading(Exchange.reset, size=0),
    "reset half-way": after_reading(Exchange.reset, size=9000),
    "reset at the end": after_reading(Exchange.reset),
    "closed": after_reading(Exchange.finish),
    "hangs": after_reading(Exchange.hang, size=0),
    "hangs half-way": after_reading(Exchange.hang, size=9000),
    "hangs at the end": after_reading(Exchange.hang),
    "401": answering(b"", status=401),
    "503": answering(b"", status=503),
    "echo": echo,
    "echo with a status": after_reading(lambda exchange: exchange.answer(bytes(exchange.body), status=400)),
    "blame": blame,
    "misshapen": misshapen,
    "redirect": bounce,
    "garbage": after_reading(lambda exchange: exchange.send(bytes(exchange.body) + b"\r\n\r\n"), Exchange.finish),
    "synthetic 400": after_reading(lambda exchange: exchange.send(b"HTTP/1.1 2000000 " + bytes(exchange.body) + b"\r\n\r\n"), Exchange.finish),
    "truncated": after_reading(
        lambda exchange: exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n" + bytes(exchange.body)), Exchange.finish
    ),
    "wrong encoding": after_reading(
        lambda exchange: exchange.answer(bytes(exchange.body), headers={"Content-Encoding": "gzip"})
    ),
    "too long": after_reading(lambda exchange: exchange.answer(bytes(exchange.body) * 1000)),
    "broken chunks": after_reading(
        lambda exchange: exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + bytes(exchange.body) + b"\r\n"), Exchange.finish
    ),
}  # fmt: skip


async def told(sinks: Sinks, label: str, work: Awaitable[Any], *, seconds: float = 5) -> Any:
    """Do *work*, and look at what it gives or raises, also when the caller runs out of time."""
    try:
        async with asyncio.timeout(seconds):
            value = await work
    except Exception as error:  # noqa: BLE001 - looked at
        sinks.add_error(label, error)
        return None
    if isinstance(value, bytes):
        return value
    if isinstance(value, (TaskDetail, TaskResult)):  # whose very content are the addresses; they only must not show
        sinks.add(label, f"{value!r} {value}")
    else:
        sinks.add_value(label, value)
    return value


def signatures(*servers: FaultServer) -> set[str]:
    """All signatures the servers were sent."""
    found: set[str] = set()
    for server in servers:
        for request in server.requests:
            found |= set(re.findall(r'"Signature":"([0-9a-f]{40})"', bytes(request.body).decode(errors="replace")))
    return found


async def use_everything(name: str, picpik: PicpikSession, sinks: Sinks, *, seconds: float = SECONDS) -> None:
    """Call all there is, whether it works or not."""
    task = await told(sinks, f"{name}: submit", picpik.submit(job())) or picpik.task("a-task")
    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "run": lambda: picpik.run(job(), timeout=seconds),
        "wait": lambda: task.wait(timeout=seconds),
        "updates": lambda: anext(task.updates(timeout=SECONDS)),
        "detail": task.detail,
        "models": picpik.models,
        "balance": picpik.balance,
        "running tasks": picpik.running_tasks,
        "terminate": task.terminate,
        "recover": picpik.recover,
        "reconcile": picpik.reconcile,
    }
    async with asyncio.TaskGroup() as group:
        for label, call in calls.items():
            group.create_task(told(sinks, f"{name}: {label}", call()))
    for each in (picpik, task, picpik.tasks, picpik.unknown_submits):
        sinks.add_value(f"{name}: session", each)


def journal_files(name: str) -> set[str]:
    """What lies beside a journal that is closed."""
    return {name, f"{name}.lock"}


def contents(sinks: Sinks, folder: Path) -> set[str]:
    """Look at the files of a folder, and name them."""
    files = [file for file in folder.iterdir() if file.is_file()]
    for file in files:
        sinks.add(file.name, file.read_bytes())
    return {file.name for file in files}


def about_the_process() -> tuple[dict[str, str], bytes]:
    """What other processes can see of this one."""
    return dict(os.environ), Path("/proc/self/cmdline").read_bytes()


@pytest.mark.anyio
async def test_calls_that_fail(sinks: Sinks, tmp_path: Path) -> None:
    """No fault of the service brings a secret to light."""
    found: set[str] = set()

    async def suffer(name: str) -> None:
        with FaultServer(FAULTS[name]) as server:
            async with session(server.url, seconds=SECONDS, journal=tmp_path / name) as picpik:
                await use_everything(name, picpik, sinks)
            found.update(signatures(server))

    async with asyncio.TaskGroup() as group:
        for name in FAULTS:
            group.create_task(suffer(name))

    assert {name for fault in FAULTS for name in journal_files(fault)} == contents(sinks, tmp_path)
    hits = sinks.hits(found)
    assert [] == hits, "\n".join(hits)
    assert found


def finished(exchange: Exchange) -> dict[str, Any]:
    """The answer about tasks that have one picture each."""
    url = f"http://{exchange.headers['host']}/result.png?signature={URL_QUERY}"
    uids = exchange.document["TaskUIDList"]
    return {"RetCode": 0, "TaskDetailList": [{"TaskUID": uid, "Status": "Finished", "ImgList": [url]} for uid in uids]}


QUERIES: dict[str, Any] = {
    "ListTasksDetails": answering(finished),
    "TerminateTask": {"RetCode": 0},
    "ListRunningTasks": {"RetCode": 0, "TaskUIDList": ["a-task"]},
    "ListModels": {"RetCode": 0, "MainModels": {}},
    "GetCreditBalance": {"RetCode": 0, "TotalCredits": 2, "UsedCredits": 1},
}


@pytest.mark.anyio
async def test_calls_that_succeed(sinks: Sinks, tmp_path: Path) -> None:
    """A session at work, from submit to file, tells nobody a secret; what it sends about itself holds none either."""
    before = about_the_process()
    asyncio.get_running_loop().slow_callback_duration = 0  # in debug mode it logs every callback
    with FaultServer(service(download=answering(marked_picture()), **QUERIES)) as server:
        async with session(server.url, journal=tmp_path / "jobs") as picpik:
            await use_everything("success", picpik, sinks, seconds=10)
            result = await told(sinks, "run", picpik.run(job(), key="another", timeout=5))
            await told(sinks, "save", result.save(tmp_path / "out"))
            await told(sinks, "read", result.images[0].read())
            for each in (result, *result.images, server.url):
                sinks.add("result", f"{each!r} {each}")
            async for outcome in picpik.map([("third", job()), ("fourth", job())], save_to=tmp_path / "out"):
                sinks.add("outcome", f"{outcome!r} {outcome}")
            assert journal_files("jobs") | {"jobs-wal", "jobs-shm"} == contents(sinks, tmp_path)
        found = signatures(server)
        for request in server.requests:
            sinks.add("headers", dict(request.headers) | {"target": request.target.partition("?")[0]})

    assert before == about_the_process()
    assert journal_files("jobs") == contents(sinks, tmp_path)
    hits = sinks.hits(found)
    assert [] == hits, "\n".join(hits)
    assert len(found) > len(QUERIES)


BROKEN = marked_picture()
DOWNLOADS: dict[str, Callable[[Exchange], None]] = {
    "not found": answering(b"", status=404),
    "cut off": after_reading(
        lambda exchange: exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n" + BROKEN), Exchange.finish
    ),
    "not whole": answering(BROKEN[:-20]),
    "trailing": answering(BROKEN + BROKEN),
    "pixels": answering(BROKEN.replace(b"IDAT", b"IDAX")),
    "damaged": answering(with_checksums(BROKEN.replace(BROKEN[BROKEN.index(b"IDAT") + 4 :][:9], b"\xff" * 9))),
    "header": answering(b"\x89PNG\r\n\x1a\n" + BROKEN[50:]),
    "redirect": bounce,
    "to itself": after_reading(
        lambda exchange: exchange.answer(b"", status=302, headers={"Location": f"?signature={URL_QUERY}"})
    ),
    "to nowhere": after_reading(
        lambda exchange: exchange.answer(b"", status=302, headers={"Location": f"http://[{URL_QUERY}"})
    ),
    "garbage": after_reading(lambda exchange: exchange.send(BROKEN), Exchange.finish),
    "reset": after_reading(Exchange.reset),
    "hangs": after_reading(Exchange.hang),
}


@pytest.mark.anyio
async def test_downloads_that_fail(sinks: Sinks, tmp_path: Path) -> None:
    """No fault of a download brings the address or the picture to light, also if the caller does not wait for it."""
    found: set[str] = set()

    async def suffer(name: str, seconds: float) -> None:
        with FaultServer(service(download=DOWNLOADS[name], **QUERIES)) as server:
            async with session(server.url, limits=Limits(request_timeout=0.3)) as picpik:
                result = await picpik.task("a-task").wait()
                (image,) = result.images
                for label, work in (("read", image.read), ("pil", image.pil), ("save", lambda: result.save(tmp_path))):
                    await told(sinks, f"{name}: {label}", work(), seconds=seconds)
            found.update(signatures(server))

    async with asyncio.TaskGroup() as group:
        for name in DOWNLOADS:
            group.create_task(suffer(name, 5))
        group.create_task(suffer("hangs", 0.05))

    hits = sinks.hits(found)
    assert [] == hits, "\n".join(hits)


@pytest.mark.anyio
async def test_callers_who_do_not_wait(sinks: Sinks, tmp_path: Path) -> None:
    """A timeout of the caller's own shows no frame in which the request is to be seen, through a proxy or not."""
    proxy = f"http://user:{PROXY_PASSWORD}@"
    with FaultServer(after_reading(Exchange.hang, size=9000)) as server:
        for options in ({}, {"proxy": server.url.replace("http://", proxy)}):
            async with session(server.url, seconds=1, journal=tmp_path / "jobs", **options) as picpik:
                for call in (
                    picpik.models,
                    picpik.task("a-task").detail,
                    picpik.reconcile,
                    lambda: picpik.submit(job()),
                ):
                    await told(sinks, f"impatient {len(options)}", call(), seconds=0.05)
        found = signatures(server)

    hits = sinks.hits(found)
    assert [] == hits, "\n".join(hits)


PROXIES: dict[str, Callable[[Exchange], None]] = {
    "asks for more": answering(b"", status=407),
    "refuses": answering(b"", status=502),
    "echoes": echo,
    "resets": after_reading(Exchange.reset),
}


@pytest.mark.parametrize("endpoint", ["http://localhost:9", "https://picpik.invalid"])
@pytest.mark.anyio
async def test_proxies_that_fail(endpoint: str, sinks: Sinks) -> None:
    """The password of a proxy stays between the session and the proxy."""
    found: set[str] = set()

    async def suffer(name: str) -> None:
        with FaultServer(PROXIES[name]) as server:
            proxy = server.url.replace("http://", f"http://user:{PROXY_PASSWORD}@")
            options = {"proxy": proxy, "dialect": Dialect(result_hosts=frozenset({"localhost"}))}
            async with session(endpoint, seconds=SECONDS, **options) as picpik:
                await use_everything(name, picpik, sinks)
                url = f"https://localhost/1.png?signature={URL_QUERY}"
                await told(sinks, f"{name}: read", ResultImage(url, Link(picpik), task_uid="t", index=0).read())
        found.update(signatures(server))

    async with asyncio.TaskGroup() as group:
        for name in PROXIES:
            group.create_task(suffer(name))

    hits = sinks.hits(found)
    assert [] == hits, "\n".join(hits)


@pytest.mark.anyio
async def test_tls(sinks: Sinks) -> None:
    """Who cannot be trusted is told nothing, and the error tells no more."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with FaultServer(echo, tls=context) as server:
        async with session(server.url, seconds=1) as picpik:
            await use_everything("tls", picpik, sinks)

    assert [] == server.requests
    hits = sinks.hits(set())
    assert [] == hits, "\n".join(hits)


async def opened(picture: Any) -> None:
    """Decode a picture, and forget it."""
    await ImageSource.of(picture).pil()


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.anyio
async def test_pictures_that_cannot_be_sent(mode: str, sinks: Sinks, tmp_path: Path) -> None:
    """A picture or mask that is refused shows nothing of itself, nor do the decoder's errors behind it."""
    whole = marked_picture(mode=mode)
    broken = {
        "cut off": whole[:-20_00],
        "header": whole[:20] + b"\xff" * 9 + whole[29:],
        "kind": b"GIF89a" + whole,
        "text": b"Comment" + whole[50:],
        "JPEG": b"\xff\xd8\xff\xfe" + whole,
        "WebP": b"RIFF\0\0\0\0WEBP" + whole,
        "other size": marked_picture(65, mode=mode),
        "pixels": with_checksums(whole.replace(whole[whole.index(b"IDAT") + 4 :][:9], b"\xff" * 9)),
    }
    transport = FakeTransport(lambda _request: {"RetCode": 0, "TaskUID": "a-task"})
    async with session("http://localhost:9", transport=transport) as picpik:
        for name, data in broken.items():
            path = tmp_path / name
            await anyio.Path(path).write_bytes(data)
            for picture in (data, str(path), io.BytesIO(data), Image.open(io.BytesIO(whole))):
                pair = (picture, MASK) if mode == "RGB" else (IMAGE, picture)
                request = ModifyMaskedPixels.inpaint(*pair, prompts="a sofa")
                sinks.add_value(f"{name}: request", request)
                await told(sinks, f"{name}: submit", picpik.submit(request))
                await told(sinks, f"{name}: pil", opened(picture))
                await told(sinks, f"{name}: check", masks.check(picture))

    hits = sinks.hits(set())
    assert [] == hits, "\n".join(hits)


def test_settings_that_are_refused(sinks: Sinks) -> None:
    """What is wrong with keys, endpoint or session is said without the keys and the password."""
    proxy = f"http://user:{PROXY_PASSWORD}@localhost:9"
    attempts: dict[str, Callable[[], Any]] = {
        "public key": lambda: Credentials("", PRIVATE_KEY),
        "private key": lambda: Credentials("public-key", f"{PRIVATE_KEY}\n"),
        "endpoint": lambda: Endpoint(f"https://user:{PROXY_PASSWORD}@localhost"),
        "credentials": lambda: PicpikSession(PRIVATE_KEY, proxy=proxy),  # type: ignore[arg-type]
        "limits": lambda: PicpikSession(KEYS, proxy=proxy, limits=5),  # type: ignore[arg-type]
        "plain http": lambda: PicpikSession(KEYS, proxy=proxy, endpoint="http://example.com"),
    }
    for name, attempt in attempts.items():
        with pytest.raises(ConfigurationError) as caught:
            attempt()
        sinks.add_error(name, caught.value)

    hits = sinks.hits(set())
    assert [] == hits, "\n".join(hits)


def test_requests_that_are_refused(sinks: Sinks) -> None:
    """A wrong parameter beside a picture does not show the picture."""
    attempts: dict[str, Callable[[], Any]] = {
        "option of a mask": lambda: Mask(image=IMAGE, mask=MASK, mask_blur=99),
        "unknown option": lambda: Mask(image=IMAGE, mask=MASK, blur=9),  # type: ignore[call-arg]
        "reference": lambda: Image2Image(image=IMAGE, refer_strength=9),
        "inpaint": lambda: ModifyMaskedPixels.inpaint(IMAGE, MASK, seed=-9),
        "outpaint": lambda: ModifyMaskedPixels.outpaint(IMAGE, left=-9),
        "with mask": lambda: ModifyMaskedPixels().with_mask(MASK, image=IMAGE, mask_blur=99),
        "with reference": lambda: ModifyMaskedPixels().with_reference(IMAGE, refer_strength=9),
        "bytes as request": lambda: ModifyMaskedPixels(masked=IMAGE),  # type: ignore[arg-type]
        "boxes": lambda: masks.from_boxes(IMAGE, (9, 9, 1, 1)),
        "polygons": lambda: masks.from_polygons(IMAGE, [(1, 1)]),
        "Base64": lambda: ImageSource.of(base64.b64encode(IMAGE).decode()),
    }
    for name, attempt in attempts.items():
        with pytest.raises((InvalidRequestError, TypeError)) as caught:
            attempt()
        sinks.add_error(name, caught.value)

    hits = sinks.hits(set())
    assert [] == hits, "\n".join(hits)


@pytest.mark.anyio
async def test_objects(sinks: Sinks) -> None:
    """Whatever a user can hold shows neither keys nor pictures, and stays short."""
    request = ModifyMaskedPixels.inpaint(bytes(20 * 1024**2), bytearray(20 * 1024**2), prompts="a sofa").with_reference(
        IMAGE
    )
    picpik = session("http://localhost:9", proxy=f"http://user:{PROXY_PASSWORD}@localhost:9", journal="/jobs")
    layout = lay_out({"PublicKey": "public-key"}, {}, data_uri=True)
    transport = AiohttpTransport("http://localhost:9", Limits(), proxy=f"http://user:{PROXY_PASSWORD}@localhost:9")
    objects: dict[str, Any] = {
        "credentials": KEYS,
        "private key": KEYS.private_key,
        "session": picpik,
        "transport": transport,
        "request": request,
        "task": picpik.task("a-task"),
        "layout": layout,
        "body": Body(layout, KEYS.private_key, slice_size=999, executor=THREADS),
        "detail": TaskDetail(task_uid="a-task"),
        "error": TaskFailedError("failed", detail=TaskDetail(task_uid="a-task")),
    }
    for name, value in objects.items():
        sinks.add_value(name, value)
    sinks.add("answer", repr(Answer(200, IMAGE)))
    longest = max(len(repr(source)) for source in request.images().values())

    hits = sinks.hits(set())
    assert [] == hits, "\n".join(hits)
    assert len(repr(picpik)) <= 200
    assert longest <= 100
    assert len(repr(request)) <= 800
