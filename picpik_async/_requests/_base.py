"""What all requests share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

import attrs

from picpik_async._images import ImageSource

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from picpik_async._config import Dialect
    from picpik_async._images import OpenImage

__all__ = ["Job", "Query", "Request"]

AnswerT = TypeVar("AnswerT")


@attrs.frozen(kw_only=True)
class Request:
    """One Action with its parameters."""

    action: ClassVar[str]


@attrs.frozen(kw_only=True)
class Query(Request, Generic[AnswerT]):
    """An Action that costs nothing, may be repeated, and is answered at once; for `PicpikSession.call`."""


@attrs.frozen(kw_only=True)
class Job(Request):
    """An Action that costs credits and makes a task; for `PicpikSession.submit` and `run`."""

    image_list: ClassVar[str]  # the parameter that holds the pictures which the *Index parameters refer to

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

    def images(self) -> dict[str, ImageSource]:
        """All images by the dotted name of their parameter, in order."""
        return dict(_images_of(self, ""))


def _images_of(value: Any, path: str) -> Iterator[tuple[str, ImageSource]]:
    if isinstance(value, ImageSource):
        yield path, value
    elif attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            yield from _images_of(getattr(value, field.name), f"{path}.{field.name}" if path else field.name)
