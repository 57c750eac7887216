"""What an open session is made of; imported when the first one opens, by a thread, see `_loading`."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import anyio
import anyio._backends._asyncio

from picpik_async._downloads import Downloads
from picpik_async._engine import Engine
from picpik_async._stems import Stems
from picpik_async._submits import Submit
from picpik_async._transport import AiohttpTransport
from picpik_async._workshop import Workshop

if TYPE_CHECKING:
    from picpik_async._lifecycle import Lifecycle

__all__ = ["Submit", "assemble"]


def assemble(session: Lifecycle) -> Engine:
    """A new engine for *session*."""
    net: Any = {"ssl": session._ssl, "proxy": None if session._proxy is None else session._proxy.reveal()}
    url = session._endpoint.url + session._dialect.path
    limits = session._limits
    encoders = ThreadPoolExecutor(max(1, limits.threads - 1), thread_name_prefix="picpik")
    workshop = Workshop(
        credentials=session._credentials,
        dialect=session._dialect,
        limits=limits,
        limiter=session._limiter,
        encoders=encoders,
        maker=ThreadPoolExecutor(1, thread_name_prefix="picpik maker"),
        stems=Stems(limits.slice_size, encoders, limits.reuse_memory),
        upload_slots=anyio.Semaphore(limits.uploads),
        transport=session._transport or AiohttpTransport(url, limits, **net),
        retry=session._retry,
        rng=random.Random(),  # noqa: S311 - jitter
        budget=session._budget,
        breaker=session._breaker,
    )
    net |= {"hosts": session._dialect.result_hosts, "budget": workshop.budget}
    downloads = Downloads(session._endpoint, limits, session._retry, session._limiter, **net)
    return Engine(workshop, downloads, session._poll, session._records)
