"""How other SDKs poll, reproduced: they cannot be pointed at a simulated service, but a task of theirs is on its own.

The intervals are those of their sources: comfy, fal_client, replicate and runway as of the middle of 2026. They have no cap
on requests, and here the service answers all of them without delay, however many come.
"""

from __future__ import annotations

import itertools
import json
import random
import sys
from typing import TYPE_CHECKING, Any, Final

from benchmarks._mixes import tasks_of
from benchmarks._virtual import LATENCY, figures_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["PATTERNS"]

PATTERNS: Final[dict[str, Callable[[random.Random], Iterator[float]]]] = {
    "fal_client: 0.1 s": lambda _: itertools.chain([0.0], itertools.repeat(0.1)),
    "replicate: 0.5 s": lambda _: itertools.repeat(0.5),
    "comfy: 0.5 s × 1.5 → 5 s": lambda _: itertools.chain([0.0], (min(5.0, 0.5 * 1.5**n) for n in itertools.count())),
    "runway: 6 s ± 1.5 s": lambda rng: (rng.uniform(4.5, 7.5) for _ in itertools.count()),
}
"""The pauses before each poll of a task, in seconds; after a poll they begin with its answer."""


def main(spec: dict[str, Any]) -> dict[str, Any]:
    """The figures of one pattern, in a list."""
    rng = random.Random(1)
    requests: list[float] = []
    delays: list[float] = []
    for begin, length in tasks_of(spec["mix"], spec["tasks"], spec["load"], seed=1):
        now, end = begin, begin + length
        for pause in PATTERNS[spec["pattern"]](rng):
            now += pause
            requests.append(now)
            looked_at = now + LATENCY / 2
            now += LATENCY
            if looked_at >= end:
                break
        delays.append(now - end)
    return {"figures": [figures_of(requests, delays) | {"ids": 1.0}]}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
