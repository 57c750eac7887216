"""Tests of what is proposed for jobs whose outcome is unknown, and of what is adopted: never a guess."""

from __future__ import annotations

import asyncio
import gc
import random
import weakref
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import attrs
import pytest
from jobs import CREDENTIALS, job

from picpik_async import Dialect, PicpikSession, PollPolicy, RetryPolicy
from picpik_async._entries import JobState, JournalEntry
from picpik_async._recovery import matched
from picpik_async._tasks import TaskDetail, TaskStatus
from picpik_async.errors import ApiError, InvalidRequestError, PicpikError, SubmitOutcomeUnknownError, TransportError
from picpik_async.testing import Answer, FakeTransport

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ACTION = "ModifyMaskedPixels"
OTHER = "Image2Image"


# --- matching ----------------------------------------------------------------------------------------------------------


def entry(key: str, seed: int | None = 1, *, auto_seed: bool = True, action: str = ACTION) -> JournalEntry:
    """A job whose outcome is unknown."""
    return JournalEntry(
        key=key, digest="", request_uuid=key, action=action, seed=seed, auto_seed=auto_seed, state=JobState.COMMIT
    )


def task(uid: str, seed: int | None = 1, action: str | None = ACTION) -> TaskDetail:
    """A task nobody knows."""
    return TaskDetail(task_uid=uid, action=action, status=TaskStatus.RUNNING, status_word="Running", seed=seed)


@pytest.mark.parametrize(
    ("jobs", "tasks", "candidates", "certain"),
    [
        pytest.param([entry("a")], [task("t")], ["t"], True, id="action and drawn seed"),
        pytest.param([entry("a")], [], [], False, id="nothing runs"),
        pytest.param([entry("a")], [task("t", 2)], [], False, id="another seed"),
        pytest.param([entry("a")], [task("t", action=OTHER)], [], False, id="another action"),
        pytest.param([entry("a")], [task("t", None)], ["t"], False, id="a task that tells no seed"),
        pytest.param([entry("a")], [task("t", action=None)], ["t"], False, id="a task that tells no action"),
        pytest.param([entry("a")], [task("t"), task("u")], ["t", "u"], False, id="two tasks"),
        pytest.param([entry("a")], [task("t"), task("u", None)], ["t", "u"], False, id="one more that may be"),
        pytest.param([entry("a")], [task("t"), task("u", 2)], ["t"], True, id="one more that cannot be"),
        pytest.param([entry("a"), entry("b")], [task("t")], ["t"], False, id="two jobs"),
        pytest.param([entry("a"), entry("b", action=OTHER)], [task("t")], ["t"], True, id="another job"),
        pytest.param([entry("a", auto_seed=False)], [task("t")], ["t"], False, id="a seed of the user's"),
        pytest.param([entry("a", None)], [task("t")], ["t"], False, id="a job without seed"),
        pytest.param([entry("a", None, auto_seed=True)], [task("t", None)], ["t"], False, id="no seeds"),
    ],
)
def test_matched(jobs: list[JournalEntry], tasks: list[TaskDetail], candidates: list[str], certain: bool) -> None:
    """A task is a job's own for certain only if it has the very seed that was drawn for it, and nothing else fits."""
    proposal = matched(jobs, tasks)[0]

    assert candidates == [candidate.task_uid for candidate in proposal.candidates]
    assert certain is proposal.certain


@attrs.define
class World:
    """An account with two programs: ours with a journal, and another one; seeds are few, so that they collide."""

    rng: random.Random
    entries: list[JournalEntry] = attrs.field(factory=list)
    tasks: dict[str, TaskDetail] = attrs.field(factory=dict)
    owners: dict[str, str] = attrs.field(factory=dict)

    def live(self) -> None:
        """Let a few things happen."""
        used = set()
        for number in range(self.rng.randrange(1, 6)):
            action = self.rng.choice([ACTION, OTHER])
            auto = self.rng.random() < 0.7
            seed = self.rng.randrange(1000) if auto else self.rng.choice([None, 7])
            # Two drawn seeds are equal in one of 2**31 cases, which is the one assumption there is.
            if auto and (action, seed) in used:
                continue
            used.add((action, seed))
            self.entries.append(entry(f"job-{number}", seed, auto_seed=auto, action=action))
            if self.rng.random() < 0.6:
                self.take(f"job-{number}", action, seed)
        for number in range(self.rng.randrange(4)):
            action = self.rng.choice([ACTION, OTHER])
            strange = self.rng.choice([None, 7, self.rng.randrange(2000, 9000)])
            self.take(f"stranger-{number}", action, strange)

    def take(self, owner: str, action: str, seed: int | None) -> None:
        """A task starts; what the service tells of it may lack something, or it may be over and gone."""
        uid = f"task-{len(self.owners)}"
        self.owners[uid] = owner
        if self.rng.random() < 0.8:
            told = self.rng.random() < 0.8
            drawn = self.rng.randrange(10_000, 99_999) if seed is None else seed
            self.tasks[uid] = task(uid, drawn if told else None, action if self.rng.random() < 0.9 else None)


