"""Tests of what becomes of submits in the journal: what a rerun may send, and what it must not forget."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from jobs import CREDENTIALS, job, mask, picture

from picpik_async import Dialect, ModifyMaskedPixels, PicpikSession, PollPolicy, RetryPolicy
from picpik_async._entries import JobState, JournalEntry
from picpik_async._journal import Journal
from picpik_async._records import note_failure, note_files, settled_uid
from picpik_async.errors import (
    ApiError,
    ConfigurationError,
    HttpStatusError,
    ImageError,
    InvalidRequestError,
    PicpikError,
    SubmitOutcomeUnknownError,
    TaskFailedError,
    TaskTerminatedError,
    TransportError,
)
from picpik_async.testing import Answer, FakeTransport

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio

LOST = Answer(200, b'{"RetCode": 0, "Task', broken="reset")
BUSY = Answer(429, b"")
KEY = "a-key"


class Service(FakeTransport):
    """Gives the answers it is told to give to submits, and numbers its tasks when there are none left."""

    def __init__(self, *answers: Any) -> None:
        super().__init__(self.respond)
        self.answers = list(answers)
        self.tasks: list[str] = []
        self.row: dict[str, Any] = {"Status": "Finished"}

    def respond(self, request: dict[str, Any]) -> Any:
        """Play the service."""
        if request["Action"] == "ListTasksDetails":
            return {"RetCode": 0, "TaskDetailList": [{"TaskUID": uid} | self.row for uid in request["TaskUIDList"]]}
        if self.answers:
            return self.answers.pop(0)
        self.tasks.append(f"task-{len(self.tasks)}")
        return {"RetCode": 0, "TaskUID": self.tasks[-1]}

    @property
    def submits(self) -> int:
        """How many it has got."""
        return [request["Action"] for request in self.requests].count("ModifyMaskedPixels")


class Deaf(FakeTransport):
    """Never gets as far as the tail."""

    async def send(self, body: Any, *, before_tail: Any = None) -> Answer:
        """Refuse."""
        del body, before_tail
        raise TransportError(stage="connect")


def session(service: FakeTransport, path: Path, **options: Any) -> PicpikSession:
    """A session with a journal."""
    defaults: dict[str, Any] = {"retry": RetryPolicy(submit_attempts=1), "poll": PollPolicy(tick=0.01)}
    return PicpikSession(CREDENTIALS, transport=service, journal=path, **(defaults | options))


async def entry_of(picpik: PicpikSession, key: str = KEY) -> JournalEntry:
    """The job in the journal."""
    entry = await (await picpik._open_journal()).find(key)
    assert entry is not None
    return entry


async def submit(picpik: PicpikSession) -> PicpikError | None:
    """Submit the job; returns what it raised."""
    try:
        await picpik.submit(job(), key=KEY)
    except PicpikError as error:
        return error
    return None


# --- without a journal -------------------------------------------------------------------------------------------------


async def test_no_journal() -> None:
    """Who asks for what needs a journal is told how to get one, and nothing is sent."""
    service = Service()
    async with PicpikSession(CREDENTIALS, transport=service) as picpik:
        uses: list[Callable[[], Any]] = [
            lambda: picpik.submit(job(), key=KEY),
            lambda: picpik.run(job(), key=KEY),
            picpik.recover,
            picpik.reconcile,
            lambda: picpik.adopt(KEY, "a-task"),
            lambda: picpik.resubmit(KEY, job(), accept_double_charge=True),
        ]
        for use in uses:
            with pytest.raises(ConfigurationError, match="no journal; make it with PicpikSession"):
                await use()

    assert [] == service.requests


async def test_twice_without_a_journal() -> None:
    """Without a journal each submit is a job of its own."""
    service = Service()
    async with PicpikSession(CREDENTIALS, transport=service) as picpik:
        await picpik.submit(job())
        await picpik.submit(job())

    assert 2 == service.submits


# --- a rerun -----------------------------------------------------------------------------------------------------------


async def test_paid_is_not_sent_again(tmp_path: Path) -> None:
    """The task of a job that was paid is the job's task, in any later session."""
    service, path = Service(), tmp_path / "jobs.sqlite"
    async with session(service, path) as picpik:
        await picpik.submit(job(), key=KEY)
    async with session(service, path) as picpik:
        task = await picpik.submit(job(), key=KEY)

        assert [task.uid] == [known.uid for known in picpik.tasks] == service.tasks
    assert 1 == service.submits


