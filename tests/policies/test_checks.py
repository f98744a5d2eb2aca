"""What only the calendar shows: overlaps, windows that never open, reservations that never fit."""

from collections.abc import Callable
from fnmatch import fnmatchcase
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from policies.checks import check_policy, errors_of
from policies.format import LoadedPolicy
from policies.globs import globs_meet
from policies.problems import Severity
from scheduler.core.spans import Instant

MakePolicy = Callable[..., LoadedPolicy]

MONDAY: Instant = 1_772_409_600
"""2026-03-02 00:00 UTC."""


def said(policy: LoadedPolicy) -> list[str]:
    return [str(problem) for problem in check_policy(policy, from_at=MONDAY)]


def test_a_policy_without_fault_has_nothing_said(example: LoadedPolicy) -> None:
    assert check_policy(example, from_at=MONDAY) == ()


def test_overlapping_windows_are_an_error_that_names_both_lines(make_policy: MakePolicy) -> None:
    policy = make_policy(
        windows="""
        {name: night, layout: night, opens: "0 20 * * mon-fri", for: 12h}
        {name: service, layout: night, opens: "0 7 1 * *", for: 2h}
        """
    )
    assert said(policy) == [
        "test.yaml:13:5: window service overlaps window night (line 12), "
        "from Wed 2026-04-01 07:00 to Wed 2026-04-01 08:00; give them different hosts or times"
    ]


def test_overlaps_count_only_where_one_host_could_be_in_both(make_policy: MakePolicy) -> None:
    windows = """
        {name: night, layout: night, opens: "0 20 * * *", for: 12h, hosts: ["dgx2-*"]}
        {name: other, layout: night, opens: "0 22 * * *", for: 4h, hosts: ["HOSTS"]}
        """
    assert said(make_policy(windows=windows.replace("HOSTS", "a100-*"))) == []
    assert len(said(make_policy(windows=windows.replace("HOSTS", "*-a")))) == 1


def test_a_window_that_opens_before_it_has_closed_is_an_error(make_policy: MakePolicy) -> None:
    (problem,) = check_policy(
        make_policy(windows='{name: night, layout: night, opens: "0 20 * * *", for: 25h}'), from_at=MONDAY
    )
    assert problem.severity is Severity.ERROR
    assert "opens again before it has closed" in problem.what


def test_windows_that_touch_are_fine(make_policy: MakePolicy) -> None:
    windows = """
        {name: night, layout: night, opens: "0 20 * * *", for: 12h}
        {name: day, layout: day, opens: "0 8 * * *", for: 12h}
        """
    assert said(make_policy(windows=windows)) == []


def test_an_entry_that_occurs_every_minute_is_an_error(make_policy: MakePolicy) -> None:
    policy = make_policy(windows='{name: night, layout: night, opens: "* * * * *", for: 1m}')
    (problem,) = errors_of(check_policy(policy, from_at=MONDAY))
    assert "occurs more than once an hour" in problem.what


def test_a_window_that_never_opens_is_a_warning(make_policy: MakePolicy) -> None:
    policy = make_policy(windows='{name: leap, layout: night, opens: "0 20 29 feb *", for: 12h}')
    (line,) = said(policy)
    assert "warning: window leap does not open in the next 400 days" in line
    assert not errors_of(check_policy(policy, from_at=MONDAY))


def test_a_window_that_is_over_before_its_grace_is_an_error(make_policy: MakePolicy) -> None:
    policy = make_policy(windows='{name: nap, layout: night, opens: "0 20 * * *", for: 4m}')
    (problem,) = errors_of(check_policy(policy, from_at=MONDAY))
    assert "window nap is over before its guests have had their grace of 5m: '4m'" in str(problem)
    # Also in the one night in which the clock leaves so little of it.
    policy = make_policy(windows='{name: nap, layout: night, opens: "0 2 * * *", for: 63m}')
    (problem,) = errors_of(check_policy(policy, from_at=MONDAY))
    assert "(see 2026-03-29 02:00)" in str(problem)


def test_what_is_past_is_a_warning(make_policy: MakePolicy) -> None:
    (line,) = said(make_policy(windows='{name: once, layout: night, at: ["2026-01-05 20:00"], for: 12h}'))[-1:]
    assert "window once is past: '2026-01-05 20:00'; remove it" in line
    maintained = make_policy(more="maintenance: [{name: work, from: 2026-01-05, until: 2026-01-06}]\n")
    assert any("maintenance work is past" in line for line in said(maintained))


def test_an_exception_on_a_day_without_a_start_is_a_warning(make_policy: MakePolicy) -> None:
    entry = '{name: night, layout: night, opens: "0 20 * * mon-fri", for: 12h, except: [DATE]}'
    assert said(make_policy(windows=entry.replace("DATE", "2026-12-24"))) == []
    (line,) = said(make_policy(windows=entry.replace("DATE", "2026-12-26")))
    assert "window night does not begin then anyway: except: '2026-12-26'" in line
    (line,) = said(make_policy(windows=entry.replace("DATE", "2025-12-24")))
    assert "an exception is past: '2025-12-24'; remove it" in line


