"""Durations and sizes as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.units import duration_text, parse_duration_s, parse_size_gib


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("45s", 45),
        ("90m", 5400),
        ("12h", 43_200),
        ("7d", 604_800),
        ("1h30m", 5400),
        ("1d12h", 129_600),
        ("2d1h1m1s", 176_461),
    ],
)
def test_durations_add_up(text: str, seconds: int) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "12", "1:30", "1.5h", "-1h", "30m1h", "1H", "1 h", "1h ", "PT1H", "1y", "2w", "1mo", "٣h", "9" * 9 + "d"],
)
def test_what_could_be_misread_is_no_duration(text: str) -> None:
    assert parse_duration_s(text) is None


@given(st.integers(1, 400 * 86_400))
def test_a_duration_written_is_read_back(seconds: int) -> None:
    assert parse_duration_s(duration_text(seconds)) == seconds


@pytest.mark.parametrize(("text", "gib"), [("100GiB", 100), ("100 GiB", 100), ("2TiB", 2048)])
def test_sizes_are_gibibytes(text: str, gib: int) -> None:
    assert parse_size_gib(text) == gib


@pytest.mark.parametrize("text", ["", "100", "100GB", "100G", "1.5TiB", "-1GiB", "100gib", "100MiB"])
def test_other_sizes_are_refused(text: str) -> None:
    assert parse_size_gib(text) is None
