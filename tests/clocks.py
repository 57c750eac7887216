"""Time as the tests tell it."""

from __future__ import annotations

import asyncio


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