def test_a_gap_in_which_nothing_can_be_done_is_a_warning(make_policy: MakePolicy) -> None:
    windows = """
        {name: night, layout: night, opens: "0 20 * * *", for: 11h50m, hosts: ["dgx2-*"]}
        {name: day, layout: day, opens: "0 8 * * *", for: 12h, hosts: ["HOSTS"]}
        """
    (line,) = said(make_policy(windows=windows.replace("HOSTS", "dgx2-a")))
    assert "warning: window day opens 10m after window night has closed: too short a gap for anything else" in line
    assert said(make_policy(windows=windows.replace("HOSTS", "a100-*"))) == []


def test_a_queue_that_waits_for_weeks_for_its_window_is_a_warning(make_policy: MakePolicy) -> None:
    (line,) = said(make_policy(windows='{name: monthly, layout: night, opens: "0 20 1 * *", for: 48h}'))
    assert "queue hpc has no window for 30 days, from Mon 2026-03-02 01:00 to Wed 2026-04-01 20:00" in line
    assert line.startswith("test.yaml:9:3: warning: ")


def test_a_single_window_over_a_regular_one_is_told_how_to_make_room(make_policy: MakePolicy) -> None:
    windows = """
        {name: night, layout: night, opens: "0 20 * * *", for: 12h}
        {name: party, layout: night, at: ["2026-12-23 18:00"], for: 4h}
        """
    (line,) = said(make_policy(windows=windows))
    assert "window party overlaps window night (line 12)" in line
    assert "or add except: [2026-12-23] to window night" in line


def test_entries_that_occur_too_often_together_are_an_error(make_policy: MakePolicy) -> None:
    entries = "\n".join(
        f'{{name: w{number}, layout: night, opens: "{number % 60} * * * *", for: 1m, hosts: [h{number}]}}'
        for number in range(30)
    )
    found = errors_of(check_policy(make_policy(windows=entries), from_at=MONDAY))
    assert "occur more than 250000 times in 400 days" in str(found[-1])


def test_a_window_shorter_than_its_bounds_is_a_warning(make_policy: MakePolicy) -> None:
    (line,) = said(make_policy(windows='{name: nap, layout: night, opens: "0 20 * * *", for: 30m}'))
    assert "window nap is too short for its hand-over and the minimum useful length: '30m'" in line


def test_a_window_that_a_clock_change_makes_too_short_is_a_warning(make_policy: MakePolicy) -> None:
    (line,) = said(make_policy(windows='{name: nap, layout: night, opens: "30 1 * * *", for: 1h30m}'))
    assert "2026-03-29 01:30" in line


def test_a_day_of_the_month_and_a_weekday_are_a_warning(make_policy: MakePolicy) -> None:
    (line,) = said(make_policy(windows='{name: night, layout: night, opens: "0 20 1 * mon", for: 12h}'))
    assert "on each such day of the month and on each such weekday" in line


def test_a_reservation_that_no_window_takes_is_a_warning_with_its_first_day(make_policy: MakePolicy) -> None:
    windows = '{name: night, layout: night, opens: "0 20 * * mon-fri", for: 12h}'
    job = '{name: job, cron: "0 20 * * DAYS", for: HOURS, gpus: 16, queue: hpc, owner: group}'
    fits = job.replace("DAYS", "mon-fri").replace("HOURS", "6h")
    assert said(make_policy(windows=windows, reserve=fits)) == []
    weekend = job.replace("DAYS", "*").replace("HOURS", "6h")
    (line,) = said(make_policy(windows=windows, reserve=weekend))
    assert "reserve job cannot run on 2026-03-07 20:00: no window with layout night is open then" in line
    long = job.replace("DAYS", "mon-fri").replace("HOURS", "12h")
    (line,) = said(make_policy(windows=windows, reserve=long))
    assert "its 12h and the hand-over do not fit before the window closes" in line


def test_a_reservation_over_the_policys_own_limits_is_a_warning(make_policy: MakePolicy) -> None:
    policy = make_policy(
        more="limits: {open_reservations: 4, gpus_at_once: 8, longest: 1h}\n",
        reserve='{name: course, cron: "0 10 * * tue", for: 2h, gpus: 2, count: 8, queue: interactive, owner: dl}',
    )
    lines = [line for line in said(policy) if "warning: reserve course" in line]
    assert [line.rpartition("; ")[2] for line in lines] == [
        "longest is 1h for dl",
        "gpus_at_once is 8 for dl",
        "open_reservations is 4 for dl",
    ]


def test_layouts_and_queues_out_of_force_are_warnings(make_policy: MakePolicy) -> None:
    assert said(make_policy()) == [
        "test.yaml:6:3: warning: layout night holds at no time; name it in outside or in a window",
        "test.yaml:9:3: warning: queue hpc is in no layout that ever holds: nothing in it can run; "
        "add it to the queues of a layout",
    ]


GLOBS = st.text(alphabet="ab*?", min_size=1, max_size=5)


@given(one=GLOBS, other=GLOBS)
def test_two_globs_meet_exactly_if_some_name_matches_both(one: str, other: str) -> None:
    names = ("".join(letters) for length in range(9) for letters in product("ab", repeat=length))
    assert globs_meet(one, other) == any(fnmatchcase(name, one) and fnmatchcase(name, other) for name in names)
