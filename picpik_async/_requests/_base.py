"""What all requests share."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, Self, TypeVar

from picpik_async._images import ImageSource
from picpik_async._ranges import shown
from picpik_async.errors import InvalidRequestError, legible

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from picpik_async._config import Dialect
    from picpik_async._opened import OpenImage

__all__ = ["Job", "Kin", "Query", "Request"]

AnswerT = TypeVar("AnswerT")

_LEAVES: Final = (str, int, float, type(None))  # skipped without a look inside, since there may be very many


class Request:
    """One Action with its parameters: what inherits is an attrs value."""

    __slots__ = ()
    action: ClassVar[str]


class Query(Request, Generic[AnswerT]):
    """An Action that costs nothing, may be repeated, and is answered at once; for `PicpikSession.call`."""

    __slots__ = ()


class Kin:
    """Stands for the variations of a request."""

    __slots__ = ("__weakref__",)


class Job(Request):
    """An Action that costs credits and makes a task; for `PicpikSession.submit` and `run`."""

    __slots__ = ()
    image_list: ClassVar[str]  # the parameter that holds the pictures which the *Index parameters refer to

    @property
    def kin(self) -> Kin | None:
        """The same for requests that have all up to their last picture in common, if that is worth keeping."""
        return None

    @property
    def kind(self) -> Hashable:
        """What a settled request has in common with those that take about as long."""
        return self.action

    def check(self) -> None:
        """Report what is missing.

        Raises:
            InvalidRequestError: a required parameter is not set.
        """
        raise NotImplementedError

    def settled(self, images: Mapping[ImageSource, OpenImage], dialect: Dialect) -> Self:
        """The request as it is sent, now that its images are open: checked against them, and its size chosen.

        Raises:
            InvalidRequestError: an image does not fit.
        """
        raise NotImplementedError

    def seeded(self, seed: int) -> Self:
        """The request with *seed*, if it has one that the service would draw at random; it can be told by it then."""
        raise NotImplementedError

    def images(self) -> dict[str, ImageSource]:
        """All images by the dotted name of their parameter, in order, also those within maps and lists.

        Raises:
            InvalidRequestError: parameters contain themselves.
        """
        found: dict[str, ImageSource] = {}
        try:
            _collect(self, (), found)
        except RecursionError:
            msg = "parameters are nested too deeply, or contain themselves"
            raise InvalidRequestError(msg, allowed="a finite map") from None
        return found


def _collect(value: Any, steps: tuple[Any, ...], found: dict[str, ImageSource]) -> None:
    if isinstance(value, ImageSource):
        path = functools.reduce(_joined, steps, "")
        while path in found:  # a name may have dots of its own
            path += "'"
        found[path] = value
        return
    for step, inner in _inside(value):
        if not isinstance(inner, _LEAVES):
            _collect(inner, (*steps, step), found)


def _inside(value: Any) -> Iterable[tuple[Any, Any]]:
    if fields := getattr(type(value), "__attrs_attrs__", ()):
        return [(field.name, getattr(value, field.name)) for field in fields]
    if isinstance(value, Mapping):
        return value.items()
    return enumerate(value) if isinstance(value, (list, tuple)) else ()


def _joined(path: str, step: Any) -> str:
    if not isinstance(step, str):
        return f"{path}[{shown(step)}]"
    return f"{path}.{legible(step)}" if path else step
