"""Spans are half-open and never empty."""

import pytest

from scheduler.core.spans import Span, utc_text


def test_an_empty_span_cannot_be_made() -> None:
    for end_at in (5, 4):
        with pytest.raises(ValueError, match="must end after it starts"):
            Span(start_at=5, end_at=end_at)


def test_spans_that_touch_do_not_overlap() -> None:
    assert not Span(start_at=0, end_at=5).overlaps(Span(start_at=5, end_at=6))
    assert Span(start_at=0, end_at=6).overlaps(Span(start_at=5, end_at=6))
    assert Span(start_at=0, end_at=5).covers(0)
    assert not Span(start_at=0, end_at=5).covers(5)


def test_an_instant_is_written_in_utc() -> None:
    assert utc_text(1_772_409_600) == "2026-03-02 00:00:00Z"
