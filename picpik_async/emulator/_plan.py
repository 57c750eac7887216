"""Which fault strikes when: dice that fall the same way in every run."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from picpik_async.emulator._faults import Fault
from picpik_async.errors import ConfigurationError

if TYPE_CHECKING:
    from picpik_async.emulator._faults import Moment

__all__ = ["Plan"]


class Plan:
    """The faults of one emulator.

    Each has dice of its own, so that it strikes the same ones of the requests it could strike in every run.

    Args:
        faults: one or more, as values or as text; where several could strike at the same moment, the first does.
        seed: another one, another run.

    Attributes:
        injected: how often each fault has struck, by its label.
    """

    def __init__(self, faults: Iterable[Fault | str] | Fault | str, *, seed: int) -> None:
        self._faults = _all_of(faults)
        self._dice = [random.Random(f"{seed}/{index}") for index in range(len(self._faults))]  # noqa: S311 (repeatable)
        self._struck = [0] * len(self._faults)
        self.injected: Counter[str] = Counter()

    def strike(self, moment: Moment, on: str, *names: str) -> Fault | None:
        """The fault that strikes at this *moment* of a request, if any; it counts as injected.

        Args:
            moment: now.
            on: the kind of the request.
            names: the only faults in question; none means all.
        """
        for index, fault in enumerate(self._faults):
            if fault.moment is not moment or fault.on != on or (names and fault.name not in names):
                continue
            if self._struck[index] != fault.count and self._dice[index].random() < fault.share:
                self._struck[index] += 1
                self.injected[fault.label] += 1
                return fault
        return None


def _all_of(faults: object) -> list[Fault]:
    several = [faults] if isinstance(faults, (Fault, str)) else faults
    if not isinstance(several, Iterable):
        msg = f"faults is a {type(several).__name__}, but must be faults, such as ['lose-answer:0.05']"
        raise ConfigurationError(msg)
    return [fault if isinstance(fault, Fault) else Fault.parse(str(fault)) for fault in several]
