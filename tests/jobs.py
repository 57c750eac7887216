"""Requests, pictures and sessions as the tests use them."""

from __future__ import annotations

import functools
import io
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from PIL import Image

from picpik_async import Credentials, Limits, ModifyMaskedPixels, PicpikSession, PollPolicy, RetryPolicy

CREDENTIALS = Credentials("public-key", "canary-private-key")
UUID = "5ae03609-0000-4000-8000-000000000001"
THREADS = ThreadPoolExecutor(2)
QUICK = Limits(stall_timeout=0.3, request_timeout=0.3)


@functools.cache
def picture(side: int = 64, *, kind: str = "PNG", mode: str = "RGB") -> bytes:
    """A square picture of noise, which does not compress."""
    image = Image.frombytes(mode, (side, side), random.Random(side).randbytes(side * side * len(mode)))
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


@functools.cache
def mask(side: int = 64, *, kind: str = "PNG") -> bytes:
    """A mask whose left half is to be redrawn."""
    image = Image.new("L", (side, side))
    image.paste(255, (0, 0, side // 2, side))
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def job(side: int = 64) -> ModifyMaskedPixels:
    """A request; its body has about `4 * side * side` bytes."""
    return ModifyMaskedPixels.inpaint(picture(side), mask(side), prompts="a sofa")


def session(url: str, **options: Any) -> PicpikSession:
    """A session with a fault server."""
    defaults: dict[str, Any] = {
        "limits": Limits(request_timeout=10),
        "poll": PollPolicy(tick=0.02, timeout=10),
        "retry": RetryPolicy(attempts=3, base_delay=0, throttle_delay=0, submit_attempts=1),
    }
    return PicpikSession(CREDENTIALS, endpoint=url, **(defaults | options))
