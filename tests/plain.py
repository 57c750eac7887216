"""The usual way to sign and send, as a second opinion: the whole request in memory, signed, then made into JSON.

Written from the vendor's page alone (https://picpik.ai/zh/api-docs/signature), without any code of the package.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable

PRIVATE_KEY = "canary-private-key"


@attrs.frozen(eq=False)
class Picture:
    """A picture, wherever a string may stand."""

    data: bytes
    kind: str = "png"

    def text(self, *, data_uri: bool = True) -> str:
        """What the service gets."""
        return (f"data:image/{self.kind};base64," if data_uri else "") + base64.b64encode(self.data).decode()


def with_pictures(value: Any, replace: Callable[[Picture], Any]) -> Any:
    """The value with each picture replaced."""
    if isinstance(value, Picture):
        return replace(value)
    if isinstance(value, dict):
        return {name: with_pictures(inner, replace) for name, inner in value.items()}
    return [with_pictures(inner, replace) for inner in value] if isinstance(value, list) else value


def number_text(value: float) -> str:
    """A number without exponent, and without a zero fraction."""
    if value == int(value):
        return f"{int(value):d}"
    return np.format_float_positional(value, unique=True, trim="-")


def text_to_sign(value: Any) -> str:
    """Names and values one after the other, names in order."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case int() | float():
            return number_text(value)
        case str():
            return value
        case list():
            return "".join(text_to_sign(inner) for inner in value)
        case _:
            return "".join(f"{name}{text_to_sign(value[name])}" for name in sorted(value))


def signature(parameters: dict[str, Any], private_key: str = PRIVATE_KEY) -> str:
    """SHA-1 over the text and the key."""
    return hashlib.sha1((text_to_sign(parameters) + private_key).encode(), usedforsecurity=False).hexdigest()


def with_plain_numbers(value: Any) -> Any:
    """The value as JSON reads it back: a float without fraction is an integer."""
    if isinstance(value, dict):
        return {name: with_plain_numbers(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [with_plain_numbers(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def scalars() -> st.SearchStrategy[Any]:
    """Any JSON scalar, quotes, control characters and every script included."""
    floats = st.floats(allow_nan=False, allow_infinity=False)
    return st.none() | st.booleans() | st.integers() | floats | st.text()


def pictures() -> st.SearchStrategy[Picture]:
    """Pictures of all lengths modulo three, some longer than a small slice."""
    return st.builds(Picture, st.binary(max_size=40), st.sampled_from(["png", "jpeg", "webp"]))


def values(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Lists and maps of such leaves, in each other, empty ones included."""
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12
    )


def parameters(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """The parameters of a request; there is always one, the Action."""
    names = st.text().filter(lambda name: name != "Signature")
    return st.dictionaries(names, values(leaves), min_size=1, max_size=6)
