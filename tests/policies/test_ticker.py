"""Ten tickers do what one does, and none of them does it twice."""

from collections.abc import Callable

import pytest

from policies.format import LoadedPolicy
from policies.ticker import Filed, Ticker, apply_intent
from scheduler.core.errors import StoreBusy
from scheduler.core.intents import FiledIntent, Intent, Materialise, Submit
from scheduler.core.requests import HostId, Role
from scheduler.core.settings import Settings
from scheduler.core.spans import DAY_S, HOUR_S, MINUTE_S, Instant

MakePolicy = Callable[..., LoadedPolicy]

SETTINGS = Settings()
HOSTS = frozenset({HostId("dgx2-a"), HostId("dgx2-b")})
MONDAY_NOON: Instant = 1_772_452_800
"""2026-03-02 12:00 UTC, 13:00 in Berlin."""


class Intents:
    """The intents table: numbered in order, each key once. Fails on demand, as a busy database does."""

    def __init__(self) -> None:
        self.rows: list[FiledIntent] = []
        self.calls = 0
        self.fails_at_call: int | None = None

    def file_intent(
        self, intent: Intent, *, at: Instant, author: str, role: Role, key: str
    ) -> tuple[FiledIntent, bool]:
        self.calls += 1
        if self.calls == self.fails_at_call:
            raise StoreBusy("the database was locked for longer than 5 s; nothing was written")
        for row in self.rows:
            if row.key == key:
                return row, False
        row = FiledIntent(seq=len(self.rows) + 1, at=at, author=author, role=role, intent=intent, key=key)
        self.rows.append(row)
        return row, True


def tick(ticker: Ticker, now: Instant, policy: LoadedPolicy, horizon_at: Instant) -> tuple[Filed, ...]:
    return ticker.tick(now, policy=policy, policy_version=4, horizon_at=horizon_at, hosts=HOSTS)


def test_a_policy_is_applied_with_its_windows_up_to_the_horizon(example: LoadedPolicy) -> None:
    intent = apply_intent(example, HOSTS, now=MONDAY_NOON, version=4, settings=SETTINGS)
    assert intent.horizon_at == MONDAY_NOON + SETTINGS.horizon_s
    assert intent.rules == example.rules(4)
    assert intent.text == example.text
    assert len(intent.windows) == 90
    assert all(MONDAY_NOON <= window.start_at < intent.horizon_at for window in intent.windows)
    assert {window.policy_version for window in intent.windows} == {4}


def test_a_window_that_cannot_be_decided_any_more_is_left_out(example: LoadedPolicy) -> None:
    decide_at = apply_intent(example, HOSTS, now=MONDAY_NOON, version=4, settings=SETTINGS).windows[0].decide_at
    in_time = apply_intent(example, HOSTS, now=decide_at, version=4, settings=SETTINGS).windows[0]
    too_late = apply_intent(example, HOSTS, now=decide_at + 1, version=4, settings=SETTINGS).windows[0]
    assert (in_time.id, too_late.id) == ("night@2026-03-02T20:00", "night@2026-03-03T20:00")


def test_a_first_tick_files_the_reservations_that_are_due_each_under_its_key(example: LoadedPolicy) -> None:
    store = Intents()
    filed = tick(Ticker(store.file_intent, SETTINGS), MONDAY_NOON, example, MONDAY_NOON + SETTINGS.horizon_s)
    assert all(one.is_new and not one.is_caught_up for one in filed)
    assert [row.key for row in store.rows] == [
        "climate-nightly@2026-03-02T20:00#1",
        *(f"deep-learning-course@2026-03-03T10:00#{number}" for number in range(1, 9)),
        *(f"climate-nightly@2026-03-0{day}T20:00#1" for day in (3, 4, 5, 6)),
    ]
    assert {row.role for row in store.rows} == {Role.POLICY}
    assert {row.author for row in store.rows} == {"policy:climate-nightly", "policy:deep-learning-course"}


