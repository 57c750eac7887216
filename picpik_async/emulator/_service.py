"""The service behind the HTTP: Actions in, answers out, with credits and a ledger."""

from __future__ import annotations

import asyncio
import hashlib
import random
import secrets
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import anyio.to_thread
import attrs

from picpik_async.emulator._admission import authenticate, images_of
from picpik_async.emulator._effects import DRAWINGS
from picpik_async.emulator._faults import Moment
from picpik_async.emulator._studio import Studio
from picpik_async.emulator._tasks import Clock, EmulatedTask, ImageRecord, LedgerEntry, Schedule
from picpik_async.emulator._validation import Check, Refusal, RetCode, record, sequence, text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from picpik_async._config import Credentials
    from picpik_async.emulator._ledger import LedgerFile
    from picpik_async.emulator._plan import Plan

__all__ = ["Service", "ServiceSettings"]

_MEGAPIXEL: Final = 1024 * 1024
_YEAR: Final = 365 * 24 * 3600
_TASK_ERROR: Final = 500  # an ErrorCode of our own: the service publishes none but 0
_PAINTERS: Final = 4
_UNKNOWN_WORD: Final = "Pondering"

_QUERIES: Final[Mapping[str, Check]] = {
    "ListTasksDetails": record({"TaskUIDList": sequence(text)}),
    "ListRunningTasks": record({}),
    "TerminateTask": record({"TaskUID": text}),
    "ListModels": record({}),
    "GetCreditBalance": record({}),
}


def _model(code: str, **more: Any) -> dict[str, Any]:
    return {"Name": code, "ModelCode": code, "IsOfficial": True, **more}


_SAMPLING: Final = {"Steps": 10, "Sampler": "Euler", "ClipSkip": 1, "CFGScale": 7.5}
_MODELS: Final = {
    "MainModels": {
        code: _model(code, InferenceParams=_SAMPLING) for code in ("PICPIK General", "PICPIK Interior Design")
    },
    "LoraModels": {
        "emulated-lora": _model("emulated-lora", TriggerWordList=["emulated"], InferenceParams={"LoraWeight": 1})
    },
    "EmbeddingModels": {},
    "HypernetworkModels": {},
}


