"""Fixtures for all tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from hypothesis import settings

import picpik_async._assembly  # noqa: F401 - so that no session opens more slowly than others

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest_plugins = ["picpik_async.testing", "shell"]

# How long an example takes is no promise of ours, and varies on a busy machine.
settings.register_profile("picpik", deadline=None)
settings.load_profile("picpik")


@pytest.fixture
def anyio_backend() -> str:
    """Run async tests on asyncio unless a module says otherwise."""
    return "asyncio"


@pytest.fixture(autouse=True)
def blockbuster() -> Iterator[BlockBuster]:
    """Raise when a blocking call runs on the event loop."""
    with blockbuster_ctx("picpik_async") as detector:
        # Where coverage meets a file for the first time, in two threads at once, it waits for itself.
        detector.functions["threading.Lock.acquire"].can_block_in("coverage/collector.py", "lock_data")
        yield detector
