"""The `picpik` command as a process, and what its tests work with: emulators, pictures, a folder of their own."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from typing import IO, TYPE_CHECKING, Any

import pytest
from anyio.from_thread import start_blocking_portal
from PIL import Image

from picpik_async.cli._demo import PHOTO
from picpik_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

COMMAND = [sys.executable, "-c", "import sys; from picpik_async.cli import main; sys.exit(main())"]
KEYS = ("PICPIK_ENDPOINT", "PICPIK_PUBLIC_KEY", "PICPIK_PRIVATE_KEY")


@pytest.fixture
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run the test without keys, in a folder of its own."""
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Emulator]]:
    """Start an emulator in a thread of its own, and lead commands to it by environment variables."""
    with start_blocking_portal() as portal, contextlib.ExitStack() as stack:

        def start(**options: Any) -> Emulator:
            emulator = stack.enter_context(portal.wrap_async_context_manager(Emulator(**options)))
            values = (emulator.url, emulator.credentials.public_key, emulator.credentials.private_key.reveal())
            for name, value in zip(KEYS, values, strict=True):
                monkeypatch.setenv(name, value)
            return emulator

        yield start


@pytest.fixture
def room(tmp_path: Path) -> str:
    """A small photograph, on disk."""
    path = tmp_path / "room.png"
    with Image.open(PHOTO) as photo:
        photo.resize((96, 80)).save(path)
    return str(path)


@pytest.fixture
def sofa(tmp_path: Path) -> str:
    """A mask for `room`, on disk."""
    path = tmp_path / "sofa.png"
    mask = Image.new("L", (96, 80))
    mask.paste(255, (20, 20, 50, 60))
    mask.save(path)
    return str(path)


@contextlib.contextmanager
def started(*arguments: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A `picpik` process, killed at the end if need be."""
    process = subprocess.Popen([*COMMAND, *arguments], text=True, **options)  # noqa: S603
    with process:
        try:
            yield process
        finally:
            process.kill()


def lines_until(stream: IO[str] | None, pattern: str) -> str:
    """What *stream* says up to the line that holds *pattern*."""
    assert stream is not None
    text = ""
    for line in stream:
        text += line
        if re.search(pattern, line):
            return text
    pytest.fail(f"no {pattern!r} in {text!r}")
