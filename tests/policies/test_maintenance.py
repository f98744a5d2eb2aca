"""Maintenance has its hosts: nothing runs in it, and other windows are cut to what it leaves of them."""

from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.checks import check_policy, errors_of
from policies.format import LoadedPolicy
from policies.loading import load_policy
from policies.windows import windows_between
from scheduler.core.intents import ApplyPolicy
from scheduler.core.planner.intent_checks import check_intent
from scheduler.core.requests import AtBoundary, HostId
from scheduler.core.spans import DAY_S, HOUR_S, Instant
from scheduler.core.windows import Window, stretches
from tests.policies.conftest import policy_text

MakePolicy = Callable[..., LoadedPolicy]

MONDAY: Instant = 1_772_409_600
"""2026-03-02 00:00 UTC."""
A, B = HostId("dgx2-a"), HostId("dgx2-b")
NIGHT = '{name: night, layout: night, opens: "0 20 * * *", for: 12h}'
WORK = 'maintenance: [{name: work, from: "2026-03-02 22:00", until: "2026-03-03 02:00", hosts: [dgx2-a]}]\n'


def windows(policy: LoadedPolicy, *hosts: HostId, days: int = 1) -> tuple[Window, ...]:
    return windows_between(policy, hosts, from_at=MONDAY, until_at=MONDAY + days * DAY_S, version=1)


def of(host: HostId, found: tuple[Window, ...]) -> list[str]:
    def hour(instant: Instant) -> str:
        return f"{datetime.fromtimestamp(instant, UTC):%dT%H}"

    return [f"{w.name} {hour(w.start_at)}-{hour(w.end_at)}" for w in found if host in w.hosts]


def test_a_window_is_cut_on_the_hosts_of_the_maintenance_and_whole_on_the_others(make_policy: MakePolicy) -> None:
    found = windows(make_policy(windows=NIGHT, more=WORK), A, B, days=2)
    # 20:00 in Berlin is 19:00 UTC.
    assert of(A, found) == ["night 02T19-02T21", "work 02T21-03T01", "night 03T01-03T07", "night 03T19-04T07"]
    assert of(B, found) == ["night 02T19-03T07", "night 03T19-04T07"]
    assert [window.id for window in found if A in window.hosts] == [
        "night@2026-03-02T20:00#02T20:00-02T22:00",
        "work@2026-03-02T22:00",
        "night@2026-03-02T20:00#03T02:00-03T08:00",
        "night@2026-03-03T20:00",
    ]


def test_its_pieces_do_not_depend_on_what_other_hosts_there_are(make_policy: MakePolicy) -> None:
    policy = make_policy(windows=NIGHT, more=WORK)
    alone = {(window.id, window.start_at, window.end_at) for window in windows(policy, A, days=2)}
    both = {(w.id, w.start_at, w.end_at) for w in windows(policy, A, B, days=2) if A in w.hosts}
    assert alone == both


def test_nothing_may_run_in_it_and_guests_are_parked_or_finish(make_policy: MakePolicy) -> None:
    policy = make_policy(more=WORK)
    (window,) = windows(policy, A)
    assert not window.only_if_queued
    assert window.at_boundary == {AtBoundary.PARK, AtBoundary.FINISH}
    assert window.decide_at == window.start_at - 75 * 60
    found = stretches(
        [window],
        outside=policy.outside,
        gpus=1,
        queue="interactive",
        at_boundary=AtBoundary.KEEP,
        from_at=MONDAY,
        until_at=MONDAY + 2 * DAY_S,
        with_gifts=True,
    )
    assert [(stretch.start_at, stretch.end_at) for stretch in found] == [
        (MONDAY, window.start_at),
        (window.end_at, MONDAY + 2 * DAY_S),
    ]


def test_what_is_left_of_a_window_is_dropped_when_nothing_could_be_done_in_it(make_policy: MakePolicy) -> None:
    work = 'maintenance: [{name: work, from: "2026-03-02 20:30", until: "2026-03-03 07:40"}]\n'
    found = windows(make_policy(windows=NIGHT, more=work), A)
    assert of(A, found) == ["work 02T19-03T06"]


def test_maintenance_may_come_again_and_again_and_overlap_itself(make_policy: MakePolicy) -> None:
    more = (
        'maintenance: [{name: patches, opens: "0 17 * * tue#1", for: 2h}, '
        '{name: work, from: "2026-03-03 18:00", until: "2026-03-03 21:00"}]\n'
    )
    policy = make_policy(more=more)
    assert errors_of(check_policy(policy, from_at=MONDAY)) == ()
    assert of(A, windows(policy, A, days=3)) == ["patches 03T16-03T18", "work 03T18-03T20"]


