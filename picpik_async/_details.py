"""Rows of `ListTasksDetails` to `TaskDetail`s, a hundred thousand in a second. No I/O."""

from __future__ import annotations

import functools
import operator
import sys
from typing import TYPE_CHECKING, Any, Final

import attrs
import cattrs
import orjson
from cattrs.gen import make_dict_structure_fn, override

from picpik_async._fields import all_strings, exactly, field, fits, strings
from picpik_async._tasks import TaskDetail, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from picpik_async._config import Dialect

__all__ = ["odd_detail", "plain_detail", "statuses_by_word", "structure_detail"]

_FIELDS: Final = {
    "TaskUID": str,
    "Action": str,
    "Status": str,
    "ImgList": list,
    "Seed": int,
    "TxtList": list,
    "ConsumeApiPoint": int,
    "ErrorCode": int,
    "ErrorMassage": str,
}
_NAMES: Final = tuple(_FIELDS)
_KINDS: Final = tuple({kind, type(None)} for kind in _FIELDS.values())


def statuses_by_word(dialect: Dialect) -> dict[str | None, TaskStatus]:
    """What the status words mean; the first meaning of a word counts."""
    meanings = {
        TaskStatus.ERROR: dialect.error_words,
        TaskStatus.FINISHED: dialect.finished_words,
        TaskStatus.RUNNING: dialect.running_words,
        TaskStatus.QUEUING: dialect.queuing_words,
    }
    return {word: status for status, words in meanings.items() for word in words}


def structure_detail(row: dict[str, Any], statuses: Mapping[str | None, TaskStatus]) -> TaskDetail:
    """One row."""
    raw = _packed(row)
    return plain_detail(row, raw, statuses) or odd_detail(row, raw, statuses)


def _packed(row: dict[str, Any]) -> dict[str, Any] | bytes:
    try:
        return b"%b" % orjson.dumps(row)  # a copy, since orjson keeps 4 KB for whatever it writes
    except orjson.JSONEncodeError:  # read, but not written: nested deeper than 254 levels
        return row


def plain_detail(
    row: dict[str, Any], raw: dict[str, Any] | bytes, statuses: Mapping[str | None, TaskStatus]
) -> TaskDetail | None:
    """A row in which all is as documented, null or absent, which nearly all are: much faster than field by field."""
    values = tuple(map(row.get, _NAMES))
    if not all(map(operator.contains, _KINDS, map(type, values))):
        return None
    _, action, word, urls, seed, texts, cost, code, message = values
    if (urls and not all_strings(urls)) or (texts and not all_strings(texts)):
        return None
    if message is None and "ErrorMessage" in row:
        return None
    return TaskDetail(
        task_uid=row["TaskUID"],
        action=action and sys.intern(action),  # one text for a hundred thousand rows
        status=statuses.get(word, TaskStatus.UNKNOWN),
        status_word=word and sys.intern(word),
        image_urls=tuple(urls or ()),
        seed=seed,
        texts=tuple(texts or ()),
        cost=cost,
        error_code=code,
        error_message=message,
        raw=raw,
    )


def odd_detail(
    row: dict[str, Any], raw: dict[str, Any] | bytes, statuses: Mapping[str | None, TaskStatus]
) -> TaskDetail:
    """Any row; if the fields we rely on do not fit, it says only that the task exists, and its status word."""
    try:
        detail = _structure()(row, TaskDetail)
    except cattrs.BaseValidationError:
        word = row.get("Status")
        return TaskDetail(task_uid=row["TaskUID"], status_word=word if isinstance(word, str) else None, raw=raw)
    return attrs.evolve(detail, status=statuses.get(detail.status_word, TaskStatus.UNKNOWN), raw=raw)


@functools.cache
def _structure() -> Callable[[dict[str, Any], Any], TaskDetail]:
    """Takes a row field by field, each of which may be odd in its own way."""
    structure = make_dict_structure_fn(
        TaskDetail,
        cattrs.Converter(detailed_validation=True),
        task_uid=fits("TaskUID", exactly(str)),
        action=field("Action", exactly(str)),
        status=override(omit=True),
        status_word=field("Status", exactly(str), decides=True),
        image_urls=field("ImgList", strings, default=(), decides=True),
        seed=field("Seed", exactly(int)),
        texts=field("TxtList", strings, default=()),
        cost=field("ConsumeApiPoint", exactly(int)),
        error_code=field("ErrorCode", exactly(int), decides=True),
        error_message=field("ErrorMassage", exactly(str)),
        _raw=override(omit=True),
    )

    def hook(row: dict[str, Any], kind: Any) -> TaskDetail:
        if row.get("ErrorMassage") is None and "ErrorMessage" in row:
            row = row | {"ErrorMassage": row["ErrorMessage"]}
        return structure(row, kind)

    return hook