async def test_equal_requests_at_once(tmp_path: Path) -> None:
    """Equal requests are one job, also if they are submitted at the same time."""
    service, uids = Service(), set()
    async with session(service, tmp_path / "jobs.sqlite") as picpik, anyio.create_task_group() as group:

        async def one() -> None:
            uids.add((await picpik.submit(job())).uid)

        for _ in range(5):
            group.start_soon(one)

    assert {"task-0"} == uids
    assert 1 == service.submits


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        pytest.param(LOST, SubmitOutcomeUnknownError, id="lost"),
        pytest.param(Answer(502, b""), SubmitOutcomeUnknownError, id="502"),
        pytest.param({"RetCode": 7}, ApiError, id="RetCode"),
    ],
)
async def test_may_be_paid_is_not_sent_again(tmp_path: Path, answer: Any, kind: type[PicpikError]) -> None:
    """What may be paid is told as it was, with the way out, and not sent."""
    service, path = Service(answer), tmp_path / "jobs.sqlite"
    async with session(service, path) as picpik:
        first = await submit(picpik)
        at_once = await submit(picpik)
    async with session(service, path) as picpik:
        later = await submit(picpik)

    assert [kind] * 3 == [type(error) for error in (first, at_once, later)]
    assert "resubmit('a-key', request, accept_double_charge=True)" in str(later)
    assert first is not None
    assert later is not None
    assert first.request_uuid == later.request_uuid
    assert 1 == service.submits


@pytest.mark.parametrize("answer", [BUSY, Answer(413, b""), {"RetCode": 9}, {"RetCode": 10}, {"RetCode": 11}])
async def test_certainly_unpaid_is_sent_again(tmp_path: Path, answer: Any) -> None:
    """What was refused in a way that rules out a charge is sent again, under the same uuid."""
    service, path = Service(answer), tmp_path / "jobs.sqlite"
    dialect = Dialect(throttle_ret_codes={9}, no_credit_ret_codes={10}, rejected_ret_codes={11})
    async with session(service, path, dialect=dialect) as picpik:
        assert isinstance(await submit(picpik), ApiError | HttpStatusError)
        refused = await entry_of(picpik)
        await submit(picpik)
        paid = await entry_of(picpik)

    assert (JobState.REJECTED, JobState.ACK) == (refused.state, paid.state)
    assert 1 == len({request["request_uuid"] for request in service.requests})
    assert (None, None) == (paid.error, paid.ret_code)


async def test_never_sent(tmp_path: Path) -> None:
    """A job that did not reach its commit point is sent by the next submit, and is open until then."""
    path = tmp_path / "jobs.sqlite"
    async with session(Deaf(lambda _request: {}), path) as picpik:
        assert isinstance(await submit(picpik), TransportError)
        (entry,) = await picpik.recover()
        assert JobState.INTENT is entry.state
    service = Service()
    async with session(service, path) as picpik:
        await submit(picpik)

    assert [entry.request_uuid] == [request["request_uuid"] for request in service.requests]


async def test_request_in_another_shape(tmp_path: Path) -> None:
    """A key stands for one job; another request under it is refused, and the first one's line stays."""
    service = Service()
    async with session(service, tmp_path / "jobs.sqlite") as picpik:
        await submit(picpik)
        before = await entry_of(picpik)
        with pytest.raises(InvalidRequestError, match="names another job"):
            await picpik.submit(job().with_batch(2), key=KEY)

        assert before == await entry_of(picpik)


