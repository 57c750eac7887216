"""What the requests of a session are made with: keys, limits, worker threads, transport."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.to_thread
import attrs

from picpik_async._body import Body
from picpik_async._layout import lay_out
from picpik_async.errors import ImageError, PicpikError, TransportError

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Hashable, Mapping
    from concurrent.futures import ThreadPoolExecutor

    from picpik_async._breaker import SpendBreaker
    from picpik_async._config import Credentials, Dialect, Limits, RetryPolicy
    from picpik_async._images import ImageSource
    from picpik_async._layout import Layout
    from picpik_async._opened import OpenImage
    from picpik_async._retry import RetryBudget
    from picpik_async._stems import Stems
    from picpik_async._transport import Answer, BeforeTail, Transport

__all__ = ["Workshop"]

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Workshop:
    """What every request of a session is made with.

    Attributes:
        credentials: signs.
        dialect: the settings for what is undocumented.
        limits: bounds.
        limiter: bounds the worker threads that open pictures.
        encoders: the worker threads that encode, hash and send pictures.
        maker: the worker thread that makes the rest of a body, and small ones wholly, which never wait for large ones.
        stems: what variations of a request have in common.
        upload_slots: bounds how many requests are sent at once.
        transport: sends.
        retry: how often and when to try again.
        rng: source of jitter.
        budget: bounds the retries of the session.
        breaker: stops submits when their outcomes stay unknown.
    """

    credentials: Credentials
    dialect: Dialect
    limits: Limits
    limiter: anyio.CapacityLimiter
    encoders: ThreadPoolExecutor
    maker: ThreadPoolExecutor
    stems: Stems
    upload_slots: anyio.Semaphore
    transport: Transport
    retry: RetryPolicy
    rng: random.Random
    budget: RetryBudget
    breaker: SpendBreaker

    async def send(self, body: Body, *, before_tail: BeforeTail | None = None) -> Answer:
        """`Transport.send`, where a cancellation that nobody asked for is a failure like any other.

        Raises:
            PicpikError: as in `Transport.send`.
        """
        try:
            return await self.transport.send(body, before_tail=before_tail)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
        msg = "send: the exchange was cancelled from within"
        raise TransportError(msg, stage="send")

    def query_body(self, parameters: dict[str, Any]) -> Body:
        """The body of a query."""
        return self._body_of(lay_out(parameters, {}, data_uri=self.dialect.data_uri))

    async def job_body(
        self, parameters: dict[str, Any], images: dict[ImageSource, OpenImage], kin: object | None = None
    ) -> Body:
        """The body for one attempt to submit *parameters*, locked, and made beforehand if it is small.

        Args:
            parameters: all but the signature.
            images: the pictures among them.
            kin: the same object for requests that have all up to their last picture in common.

        Raises:
            InvalidRequestError: a parameter cannot be written as JSON.
            ImageError: a picture cannot be read, or has changed since it was opened.
        """

        def make() -> tuple[Layout, Body | None]:
            layout = lay_out(parameters, images, data_uri=self.dialect.data_uri)
            return layout, self._body_of(layout, locked=True).made_if_small() if kin is None else None

        layout, body = await asyncio.get_running_loop().run_in_executor(self.maker, make)
        return body or self._body_of(layout, locked=True, stem=await self.stems.stem_of(kin, layout))

    def _body_of(self, layout: Layout, **options: Any) -> Body:
        key, step = self.credentials.private_key, self.limits.slice_size
        return Body(layout, key, slice_size=step, executor=self.encoders, **options)

    async def open_images(self, sources: dict[str, ImageSource]) -> dict[ImageSource, OpenImage]:
        """Open all images of a request concurrently, equal ones once.

        Args:
            sources: images by the dotted name of their parameter, for messages.

        Raises:
            ImageError: one of them cannot be used; the first in order of the parameters.
        """
        upright = not self.dialect.server_applies_exif

        async def open_image(field: str, source: ImageSource) -> OpenImage:
            return await source.open(self.limiter, self.limits, upright=upright, field=field)

        def open_here(field: str, source: ImageSource) -> OpenImage | None:
            return source.open_here(self.limits, upright=upright, field=field)

        distinct = _distinct(sources)
        done, errors = await anyio.to_thread.run_sync(_each_here, distinct, open_here, limiter=self.limiter)
        return await _each(sources, open_image, done, errors)

    async def fingerprints(
        self, sources: dict[str, ImageSource], opened: Mapping[ImageSource, OpenImage]
    ) -> dict[ImageSource, str]:
        """What tells the images of a request from others: SHA-256 digests of what was handed over.

        Raises:
            ImageError: one of them cannot be read, or has changed since it was *opened*.
        """

        async def fingerprint(_field: str, source: ImageSource) -> str:
            return await anyio.to_thread.run_sync(source.fingerprint, opened[source], limiter=self.limiter)

        return await _each(sources, fingerprint, {}, {})

    async def sizes(self, sources: dict[str, ImageSource]) -> dict[ImageSource, str]:
        """The lengths of the images of a request, as they were handed over; of files, nothing is read for it.

        Raises:
            ImageError: one of them cannot be read; the first in order of the parameters.
        """

        async def size(field: str, source: ImageSource) -> str:
            return str(await source.measure(self.limiter, self.limits, field=field))

        return await _each(sources, size, {}, {})


def _distinct(sources: dict[str, ImageSource]) -> dict[Hashable, tuple[str, ImageSource]]:
    """Each picture once, by the first of its names."""
    return {source.key: (field, source) for field, source in reversed(sources.items())}


def _each_here(
    distinct: dict[Hashable, tuple[str, ImageSource]], work: Callable[[str, ImageSource], T | None]
) -> tuple[dict[Hashable, T], dict[Hashable, PicpikError]]:
    """Do *work* on all images that it can be done on in this thread, in one go: each change of threads takes 0.2 ms."""
    done: dict[Hashable, T] = {}
    errors: dict[Hashable, PicpikError] = {}
    for key, (field, source) in distinct.items():
        try:
            if (result := work(field, source)) is not None:
                done[key] = result
        except PicpikError as error:
            errors[key] = error
    return done, errors


async def _each(
    sources: dict[str, ImageSource],
    work: Callable[[str, ImageSource], Awaitable[T]],
    done: dict[Hashable, T],
    errors: dict[Hashable, PicpikError],
) -> dict[ImageSource, T]:
    """Do *work* concurrently on all images that are neither *done* nor have *errors*, on equal ones once."""

    async def run(field: str, source: ImageSource) -> None:
        try:
            done[source.key] = await work(field, source)
        except PicpikError as error:
            errors[source.key] = error

    left = [item for key, item in _distinct(sources).items() if key not in done and key not in errors]
    if left:
        async with anyio.create_task_group() as group:
            for field, source in left:
                group.start_soon(run, field, source)
    for field, source in sources.items():
        if source.key in errors:
            raise errors[source.key]
        if source.key not in done:  # somebody cancelled its task, and not this one
            msg = f"{field}: {source.label}: opening it was cancelled; nothing was submitted"
            raise ImageError(msg, field=field, source=source.label)
    return {source: done[source.key] for source in sources.values()}
