"""Submits in a process of its own: `python -m benchmarks._submitter endpoint folder number [journal]` prints figures."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Final

from benchmarks._pictures import find_mask, find_pictures
from picpik_async import Credentials, ModifyMaskedPixels, PicpikSession

_AT_ONCE: Final = 32


async def main(endpoint: str, folder: Path, number: int, journal: Path | None) -> None:
    """Submit *number* requests, 32 at a time, and print what it took."""
    template = ModifyMaskedPixels.inpaint(find_pictures(folder)[0], find_mask(folder), prompts="a green velvet sofa")
    jobs = iter(range(number))

    async with PicpikSession(Credentials("public", "private"), endpoint=endpoint, journal=journal) as picpik:

        async def work() -> None:
            for job in jobs:
                key = None if journal is None else f"job-{job}"
                await picpik.submit(template.with_seed(job), key=key)

        cpu, start = time.process_time(), time.perf_counter()
        await asyncio.gather(*(work() for _ in range(_AT_ONCE)))
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(json.dumps({"rate": number / seconds, "cpu": cpu / number * 1e3}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]) if sys.argv[4:] else None))