async def test_seed_that_tells_the_job(tmp_path: Path) -> None:
    """With a journal the seed is drawn here, unless it was asked for."""
    service = Service()
    async with session(service, tmp_path / "jobs.sqlite") as picpik:
        await submit(picpik)
        await picpik.submit(job().with_seed(5), key="fixed")
        drawn, fixed = await entry_of(picpik), await entry_of(picpik, "fixed")

    assert (True, False) == (drawn.auto_seed, fixed.auto_seed)
    assert [drawn.seed, 5] == [request["Seed"] for request in service.requests]


# --- how a task ends ---------------------------------------------------------------------------------------------------


async def test_failed_task(tmp_path: Path) -> None:
    """A task that ended badly is told as that by a rerun, which neither asks nor pays."""
    service, path = Service(), tmp_path / "jobs.sqlite"
    service.row = {"Status": "Error", "ErrorCode": 5, "ErrorMessage": "no"}
    async with session(service, path) as picpik:
        with pytest.raises(TaskFailedError):
            await picpik.run(job(), key=KEY)
    asked = len(service.requests)
    async with session(service, path) as picpik:
        with pytest.raises(TaskFailedError, match="ended badly in an earlier run") as caught:
            await picpik.run(job(), key=KEY)

    assert "task-0" == caught.value.task_uid
    assert asked == len(service.requests)


async def test_saved_files(tmp_path: Path) -> None:
    """Saving ends the job; a rerun finds its task."""
    service = Service()
    async with session(service, tmp_path / "jobs.sqlite") as picpik:
        result = await picpik.run(job(), key=KEY)
        await result.save(tmp_path)
        entry = await entry_of(picpik)

        assert (JobState.DONE, ()) == (entry.state, entry.files)
        assert () == await picpik.recover()
        assert "task-0" == (await picpik.submit(job(), key=KEY)).uid


async def test_ends_of_tasks_nobody_submitted(tmp_path: Path) -> None:
    """A task that is in no journal ends without a trace there; so does one without a journal, or without a uid."""
    async with Journal(tmp_path / "jobs.sqlite") as journal:
        await note_failure(journal, TaskFailedError("no", task_uid="strange"))
        await note_failure(journal, TaskFailedError("no"))
        await note_files(None, "strange", [tmp_path / "a.png"])

        assert [] == await journal.entries()


async def test_journal_that_cannot_be_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """That the pictures are there, but not noted, is an error in the log, and not one of whoever saves them."""
    journal = Journal(tmp_path / "jobs.sqlite")
    await note_files(journal, "a-task", [tmp_path / "a.png"])

    assert "a rerun will ask about this task again" in caplog.text


def entry(**fields: Any) -> JournalEntry:
    """A line of the journal."""
    return JournalEntry(key=KEY, digest="d", request_uuid="u", action="ModifyMaskedPixels", **fields)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"state": JobState.INTENT}, None),
        ({"state": JobState.ACK, "task_uid": "t"}, "t"),
        ({"state": JobState.DONE, "task_uid": "t"}, "t"),
        ({"state": JobState.REJECTED}, None),
        ({"state": JobState.REJECTED, "ret_code": 11}, None),
    ],
)
async def test_settled(fields: dict[str, Any], expected: str | None) -> None:
    """What is paid has a task, and what is certainly not paid may be sent."""
    assert expected == settled_uid(entry(**fields), Dialect(rejected_ret_codes={11}))


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"state": JobState.COMMIT}, SubmitOutcomeUnknownError),
        ({"state": JobState.COMMIT, "reason": "HTTP 502", "task_uid": "t"}, SubmitOutcomeUnknownError),
        ({"state": JobState.FAILED, "error": "TaskFailedError", "task_uid": "t"}, TaskFailedError),
        ({"state": JobState.FAILED, "error": "TaskTerminatedError", "task_uid": "t"}, TaskTerminatedError),
        ({"state": JobState.REJECTED, "ret_code": 12}, ApiError),
    ],
)
async def test_not_to_be_sent(fields: dict[str, Any], kind: type[PicpikError]) -> None:
    """All else is an error, which names the request, the task, and the way out."""
    with pytest.raises(kind, match="resubmit") as caught:
        settled_uid(entry(**fields), Dialect(rejected_ret_codes={11}))

    assert ("u", fields.get("task_uid")) == (caught.value.request_uuid, caught.value.task_uid)