def test_the_horizon_moves_on_when_it_is_more_than_a_day_short(example: LoadedPolicy) -> None:
    store, horizon_at = Intents(), MONDAY_NOON + SETTINGS.horizon_s
    ticker = Ticker(store.file_intent, SETTINGS)
    tick(ticker, MONDAY_NOON + DAY_S, example, horizon_at)
    assert not [row for row in store.rows if isinstance(row.intent, Materialise)]
    tick(ticker, MONDAY_NOON + DAY_S + 1, example, horizon_at)
    (intent,) = [row.intent for row in store.rows if isinstance(row.intent, Materialise)]
    assert (intent.policy_version, intent.horizon_at) == (4, (horizon_at + DAY_S) // DAY_S * DAY_S)
    assert [window.start_at for window in intent.windows if not horizon_at <= window.start_at < intent.horizon_at] == []
    assert [window.id for window in intent.windows] == ["weekend@2026-05-31T18:00"]


def test_windows_filed_bit_by_bit_are_those_filed_at_once(example: LoadedPolicy) -> None:
    store, horizon_at = Intents(), MONDAY_NOON + SETTINGS.horizon_s
    ticker = Ticker(store.file_intent, SETTINGS)
    for now in range(MONDAY_NOON, MONDAY_NOON + 30 * DAY_S, 6 * HOUR_S):
        for filed in tick(ticker, now, example, horizon_at):
            if isinstance(filed.intent.intent, Materialise):
                horizon_at = filed.intent.intent.horizon_at
    first = apply_intent(example, HOSTS, now=MONDAY_NOON, version=4, settings=SETTINGS).windows
    later = [window for row in store.rows if isinstance(row.intent, Materialise) for window in row.intent.windows]
    whole = apply_intent(
        example, HOSTS, now=MONDAY_NOON, version=4, settings=Settings(horizon_s=horizon_at - MONDAY_NOON)
    ).windows
    assert (*first, *later) == whole


def test_ten_tickers_file_what_one_files(example: LoadedPolicy) -> None:
    alone, together = Intents(), Intents()
    horizon_at = MONDAY_NOON + 80 * DAY_S
    one = Ticker(alone.file_intent, SETTINGS)
    ten = [Ticker(together.file_intent, SETTINGS) for _ in range(10)]
    news = 0
    for second in range(0, 3 * DAY_S, HOUR_S):
        tick(one, MONDAY_NOON + second, example, horizon_at)
        for late_s, ticker in enumerate(ten):
            news += sum(filed.is_new for filed in tick(ticker, MONDAY_NOON + second + late_s, example, horizon_at))
    assert {(row.key, row.author, row.role) for row in together.rows} == {
        (row.key, row.author, row.role) for row in alone.rows
    }
    assert [row.intent for row in together.rows] == [row.intent for row in alone.rows]
    assert news == len(together.rows) == len({row.key for row in together.rows})


def test_ticks_without_anything_due_ask_nothing_of_the_database(example: LoadedPolicy) -> None:
    store, horizon_at = Intents(), MONDAY_NOON + SETTINGS.horizon_s
    ticker = Ticker(store.file_intent, SETTINGS)
    tick(ticker, MONDAY_NOON, example, horizon_at)
    after_first = store.calls
    # Until 20:00 in Berlin, when the night a week ahead falls due.
    for now in range(MONDAY_NOON + 1, MONDAY_NOON + 7 * HOUR_S, MINUTE_S):
        assert tick(ticker, now, example, horizon_at) == ()
    assert store.calls == after_first
    (filed,) = tick(ticker, MONDAY_NOON + 7 * HOUR_S, example, horizon_at)
    assert filed.key == "climate-nightly@2026-03-09T20:00#1"
    assert store.calls == after_first + 1


def test_another_policy_or_horizon_is_looked_at_at_once(example: LoadedPolicy, make_policy: MakePolicy) -> None:
    store, horizon_at = Intents(), MONDAY_NOON + SETTINGS.horizon_s
    ticker = Ticker(store.file_intent, SETTINGS)
    tick(ticker, MONDAY_NOON, example, horizon_at)
    other = make_policy(
        reserve='{name: new, cron: "0 20 * * *", for: 1h, gpus: 1, queue: interactive, owner: a, ahead: 1d}'
    )
    (filed,) = tick(ticker, MONDAY_NOON + 1, other, horizon_at)
    assert filed.key == "new@2026-03-02T20:00#1"
    (filed,) = tick(ticker, MONDAY_NOON + 2, other, MONDAY_NOON + 3 * DAY_S)
    assert isinstance(filed.intent.intent, Materialise)


def test_what_was_caught_up_says_so(example: LoadedPolicy) -> None:
    store, at_eleven = Intents(), MONDAY_NOON + 10 * HOUR_S
    filed = tick(Ticker(store.file_intent, SETTINGS), at_eleven, example, at_eleven + SETTINGS.horizon_s)
    assert [one.key for one in filed if one.is_caught_up] == ["climate-nightly@2026-03-02T20:00#1"]


def test_a_filing_that_fails_is_made_up_by_the_next_tick(example: LoadedPolicy) -> None:
    store, horizon_at = Intents(), MONDAY_NOON + SETTINGS.horizon_s
    ticker = Ticker(store.file_intent, SETTINGS)
    store.fails_at_call = 5
    with pytest.raises(StoreBusy):
        tick(ticker, MONDAY_NOON, example, horizon_at)
    assert len(store.rows) == 4
    assert len(tick(ticker, MONDAY_NOON + 1, example, horizon_at)) == 9
    assert len(store.rows) == 13
    assert all(isinstance(row.intent, Submit) for row in store.rows)


def test_until_the_plan_has_the_new_horizon_its_windows_are_not_filed_again(example: LoadedPolicy) -> None:
    store, horizon_at = Intents(), MONDAY_NOON + 80 * DAY_S
    ticker = Ticker(store.file_intent, SETTINGS)
    first = tick(ticker, MONDAY_NOON, example, horizon_at)
    assert sum(isinstance(filed.intent.intent, Materialise) for filed in first) == 1
    after_first = store.calls
    for second in range(1, 100):
        assert tick(ticker, MONDAY_NOON + second, example, horizon_at) == ()
    assert store.calls == after_first


def test_time_that_was_put_back_is_looked_at_anew(example: LoadedPolicy) -> None:
    store, horizon_at = Intents(), MONDAY_NOON + 40 * DAY_S
    ticker = Ticker(store.file_intent, Settings(horizon_s=20 * DAY_S))
    tick(ticker, MONDAY_NOON + 7 * DAY_S, example, horizon_at)
    filed = {row.key for row in store.rows}
    tick(ticker, MONDAY_NOON, example, horizon_at)
    assert {row.key for row in store.rows} - filed, "what falls due a week earlier is not kept waiting for a week"
