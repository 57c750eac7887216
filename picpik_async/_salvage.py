"""What can still be read of the answer to a submit that broke off: its `TaskUID`, if that much of it has arrived."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import orjson

from picpik_async._wire import is_uid

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["salvaged_uid"]

_LONGEST: Final = 64 * 1024  # bytes; a submit's answer is far shorter, and this runs on the event loop

# A whole string, a sign, or what else may stand between signs: a number, true, false, null.
_TOKEN: Final = re.compile(
    rb"""[ \t\r\n]* ( "[^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*" | [{}\[\]:,] | [^\s{}\[\]:,"]+ )""", re.VERBOSE
)


def salvaged_uid(body: bytes) -> str | None:
    """The `TaskUID` of an answer that broke off; None unless it stands there whole, and nothing speaks against it.

    It must be a member of the outermost object, the only one of its name, and no `RetCode` but 0 may be legible.
    """
    uid: str | None = None
    for name, value in _members(body[:_LONGEST]):
        if name == "RetCode" and value != b"0":
            return None
        if name == "TaskUID":
            found = _text(value)
            if uid is not None or not is_uid(found):
                return None
            uid = found
    return uid


def _members(document: bytes) -> Iterator[tuple[str | None, bytes]]:
    """Names of the outermost object with the first token of their values, as far as they are legible."""
    tokens = _tokens(document)
    if next(tokens, None) != b"{":
        return
    for name in tokens:
        if next(tokens, None) != b":" or (value := next(tokens, None)) is None:
            return
        yield _text(name), value
        _skip_rest(tokens, value)
        if next(tokens, None) != b",":
            return


def _tokens(document: bytes) -> Iterator[bytes]:
    place = 0
    while match := _TOKEN.match(document, place):
        yield match[1]
        place = match.end()


def _skip_rest(tokens: Iterator[bytes], first: bytes) -> None:
    """Go to the end of the value that *first* begins."""
    depth = _step(first)
    while depth and (token := next(tokens, None)) is not None:
        depth += _step(token)


def _step(token: bytes) -> int:
    return (token in {b"{", b"["}) - (token in {b"}", b"]"})


def _text(token: bytes) -> str | None:
    """The string that *token* is in JSON; None if it is something else."""
    try:
        value = orjson.loads(token)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, str) else None
