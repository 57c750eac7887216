"""The V1 signature: a SHA-1 over all parameters in sorted order, followed by the private key.

The rule is https://picpik.ai/zh/api-docs/signature; what that page leaves open follows the vendor's Python tool,
https://github.com/picpik-ai/signature-tool. The request itself is signed while it is sent (`_body`); this module is the
rule in its plain form, and the one place that knows how a number is written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from picpik_async.errors import InvalidRequestError

if TYPE_CHECKING:
    from picpik_async._config import Secret

__all__ = ["canonical", "literal", "sign"]


def literal(value: bool | float | None) -> str:
    """The text of a JSON scalar other than a string, the same in the body and in the hash.

    Booleans are lower case; a number with zero fraction is written without it; scientific notation never occurs.

    Raises:
        InvalidRequestError: the number is not finite, or has more digits than Python writes.
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    try:
        if value == int(value):
            return str(int(value))
    except (OverflowError, ValueError):
        msg = "infinity, NaN and numbers of thousands of digits are not numbers the service can take"
        raise InvalidRequestError(msg, value=value, allowed="a finite number") from None
    return format(Decimal(repr(float(value))), "f")


def canonical(value: Any) -> str:
    """*value* as the text to hash: maps sorted by name, names and values joined without separators, null as nothing."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return "".join(name + canonical(value[name]) for name in sorted(value))
    if isinstance(value, (list, tuple)):
        return "".join(map(canonical, value))
    return "" if value is None else literal(value)


def sign(parameters: Mapping[str, Any], private_key: Secret) -> str:
    """The `Signature` of *parameters*, 40 lower-case hexadecimal digits."""
    digest = hashlib.sha1(canonical(parameters).encode(), usedforsecurity=False)
    digest.update(private_key.reveal().encode())
    return digest.hexdigest()
