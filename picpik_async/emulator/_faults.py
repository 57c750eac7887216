"""Faults as values: what there is to go wrong, in which kind of request, and how it is written down.

A fault is written `[ON.]NAME[@AFTER][:SHARE][xCOUNT]`, in code as on the command line: `lose-answer:0.05` loses one answer
in twenty, `reset@1000x3` the first three requests after 1000 bytes each, `poll.504:0.1` lets a tenth of the polls fail.
"""

from __future__ import annotations

import enum
import re
from typing import TYPE_CHECKING, Any, Final

import attrs

from picpik_async.errors import ConfigurationError, legible

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Fault", "Moment"]

_SPELLING: Final = re.compile(
    r"(?:(?P<on>[a-z]+)\.)?(?P<name>[a-z0-9-]+?)(?:@(?P<after>[0-9]{1,12}))?(?::(?P<share>[0-9.]+))?(?:x(?P<count>[0-9]{1,12}))?",
    re.ASCII,
)
_STATUS: Final = re.compile(r"(taken-)?[45][0-9][0-9]", re.ASCII)
_ANY: Final = ("submit", "poll", "download")
RETRY_STATUSES: Final = frozenset({"429", "503"})


class Moment(enum.Enum):
    """When a fault strikes."""

    ARRIVAL = "while the request arrives"
    REQUEST = "instead of looking at the request"
    CHARGE = "before a job is charged"
    TASK = "once for each task, when it is charged"
    ROW = "for each row of ListTasksDetails"
    ANSWER = "when the request has been served"


@attrs.frozen
class _Nature:
    """What a fault does.

    Attributes:
        moment: when it strikes.
        on: the kinds of request it can strike, its usual one first.
        after: whether it takes a number.
    """

    moment: Moment
    on: tuple[str, ...]
    after: bool = False


NATURES: Final[Mapping[str, _Nature]] = {
    "drip": _Nature(Moment.ANSWER, _ANY, after=True),
    "garbage": _Nature(Moment.REQUEST, _ANY),
    "hang": _Nature(Moment.REQUEST, _ANY),
    "html": _Nature(Moment.REQUEST, _ANY),
    "lose-answer": _Nature(Moment.ANSWER, ("submit",)),
    "missing-row": _Nature(Moment.ROW, ("poll",)),
    "no-credits": _Nature(Moment.CHARGE, ("submit",)),
    "poison": _Nature(Moment.TASK, ("poll",)),
    "redirect": _Nature(Moment.ANSWER, ("download",)),
    "reset": _Nature(Moment.ARRIVAL, _ANY, after=True),
    "taken-garbage": _Nature(Moment.ANSWER, ("submit",)),
    "taken-hang": _Nature(Moment.ANSWER, ("submit",)),
    "taken-html": _Nature(Moment.ANSWER, ("submit",)),
    "truncate": _Nature(Moment.ANSWER, _ANY, after=True),
    "unknown-word": _Nature(Moment.ROW, ("poll",)),
    "vanish": _Nature(Moment.TASK, ("poll",)),
    "wrong-bytes": _Nature(Moment.ANSWER, ("download",)),
}


def _nature(name: str) -> _Nature:
    if name in NATURES:
        return NATURES[name]
    if _STATUS.fullmatch(name):
        taken = name.startswith("taken-")
        moment, on = (Moment.ANSWER, ("submit",)) if taken else (Moment.REQUEST, _ANY)
        return _Nature(moment, on, after=name in RETRY_STATUSES)
    known = ", ".join(NATURES)
    msg = f"fault {legible(name, limit=100)!r} is unknown; known are {known}, 400 to 599, and taken-400 to taken-599"
    raise ConfigurationError(msg)


