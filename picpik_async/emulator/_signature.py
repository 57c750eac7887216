"""The signature as the server sees it: computed anew from the parsed request, sharing no code with the client.

See https://picpik.ai/api-docs/signature.
"""

from __future__ import annotations

import hashlib
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["signature"]


def signature(parameters: Mapping[str, Any], private_key: str) -> str:
    """SHA-1 in lower-case hex over sorted names and values, followed by the private key.

    Args:
        parameters: the request as parsed from JSON; `Signature` itself is left out of the sum.
        private_key: the private half of the key pair.
    """
    digest = hashlib.sha1(usedforsecurity=False)  # SHA-1 is the vendor's rule
    for piece in _pieces({name: value for name, value in parameters.items() if name != "Signature"}):
        digest.update(piece.encode())
    digest.update(private_key.encode())
    return digest.hexdigest()


def _pieces(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name in sorted(value):
            yield name
            yield from _pieces(value[name])
    elif isinstance(value, list):
        for item in value:
            yield from _pieces(item)
    else:
        yield _scalar(value)


def _scalar(value: str | float | None) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case int():
            return str(value)
    if value.is_integer():
        return str(int(value))
    return format(Decimal(repr(value)), "f")
