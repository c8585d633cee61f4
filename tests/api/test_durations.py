"""Durations: one text format for API servers, Go and Python."""

import re
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.api.base import DURATION_MAX_LENGTH, DURATION_PATTERN, format_duration, parse_duration

MILLISECOND = timedelta(milliseconds=1)
values = st.integers(0, 99999 * 3_600_000 + 3_599_999).map(lambda count: count * MILLISECOND)
texts = st.from_regex(DURATION_PATTERN[1:-1], fullmatch=True)


@given(values)
def test_what_is_written_is_read_as_the_same(value: timedelta) -> None:
    text = format_duration(value)
    assert re.fullmatch(DURATION_PATTERN, text)
    assert parse_duration(text) == value


@given(texts)
def test_all_that_the_schema_accepts_is_read(text: str) -> None:
    assert len(text) <= DURATION_MAX_LENGTH
    value = parse_duration(text)
    assert value >= timedelta()
    if value < timedelta(hours=100_000):
        assert parse_duration(format_duration(value)) == value


@given(st.text(alphabet="0159hms .-+\nd", max_size=12))
def test_the_operator_reads_what_the_schema_accepts_and_nothing_else(text: str) -> None:
    if re.fullmatch(DURATION_PATTERN[1:-1], text):
        parse_duration(text)
    else:
        with pytest.raises(ValueError, match=r'^must be a duration such as "90s"'):
            parse_duration(text)


@pytest.mark.parametrize(
    ("text", "seconds", "canonical"),
    [("0s", 0, "0s"), ("90s", 90, "1m30s"), ("1h30m", 5400, "1h30m"), ("1500ms", 1.5, "1s500ms"), ("1m1m", 120, "2m")],
)
def test_examples(text: str, seconds: float, canonical: str) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)
    assert format_duration(parse_duration(text)) == canonical
