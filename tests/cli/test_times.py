"""Times as people write and read them: by the server's clock and zone, and never guessed."""

from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.times import BadTime, Times, hours_text, instant, read_duration_s
from scheduler.core.spans import DAY_S, HOUR_S

BERLIN = ZoneInfo("Europe/Berlin")
NOW = instant("2026-11-23T08:08:00Z")
TIMES = Times(now=NOW, zone=BERLIN)
"""A Monday, 09:08."""


@pytest.mark.parametrize(
    ("written", "utc"),
    [
        ("now", "2026-11-23T08:08:00Z"),
        ("tomorrow 09:00", "2026-11-24T08:00:00Z"),
        ("tomorrow at 9am", "2026-11-24T08:00:00Z"),
        ("Tomorrow, 9 AM", "2026-11-24T08:00:00Z"),
        ("09:00 tomorrow", "2026-11-24T08:00:00Z"),
        ("today 20:00", "2026-11-23T19:00:00Z"),
        ("tonight 20:00", "2026-11-23T19:00:00Z"),
        ("10:00", "2026-11-23T09:00:00Z"),
        ("09:00", "2026-11-24T08:00:00Z"),
        ("noon", "2026-11-23T11:00:00Z"),
        ("12am", "2026-11-23T23:00:00Z"),
        ("10:30 pm", "2026-11-23T21:30:00Z"),
        ("fri 18:00", "2026-11-27T17:00:00Z"),
        ("friday at 6pm", "2026-11-27T17:00:00Z"),
        ("20:00 on fri", "2026-11-27T19:00:00Z"),
        ("mon 20:00", "2026-11-23T19:00:00Z"),
        ("mon 08:00", "2026-11-30T07:00:00Z"),
        ("next mon 20:00", "2026-11-30T19:00:00Z"),
        ("30 nov 10:00", "2026-11-30T09:00:00Z"),
        ("nov 30 10:00", "2026-11-30T09:00:00Z"),
        ("30th of november 2027 10:00", "2027-11-30T09:00:00Z"),
        ("24.12.2026 18:30", "2026-12-24T17:30:00Z"),
        ("3 jan 10:00", "2027-01-03T09:00:00Z"),
        ("in 2h", "2026-11-23T10:08:00Z"),
        ("in 90 minutes", "2026-11-23T09:38:00Z"),
        ("in 2 days", "2026-11-25T08:08:00Z"),
        ("in 2 days 10:00", "2026-11-25T09:00:00Z"),
        ("2026-11-24 09:00", "2026-11-24T08:00:00Z"),
        ("2026-11-24T09:00", "2026-11-24T08:00:00Z"),
        ("2026-11-24T09:00Z", "2026-11-24T09:00:00Z"),
        ("2026-11-24T09:00+05:30", "2026-11-24T03:30:00Z"),
    ],
)
def test_a_time_is_read_by_the_servers_clock_and_zone(written: str, utc: str) -> None:
    assert TIMES.read(written, option="--at") == instant(utc)


@pytest.mark.parametrize(
    "written",
    ["", " ", "soon", "3", "2026", "tomorrow", "tomorrow 9", "at 9", "fri", "2h", "11/12 10:00", "1e400", "in 1 hourz",
     "tomorrow 25:00", "tomorrow 10:60", "13pm", "fri 18:00 19:00", "31 feb 10:00", "5 6 10:00", "tomorow 09:00",
     "2026-11-24", "2026-13-24 10:00", "0001-01-01T00:00Z", "9999-12-31T23:59Z", "9999-12-31 10:00", "\x00", "x" * 5000,
     "2026-11-24T09:00+99:00", "١٢:٠٠", "in 99999999999h", "in 2 days tomorrow 10:00"],
)  # fmt: skip
def test_what_is_not_one_time_is_refused_with_the_value_and_what_to_write(written: str) -> None:
    with pytest.raises(BadTime) as refused:
        TIMES.read(written, option="--at")
    assert f"--at {written!r}" in refused.value.message
    assert "write it like" in refused.value.message or "use a year" in refused.value.message


@pytest.mark.parametrize("written", ["yesterday 09:00", "today 08:00", "2026-11-22 10:00", "2026-11-23T08:00:00Z"])
def test_a_past_time_is_refused_and_says_what_time_it_is(written: str) -> None:
    with pytest.raises(BadTime, match=r"which is past: it is Mon 09:08 there"):
        TIMES.read(written, option="--at")
    assert TIMES.read(written, option="--from", is_past_allowed=True) < NOW


@pytest.mark.parametrize(
    "written",
    [
        "yesterday",
        "Yesterday",
        "2026-11-22",
        "20.11.2026",
        "last fri",
        "last friday 09:00",
        "2 days ago",
        "an hour ago",
    ],
)
def test_a_past_day_without_an_hour_is_said_to_be_past(written: str) -> None:
    with pytest.raises(BadTime) as refused:
        TIMES.read(written, option="--at")
    assert refused.value.message.startswith(f"--at {written!r} is past: it is Mon 09:08 there; write it like")


