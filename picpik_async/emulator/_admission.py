"""From the bytes of a request to one that is accepted: parsed, signed, complete, with decodable images. No I/O."""

from __future__ import annotations

import binascii
import hmac
from typing import TYPE_CHECKING, Any

import orjson
import pybase64

from picpik_async.emulator import _pictures as pictures
from picpik_async.emulator._signature import signature
from picpik_async.emulator._validation import Check, Refusal, RetCode, check_indexes, record, text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from picpik_async._config import Credentials
    from picpik_async.emulator._effects import Drawing

__all__ = ["authenticate", "images_of", "parse"]

_COMMON = record({"Action": text, "PublicKey": text, "Signature": text}, {"request_uuid": text})


def parse(chunks: Sequence[bytes]) -> Any:
    """The JSON value of a body.

    Raises:
        ValueError: the body is not JSON.
    """
    return orjson.loads(b"".join(chunks))


def authenticate(parameters: Any, *, credentials: Credentials, checks: Mapping[str, Check]) -> None:
    """Check the common parameters, the keys, and then those of the Action.

    See https://picpik.ai/api-docs/start.

    Raises:
        Refusal: something does not fit; the message names the field.
    """
    _COMMON(parameters, "")
    if parameters["Action"] not in checks:
        msg = "Action is unknown"
        raise Refusal(msg, RetCode.UNKNOWN_ACTION)
    if parameters["PublicKey"] != credentials.public_key:
        msg = "PublicKey is unknown"
        raise Refusal(msg, RetCode.WRONG_PUBLIC_KEY)
    expected = signature(parameters, credentials.private_key.reveal())
    if not hmac.compare_digest(expected, parameters["Signature"].encode("ascii", "replace").decode()):
        msg = "Signature does not match the request"
        raise Refusal(msg, RetCode.WRONG_SIGNATURE)
    checks[parameters["Action"]](parameters, "")


def images_of(parameters: Mapping[str, Any], drawing: Drawing) -> list[bytes]:
    """The image files of a checked request, in the order of their numbering.

    Raises:
        Refusal: one is no Base64 or no picture, an index is wrong, or a mask has not the size of its image.
    """
    files, sizes = [], []
    for name, encoded in _encoded(parameters, drawing.image_fields):
        file = _decoded(encoded, name)
        picture = pictures.decode(file)
        if picture is None:
            msg = f"{name} is not a picture that can be decoded"
            raise Refusal(msg)
        files.append(file)
        sizes.append((picture.shape[1], picture.shape[0]))
    check_indexes(parameters, sizes)
    return files


def _encoded(parameters: Mapping[str, Any], fields: Sequence[str]) -> Iterator[tuple[str, str]]:
    for field in fields:
        value = parameters.get(field, [])
        if isinstance(value, str):
            yield field, value
        else:
            yield from ((f"{field}[{index}]", item) for index, item in enumerate(value))


def _decoded(encoded: str, name: str) -> bytes:
    """Base64, bare or in a data URI: the examples show the second, and the first is not ruled out."""
    header, comma, rest = encoded.partition(",")
    bare = rest if comma and header.startswith("data:") and header.endswith(";base64") else encoded
    try:
        return pybase64.b64decode(bare, validate=True)
    except (binascii.Error, ValueError):
        msg = f"{name} is not Base64"
        raise Refusal(msg) from None