@attrs.frozen
class Fault:
    """Something that goes wrong now and then at an `Emulator`.

    While a request arrives:

    - `reset`: the connection is reset after *after* bytes of the body (by default 0), at the latest at its end.

    Instead of looking at the request, so that nothing is charged:

    - `hang`: no answer, ever.
    - `garbage`: bytes that are no HTTP.
    - `html`: a web page with HTTP 200.
    - `400` to `599`: that HTTP status; `429` and `503` with a `Retry-After` of *after* seconds (by default 1).
    - `no-credits`: a `RetCode` that says that credits are used up, whether they are or not.

    After a job was accepted and charged:

    - `lose-answer`: the connection is reset.
    - `taken-hang`, `taken-garbage`, `taken-html`, `taken-400` to `taken-599`: like those without `taken-`.

    Instead of an answer that has been worked out; a job is charged:

    - `truncate`: the answer ends after *after* bytes of its body (by default half of them).
    - `drip`: after *after* bytes (by default 0), one byte comes in 0.2 s.

    To tasks and what polls tell of them:

    - `vanish`: the service forgets the task.
    - `poison`: every list that contains the task is refused.
    - `missing-row`: a row is missing from an answer.
    - `unknown-word`: the status is a word nobody knows.

    To downloads:

    - `wrong-bytes`: a byte of the picture is another one.
    - `redirect`: HTTP 302 to an address in a private network.

    Attributes:
        name: what goes wrong.
        on: in which kind of request: `submit` (of a job), `poll` (any other Action) or `download`; unset, the first of
            these that the fault can strike.
        share: how many of these requests it strikes, from 0 to 1; for `vanish` and `poison` how many tasks, for
            `missing-row` and `unknown-word` how many rows.
        count: how often it strikes at most; None is no limit.
        after: bytes, or seconds; see there.

    Raises:
        ConfigurationError: there is no such fault, it cannot strike there, or a number does not fit.
    """

    name: str = attrs.field(converter=str)
    on: str = attrs.field(default="", kw_only=True)
    share: float = attrs.field(default=1.0, kw_only=True)
    count: int | None = attrs.field(default=None, kw_only=True)
    after: int | None = attrs.field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        nature = _nature(self.name)
        if not self.on:
            object.__setattr__(self, "on", nature.on[0])
        if self.on not in nature.on:
            self._refuse("on", f"one of {', '.join(nature.on)}")
        if not _is_share(self.share):
            self._refuse("share", "a number from 0 to 1")
        if not _is_count(self.count, 1):
            self._refuse("count", "a whole number, at least 1")
        if not _is_count(self.after, 0):
            self._refuse("after", "a whole number, at least 0")
        if self.after is not None and not nature.after:
            self._refuse("after", "unset, as this fault takes no number")

    def _refuse(self, field: str, allowed: str) -> None:
        msg = f"{field} of fault {self.name!r} is {getattr(self, field)!r}, but must be {allowed}"
        raise ConfigurationError(msg)

    @classmethod
    def parse(cls, text: str) -> Fault:
        """The fault written as `[ON.]NAME[@AFTER][:SHARE][xCOUNT]`, such as `lose-answer:0.05` or `poll.504x3`.

        Raises:
            ConfigurationError: it is not written so, or there is no such fault.
        """
        match = _SPELLING.fullmatch(text)
        if match is None:
            msg = f"fault {legible(text, limit=100)!r} is not written [ON.]NAME[@AFTER][:SHARE][xCOUNT], such as poll.504:0.1"
            raise ConfigurationError(msg)
        given: dict[str, Any] = {name: value for name, value in match.groupdict().items() if value is not None}
        for name, kind in (("share", _number), ("count", int), ("after", int)):
            if name in given:
                given[name] = kind(given[name])
        return cls(**given)

    @property
    def moment(self) -> Moment:
        """When it strikes."""
        return _nature(self.name).moment

    @property
    def label(self) -> str:
        """Its name, with the kind of request if that is not the usual one."""
        return self.name if self.on == _nature(self.name).on[0] else f"{self.on}.{self.name}"


def _is_share(value: object) -> bool:
    return isinstance(value, (int, float)) and 0 <= value <= 1


def _is_count(value: object, low: int) -> bool:
    return value is None or (isinstance(value, int) and value >= low)


def _number(text: str) -> float | str:
    """The number, or what was written instead of one, for the message."""
    try:
        return float(text)
    except ValueError:
        return text
