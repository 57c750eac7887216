"""The error tree: as drawn, under one root, with data that survives pickling."""

from __future__ import annotations

import copy
import pickle
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picpik_async import errors
from picpik_async._tasks import TaskDetail
from picpik_async.errors import PicpikError, legible

if TYPE_CHECKING:
    from collections.abc import Iterator

ROW = re.compile(r"(?P<indent>(?:[│ ] {3})*)(?:[├└]── )?(?P<name>\w+)(?: \((?P<builtin>\w+)\))?(?:\s{2,}.*)?")

# One of each, with all of its data.
SAMPLES = [
    errors.PicpikError("m", request_uuid="u", task_uid="t"),
    errors.InvalidRequestError("m", field="masked.mask_blur", value=65, allowed="from 0 to 64"),
    errors.ImageError("m", field="masked.image", source="room.gif", value=None, allowed="PNG"),
    errors.MaskError("m", field="masked.mask", value=(3, 4), allowed="4 x 3"),
    errors.ConfigurationError("m"),
    errors.TransportError("m", stage="connect", retries=0, request_uuid="u"),
    errors.RequestTimeoutError("m", stage="send", request_uuid="u"),
    errors.AnswerError("m", request_uuid="u"),
    errors.MalformedAnswerError("m"),
    errors.HttpStatusError("m", status=503, retry_after=1.5, request_uuid="u"),
    errors.ApiError("m", ret_code=7, action="ListModels", message="no", request_uuid="u"),
    errors.SubmitOutcomeUnknownError("m", stage="headers", reason="reset", key="job-1", request_uuid="u"),
    errors.SubmitPausedError("m", request_uuid="u"),
    errors.JournalError("m", path="jobs.sqlite"),
    errors.TaskError("m", detail=TaskDetail(task_uid="t", raw={"TaskUID": "t"}), task_uid="t"),
    errors.TaskFailedError("m", detail=None, task_uid="t"),
    errors.TaskTerminatedError("m", task_uid="t"),
    errors.TaskTimeoutError("m", task_uid="t"),
    errors.TaskVanishedError("m", task_uid="t"),
    errors.DownloadError("m", url="https://host/1.png", task_uid="t"),
    errors.ResultExpiredError("m", url="https://host/1.png", task_uid="t"),
    errors.UnsafeUrlError("m", url="ftp://host", task_uid="t"),
    errors.InvalidImageError("m", url="https://host/1.png", task_uid="t"),
]


def drawn() -> Iterator[tuple[str, tuple[str, ...]]]:
    """The classes in the module's drawing, each with the names of its bases."""
    drawing = str(errors.__doc__).split("```")[1].removeprefix("text\n").strip("\n")
    ancestors: list[str] = []
    for line in drawing.splitlines():
        row = ROW.fullmatch(line)
        assert row is not None, line
        depth = len(row["indent"]) // 4 + ("──" in line)
        bases = (ancestors[depth - 1] if depth else "Exception", row["builtin"])
        ancestors[depth:] = [row["name"]]
        yield row["name"], tuple(filter(None, bases))


def test_the_classes_are_those_of_the_drawing() -> None:
    """The picture in the docstring shows every class with its bases, and nothing else."""
    actual = {
        name: tuple(base.__name__ for base in value.__bases__)
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, BaseException)
    }

    assert dict(drawn()) == actual
    assert sorted(actual) == sorted(errors.__all__)


def test_every_error_has_one_root() -> None:
    """`except PicpikError` catches everything this package raises."""
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), PicpikError)


def test_the_samples_cover_every_error() -> None:
    """No class is left out of the tests below."""
    assert sorted(errors.__all__) == sorted(type(sample).__name__ for sample in SAMPLES)


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_data_survives_pickling_and_copying(error: PicpikError) -> None:
    """An error that comes back from another process has its message and all of its data."""
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301 - our own
        assert type(error) is type(twin)
        assert ("m", vars(error)) == (str(twin), vars(twin))


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_can_be_made_from_a_message_alone(name: str) -> None:
    """All data is optional, and the ids are always there."""
    error = getattr(errors, name)("m")

    assert ("m", None, None) == (str(error), error.request_uuid, error.task_uid)


def test_built_in_bases_serve_callers_who_expect_them() -> None:
    """Time that is up is a TimeoutError, and a wrong argument a ValueError."""
    for kind in (errors.RequestTimeoutError, errors.TaskTimeoutError):
        assert issubclass(kind, TimeoutError)
    assert issubclass(errors.ImageError, ValueError)


@given(st.text() | st.integers() | st.binary(max_size=50), st.integers(min_value=1, max_value=60))
def test_legible_text_is_printable_on_one_line_and_short(text: object, limit: int) -> None:
    """Whatever comes from outside cannot move the cursor, forge a log line or flood a message."""
    shown = legible(text, limit=limit)

    assert shown.isprintable()
    assert len(shown) <= limit


@given(st.text(st.characters(exclude_categories=("C", "Z")), max_size=40))
def test_legible_leaves_short_printable_text_alone(text: str) -> None:
    """What is harmless is shown as it is, in any script."""
    assert text == legible(text, limit=40)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\nb", r"a\nb"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\u202egnp", r"\u202egnp"),
        ("\ud800", r"\ud800"),
        ("x" * 501, "x" * 499 + "…"),
        ("x" * 500, "x" * 500),
    ],
)
def test_legible_escapes_and_cuts(text: str, expected: str) -> None:
    """Line ends, terminal codes, text direction marks and half characters are written out; length has a limit."""
    assert expected == legible(text)
