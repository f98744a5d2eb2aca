"""Windows of a policy as core's values: their times over midnight and clock changes, their hosts, their keys."""

from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from policies.format import LoadedPolicy
from policies.loading import load_policy
from policies.windows import windows_between
from scheduler.core.requests import AtBoundary, HostId
from scheduler.core.spans import DAY_S, HOUR_S, MINUTE_S, Instant
from scheduler.core.windows import Layout, Window, WindowState

MakePolicy = Callable[..., LoadedPolicy]

HOSTS = (HostId("dgx2-a"), HostId("dgx2-b"), HostId("old-1"))
NIGHTLY = '{name: night, layout: night, opens: "0 20 * * *", for: 12h}'


def at_utc(text: str) -> Instant:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def windows_of(policy: LoadedPolicy, from_text: str, days: int) -> tuple[Window, ...]:
    from_at = at_utc(from_text)
    return windows_between(policy, HOSTS, from_at=from_at, until_at=from_at + days * DAY_S, version=7)


def test_a_window_carries_everything_that_core_needs(make_policy: MakePolicy) -> None:
    policy = make_policy(
        windows='{name: night, layout: night, opens: "0 20 * * mon", for: 12h, hosts: ["dgx2-*"], only_if_queued: true}'
    )
    assert windows_of(policy, "2026-03-02T00:00", 7) == (
        Window(
            id="night@2026-03-02T20:00",  # type: ignore[arg-type]  # spelt out: others depend on this form
            name="night",
            layout=Layout(name="night", sizes=frozenset({16}), queues=frozenset({"hpc"})),
            hosts=frozenset({HostId("dgx2-a"), HostId("dgx2-b")}),
            start_at=at_utc("2026-03-02T19:00"),
            end_at=at_utc("2026-03-03T07:00"),
            decide_at=at_utc("2026-03-02T17:45"),
            only_if_queued=True,
            at_boundary=frozenset({AtBoundary.PARK, AtBoundary.FINISH}),
            warnings_s=(HOUR_S, 15 * MINUTE_S),
            grace_s=5 * MINUTE_S,
            policy_version=7,
            source="test.yaml:12",
            state=WindowState.PLANNED,
        ),
    )


def test_a_night_of_a_clock_change_still_ends_at_eight(make_policy: MakePolicy) -> None:
    policy = make_policy(windows=NIGHTLY)
    spring, autumn = windows_of(policy, "2026-03-28T12:00", 1)[0], windows_of(policy, "2026-10-24T12:00", 1)[0]
    assert (spring.end_at - spring.start_at, spring.end_at) == (11 * HOUR_S, at_utc("2026-03-29T06:00"))
    assert (autumn.end_at - autumn.start_at, autumn.end_at) == (13 * HOUR_S, at_utc("2026-10-25T07:00"))
    assert autumn.decide_at == autumn.start_at - 75 * MINUTE_S


def test_a_window_whose_whole_time_does_not_exist_is_left_out(make_policy: MakePolicy) -> None:
    policy = make_policy(windows='{name: short, layout: night, opens: "10 2 * * *", for: 20m}')
    assert [window.id for window in windows_of(policy, "2026-03-28T00:00", 3)] == [
        "short@2026-03-28T02:10",
        "short@2026-03-30T02:10",
    ]


def test_windows_that_touch_do_not_overlap_in_any_night_of_the_year(make_policy: MakePolicy) -> None:
    policy = make_policy(
        windows="""
        {name: night, layout: night, opens: "30 20 * * *", for: 6h}
        {name: early, layout: day, opens: "30 2 * * *", for: 18h}
        """
    )
    windows = windows_of(policy, "2026-01-01T00:00", 400)
    assert len(windows) == 800
    assert all(one.end_at == following.start_at for one, following in pairwise(windows))


def test_a_window_without_hosts_is_left_out(make_policy: MakePolicy) -> None:
    policy = make_policy(windows=NIGHTLY.replace("12h", '12h, hosts: ["a100-?"]'))
    assert windows_of(policy, "2026-03-02T00:00", 7) == ()


def test_where_entries_overlap_the_first_in_the_file_has_the_host(make_policy: MakePolicy) -> None:
    policy = make_policy(
        windows="""
        {name: night, layout: night, opens: "0 20 * * *", for: 12h, hosts: ["dgx2-a"]}
        {name: late, layout: day, opens: "0 7 * * *", for: 2h}
        """
    )
    night, late = windows_of(policy, "2026-03-02T12:00", 1)
    assert (night.name, late.name) == ("night", "late")
    assert late.hosts == {HostId("dgx2-b"), HostId("old-1")}


@st.composite
def entries(draw: st.DrawFn) -> str:
    lines = []
    for number in range(draw(st.integers(1, 4))):
        hour, length = draw(st.integers(0, 23)), draw(st.integers(1, 40))
        days = draw(st.sampled_from(("*", "mon-fri", "sat-sun", "wed")))
        hosts = draw(st.sampled_from(("*", "dgx2-*", "*-1", "dgx2-a")))
        time = f'opens: "0 {hour} * * {days}", for: {length}h'
        lines.append(f'  - {{name: w{number}, layout: night, {time}, hosts: ["{hosts}"]}}\n')
    return "windows:\n" + "".join(lines)


@settings(max_examples=60, deadline=None)
@given(entries=entries(), cut_h=st.integers(0, 20 * 24))
def test_windows_of_one_host_are_disjoint_and_do_not_depend_on_how_time_is_cut(entries: str, cut_h: int) -> None:
    head = "version: 1\nzone: Europe/Berlin\noutside: night\nimages: [u]\nqueues: {hpc: }\n"
    policy = load_policy(head + "layouts: {night: {sizes: [16], queues: [hpc]}}\n" + entries, source="p.yaml")
    assert isinstance(policy, LoadedPolicy)
    from_at = at_utc("2026-03-20T00:00")
    until_at, cut_at = from_at + 20 * DAY_S, from_at + cut_h * HOUR_S
    whole = windows_between(policy, HOSTS, from_at=from_at, until_at=until_at, version=1)
    for host in HOSTS:
        spans = [window.span for window in whole if host in window.hosts]
        assert all(one.end_at <= following.start_at for one, following in pairwise(spans))
    assert whole == (
        *windows_between(policy, HOSTS, from_at=from_at, until_at=cut_at, version=1),
        *windows_between(policy, HOSTS, from_at=cut_at, until_at=until_at, version=1),
    )
