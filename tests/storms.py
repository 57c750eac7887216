"""Many submits to a server that fails at random, some of them cancelled, and what became of them."""

from __future__ import annotations

import asyncio
import functools
import io
import random
from collections import Counter
from typing import TYPE_CHECKING

import attrs
import uvloop
from histories import History, Outcome, Verdict, untraced, verdict, violations
from jobs import mask, session
from ledger_server import result_hash
from PIL import Image

from picpik_async import Limits, ModifyMaskedPixels, PicpikError, PicpikSession, RetryPolicy
from picpik_async._journal import Journal
from picpik_async.errors import SubmitOutcomeUnknownError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from ledger_server import LedgerProcess, LedgerServer

    from picpik_async import JournalEntry, Task

QUICKER = Limits(stall_timeout=0.3, request_timeout=0.3, slice_size=9000)
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


@functools.cache
def noise(side: int) -> bytes:
    """A PNG of `3 * side * side` bytes."""
    image = Image.frombytes("RGB", (side, side), random.Random(side).randbytes(side * side * 3))
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=0)
    return file.getvalue()


@functools.cache
def small_job() -> ModifyMaskedPixels:
    """A request with a picture of about 200 bytes."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (10, 20, 30)).save(file, "PNG")
    return ModifyMaskedPixels.inpaint(file.getvalue(), mask(), prompts="a sofa")


@functools.cache
def medium_job() -> ModifyMaskedPixels:
    """A request with a picture of 100 kB."""
    return ModifyMaskedPixels.inpaint(noise(180), mask(180), prompts="a sofa")


@functools.cache
def large_job() -> ModifyMaskedPixels:
    """A request with a picture of 20 MB."""
    return ModifyMaskedPixels.inpaint(noise(2600), mask(2600), prompts="a sofa")


JOBS: dict[str, Callable[[], ModifyMaskedPixels]] = {"small": small_job, "medium": medium_job, "large": large_job}


@attrs.frozen(kw_only=True)
class Storm:
    """A number of submits.

    Attributes:
        seed: of all that is random here.
        small: how many with a picture of 200 bytes.
        medium: how many with one of 100 kB, in many small slices.
        large: how many with one of 20 MB.
        cancelled: how many are cancelled at a random moment, 0 to 1.
        at_once: how many sessions at a time; each sends two submits at once, too few for its breaker to open.
        tls: the client's context.
        loop: which event loop, a key of `LOOPS`.
        journals: a folder for journals; None for none.
        pictures: a folder for pictures; None if nobody waits for them.
    """

    seed: int
    small: int
    medium: int = 0
    large: int = 0
    cancelled: float = 0.15
    at_once: int = 8
    tls: ssl.SSLContext | None = None
    loop: str = "asyncio"
    journals: Path | None = None
    pictures: Path | None = None

    def run(self, server: LedgerServer | LedgerProcess) -> Report:
        """Let it rage, and wait until *server* has got all it will get."""
        report = Report()
        with asyncio.Runner(loop_factory=LOOPS[self.loop]) as runner:
            runner.run(self._run(server.url, report))
        server.settle()
        report.counts.update(server.counts)
        report.judge(server, pictures=self.pictures is not None)
        return report

    async def _run(self, url: str, report: Report) -> None:
        rng = random.Random(self.seed)
        order = ["small"] * self.small + ["medium"] * self.medium + ["large"] * self.large
        rng.shuffle(order)
        names = [f"storm-{self.seed}-{number}-{size}" for number, size in enumerate(order)]
        pairs = iter([names[start : start + 2] for start in range(0, len(names), 2)])

        async def work(number: int) -> None:
            journal = None if self.journals is None else self.journals / f"{self.seed}-{number}.journal"
            for pair in pairs:
                await self._pair(url, pair, journal, rng, report)
            if journal is not None:
                async with Journal(journal) as book:
                    report.entries += await book.entries()

        async with asyncio.TaskGroup() as group:
            for number in range(self.at_once):
                group.create_task(work(number))

    async def _pair(
        self, url: str, names: Iterable[str], journal: Path | None, rng: random.Random, report: Report
    ) -> None:
        large = any(name.endswith("large") for name in names)
        limits = (
            Limits(stall_timeout=2, request_timeout=2)
            if large
            else Limits(stall_timeout=0.3, request_timeout=0.3, slice_size=9000)
        )
        options = {"limits": limits, "retry": RetryPolicy(base_delay=0, throttle_delay=0), "journal": journal}
        async with session(url, ssl=self.tls, **options) as picpik, asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(self._submit(picpik, name, rng, report))
        report.known(picpik)

    async def _submit(self, picpik: PicpikSession, name: str, rng: random.Random, report: Report) -> None:
        size = name.rpartition("-")[2]
        scale = 1.0 if size == "large" else 0.1
        moment = rng.random() ** 2 * scale if rng.random() < self.cancelled else None
        try:
            async with asyncio.timeout(moment):
                key = None if self.journals is None else name
                task = await picpik.submit(JOBS[size](), key=key, request_uuid=name)
                outcome = Outcome(name, Verdict.ACK, task.uid)
            report.outcomes.append(outcome if self.pictures is None else await fetched(task, outcome, self.pictures))
        except PicpikError as error:
            report.outcomes.append(Outcome(name, verdict(error)))
            if name != error.request_uuid:
                report.violations.append(f"{name}: {error!r} is about {error.request_uuid}")
            if isinstance(error, SubmitOutcomeUnknownError) and name not in picpik.unknown_submits:
                report.violations.append(f"{name}: {error!r} is not among the unknown submits")
        except TimeoutError:  # no error of ours, which is caught above
            report.outcomes.append(Outcome(name, Verdict.NOTHING))
            report.counts["cancelled"] += 1
        except Exception as error:  # noqa: BLE001 - that is the finding
            report.violations.append(f"{name}: {error!r} left the SDK")


async def fetched(task: Task, outcome: Outcome, folder: Path) -> Outcome:
    """What became of a task."""
    try:
        files = await (await task.wait(timeout=10)).save(folder)
    except PicpikError as error:
        return attrs.evolve(outcome, error=error)
    return attrs.evolve(outcome, files=tuple(files))


@attrs.define
class Report:
    """What became of the submits.

    Attributes:
        outcomes: what their callers were told.
        tasks: what the sessions know of.
        unknown: `request_uuid`s that the sessions call unknown.
        entries: of the journals.
        counts: of everything.
        violations: what must not be.
    """

    outcomes: list[Outcome] = attrs.field(factory=list)
    tasks: set[str] = attrs.field(factory=set)
    unknown: set[str] = attrs.field(factory=set)
    entries: list[JournalEntry] = attrs.field(factory=list)
    counts: Counter[str] = attrs.field(factory=Counter)
    violations: list[str] = attrs.field(factory=list)

    def known(self, picpik: PicpikSession) -> None:
        """Note what *picpik* knows of its submits."""
        self.tasks.update(task.uid for task in picpik.tasks)
        self.unknown.update(picpik.unknown_submits)

    def judge(self, server: LedgerServer | LedgerProcess, *, pictures: bool) -> None:
        """Compare with what was charged, and with the *pictures* that were made."""
        charges = server.charges()
        self.counts["outcomes"] = len(self.outcomes)
        self.counts.update(outcome.verdict.value for outcome in self.outcomes)
        history = History(
            charges=charges,
            outcomes=self.outcomes,
            entries=self.entries or None,
            jobs=len(self.outcomes),
            sent=result_hash if pictures else None,
        )
        self.violations += violations(history)
        self.violations += untraced(charges, tasks=self.tasks, request_uuids=self.unknown)
        if self.counts["bad"]:
            self.violations.append(f"{self.counts['bad']} whole requests were not JSON with a good signature")

    def add(self, other: Report) -> None:
        """Take in what another storm did."""
        self.outcomes += other.outcomes
        self.counts.update(other.counts)
        self.violations += other.violations

    def text(self) -> str:
        """All in one line."""
        numbers = dict(self.counts)
        said = [f"{numbers.pop('outcomes')} submits", f"{numbers.pop('submits')} exchanges"]
        said += [f"{numbers.pop(name, 0)} {name}" for name in ("cancelled", "charged", "ack", "unknown", "not taken")]
        wrong = [sum(violation.startswith(rule) for violation in self.violations) for rule in ("I1", "I2")]
        said += [f"{wrong[0]} duplicates", f"{wrong[1]} false not-taken", f"{len(self.violations)} violations"]
        for name in ("refused", "bad", "nothing", "rejected"):
            numbers.pop(name, None)
        faults = ", ".join(f"{name} {count}" for name, count in sorted(numbers.items()))
        return f"{', '.join(said)}; faults that struck: {sum(numbers.values())} ({faults})"
