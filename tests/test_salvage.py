"""What is read of an answer that broke off."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picpik_async._salvage import salvaged_uid
from picpik_async._wire import is_uid

UID = "26edb0bf-1f0e"
NESTED: dict[str, Any] = {"TaskUID": "not this one", "RetCode": 5, "List": [{"TaskUID": "nor this"}, ["]", "}"]]}
DOCUMENTS: dict[str, tuple[dict[str, Any], int | None]] = {
    "plain": ({"RetCode": 0, "Action": "ModifyMaskedPixelsResponse", "TaskUID": UID}, None),
    "pretty": ({"RetCode": 0, "Message": "", "TaskUID": UID, "request_uuid": "u"}, 2),
    "reordered": ({"TaskUID": UID, "Action": "X", "RetCode": 0}, None),
    "nested before": ({"Data": NESTED, "TaskUID": UID, "RetCode": 0}, 1),
    "nested after": ({"RetCode": 0, "TaskUID": UID, "Data": NESTED}, None),
    "text before": ({"Message": '","TaskUID":"fooled"', "Å": "\\", "TaskUID": UID}, None),
    "escapes": ({"RetCode": 0, "TaskUID": 'a"b\\c/d}'}, None),
    "unicode": ({"Message": "完成 ✓ 😀", "TaskUID": "任务-😀-1", "RetCode": 0, "é": [1.5, None, True]}, 4),
}


@pytest.mark.parametrize("escaped", [True, False], ids=["ascii", "utf-8"])
@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_uid_is_found_from_its_closing_quote_on(name: str, *, escaped: bool) -> None:
    """Cut at any byte: before the closing quote there is no uid, from it on there is, and never another one."""
    document, indent = DOCUMENTS[name]
    whole = json.dumps(document, indent=indent, ensure_ascii=escaped).encode()
    value = json.dumps(document["TaskUID"], ensure_ascii=escaped).encode()
    end = whole.index(value) + len(value)

    found = [salvaged_uid(whole[:size]) for size in range(len(whole) + 1)]

    assert [None] * end == found[:end]
    assert [document["TaskUID"]] * (len(whole) + 1 - end) == found[end:]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"<html>", id="HTML"),
        pytest.param(b'["TaskUID", "x"]', id="list"),
        pytest.param(b'"TaskUID":"x"', id="no object"),
        pytest.param(b"{}", id="empty object"),
        pytest.param(b'{"Data":{"TaskUID":"x"', id="nested"),
        pytest.param(b'{"Data":[{"TaskUID":"x"}],"TaskUID":', id="no value"),
        pytest.param(b'{"TaskUID":"x","RetCode":7', id="refused after"),
        pytest.param(b'{"RetCode":7,"TaskUID":"x"', id="refused before"),
        pytest.param(b'{"RetCode":-1,"TaskUID":"x"', id="refused with a negative code"),
        pytest.param(b'{"RetCode":null,"TaskUID":"x"', id="no RetCode"),
        pytest.param(b'{"RetCode":0.4,"TaskUID":"x"', id="a fraction"),
        pytest.param(b'{"RetCode":"0","TaskUID":"x"', id="a string"),
        pytest.param(b'{"RetCode":{"RetCode":0},"TaskUID":"x"', id="an object"),
        pytest.param(b'{"TaskUID":""', id="empty uid"),
        pytest.param(b'{"TaskUID":"a\\nb"', id="control character"),
        pytest.param(b'{"TaskUID":"a\nb"', id="raw control character"),
        pytest.param(b'{"TaskUID":"\\ud800"', id="half a character"),
        pytest.param(b'{"TaskUID":"\xff"', id="not UTF-8"),
        pytest.param(b'{"TaskUID":7', id="number"),
        pytest.param(b'{"TaskUID":null', id="null"),
        pytest.param(b'{"TaskUID":["x"]', id="list of uids"),
        pytest.param(b'{"TaskUID":"' + b"x" * 257 + b'"', id="too long"),
        pytest.param(b'{"TaskUID":"x","TaskUID":"y"', id="two of them"),
        pytest.param(b'{"TaskUID" "x"', id="no colon"),
        pytest.param(b'{"a":1 "TaskUID":"x"', id="no comma"),
        pytest.param(b"[" * 70_000 + b'{"TaskUID":"x"', id="deep"),
    ],
)
def test_nothing_is_guessed(body: bytes) -> None:
    """A uid that is not whole, not at the top, not usable, or refused is none."""
    assert salvaged_uid(body) is None


def test_names_are_read_as_json() -> None:
    """A name may be written with escapes, and what follows the uid need not make sense."""
    assert "x" == salvaged_uid(b'{ "Task\\u0055ID" :\t"x"\r\n<html>')


@given(st.dictionaries(st.sampled_from(["TaskUID", "RetCode", "a"]), st.text() | st.just(0) | st.integers()), st.data())
def test_what_is_salvaged_is_what_the_answer_says(document: dict[str, object], data: st.DataObject) -> None:
    """Of any answer, cut anywhere, there is either no uid, or the right one, and a whole one that agreed has its own."""
    whole = json.dumps(document).encode()
    agreed = is_uid(document.get("TaskUID")) and document.get("RetCode", 0) == 0

    assert salvaged_uid(whole) == (document["TaskUID"] if agreed else None)
    cut = salvaged_uid(whole[: data.draw(st.integers(0, len(whole)))])
    assert cut in {None, document.get("TaskUID")}


@given(st.binary(max_size=200) | st.text('{}[]:,"\\0 TaskUIDRetCode', max_size=80).map(str.encode))
def test_anything_may_arrive(body: bytes) -> None:
    """Whatever stands there, the outcome is a usable uid or none."""
    uid = salvaged_uid(body)

    assert uid is None or is_uid(uid)
