"""A pipeline over a journal, in a process that is there to be killed: `killed_worker.py URL FOLDER FIRST LAST`.

Each outcome is a line of JSON on standard output.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jobs import CREDENTIALS
from storms import small_job

from picpik_async import Limits, PicpikSession, PollPolicy

if TYPE_CHECKING:
    from picpik_async import Outcome


async def main(url: str, folder: Path, first: int, last: int) -> None:
    """Run the jobs *first* to *last*."""
    async with PicpikSession(
        CREDENTIALS,
        endpoint=url,
        journal=folder / "jobs.sqlite",
        poll=PollPolicy(tick=0.02, timeout=20),
        limits=Limits(request_timeout=1),
    ) as picpik:
        print("ready", flush=True)  # noqa: T201 - that is its interface
        requests = ((f"job-{number}", small_job().with_seed(number)) for number in range(first, last))
        async for outcome in picpik.map(requests, save_to=folder / "out", concurrency=32):
            print(as_line(outcome), flush=True)  # noqa: T201


def as_line(outcome: Outcome) -> str:
    """What the parent reads."""
    return json.dumps(
        {
            "key": outcome.key,
            "task_uid": outcome.task_uid,
            "files": list(map(str, outcome.files)),
            "error": outcome.error and type(outcome.error).__name__,
        }
    )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
