"""A real Jupyter kernel: `await` at the top level, a cell run again, an interrupt, and a silent exit."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from jupyter_client.manager import KernelManager
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from jupyter_client.blocking.client import BlockingKernelClient

PATIENCE = 60  # seconds for one message of the kernel; a limit, not a wait


@attrs.frozen
class Cell:
    """What running a cell gave."""

    text: str
    html: str
    error: str


class Notebook:
    """A kernel and its client."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self.manager = manager
        self.client = client

    def run(self, code: str, *, interrupt_on: str | None = None) -> Cell:
        """Run a cell to its end; interrupt the kernel once the cell has printed *interrupt_on*."""
        request = self.client.execute(code)
        text = html = error = ""
        while True:
            message = self.client.get_iopub_msg(timeout=PATIENCE)
            if message["parent_header"].get("msg_id") != request:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                text += content["text"]
                if interrupt_on is not None and interrupt_on in text:
                    interrupt_on = None
                    self.manager.interrupt_kernel()
            elif kind in {"execute_result", "display_data"}:
                html += content["data"].get("text/html", "")
                text += content["data"].get("text/plain", "")
            elif kind == "error":
                error = content["ename"]
            elif kind == "status" and content["execution_state"] == "idle":
                return Cell(text, html, error)


@pytest.fixture
def notebook(picpik_emulator: Any, tmp_path: Path) -> Iterator[tuple[Notebook, Path]]:
    """A kernel with keys in its environment and two pictures in its folder, and the file with what it prints itself."""
    Image.radial_gradient("L").convert("RGB").save(tmp_path / "room.jpg")
    mask = Image.new("L", (256, 256))
    mask.paste(255, (40, 60, 120, 140))
    mask.save(tmp_path / "sofa.png")
    keys = {
        "PICPIK_ENDPOINT": picpik_emulator.url,
        "PICPIK_PUBLIC_KEY": picpik_emulator.credentials.public_key,
        "PICPIK_PRIVATE_KEY": picpik_emulator.credentials.private_key.reveal(),
        "PYTHONWARNINGS": "default",  # not development mode, whose debugging of asyncio the kernel itself does not pass
    }
    manager = KernelManager()
    log = tmp_path / "kernel.log"
    with log.open("w") as file:
        manager.start_kernel(env=os.environ | keys, cwd=str(tmp_path), stdout=file, stderr=file)
        client = manager.client()
        client.start_channels()
        client.wait_for_ready(timeout=PATIENCE)
        yield Notebook(manager, client), log
        client.stop_channels()
        if manager.is_alive():
            manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


IMPORT = "from picpik_async import ModifyMaskedPixels, PicpikSession\nrequest = ModifyMaskedPixels.inpaint('room.jpg', 'sofa.png', seed=1)"
RUN = "result = await PicpikSession().run(request)\nresult"


def test_cells(notebook: tuple[Notebook, Path]) -> None:
    """A cell awaits a result, shows its pictures, can be run again and interrupted, and the kernel ends in silence."""
    book, log = notebook

    assert "" == book.run(IMPORT).error
    first = book.run(RUN)
    assert "" == first.error
    assert "not fetched yet" in first.html
    assert "http" not in first.html
    shown = book.run("await result.show()")
    assert "" == shown.error
    assert "data:image/png;base64," in shown.html
    assert "data:image/png;base64," in book.run("result").html

    again = book.run(RUN)
    assert "" == again.error

    book.run("session = PicpikSession()")
    interrupted = book.run("print('waiting')\nawait session.task('no such task').wait()", interrupt_on="waiting")
    assert interrupted.error in {"CancelledError", "KeyboardInterrupt"}
    after = book.run("(await session.balance()).used_credits")
    assert "" == after.error
    assert int(after.text) > 0

    book.manager.shutdown_kernel(now=False)
    deadline = time.monotonic() + PATIENCE
    while book.manager.is_alive():
        assert time.monotonic() < deadline
    told = [line for line in log.read_text().splitlines() if "TCP without encryption" not in line]
    assert [] == told, log.read_text()