# --- paying again ------------------------------------------------------------------------------------------------------


async def test_resubmit_must_be_meant(tmp_path: Path) -> None:
    """Nobody pays twice by accident, for a job that does not exist, or for another request."""
    service = Service(LOST)
    async with session(service, tmp_path / "jobs.sqlite") as picpik:
        await submit(picpik)
        with pytest.raises(InvalidRequestError, match="say so with accept_double_charge=True"):
            await picpik.resubmit(KEY, job())
        with pytest.raises(InvalidRequestError, match="key 'other' is not in the journal"):
            await picpik.resubmit("other", job(), accept_double_charge=True)
        with pytest.raises(InvalidRequestError, match="names another job"):
            await picpik.resubmit(KEY, job().with_batch(2), accept_double_charge=True)
    async with session(service, tmp_path / "jobs.sqlite") as picpik:
        with pytest.raises(InvalidRequestError, match="pass the request of this job, too"):
            await picpik.resubmit(KEY, accept_double_charge=True)

    assert 1 == service.submits


async def test_resubmit(tmp_path: Path) -> None:
    """Whoever accepts it pays again: another uuid, another seed, and the count of it; the request need not be repeated."""
    service = Service(LOST)
    async with session(service, tmp_path / "jobs.sqlite") as picpik:
        await submit(picpik)
        before = await entry_of(picpik)
        task = await picpik.resubmit(KEY, accept_double_charge=True)
        after = await entry_of(picpik)

        assert (0, 1) == (before.resubmits, after.resubmits)
        assert (JobState.ACK, task.uid, None) == (after.state, after.task_uid, after.reason)
        assert before.request_uuid != after.request_uuid
        assert before.seed != after.seed
    assert 2 == service.submits


@pytest.mark.parametrize("answer", [BUSY, {"RetCode": 7}, {"RetCode": 10}, TransportError("early", stage="send")])
@pytest.mark.parametrize("was", ["paid", "lost", "failed"])
async def test_resubmit_that_is_not_taken(tmp_path: Path, was: str, answer: Any) -> None:
    """Until it may be paid anew, what is known of the first payment is not forgotten, neither by a crash nor after."""
    service, path = Service(*[LOST] * (was == "lost")), tmp_path / "jobs.sqlite"
    crashed: list[JournalEntry | None] = []

    class Early(FakeTransport):
        async def send(self, body: Any, *, before_tail: Any = None) -> Answer:
            crashed.append(await (await picpik._open_journal()).find(KEY))
            if isinstance(answer, TransportError):
                raise answer
            return await super().send(body, before_tail=before_tail)

    attempts = 2 if answer is BUSY else 1
    if was == "failed":
        service.row = {"Status": "Error", "ErrorCode": 5}
    async with session(service, path) as picpik:
        with contextlib.suppress(PicpikError):
            await picpik.run(job(), key=KEY)
        before = await entry_of(picpik)
    options: dict[str, Any] = {
        "dialect": Dialect(no_credit_ret_codes={10}),
        "retry": RetryPolicy(submit_attempts=attempts, base_delay=0, throttle_delay=0),
    }
    async with session(Early(lambda _request: answer), path, **options) as picpik:
        with pytest.raises(PicpikError):
            await picpik.resubmit(KEY, job(), accept_double_charge=True)
        after = await entry_of(picpik)

    assert {"paid": JobState.ACK, "lost": JobState.COMMIT, "failed": JobState.FAILED}[was] is before.state
    assert [before] * attempts == crashed
    assert before == after


