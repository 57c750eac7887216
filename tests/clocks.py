"""Time as the tests tell it."""

from __future__ import annotations

import asyncio
import selectors


class SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop that can be told that time has passed."""

    skipped = 0.0

    def time(self) -> float:
        """The loop's clock."""
        return super().time() + self.skipped


def skip(seconds: float) -> None:
    """Tell the running loop that so much time has passed."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SkippingLoop)
    loop.skipped += seconds


class _Patient(selectors.EpollSelector):
    """A selector that never waits for time to pass, and tells how much would have."""

    skipped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready; if nothing is, the time is up."""
        events: list[tuple[selectors.SelectorKey, int]] = super().select(None if timeout is None else 0)
        if not events and timeout is not None:
            self.skipped += max(0.0, timeout)
        return events


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock stands still while there is work, and otherwise jumps to the next timer."""

    def __init__(self) -> None:
        self._patient = _Patient()
        super().__init__(self._patient)

    def time(self) -> float:
        """The loop's clock."""
        return self._patient.skipped
