"""The vendor's rule for signatures as the documentation tells it, written plainly and without the SDK."""

from __future__ import annotations

import hashlib
from typing import Any, Final

__all__ = ["PRIVATE_KEY", "PUBLIC_KEY", "signature"]

PUBLIC_KEY: Final = "public"
PRIVATE_KEY: Final = "private"


def signature(parameters: dict[str, Any]) -> str:
    """The value of `Signature` for *parameters*."""
    return hashlib.sha1((_canonical(parameters) + PRIVATE_KEY).encode()).hexdigest()  # noqa: S324 - the vendor's rule


def _canonical(value: Any) -> str:
    if isinstance(value, dict):
        return "".join(name + _canonical(value[name]) for name in sorted(value))
    if isinstance(value, list):
        return "".join(_canonical(item) for item in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