def test_no_wrong_adoption() -> None:
    """In 10,000 random histories nothing is certain that is not so, and much of what is so is certain."""
    rng, certain = random.Random(20_240_611), 0
    for _ in range(10_000):
        world = World(rng)
        world.live()
        rows = [*world.tasks.values()]
        rng.shuffle(rows)
        for proposal in matched(world.entries, rows):
            if proposal.certain:
                certain += 1
                assert proposal.entry.key == world.owners[proposal.candidates[0].task_uid]

    assert certain > 4000


# --- in a session ------------------------------------------------------------------------------------------------------


class Service(FakeTransport):
    """Takes every submit, and loses the answers of those it is told to lose.

    Attributes:
        tasks: what runs.
        reply: what it answers to a submit instead of the `TaskUID`.
    """

    def __init__(self) -> None:
        super().__init__(self.respond)
        self.tasks: dict[str, dict[str, Any]] = {}
        self.reply: Any = None
        self.gate = anyio.Event()
        self.gate.set()
        self.asking: Callable[[], Any] | None = None

    async def respond(self, request: dict[str, Any]) -> Any:
        """Play the service."""
        match request["Action"]:
            case "ListRunningTasks":
                return {"RetCode": 0, "TaskUIDList": [*self.tasks]}
            case "ListTasksDetails":
                if self.asking is not None:
                    await self.asking()
                rows = [self.tasks[uid] for uid in request["TaskUIDList"] if uid in self.tasks]
                return {"RetCode": 0, "TaskDetailList": rows}
        reply = self.reply
        uid = f"task-{len(self.tasks)}"
        self.tasks[uid] = {
            "TaskUID": uid,
            "Action": request["Action"],
            "Seed": request.get("Seed"),
            "Status": "Running",
        }
        await self.gate.wait()
        return {"RetCode": 0, "TaskUID": uid} if reply is None else reply

    def calls(self, action: str) -> int:
        """How many requests there were of an Action."""
        return [request["Action"] for request in self.requests].count(action)


LOST = Answer(502, b"")


def session(service: Service, path: Path, **options: Any) -> PicpikSession:
    """A session with a journal."""
    return PicpikSession(
        CREDENTIALS,
        transport=service,
        journal=path,
        retry=RetryPolicy(attempts=1),
        poll=PollPolicy(tick=0.01),
        **options,
    )


async def lose(picpik: PicpikSession, service: Service, key: str = "a-key", reply: Any = LOST) -> PicpikError:
    """Submit a job whose answer is lost."""
    service.reply = reply
    with pytest.raises(PicpikError) as caught:
        await picpik.submit(job(), key=key)
    service.reply = None
    return caught.value


@pytest.mark.anyio
async def test_reconcile(tmp_path: Path) -> None:
    """The task of a job whose answer was lost is found by its seed, and adopted if asked; then it is paid and known."""
    service = Service()
    async with session(service, tmp_path / "jobs.sqlite") as picpik:
        known = await picpik.submit(job(), key="known")
        await lose(picpik, service)
        (proposal,) = await picpik.reconcile()
        assert ("a-key", True) == (proposal.entry.key, proposal.certain)
        assert [JobState.ACK, JobState.COMMIT] == [entry.state for entry in await picpik.recover()]
        await picpik.reconcile(adopt=True)
        adopted = await picpik.submit(job(), key="a-key")

        assert {"task-0", "task-1"} == {known.uid, adopted.uid}
        assert [JobState.ACK] * 2 == [entry.state for entry in await picpik.recover()]
        assert {} == picpik.unknown_submits
        assert () == await picpik.reconcile()
    assert 2 == service.calls(ACTION)
    assert 2 == service.calls("ListRunningTasks")


@pytest.mark.anyio
async def test_reconcile_in_a_later_session(tmp_path: Path) -> None:
    """It works as well after a restart."""
    service, path = Service(), tmp_path / "jobs.sqlite"
    async with session(service, path) as picpik:
        await lose(picpik, service)
    async with session(service, path) as picpik:
        (proposal,) = await picpik.reconcile(adopt=True)
        assert proposal.certain
        assert "task-0" == (await picpik.submit(job(), key="a-key")).uid