def test_windows_cut_by_maintenance_can_be_applied(make_policy: MakePolicy) -> None:
    policy = make_policy(windows=NIGHT, more=WORK)
    intent = ApplyPolicy(
        rules=policy.rules(1),
        windows=windows(policy, A, B, days=5),
        hosts=frozenset({A, B}),
        horizon_at=MONDAY + 5 * DAY_S,
        text=policy.text,
    )
    assert check_intent(intent, MONDAY, rules=None) == ()


def test_a_reservation_of_the_policy_in_maintenance_everywhere_is_a_warning(make_policy: MakePolicy) -> None:
    policy = make_policy(
        more=WORK.replace(", hosts: [dgx2-a]", ""),
        reserve='{name: c, cron: "0 23 * * mon", for: 2h, gpus: 1, queue: interactive, owner: o}',
    )
    assert any("maintenance work has all hosts then" in str(p) for p in check_policy(policy, from_at=MONDAY))


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ('{name: w, from: "2026-03-02 22:00"}', "maintenance w has no until"),
        ('{name: w, from: "2026-03-02 22:00", until: "2026-03-02 21:00"}', "must end 1m to 31d after it begins: until"),
        ('{name: w, from: "2026-03-02 22:00", until: 2026-05-02}', "must end 1m to 31d after it begins"),
        ('{name: w, from: "2026-03-02 22:00", until: 2026-03-03, opens: "0 1 * * *"}', "has from and opens"),
        ("{name: w, for: 2h}", "maintenance w has no from"),
        ("{name: w, form: 2026-03-02, until: 2026-03-03}", "did you mean from?"),
        ('{name: w, layout: night, from: "2026-03-02 22:00", for: 2h}', "maintenance w has no such key: 'layout'"),
    ],
)
def test_each_mistake_gets_one_clear_line(entry: str, expected: str) -> None:
    found = load_policy(policy_text(more=f"maintenance: [{entry}]\n"), source="p.yaml")
    assert isinstance(found, tuple)
    assert any(expected in str(problem) for problem in found), found


@st.composite
def policies(draw: st.DrawFn) -> LoadedPolicy:
    def hosts() -> str:
        return draw(st.sampled_from(("*", "dgx2-*", "dgx2-a", "*-b")))

    more = []
    for number in range(draw(st.integers(1, 4))):
        day, hour, length = draw(st.integers(2, 8)), draw(st.integers(0, 23)), draw(st.integers(1, 60))
        more.append(f'{{name: m{number}, from: "2026-03-0{day} {hour:02}:00", for: {length}h, hosts: ["{hosts()}"]}}')
    entries = []
    for number in range(draw(st.integers(1, 3))):
        hour, length = draw(st.integers(0, 23)), draw(st.integers(1, 30))
        entries.append(
            f'{{name: w{number}, layout: night, opens: "0 {hour} * * *", for: {length}h, hosts: ["{hosts()}"]}}'
        )
    text = policy_text(more=f"maintenance: [{', '.join(more)}]\n", windows="\n".join(entries))
    policy = load_policy(text, source="p.yaml")
    assert isinstance(policy, LoadedPolicy), policy
    return policy


@settings(max_examples=80)
@given(policy=policies(), cut_h=st.integers(0, 8 * 24))
def test_windows_of_one_host_partition_time_whatever_is_maintained(policy: LoadedPolicy, cut_h: int) -> None:
    until_at, cut_at = MONDAY + 8 * DAY_S, MONDAY + cut_h * HOUR_S
    whole = windows_between(policy, (A, B), from_at=MONDAY, until_at=until_at, version=1)
    maintained = [time for time in whole if time.layout.name == "maintenance"]
    for host in (A, B):
        spans = [window.span for window in whole if host in window.hosts]
        assert spans == sorted(spans)
        assert all(one.end_at <= following.start_at for one, following in pairwise(spans))
        # Each instant of maintenance on a host is in a window that admits nothing.
        for window in maintained:
            if host in window.hosts:
                inside = [other for other in whole if host in other.hosts and other.span.overlaps(window.span)]
                assert inside == [window]
    assert len({(window.id, host) for window in whole for host in window.hosts}) == sum(len(w.hosts) for w in whole)
    assert sorted(whole, key=lambda w: (w.start_at, w.id)) == sorted(
        (
            *windows_between(policy, (A, B), from_at=MONDAY, until_at=cut_at, version=1),
            *windows_between(policy, (A, B), from_at=cut_at, until_at=until_at, version=1),
        ),
        key=lambda w: (w.start_at, w.id),
    )
