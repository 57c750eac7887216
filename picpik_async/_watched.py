"""A task somebody waits for, as the poller sees it: small, since there may be a hundred thousand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Hashable

    from picpik_async._deadlines import Waiter
    from picpik_async._tasks import TaskDetail

__all__ = ["HELD", "Watched"]

HELD: Final = -1  # the `due` of a task that a request holds


class Watched:
    """A task somebody waits for.

    Attributes:
        uid: its `TaskUID`.
        since: when it was accepted, if that is known, else when it was first watched; or when it was terminated. Its age
            counts from here.
        kind: what it has in common with tasks that take about as long; None if that is not known.
        seen_at: when it was last seen under way, at first as `since`.
        due: the tick at which it is asked about, or `HELD`.
        waiters: how many coroutines wait; a task without any is forgotten.
        followers: how many of them wait for any news, not only for the end.
        asleep: the waiters to wake; some may have left.
        detail: the last row seen.
        ended: it is over, and `detail` says how, unless it has `vanished`.
        vanished: it was missing for too long.
        missing_since: when it was first missing, if the last answer lacked it.
        problem: what was wrong with its last poll.
        refusals: how often it was refused alone, with proof that it is at fault.
        suspected_at: count of good answers when it was refused alone without such proof.
    """

    __slots__ = (
        "asleep",
        "detail",
        "due",
        "ended",
        "followers",
        "kind",
        "missing_since",
        "problem",
        "refusals",
        "seen_at",
        "since",
        "suspected_at",
        "uid",
        "vanished",
        "waiters",
    )

    def __init__(self, uid: str, since: float, *, kind: Hashable = None) -> None:
        self.uid = uid
        self.since = since
        self.kind = kind
        self.seen_at = since
        self.due = HELD
        self.waiters = 0
        self.followers = 0
        self.asleep: list[Waiter] = []
        self.detail: TaskDetail | None = None
        self.ended = False
        self.vanished = False
        self.missing_since: float | None = None
        self.problem: str | None = None
        self.refusals = 0
        self.suspected_at: int | None = None

    @property
    def held(self) -> bool:
        """Whether a request with this task is planned or on its way."""
        return self.due == HELD

    def wake(self) -> None:
        """Let all who wait have another look."""
        asleep, self.asleep = self.asleep, []
        for waiter in asleep:
            waiter.wake()