@pytest.mark.parametrize(
    ("written", "example"),
    [
        ("tomorrow", "tomorrow 09:00"),
        ("Fri", "fri 09:00"),
        ("next mon", "next mon 09:00"),
        ("30 nov", "30 nov 09:00"),
        ("today", "today 23:00"),
    ],
)
def test_a_day_without_its_hour_asks_for_it_with_an_example_that_can_be_read(written: str, example: str) -> None:
    with pytest.raises(BadTime) as refused:
        TIMES.read(written, option="--at")
    assert refused.value.message == f'--at {written!r} names a day and no time; write it like "{example}"'
    assert TIMES.read(example, option="--at") > NOW


def test_a_day_alone_is_enough_where_the_past_may_be_looked_at() -> None:
    assert TIMES.read("2026-11-20", option="--from", is_past_allowed=True) == instant("2026-11-19T23:00:00Z")
    assert TIMES.read("yesterday", option="--from", is_past_allowed=True) == instant("2026-11-21T23:00:00Z")
    assert TIMES.read("fri", option="--from", is_past_allowed=True) == instant("2026-11-26T23:00:00Z")


def test_a_time_that_the_clock_skips_is_refused_and_the_next_one_is_named() -> None:
    with pytest.raises(BadTime, match=r"'2027-03-28 02:30' does not exist in Europe/Berlin.*write 2027-03-28T03:00"):
        TIMES.read("2027-03-28 02:30", option="--at")
    assert TIMES.read("2027-03-28 03:00", option="--at") == instant("2027-03-28T01:00:00Z")


def test_of_an_hour_that_comes_twice_the_first_is_meant() -> None:
    assert TIMES.read("2027-10-31 02:30", option="--at") == instant("2027-10-31T00:30:00Z")
    assert TIMES.read("2027-10-31 02:30+01:00", option="--at") == instant("2027-10-31T01:30:00Z")


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("3h", 3 * HOUR_S),
        ("90m", 5400),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("3 hours", 3 * HOUR_S),
        ("1 hour and 30 minutes", 5400),
        ("2 Days", 2 * DAY_S),
        ("45 sec", 45),
    ],
)
def test_durations_are_read_short_and_in_words(written: str, seconds: int) -> None:
    assert read_duration_s(written, option="--for") == seconds


@pytest.mark.parametrize(
    "written",
    ["", "3", "3 hourz", "-3h", "1.5h", "0h", "30m 1h", "3h3h", "1e9h", "three hours", "h", "3 h x", "9" * 99],
)
def test_what_is_no_duration_is_refused_with_the_value(written: str) -> None:
    with pytest.raises(BadTime) as refused:
        read_duration_s(written, option="--for")
    assert f"--for {written!r}" in refused.value.message
    assert "write it like 3h" in refused.value.message


@given(st.text(max_size=30) | st.from_regex(r"[a-z0-9:. +-]{1,25}", fullmatch=True))
def test_no_text_makes_the_reading_of_times_fail_in_another_way(text: str) -> None:
    said = []
    try:
        assert TIMES.read(text, option="--at") >= NOW - 60
    except BadTime as refused:
        said.append(refused.message)
    try:
        assert read_duration_s(text, option="--for") > 0
    except BadTime as refused:
        said.append(refused.message)
    assert [message for message in said if repr(text) not in message or "\n" in message] == []


def test_near_instants_are_shown_by_weekday_and_far_ones_with_their_date() -> None:
    assert TIMES.show(NOW) == "Mon 09:08"
    assert TIMES.show(NOW + 5 * DAY_S) == "Sat 09:08"
    assert TIMES.show(NOW + 7 * DAY_S) == "Mon 30 Nov 09:08"
    assert TIMES.show(NOW + 60 * DAY_S) == "Fri 22 Jan 2027 09:08"
    assert TIMES.show(1 << 60) == f"{1 << 60} s"


@pytest.mark.parametrize(
    ("away_s", "said"),
    [(0, "now"), (60, "in a minute"), (240, "in 4 min"), (3600, "in 1 h"), (5 * HOUR_S + 300, "in 5 h 5 min"),
     (3 * DAY_S, "in 3 days"), (40 * DAY_S, "in 40 days"), (-240, "4 min ago")],
)  # fmt: skip
def test_how_far_an_instant_is_is_said_in_words(away_s: int, said: str) -> None:
    assert TIMES.distance(NOW + away_s) == said


def test_instants_and_seconds_in_the_servers_sentences_are_shown_as_everywhere_else() -> None:
    said = "no start by Tue 2026-11-24 09:00 can be promised for 7200 s; since 2026-11-23 08:00:00Z 45 s passed"
    assert TIMES.in_text(said) == "no start by Tue 09:00 can be promised for 2h; since Mon 09:00 45 s passed"
    assert TIMES.in_text("Mon 2026-99-99 99:99 is kept") == "Mon 2026-99-99 99:99 is kept"


def test_durations_are_written_for_people() -> None:
    assert [hours_text(s) for s in (0, 45, 5400, 3 * HOUR_S, 36 * HOUR_S, 2 * DAY_S)] == [
        "0 s", "45 s", "1 h 30 min", "3 h", "36 h", "2 days",
    ]  # fmt: skip