@pytest.mark.anyio
async def test_nothing_to_reconcile(tmp_path: Path) -> None:
    """If no outcome is unknown, the service is not asked; a task that has ended proves nothing."""
    service = Service()
    async with session(service, tmp_path / "jobs.sqlite") as picpik:
        await picpik.submit(job())
        assert () == await picpik.reconcile()
        assert 0 == service.calls("ListRunningTasks")
        await lose(picpik, service)
        service.tasks.clear()
        (proposal,) = await picpik.reconcile(adopt=True)

        assert ((), False) == (proposal.candidates, proposal.certain)
        assert 1 == len(picpik.unknown_submits)


@pytest.mark.anyio
async def test_uncertain_is_not_adopted(tmp_path: Path) -> None:
    """What may be the job's task, but need not, is told, and left to the user."""
    service = Service()
    async with session(service, tmp_path / "jobs.sqlite") as picpik:
        await lose(picpik, service)
        service.tasks["task-0"]["Seed"] = None
        (proposal,) = await picpik.reconcile(adopt=True)
        assert (["task-0"], False) == ([row.task_uid for row in proposal.candidates], proposal.certain)
        assert 1 == len(picpik.unknown_submits)
        adopted = await picpik.adopt("a-key", "task-0")

        assert adopted.uid == (await picpik.submit(job(), key="a-key")).uid
        assert {} == picpik.unknown_submits


@pytest.mark.anyio
async def test_task_named_by_a_broken_answer(tmp_path: Path) -> None:
    """A uid that was read out of a broken answer, but not confirmed, is in the journal, and can be proposed still."""
    service = Service()
    async with session(service, tmp_path / "jobs.sqlite") as picpik:
        broken = Answer(200, b'{"RetCode": false, "TaskUID": "task-0"}')
        error = await lose(picpik, service, reply=broken)
        (entry,) = await picpik.recover()
        assert "task-0" == error.task_uid == entry.task_uid
        (proposal,) = await picpik.reconcile(adopt=True)

        assert proposal.certain
        assert "task-0" == (await picpik.submit(job(), key="a-key")).uid


@pytest.mark.anyio
async def test_salvaged_uid_of_a_session_that_ends(tmp_path: Path) -> None:
    """If the session ends before the service has confirmed a salvaged uid, the journal has it all the same."""
    service, path = Service(), tmp_path / "jobs.sqlite"
    asked = anyio.Event()

    async def never() -> None:
        asked.set()
        await anyio.sleep_forever()

    service.asking = never
    service.reply = Answer(200, b'{"RetCode": 0, "TaskUID": "task-0", ', broken="reset")
    picpik = session(service, path)
    submitting = asyncio.create_task(picpik.submit(job(), key="a-key"))
    await asked.wait()
    assert picpik._engine is not None
    picpik._engine.owner.cancel()
    with pytest.raises(SubmitOutcomeUnknownError) as caught:
        await submitting
    await picpik.aclose()
    async with session(Service(), path) as later:
        (entry,) = await later.recover()

    assert "task-0" == caught.value.task_uid == entry.task_uid


@pytest.mark.anyio
async def test_refusals_are_reconciled(tmp_path: Path) -> None:
    """A refusal that does not rule out a charge is looked into, one that does is not."""
    service = Service()
    async with session(service, tmp_path / "jobs.sqlite", dialect=Dialect(rejected_ret_codes={9})) as picpik:
        assert isinstance(await lose(picpik, service, "odd", {"RetCode": 7}), ApiError)
        assert isinstance(await lose(picpik, service, "certain", {"RetCode": 9}), ApiError)
        (proposal,) = await picpik.reconcile()

        assert ("odd", True) == (proposal.entry.key, proposal.certain)


@pytest.mark.anyio
async def test_many_tasks(tmp_path: Path) -> None:
    """Tasks are asked about in lists of the allowed length."""
    service = Service()
    async with session(service, tmp_path / "jobs.sqlite", dialect=Dialect(max_task_uids=2)) as picpik:
        for number in range(3):
            service.tasks[f"strange-{number}"] = {"TaskUID": f"strange-{number}", "Action": ACTION, "Seed": number}
        await lose(picpik, service)
        (proposal,) = await picpik.reconcile()

        assert ["task-3"] == [row.task_uid for row in proposal.candidates]
    assert 2 == service.calls("ListTasksDetails")


