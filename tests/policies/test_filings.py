"""The reservations that a policy files itself: what, when, and under which key."""

from collections.abc import Callable
from datetime import UTC, datetime

from policies.filings import due_filings, next_filing_at
from policies.format import LoadedPolicy
from scheduler.core.requests import Ask, AtBoundary
from scheduler.core.spans import DAY_S, FOREVER, HOUR_S, Instant

MakePolicy = Callable[..., LoadedPolicy]

COURSE = (
    '{name: course, cron: "0 10 * * tue", for: 2h, gpus: 2, count: 3, queue: interactive, owner: dl,'
    " at_boundary: finish, disk: 50GiB, image: ubuntu}"
)
HORIZON = FOREVER // 4096


def at_utc(text: str) -> Instant:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def test_each_copy_is_an_ask_of_its_own_under_its_own_key(make_policy: MakePolicy) -> None:
    due = due_filings(make_policy(reserve=COURSE), now=at_utc("2026-02-25T12:00"), until_at=HORIZON)
    assert [filing.key for filing in due] == [f"course@2026-03-03T10:00#{number}" for number in (1, 2, 3)]
    start_at = at_utc("2026-03-03T09:00")
    assert {filing.submit.ask for filing in due} == {
        Ask(
            owner="dl",
            queue="interactive",
            gpus=2,
            run_s=2 * HOUR_S,
            not_before_at=start_at,
            start_by_at=start_at + 2 * HOUR_S,
            at_boundary=AtBoundary.FINISH,
            image="ubuntu",
            disk_gib=50,
        )
    }
    assert {(filing.author, filing.is_caught_up, filing.source) for filing in due} == {
        ("policy:course", False, "test.yaml:12")
    }


def test_a_reservation_falls_due_exactly_ahead_of_its_start(make_policy: MakePolicy) -> None:
    policy = make_policy(reserve=COURSE.replace("50GiB", "50GiB, ahead: 1d"))
    due_at = at_utc("2026-03-02T09:00")
    assert due_filings(policy, now=due_at - 1, until_at=HORIZON) == ()
    assert len(due_filings(policy, now=due_at, until_at=HORIZON)) == 3
    assert next_filing_at(policy, now=due_at - DAY_S, until_at=HORIZON) == due_at
    assert next_filing_at(policy, now=due_at, until_at=HORIZON) == due_at + 7 * DAY_S


def test_a_missed_one_is_caught_up_while_its_own_time_lasts(make_policy: MakePolicy) -> None:
    policy = make_policy(reserve=COURSE.replace("50GiB", "50GiB, ahead: 1d"))
    start_at = at_utc("2026-03-03T09:00")
    late = due_filings(policy, now=start_at + 2 * HOUR_S - 1, until_at=HORIZON)
    assert [filing.is_caught_up for filing in late] == [True, True, True]
    # A time that is past cannot be asked for, and its own end stays the end.
    assert {(f.submit.ask.not_before_at, f.submit.ask.start_by_at) for f in late} == {(None, start_at + 2 * HOUR_S)}
    assert due_filings(policy, now=start_at + 2 * HOUR_S, until_at=HORIZON) == ()


def test_nothing_is_filed_past_the_horizon(make_policy: MakePolicy) -> None:
    policy, start_at = make_policy(reserve=COURSE), at_utc("2026-03-03T09:00")
    assert due_filings(policy, now=start_at - DAY_S, until_at=start_at) == ()
    assert len(due_filings(policy, now=start_at - DAY_S, until_at=start_at + 1)) == 3


def test_the_key_is_the_wall_clock_and_not_the_instant(make_policy: MakePolicy) -> None:
    before, after = (
        make_policy(zone=zone, reserve=COURSE.replace("count: 3", "count: 1"))
        for zone in ("Europe/Berlin", "Europe/Paris")
    )
    now = at_utc("2026-03-28T12:00")
    (first,), (second,) = (due_filings(policy, now=now, until_at=HORIZON) for policy in (before, after))
    assert first.key == second.key == "course@2026-03-31T10:00#1"
    assert first.occurrence.at == at_utc("2026-03-31T08:00")
