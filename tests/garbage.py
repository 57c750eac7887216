"""Seeded garbage: valid answers and pictures, spoilt in all ways that come to mind; and the decoders it is thrown at."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any, Final

from jobs import picture

from picpik_async import Dialect, GetCreditBalance, ListModels, ListRunningTasks, ListTasksDetails, TerminateTask
from picpik_async._pixels import SNIFF_SIZE, sniff
from picpik_async._salvage import salvaged_uid
from picpik_async._verification import check_picture
from picpik_async._wire import decode, is_uid, refusal, structure_answer, task_uid
from picpik_async.errors import MalformedAnswerError, PicpikError

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

LONGEST_MESSAGE: Final = 1000
MAX_PIXELS: Final = 100_000

QUERIES: Final[tuple[Any, ...]] = (
    ListTasksDetails(task_uid_list=["a-task"]),
    ListRunningTasks(),
    TerminateTask(task_uid="a-task"),
    ListModels(),
    GetCreditBalance(),
)
MODEL: Final = {
    "ModelCode": "PICPIK General",
    "Name": "General",
    "IsOfficial": True,
    "TriggerWordList": ["a"],
    "InferenceParams": {"Steps": 20, "Sampler": "Euler", "LoraWeight": 0.5, "Resolution": 512, "Other": [1]},
}
DETAIL: Final = {
    "TaskUID": "a-task",
    "Action": "ModifyMaskedPixels",
    "Status": "Finished",
    "ImgList": ["https://example.com/1.png?sig=1"],
    "Seed": 5,
    "TxtList": ["a"],
    "ConsumeApiPoint": 3,
    "ErrorCode": 0,
    "ErrorMassage": "",
}
VALID: Final[tuple[dict[str, Any], ...]] = (
    {"RetCode": 0, "Action": "ModifyMaskedPixels", "Message": "", "TaskUID": "a-task", "request_uuid": "u"},
    {"RetCode": 0, "TaskDetailList": [DETAIL, DETAIL | {"TaskUID": "b", "Status": "Error", "ErrorMassage": "no"}]},
    {"RetCode": 0, "TaskUIDList": ["a-task", "b"]},
    {"RetCode": 0, "MainModels": {"a": MODEL}, "LoraModels": [MODEL], "EmbeddingModels": {}},
    {"RetCode": 0, "TotalCredits": 100, "UsedCredits": 7, "ExpireTimestamp": 1767225600},
    {"RetCode": 230, "Message": "Not enough credits", "Action": "ModifyMaskedPixels", "TaskUID": "a-task"},
)
ODD: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, -1, 1, 0.4, -0.0, 1e308, 2**31, 2**63, 2**64, -(2**63), 10**30, float("nan"), float("inf")),
    *("", "0", "7", "None", "Finished", "Error", "Queuing", "\0", "\r\n\x1b[31mred\x1b[0m", "\u202eevil", "\ud800", "\U0001f4a5" * 300),
    *("x" * 257, "../../etc/passwd", "http://[::1", [], {}, [[]], [None], {"": None}, {"TaskUID": "a-task"}, [1, "a", None]),
)  # fmt: skip


def _deep(levels: int) -> bytes:
    return b'{"RetCode":0,"TaskDetailList":[{"TaskUID":"a-task","X":' + b"[" * levels + b"]" * levels + b"}]}"


MESSAGES: Final[tuple[bytes, ...]] = (
    b"x",
    b"\\ud800",
    b"\\ud83d\\udca5",
    b"\xe2\x80\xae",
    b"\\r\\n",
    b"\\u001b[2J",
    b"a" * 40,
)
MONSTERS: Final[tuple[Callable[[random.Random], bytes], ...]] = (
    lambda rng: b'{"RetCode":0,"TaskUID":' + b"[" * rng.choice([900, 1100, 100_000]),
    lambda rng: _deep(rng.choice([500, 1000, 1100])),
    lambda rng: b'{"RetCode":7,"Message":"' + rng.choice(MESSAGES) * 30_000 + b'"}',
    lambda rng: b'{"RetCode":' + b"9" * rng.choice([20, 400, 5000]) + b"}",
    lambda _rng: b'{"RetCode":0,"TaskUID":"a-task","TotalCredits":' + b"9" * 5000 + b"}",
    lambda _rng: b'{"RetCode":0,"TaskDetailList":[{"TaskUID":"a-task","Status":"' + b"w" * 30_000 + b'"}]}',
    lambda rng: b"\xef\xbb\xbf" + json.dumps(VALID[0]).encode(rng.choice(["utf-8", "utf-16", "utf-32"])),
    lambda rng: rng.randbytes(rng.randrange(200)),
)


def spoilt_answer(rng: random.Random) -> bytes:
    """A valid answer, spoilt; or nothing like one."""
    if rng.random() < 0.02:
        return rng.choice(MONSTERS)(rng)
    document: Any = json.loads(json.dumps(rng.choice(VALID)))
    for _ in range(rng.randrange(4)):
        document = _spoilt(document, rng)
    text = json.dumps(document, ensure_ascii=rng.random() < 0.7)
    if rng.random() < 0.1:  # the same name twice
        text = text[:-1] + ', "RetCode": 0, "TaskUID": "twice"}' if text.endswith("}") else text
    data = text.encode(errors="surrogatepass")
    return spoilt_bytes(data, rng) if rng.random() < 0.3 else data


def _spoilt(node: Any, rng: random.Random) -> Any:
    """The same document with one change, somewhere in it."""
    if isinstance(node, (dict, list)) and node and rng.random() < 0.7:
        place = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
        if rng.random() < 0.15:
            del node[place]
        else:
            node[place] = _spoilt(node[place], rng)
        return node
    match rng.randrange(6):
        case 0:
            return [node]
        case 1:
            return {"RetCode": node, "TaskUID": node}
        case 2:
            return str(node)
        case _:
            return copy.deepcopy(rng.choice(ODD))


def spoilt_bytes(data: bytes, rng: random.Random) -> bytes:
    """*data* with bytes changed, lost, doubled or added."""
    found = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        start = rng.randrange(len(found) + 1)
        end = min(len(found), start + rng.choice([1, 2, 4, 30]))
        match rng.randrange(6):
            case 0:
                del found[start:]
            case 1:
                del found[start:end]
            case 2:
                found[start:start] = found[start:end]
            case 3:
                found[start:end] = rng.randbytes(end - start)
            case 4:
                found[start:start] = rng.choice(
                    [b"\0", b"\xff" * 4, b'"', b"{", b"\xff\xd9", b"IEND", b"\x7f\xff\xff\xff"]
                )
            case _:
                found += rng.randbytes(rng.choice([1, 9]))
    return bytes(found)


PICTURES: Final = tuple(
    picture(side, kind=kind, mode=mode)
    for kind, modes in (("PNG", ("RGB", "L", "LA", "RGBA")), ("JPEG", ("RGB", "L", "CMYK")), ("WEBP", ("RGB", "RGBA")))
    for mode in modes
    for side in (1, 9)
)


def spoilt_picture(rng: random.Random) -> bytes:
    """A picture, spoilt."""
    return spoilt_bytes(rng.choice(PICTURES), rng)


def assert_tame(error: BaseException) -> None:
    """It is ours, and its message can be printed, logged and sent."""
    assert isinstance(error, PicpikError), repr(error)
    message = str(error)
    assert message.isprintable(), ascii(message)
    assert len(message) <= LONGEST_MESSAGE, len(message)
    assert message.encode()


def try_decoders(body: bytes) -> int:
    """Decode *body* as the answer to everything; the number of times that it passed for one."""
    passed = 0
    uid = salvaged_uid(body)
    assert uid is None or is_uid(uid)
    for query in (None, *QUERIES):
        try:
            document = decode(body, action="Test")
            error = refusal(document, action="Test", request_uuid="u")
            if error is not None:
                assert_tame(error)
            elif query is None:
                assert is_uid(task_uid(document, action="Test"))
            else:
                assert repr(structure_answer(query, document, Dialect())).isprintable()
            passed += error is None
        except MalformedAnswerError as problem:
            assert_tame(problem)
    return passed


def try_sniffer(data: bytes) -> int:
    """Take *data* for a picture; 1 if it passed for one."""
    try:
        sniff(data[:SNIFF_SIZE])
        check_picture(data, MAX_PIXELS)
    except PicpikError as error:
        assert_tame(error)
        return 0
    return 1
