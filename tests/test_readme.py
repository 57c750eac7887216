"""The README's code runs as it stands, against the emulator."""

from __future__ import annotations

import ast
import asyncio
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image
from sybil import Document
from sybil.parsers.markdown import CodeBlockParser

if TYPE_CHECKING:
    from sybil import Example

README = Path(__file__).parent.parent / "README.md"


def run_block(example: Example) -> None:
    """Run one block; `await` at the top level works, as it does in a notebook."""
    code = compile(example.parsed, str(README), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    outcome: Any = eval(code, {"__name__": "readme"})  # noqa: S307 - our own README
    if inspect.iscoroutine(outcome):
        asyncio.run(outcome)


EXAMPLES = list(Document.parse(str(README), CodeBlockParser("python", run_block)).examples())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: f"line {example.line}")
def test_block(example: Example, picpik_emulator: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each Python block of the README runs."""
    Image.radial_gradient("L").convert("RGB").save(tmp_path / "room.jpg")
    mask = Image.new("L", (256, 256))
    mask.paste(255, (40, 60, 120, 140))
    mask.save(tmp_path / "sofa.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PICPIK_ENDPOINT", picpik_emulator.url)
    monkeypatch.setenv("PICPIK_PUBLIC_KEY", picpik_emulator.credentials.public_key)
    monkeypatch.setenv("PICPIK_PRIVATE_KEY", picpik_emulator.credentials.private_key.reveal())

    example.evaluate()


def test_there_are_blocks() -> None:
    """The README shows code."""
    assert len(EXAMPLES) >= 5
