"""The documented ranges: what is accepted, what is refused, and in which words."""

from __future__ import annotations

import warnings
from decimal import Decimal
from fractions import Fraction
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from picpik_async._ranges import flag, integer, number, one_text, refused, text, to_texts
from picpik_async.errors import InvalidRequestError


@attrs.frozen(kw_only=True)
class Sample:
    """A field of each kind."""

    whole: int | None = integer(0, 64, within="masked")
    stepped: int | None = integer(64, 2048, step=64)
    older_whole: int | None = integer(6, 100, older=True)
    real: float | None = number(0, 2, within="masked")
    hundredths: float | None = number(-1, 2, step=0.01)
    older_real: float | None = number(1, 30, older=True)
    switch: bool | None = flag(within="masked")
    word: str | None = text()


class Unshowable:
    """A value whose repr fails."""

    def __repr__(self) -> str:
        raise RuntimeError


def test_every_field_may_be_left_out() -> None:
    """None is "not sent", also when it is written out."""
    names = [field.name for field in attrs.fields(Sample)]

    assert Sample() == Sample(**dict.fromkeys(names))
    assert set(attrs.astuple(Sample())) == {None}


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("whole", 0, 0),
        ("whole", 64, 64),
        ("whole", np.int64(12), 12),
        ("whole", np.uint8(12), 12),
        ("stepped", 64, 64),
        ("stepped", 2048, 2048),
        ("real", 0, 0.0),
        ("real", 2, 2.0),
        ("real", 1.5, 1.5),
        ("real", np.float64(0.3), 0.3),
        ("real", np.float32(0.5), 0.5),
        ("real", np.int64(1), 1.0),
        ("real", Fraction(1, 2), 0.5),
        ("real", 5e-324, 5e-324),
        ("hundredths", 0.29, 0.29),
        ("hundredths", -1, -1.0),
        ("hundredths", 1.1 + 0.01, 1.1 + 0.01),
        ("switch", True, True),
        ("switch", False, False),
        ("word", "Euler", "Euler"),
    ],
)
def test_accepted_values(field: str, value: Any, expected: Any) -> None:
    """Bounds are included, and a number keeps its value while it becomes a plain int or float."""
    actual = getattr(Sample(**{field: value}), field)

    assert expected == actual
    assert type(expected) is type(actual)


@pytest.mark.parametrize("hundredths", range(-100, 201))
def test_every_documented_step_is_accepted(hundredths: int) -> None:
    """Binary floats such as 0.29 are no whole number of hundredths, and are accepted nevertheless, as they are."""
    assert hundredths / 100 == Sample(hundredths=hundredths / 100).hundredths
    assert hundredths * 0.01 == Sample(hundredths=hundredths * 0.01).hundredths


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("whole", 65, "masked.whole is 65, but must be from 0 to 64"),
        ("whole", -1, "masked.whole is -1, but must be from 0 to 64"),
        ("whole", 12.0, "masked.whole is 12.0, but must be a whole number from 0 to 64"),
        ("whole", "12", "masked.whole is '12', but must be a whole number from 0 to 64"),
        ("whole", True, "masked.whole is True, but must be a whole number from 0 to 64"),
        ("whole", np.True_, "but must be a whole number from 0 to 64"),
        ("whole", [1], "masked.whole is [1], but must be a whole number from 0 to 64"),
        pytest.param("whole", 10**5000, "masked.whole is a value of type int, but must be from 0 to 64", id="huge"),
        ("stepped", 65, "stepped is 65, but must be a multiple of 64"),
        ("stepped", 32, "stepped is 32, but must be from 64 to 2048"),
        ("real", 2.5, "masked.real is 2.5, but must be from 0 to 2"),
        ("real", -0.001, "masked.real is -0.001, but must be from 0 to 2"),
        ("real", float("nan"), "masked.real is nan, but must be a number from 0 to 2"),
        ("real", float("inf"), "masked.real is inf, but must be a number from 0 to 2"),
        ("real", 10**400, "but must be a number from 0 to 2"),
        ("real", "1", "masked.real is '1', but must be a number from 0 to 2"),
        ("real", b"1", "masked.real is b'1', but must be a number from 0 to 2"),
        ("real", bytearray(b"1"), "but must be a number from 0 to 2"),
        ("real", False, "masked.real is False, but must be a number from 0 to 2"),
        ("real", np.True_, "but must be a number from 0 to 2"),
        ("real", 1j, "masked.real is 1j, but must be a number from 0 to 2"),
        ("real", Decimal("sNaN"), "but must be a number from 0 to 2"),
        ("hundredths", 0.005, "hundredths is 0.005, but must be a multiple of 0.01"),
        ("hundredths", 0.29001, "hundredths is 0.29001, but must be a multiple of 0.01"),
        ("hundredths", -1.5, "hundredths is -1.5, but must be from -1 to 2"),
        ("older_real", "x", "older_real is 'x', but must be a number from 1 to 30"),
        ("older_whole", 7.5, "older_whole is 7.5, but must be a whole number from 6 to 100"),
        ("switch", 1, "masked.switch is 1, but must be True or False"),
        ("switch", "yes", "masked.switch is 'yes', but must be True or False"),
        ("word", "", "word is '', but must be a string that is not empty"),
        ("word", 5, "word is 5, but must be a string that is not empty"),
        ("word", b"Euler", "word is b'Euler', but must be a string that is not empty"),
    ],
)
def test_refused_values(field: str, value: Any, message: str) -> None:
    """The error names the field, the value and what is allowed, in its text and as data."""
    with pytest.raises(InvalidRequestError) as caught:
        Sample(**{field: value})

    error = caught.value
    assert message in str(error)
    assert (
        str(error)
        == f"{error.field} is {str(error)[len(str(error.field)) + 4 :].split(', but')[0]}, but must be {error.allowed}"
    )
    assert field == str(error.field).removeprefix("masked.")