def cost_by_size(parameters: Mapping[str, Any]) -> int:
    """One credit per started megapixel (1024 × 1024) of each picture; real prices are not published."""
    pixels: int = parameters.get("Width", 1024) * parameters.get("Height", 1024)
    return -(-pixels // _MEGAPIXEL) * int(parameters.get("BatchSize", 1))


@attrs.frozen(kw_only=True)
class ServiceSettings:
    """The arguments of `Emulator` that concern tasks and credits; see there."""

    queue_time: float
    run_time: float
    concurrency: int
    credits: int
    cost: Callable[[Mapping[str, Any]], int]
    error_share: float
    fail: Callable[[Mapping[str, Any]], str | None] | None
    retention: float


class Service:
    """Account, tasks and Actions of one emulator.

    Args:
        credentials: the one key pair it knows.
        settings: how it behaves.
        plan: what goes wrong.
        ledger_file: where charges are written before they are answered, if anywhere.

    Attributes:
        ledger: every accepted and charged request.
        requests: requests received per Action.
    """

    _url: str
    _loop: asyncio.AbstractEventLoop
    _studio: Studio

    def __init__(
        self, credentials: Credentials, settings: ServiceSettings, *, plan: Plan, ledger_file: LedgerFile | None = None
    ) -> None:
        self._clock = Clock()
        self.ledger: list[LedgerEntry] = []
        self.requests: Counter[str] = Counter()
        self._credentials = credentials
        self._settings = settings
        self._plan = plan
        self._ledger_file = ledger_file
        self._vanished: set[str] = set()
        self._poisoned: set[str] = set()
        self._used = 0
        self._luck = random.Random(0)  # noqa: S311 (which tasks fail is the same in every run)
        self._expires = int(self._clock.now()) + _YEAR
        self._schedule = Schedule(
            queue_time=settings.queue_time,
            run_time=settings.run_time,
            concurrency=settings.concurrency,
            retention=settings.retention,
        )
        self._limiter = anyio.CapacityLimiter(4)
        self._alarm: asyncio.TimerHandle | None = None

    def open(self, url: str) -> None:
        """Start work in the running event loop; results will have addresses below *url*."""
        self._url = url
        self._loop = asyncio.get_running_loop()
        self._studio = Studio(painters=_PAINTERS)

    async def aclose(self) -> None:
        """Stop work; pictures at hand are finished first."""
        if self._alarm is not None:
            self._alarm.cancel()
        await self._studio.aclose()

    def advance(self, seconds: float) -> None:
        """Move the clock on and catch up with it soon; may be called from any thread."""
        self._clock.advance(seconds)
        self._loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> float:
        """Catch up with the clock, and set an alarm for the next start; returns the time."""
        now = self._clock.now()
        self._studio.take(self._schedule.settle(now))
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if (start := self._schedule.next_start()) is not None:
            self._alarm = self._loop.call_later(max(0.0, start - now), self._settle)
        return now

    async def answer(self, parameters: Any) -> dict[str, Any]:
        """The answer to a parsed request, refusals included."""
        names = ("Action", "request_uuid") if isinstance(parameters, dict) else ()
        echo = {name: parameters[name] for name in names if isinstance(parameters.get(name), str)}
        if "Action" in echo:
            self.requests[echo["Action"]] += 1
        try:
            fields = await self._accept(parameters)
        except Refusal as refusal:
            return {"Action": "", **echo, "RetCode": refusal.code, "Message": refusal.message}
        return {**echo, "RetCode": RetCode.SUCCESS, "Message": "", **fields}

    def result(self, token: str, index: int) -> bytes | None:
        """A picture as PNG, or None if there is none (any more) under this address."""
        now = self._settle()
        task = self._schedule.find_result(token)
        if task is None or task.pictures is None or task.status(now) != "Finished" or index >= len(task.pictures):
            return None
        return task.pictures[index]

    async def _accept(self, parameters: Any) -> dict[str, Any]:
        files, records = await anyio.to_thread.run_sync(self._inspect, parameters, limiter=self._limiter)
        now = self._settle()
        match parameters["Action"]:
            case "ListTasksDetails":
                return self._list_tasks_details(parameters["TaskUIDList"], now)
            case "ListRunningTasks":
                uids = [task.entry.task_uid for task in self._schedule.open_tasks(now)]
                return {"TaskUIDList": [uid for uid in uids if uid not in self._vanished]}
            case "TerminateTask":
                return self._terminate_task(parameters["TaskUID"], now)
            case "ListModels":
                return _MODELS
            case "GetCreditBalance":
                return self._get_credit_balance()
        entry = self._submit(parameters, files, records, now)
        if self._ledger_file is not None:
            await self._ledger_file.append(entry)
        return {"TaskUID": entry.task_uid}

    def _inspect(self, parameters: Any) -> tuple[list[bytes], tuple[ImageRecord, ...]]:
        checks = {**_QUERIES, **{action: drawing.check for action, drawing in DRAWINGS.items()}}
        authenticate(parameters, credentials=self._credentials, checks=checks)
        drawing = DRAWINGS.get(parameters["Action"])
        files = images_of(parameters, drawing) if drawing else []
        return files, tuple(
            ImageRecord(index, hashlib.sha256(file).hexdigest(), len(file)) for index, file in enumerate(files)
        )

    def _submit(
        self, parameters: dict[str, Any], files: Sequence[bytes], images: tuple[ImageRecord, ...], now: float
    ) -> LedgerEntry:
        hidden = {"Signature", *DRAWINGS[parameters["Action"]].image_fields}
        kept = {name: value for name, value in parameters.items() if name not in hidden}
        cost = self._settings.cost(kept)
        if self._plan.strike(Moment.CHARGE, "submit") or cost > self._settings.credits - self._used:
            msg = f"insufficient credits: the task costs {cost}"
            raise Refusal(msg, RetCode.INSUFFICIENT_CREDITS)
        entry = LedgerEntry(
            request_uuid=parameters.get("request_uuid"),
            task_uid=secrets.token_hex(10),
            action=parameters["Action"],
            time=now,
            cost=cost,
            parameters=kept,
            images=images,
        )
        seed = parameters.get("Seed", -1)
        task = EmulatedTask(
            entry=entry,
            seed=secrets.randbelow(2**31) if seed == -1 else seed,
            token=secrets.token_urlsafe(16),
            files=files,
            ready=now + self._settings.queue_time,
            failure=self._failure(kept),
        )
        self._used += cost
        self.ledger.append(entry)
        self._schedule.add(task)
        for name, victims in (("vanish", self._vanished), ("poison", self._poisoned)):
            if self._plan.strike(Moment.TASK, "poll", name):
                victims.add(entry.task_uid)
        self._settle()
        return entry

    def _failure(self, parameters: Mapping[str, Any]) -> str | None:
        if self._luck.random() < self._settings.error_share:
            return "emulated error"
        return self._settings.fail(parameters) if self._settings.fail else None

    def _find(self, task_uid: str) -> EmulatedTask | None:
        return None if task_uid in self._vanished else self._schedule.find(task_uid)

    def _list_tasks_details(self, task_uids: list[str], now: float) -> dict[str, Any]:
        if not self._poisoned.isdisjoint(task_uids):
            msg = "TaskUIDList holds a task that cannot be read"
            raise Refusal(msg, RetCode.UNREADABLE_TASK)
        tasks = [task for uid in task_uids if (task := self._find(uid)) is not None]
        rows = [self._detail(task, task.status(now)) for task in tasks]
        rows = [row for row in rows if not self._plan.strike(Moment.ROW, "poll", "missing-row")]
        for row in rows:
            if self._plan.strike(Moment.ROW, "poll", "unknown-word"):
                row["Status"] = _UNKNOWN_WORD
        return {"TaskDetailList": rows}

    def _detail(self, task: EmulatedTask, status: str) -> dict[str, Any]:
        """A TaskDetail; see https://www.picpik.ai/api-docs/appendix/complex-data-types/TaskDetail."""
        pictures = task.pictures if status == "Finished" and task.pictures else ()
        failed = status == "Error"
        return {
            "TaskUID": task.entry.task_uid,
            "Action": task.entry.action,
            "Status": status,
            "ImgList": [f"{self._url}/results/{task.token}/{index}.png" for index in range(len(pictures))],
            "Seed": task.seed,
            "TxtList": [],
            "ConsumeApiPoint": task.entry.cost,
            "ErrorCode": _TASK_ERROR if failed else 0,
            "ErrorMassage": task.failure if failed else "",  # the documentation's spelling
        }

    def _terminate_task(self, task_uid: str, now: float) -> dict[str, Any]:
        task = self._find(task_uid)
        if task is None:
            msg = "TaskUID is unknown"
            raise Refusal(msg, RetCode.UNKNOWN_TASK)
        self._schedule.terminate(task, now)
        self._settle()
        return {}

    def _get_credit_balance(self) -> dict[str, Any]:
        return {
            "TotalCredits": self._settings.credits,
            "UsedCredits": self._used,
            "ExpireTimestamp": self._expires,
        }