@pytest.mark.parametrize("code", [7, 10])
async def test_resubmit_of_what_was_refused(tmp_path: Path, code: int) -> None:
    """A certain refusal of the second submit says nothing of the first, which may be charged."""
    service = Service({"RetCode": 7}, {"RetCode": code})
    async with session(service, tmp_path / "jobs.sqlite", dialect=Dialect(no_credit_ret_codes={10})) as picpik:
        await submit(picpik)
        with pytest.raises(ApiError):
            await picpik.resubmit(KEY, job(), accept_double_charge=True)
        entry = await entry_of(picpik)

    assert (JobState.REJECTED, 7) == (entry.state, entry.ret_code)


@pytest.mark.parametrize(
    ("answer", "state"), [({"RetCode": 7}, JobState.REJECTED), (BUSY, JobState.REJECTED), (LOST, JobState.COMMIT)]
)
async def test_resubmit_of_what_was_never_sent(tmp_path: Path, answer: Any, state: JobState) -> None:
    """There is nothing to keep of a job that was never sent, so it goes its way like a new one."""
    path = tmp_path / "jobs.sqlite"
    async with session(Deaf(lambda _request: {}), path) as picpik:
        await submit(picpik)
    async with session(Service(answer), path) as picpik:
        with pytest.raises(PicpikError):
            await picpik.resubmit(KEY, job(), accept_double_charge=True)

        assert state is (await entry_of(picpik)).state


async def test_resubmit_of_a_job_without_a_key_of_its_own(tmp_path: Path) -> None:
    """A job that goes by its contents can be paid again, too, by the key that `recover` tells, in any session."""
    service, path = Service(LOST), tmp_path / "jobs.sqlite"
    async with session(service, path) as picpik:
        with pytest.raises(SubmitOutcomeUnknownError) as caught:
            await picpik.submit(job())
    async with session(service, path) as picpik:
        (entry,) = await picpik.recover()
        assert caught.value.key == entry.key
        task = await picpik.resubmit(entry.key, job(), accept_double_charge=True)
        again = await picpik.submit(job(), key=entry.key)

    assert (2, task.uid) == (service.submits, again.uid)


async def test_paid_tasks_are_not_forgotten(tmp_path: Path) -> None:
    """After a second payment the journal still names the first task."""
    service = Service()
    async with session(service, tmp_path / "jobs.sqlite") as picpik:
        first = await picpik.submit(job(), key=KEY)
        second = await picpik.resubmit(KEY, job(), accept_double_charge=True)
        entry = await entry_of(picpik)

    assert ((first.uid,), second.uid) == (entry.earlier_task_uids, entry.task_uid)


async def test_a_picture_that_changes_on_the_way(tmp_path: Path) -> None:
    """What is sent is what the key was made of, or nothing is sent."""
    service, file = Service(), anyio.Path(tmp_path / "room.png")
    await file.write_bytes(picture())
    request = ModifyMaskedPixels.inpaint(file, mask())
    async with session(service, tmp_path / "jobs.sqlite") as picpik:
        shop = (await picpik._open())._workshop
        sources = request.images()
        opened = await shop.open_images(sources)
        before = await shop.fingerprints(sources, opened)
        await file.write_bytes(picture(65))
        with pytest.raises(ImageError, match="changed"):
            await shop.fingerprints(sources, opened)

    assert 0 == service.submits
    assert 2 == len(before)


async def test_another_submit_of_the_job_takes_too_long(tmp_path: Path) -> None:
    """Who waits for another submit of the same job is not told that nothing was paid once that one may be taken."""
    arrived, gate = anyio.Event(), anyio.Event()

    async def late(_request: dict[str, Any]) -> dict[str, Any]:
        arrived.set()
        await gate.wait()
        return {"RetCode": 0, "TaskUID": "late"}

    transport = FakeTransport(late)
    async with PicpikSession(CREDENTIALS, transport=transport, journal=tmp_path / "jobs.sqlite") as picpik:
        async with anyio.create_task_group() as group:
            group.start_soon(picpik.submit, job())
            await arrived.wait()
            with pytest.raises(SubmitOutcomeUnknownError, match="another submit of this job") as caught:
                await picpik.run(job(), timeout=0.1)
            gate.set()

        assert transport.requests[0]["request_uuid"] == caught.value.request_uuid
        assert 1 == len(transport.requests)
