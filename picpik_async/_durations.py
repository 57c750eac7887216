"""How long tasks of each kind took lately, and what that says about those under way; without async and without I/O.

A task ends somewhere between two polls, the last that saw it under way and the first that saw its end, so a duration is an
interval of ages. Only the latest of each kind count, so that what changes is followed.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["Durations", "Eta"]

_WINDOW: Final = 64  # durations remembered of each kind
_ENOUGH: Final = 8  # with fewer, polls are not put off
_KINDS: Final = 64  # kinds remembered, each in up to 10 KB
_GENERATION: Final = 100_000  # tasks whose begins are forgotten together, 180 bytes each; some are never awaited here
# What counts as a gap between durations, not as chance: it is so many polls long, and this share of the age at its end.
# Without the first, delays in a wide mix grow by 7 %; without the second they grow fourfold if there is a poll each tick.
_GAP_POLLS: Final = 4
_GAP_SHARE: Final = 0.25
_LONGEST: Final = 3600.0  # seconds


@attrs.frozen(kw_only=True)
class Eta:
    """When a task may be finished, judging by earlier tasks of the same Action, model and size; `str` says it in words.

    Attributes:
        seconds: time left, from 0 to 3600: the median of those earlier tasks that took longer than this one so far.
        overdue: all of them took less time, and nothing more can be said; *seconds* is 0.
        tasks: how many earlier tasks it rests on, at most 64.
    """

    seconds: float
    overdue: bool
    tasks: int

    def __str__(self) -> str:
        earlier = "1 earlier task" if self.tasks == 1 else f"{self.tasks} earlier tasks"
        if self.overdue:
            return f"overdue ({earlier} took less time)"
        if self.seconds < 100:  # noqa: PLR2004 - from there on, minutes
            return f"about {max(1, round(self.seconds))} s left (from {earlier})"
        return f"about {round(self.seconds / 60)} min left (from {earlier})"


class _Window:
    """The latest durations of one kind.

    Attributes:
        lowers: ages at which they were last seen under way, sorted.
        uppers: ages at which they were seen to have ended, sorted.
    """

    __slots__ = ("_latest", "lowers", "uppers")

    def __init__(self) -> None:
        self._latest: deque[tuple[float, float]] = deque()
        self.lowers: list[float] = []
        self.uppers: list[float] = []

    def add(self, lower: float, upper: float) -> None:
        if len(self._latest) == _WINDOW:
            forgotten_lower, forgotten_upper = self._latest.popleft()
            self.lowers.remove(forgotten_lower)
            self.uppers.remove(forgotten_upper)
        self._latest.append((lower, upper))
        insort(self.lowers, lower)
        insort(self.uppers, upper)


class Durations:
    """How long tasks took, by kind; a kind is whatever tasks have in common that take about as long."""

    def __init__(self) -> None:
        self._windows: dict[Hashable, _Window] = {}
        self._young: dict[str, tuple[Hashable, float]] = {}
        self._old: dict[str, tuple[Hashable, float]] = {}

    def begin(self, uid: str, kind: Hashable, now: float) -> None:
        """Note that a task of that kind has just been accepted."""
        if len(self._young) >= _GENERATION:
            self._young, self._old = {}, self._young
        self._young[uid] = (kind, now)

    def find(self, uid: str) -> tuple[Hashable, float] | None:
        """The kind of a task, and when it began; None if that is not known, or it has ended."""
        return self._young.get(uid) or self._old.get(uid)

    def forget(self, uid: str) -> None:
        """Learn nothing from that task."""
        self._pop(uid)

    def end(self, uid: str, *, after: float, now: float) -> None:
        """Note that a task has ended between the time *after* and now; nothing is learned if its begin is not known."""
        found = self._pop(uid)
        if found is None:
            return
        kind, begin = found
        window = self._windows.pop(kind, None) or _Window()
        self._windows[kind] = window
        if len(self._windows) > _KINDS:
            del self._windows[next(iter(self._windows))]  # the one that learned nothing for longest
        window.add(after - begin, now - begin)

    def quiet(self, kind: Hashable, age: float, usual: float) -> float:
        """Seconds from *age* in which no recent task of that kind has ended; 0 if they are few, or nothing can be said.

        Args:
            kind: the kind.
            age: seconds since the begin.
            usual: the usual wait until the next poll; a gap between durations counts only if it is several times as long.
        """
        window = self._windows.get(kind)
        if window is None or len(window.uppers) < _ENOUGH:
            return 0.0
        shorter = bisect_right(window.uppers, age)
        if shorter == len(window.uppers):
            return 0.0
        start, end = window.uppers[shorter - 1], window.lowers[shorter]
        if shorter and end - start < max(_GAP_POLLS * usual, _GAP_SHARE * end):
            return 0.0
        return max(0.0, end - age)

    def eta(self, uid: str, now: float) -> Eta | None:
        """When a task may be finished; None if nothing is known."""
        kind, begin = self.find(uid) or (None, now)
        window = self._windows.get(kind)
        if window is None:
            return None
        age, count = now - begin, len(window.uppers)
        shorter = bisect_right(window.uppers, age)
        if shorter == count:
            return Eta(seconds=0.0, overdue=True, tasks=count)
        median = (shorter + count - 1) // 2
        middle = (window.lowers[median] + window.uppers[median]) / 2
        return Eta(seconds=min(_LONGEST, max(0.0, middle - age)), overdue=False, tasks=count)

    def _pop(self, uid: str) -> tuple[Hashable, float] | None:
        old = self._old.pop(uid, None)
        return self._young.pop(uid, None) or old