@pytest.mark.parametrize(("field", "low", "high"), [("older_whole", 6, 100), ("older_real", 1, 30)])
def test_ranges_of_older_pages_only_warn(field: Any, low: int, high: int) -> None:
    """The current page is silent about them, so the service decides; the warning points at the caller."""
    new: Any = Sample
    for value in (low, high):
        new(**{field: value})
    for value in (low - 1, high + 1):
        with pytest.warns(UserWarning, match=f"{field} is {value}.*; an older page .* from {low} to {high}") as caught:
            sample = new(**{field: value})
        assert value == getattr(sample, field)
        assert [__file__] == [warning.filename for warning in caught]


@given(st.floats() | st.integers() | st.text() | st.none() | st.booleans() | st.binary() | st.complex_numbers())
def test_any_value_is_taken_or_refused(value: Any) -> None:
    """Nothing but our own error comes out of a field, and what is taken is a plain value within the range."""
    for field in attrs.fields(Sample):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                taken = getattr(Sample(**{field.name: value}), field.name)
            except InvalidRequestError:
                continue
        if taken is None:
            assert value is None
        else:
            assert type(taken) in {int, float, bool, str}
            assert type(taken)(value) == taken


@pytest.mark.parametrize(("value", "shown"), [(Unshowable(), "a value of type Unshowable"), ("\n", r"'\n'")])
def test_messages_show_values_safely(value: object, shown: str) -> None:
    """A value whose repr fails is named by its type; one that is long is cut."""
    assert f"seed is {shown}, but must be small" == str(refused("seed", value, "small"))
    assert len(str(refused("seed", "x" * 10_000, "small"))) < 120


@pytest.mark.parametrize(
    ("values", "expected"),
    [("a cat", ("a cat",)), ("", ("",)), (["a", "b"], ("a", "b")), ((), ()), (iter(["a"]), ("a",)), ({"a": 1}, ("a",))],
)
def test_texts_become_a_tuple(values: Any, expected: tuple[str, ...]) -> None:
    """One string is a list of one; any other iterable of strings is taken as it is."""
    assert expected == to_texts(values, "prompts")


@pytest.mark.parametrize(
    ("values", "shown"), [(5, "5"), ([5], "5"), (["a", None], "None"), (b"a", "97"), ([["a"]], r"\['a'\]")]
)
def test_texts_are_strings(values: Any, shown: str) -> None:
    """What is no string is shown, with what a list of strings is."""
    with pytest.raises(
        InvalidRequestError, match=f"^prompts is {shown}, but must be a string, or a list of strings$"
    ) as caught:
        to_texts(values, "prompts")

    assert "prompts" == caught.value.field


def test_one_text_is_not_empty() -> None:
    """A single string keeps its white space, but is not empty."""
    assert " " == one_text(" ", "word")
    with pytest.raises(InvalidRequestError, match="not empty"):
        one_text("", "word")
