"""A request in the order it is sent: texts and pictures, each as it stands in the body, and as it is signed."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs
import orjson

from picpik_async._images import ImageSource
from picpik_async._signature import literal
from picpik_async.errors import InvalidRequestError, legible

if TYPE_CHECKING:
    from picpik_async._opened import OpenImage

__all__ = ["Layout", "Picture", "Text", "base64_size", "lay_out"]


@attrs.frozen
class Text:
    """A stretch of the body without images: as JSON, and as it is hashed."""

    json: bytes = attrs.field(repr=False)
    signed: bytes = attrs.field(repr=False)

    @property
    def size(self) -> int:
        """Length in the body."""
        return len(self.json)


@attrs.frozen
class Picture:
    """An image at a string position; its Base64 text is the same in JSON and in the hash."""

    image: OpenImage
    prefix: bytes

    @property
    def size(self) -> int:
        """Length in the body."""
        return len(self.prefix) + base64_size(self.image.size)


@attrs.frozen
class Layout:
    """A request in the order it is sent, up to the signature."""

    pieces: tuple[Text | Picture, ...]

    @property
    def size(self) -> int:
        """Bytes up to the signature."""
        return sum(piece.size for piece in self.pieces)

    @property
    def has_pictures(self) -> bool:
        """Whether there is anything to read and encode."""
        return any(isinstance(piece, Picture) for piece in self.pieces)


def lay_out(parameters: Mapping[str, Any], images: Mapping[ImageSource, OpenImage], *, data_uri: bool) -> Layout:
    """Put *parameters* in signing order.

    Raises:
        InvalidRequestError: a string or number that JSON or the signature cannot hold; the message names the parameter.
    """
    writer = _Writer(images, data_uri=data_uri)
    try:
        writer.write(parameters, "")
    except RecursionError:
        msg = "parameters are nested too deeply, or contain themselves"
        raise InvalidRequestError(msg, allowed="a finite map") from None
    return Layout(writer.finish())


class _Writer:
    """Walks parameters once and collects their JSON and their text to sign side by side."""

    def __init__(self, images: Mapping[ImageSource, OpenImage], *, data_uri: bool) -> None:
        self._images = images
        self._data_uri = data_uri
        self._json = bytearray()
        self._signed = bytearray()
        self._pieces: list[Text | Picture] = []

    def write(self, value: Any, path: str) -> None:
        if isinstance(value, str):
            self._json += _quoted(value, path)
            self._signed += str.encode(value)
        elif isinstance(value, ImageSource):
            self._write_image(self._images[value])
        elif isinstance(value, Mapping):
            self._write_mapping(value, path)
        elif isinstance(value, (list, tuple)):
            self._write_sequence(value, path)
        else:
            self._write_literal(value, path)

    def finish(self) -> tuple[Text | Picture, ...]:
        assert self._json.endswith(b"}")  # noqa: S101 - parameters are a mapping
        del self._json[-1]
        self._flush()
        return tuple(self._pieces)

    def _flush(self) -> None:
        self._pieces.append(Text(bytes(self._json), bytes(self._signed)))
        self._json.clear()
        self._signed.clear()

    def _write_image(self, image: OpenImage) -> None:
        self._json += b'"'
        self._flush()
        self._pieces.append(Picture(image, f"data:{image.media_type};base64,".encode() if self._data_uri else b""))
        self._json += b'"'

    def _write_mapping(self, value: Mapping[Any, Any], path: str) -> None:
        self._json += b"{"
        if strays := [name for name in value if not isinstance(name, str)]:
            msg = f"{path} has a name that is a {type(strays[0]).__name__}; names are strings"
            raise InvalidRequestError(msg, field=path, value=strays[0], allowed="names that are strings")
        for position, name in enumerate(sorted(value)):
            inner = f"{path}.{name}" if path else name
            self._json += (b"," if position else b"") + _quoted(name, inner) + b":"
            self._signed += str.encode(name)
            self.write(value[name], inner)
        self._json += b"}"

    def _write_sequence(self, value: list[Any] | tuple[Any, ...], path: str) -> None:
        if all(type(item) is str for item in value):
            # A hundred task ids in one go: 7 µs instead of 56 µs.
            with contextlib.suppress(orjson.JSONEncodeError):  # one by one it is found which
                self._json += orjson.dumps(value)
                self._signed += "".join(value).encode()
                return
        self._json += b"["
        for position, item in enumerate(value):
            self._json += b"," if position else b""
            self.write(item, f"{path}[{position}]")
        self._json += b"]"

    def _write_literal(self, value: Any, path: str) -> None:
        scalar = _scalar(value, path)
        try:
            text = literal(scalar).encode()
        except InvalidRequestError as error:
            msg = f"{path}: {error}"
            raise InvalidRequestError(msg, field=path, value=value, allowed=error.allowed) from None
        self._json += text
        self._signed += b"" if value is None else text


def _scalar(value: Any, path: str) -> bool | float | None:
    """*value* as one of Python's own types, also if it is one of NumPy's."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    own = value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value
    if isinstance(own, (bool, float)):
        return own
    try:
        return operator.index(own)
    except TypeError:
        msg = f"{path} is a {type(value).__name__}, which JSON cannot hold"
        allowed = "a string, number, bool, list or map"
        raise InvalidRequestError(msg, field=path, value=value, allowed=allowed) from None


def _quoted(value: str, path: str) -> bytes:
    try:
        return orjson.dumps(str.__str__(value))  # the text itself, also of an enum that shows its name
    except orjson.JSONEncodeError:
        msg = f"{legible(path)} has half of a surrogate pair, which UTF-8 cannot hold; check how the text was decoded"
        raise InvalidRequestError(msg, field=path, allowed="valid Unicode") from None


def base64_size(size: int) -> int:
    """Length of the Base64 text of *size* bytes."""
    return 4 * -(-size // 3)
