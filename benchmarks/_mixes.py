"""Tasks as they might come: when each begins, and how long it takes; the same ones for every way."""

from __future__ import annotations

import itertools
import math
import random
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["MIXES", "tasks_of"]

MIXES: Final = {
    "narrow": "40 s ± 2 s",
    "wide": "log-normal, median 25 s, a tenth above 70 s",
    "bimodal": "half 6 s ± 0.5 s, half 60 s ± 4 s",
    "drifting": "50 s falling to 15 s, ± 5 %",
    "jumping": "15 s and 45 s in turns of a sixth of the tasks, ± 5 %",
    "failing": "40 s ± 2 s, but 1 in 20 ends after 1.5 s",
}
_AT_MOST: Final = 300.0  # seconds


def tasks_of(mix: str, count: int, load: str, *, seed: int) -> list[tuple[float, float]]:
    """Pairs of begin and length in seconds.

    Args:
        mix: one of `MIXES`, or "even": 20 to 60 s, all equally likely.
        count: how many tasks.
        load: "alone" is one after another, with pauses; "within 10" is all within 10 s; "50 at once" is about that many.
        seed: of the generator.
    """
    rng = random.Random(seed)
    lengths = _lengths(mix, count, rng)
    begins: Iterable[float]
    if load == "alone":
        begins = itertools.accumulate((length + rng.uniform(5, 7) for length in lengths[:-1]), initial=0.0)
    elif load.startswith("within"):
        begins = [rng.uniform(0, float(load.split()[1])) for _ in lengths]
    else:
        rate = int(load.split(maxsplit=1)[0]) * count / sum(lengths) if count else 0
        begins = itertools.accumulate((rng.expovariate(rate) for _ in lengths[:-1]), initial=0.0)
    return list(zip(begins, lengths, strict=False))


def _lengths(mix: str, count: int, rng: random.Random) -> list[float]:
    draw: dict[str, Callable[[float], float]] = {
        "even": lambda _: rng.uniform(20, 60),
        "narrow": lambda _: rng.gauss(40, 2),
        "wide": lambda _: min(_AT_MOST, rng.lognormvariate(math.log(25), 0.8)),
        "bimodal": lambda _: rng.gauss(6, 0.5) if rng.random() < 1 / 2 else rng.gauss(60, 4),
        "drifting": lambda share: (50 - 35 * share) * rng.uniform(0.95, 1.05),
        "jumping": lambda share: (45 if int(6 * share) % 2 else 15) * rng.uniform(0.95, 1.05),
        "failing": lambda _: 1.5 if rng.random() < 1 / 20 else rng.gauss(40, 2),
    }
    return [draw[mix](number / count) for number in range(count)]