@pytest.mark.anyio
async def test_what_is_still_awaited(tmp_path: Path) -> None:
    """A submit that is under way is nobody's business: it is not proposed, and adopts nothing."""
    service = Service()
    service.gate = anyio.Event()
    async with session(service, tmp_path / "jobs.sqlite") as picpik:
        with pytest.raises(SubmitOutcomeUnknownError, match="still awaited"):
            await picpik.run(job(), key="a-key", timeout=0.2)
        assert () == await picpik.reconcile(adopt=True)
        with pytest.raises(InvalidRequestError, match="is being submitted at this moment"):
            await picpik.adopt("a-key", "task-0")
        service.gate.set()

        assert "task-0" == (await picpik.submit(job(), key="a-key")).uid


@pytest.mark.anyio
async def test_a_late_answer_lets_go_of_the_pictures(tmp_path: Path) -> None:
    """A request is kept while its outcome is unknown, and no longer."""
    service = Service()
    service.gate = anyio.Event()
    request = job()
    gone = weakref.ref(request)
    async with session(service, tmp_path / "jobs.sqlite") as picpik:
        with pytest.raises(SubmitOutcomeUnknownError):
            await picpik.run(request, key="a-key", timeout=0.2)
        service.gate.set()
        while not picpik.tasks:
            await anyio.lowlevel.checkpoint()
        del request
        gc.collect()

        assert gone() is None


@pytest.mark.anyio
async def test_resubmitted_meanwhile(tmp_path: Path) -> None:
    """A job that is settled while the service is asked about it is left as it is."""
    service = Service()
    async with session(service, tmp_path / "jobs.sqlite") as picpik:
        await lose(picpik, service)

        async def settle() -> None:
            service.asking = None
            await picpik.resubmit("a-key", accept_double_charge=True)

        service.asking = settle
        (proposal,) = await picpik.reconcile(adopt=True)

        assert proposal.certain
        assert "task-1" == (await picpik.submit(job(), key="a-key")).uid


@pytest.mark.anyio
async def test_wrong_adoptions(tmp_path: Path) -> None:
    """Only a job whose outcome is unknown adopts, and only what is not another job's."""
    service = Service()
    async with session(service, tmp_path / "jobs.sqlite") as picpik:
        await picpik.submit(job(), key="known")
        await lose(picpik, service)
        uses: list[tuple[str, str, str]] = [
            ("nobody", "task-1", "key 'nobody' is not in the journal"),
            ("known", "task-1", "key 'known' is in state ack"),
            ("a-key", "task-0", "task_uid 'task-0' is the task of the job 'known'"),
            ("a-key", "", "task_uid is ''"),
        ]
        for key, uid, words in uses:
            with pytest.raises(InvalidRequestError, match=words):
                await picpik.adopt(key, uid)

        assert 1 == len(picpik.unknown_submits)


@pytest.mark.anyio
async def test_service_that_does_not_answer(tmp_path: Path) -> None:
    """If the service cannot be asked, that is what is told."""
    service = Service()
    async with session(service, tmp_path / "jobs.sqlite") as picpik:
        await lose(picpik, service)

        async def fail() -> None:
            message = "lost"
            raise TransportError(message)

        service.asking = fail
        with pytest.raises(TransportError):
            await picpik.reconcile(adopt=True)

        assert 1 == len(picpik.unknown_submits)


@pytest.mark.anyio
async def test_adoption_of_what_has_changed(tmp_path: Path) -> None:
    """A proposal is for the submit it was made for: after another one it is not adopted."""
    service = Service()
    async with session(service, tmp_path / "jobs.sqlite") as picpik:
        await lose(picpik, service)
        (old,) = await picpik.reconcile()
        service.reply = Answer(502, b"")
        with pytest.raises(SubmitOutcomeUnknownError):
            await picpik.resubmit("a-key", job(), accept_double_charge=True)
        service.reply = None
        with pytest.raises(InvalidRequestError, match="in state commit"):
            await picpik._adopt("a-key", old.candidates[0].task_uid, expected=old.entry)

        assert [JobState.COMMIT] == [entry.state for entry in await picpik.recover()]


@pytest.mark.anyio
async def test_certain_refusals_adopt_nothing(tmp_path: Path) -> None:
    """What was refused with a status was not charged, and is not listed; what was refused with a RetCode may be."""
    service = Service()
    async with session(service, tmp_path / "jobs.sqlite") as picpik:
        service.reply = Answer(400, b"")
        with pytest.raises(PicpikError):
            await picpik.submit(job(), key="refused")
        service.reply = Answer(200, b'{"RetCode": 7}')
        with pytest.raises(PicpikError):
            await picpik.submit(job().with_seed(2), key="doubtful")

        assert ["doubtful"] == [entry.key for entry in await picpik.recover()]
        with pytest.raises(InvalidRequestError, match="in state rejected"):
            await picpik.adopt("refused", "a-task")
        await picpik.adopt("doubtful", "a-task")
