"""What a policy file may say, and what is said about one that is wrong."""

from collections.abc import Callable
from textwrap import dedent

import pytest

from policies.format import LoadedPolicy
from policies.loading import MOST_PROBLEMS, load_policy
from policies.problems import Problem
from scheduler.core.plan import Limits, Queue
from scheduler.core.requests import AtBoundary
from scheduler.core.spans import DAY_S, HOUR_S, MINUTE_S
from scheduler.core.windows import Layout

MakePolicy = Callable[..., LoadedPolicy]
MakeText = Callable[..., str]

NIGHT = '{name: night, layout: night, opens: "0 20 * * mon-fri", for: 12h}'
NIGHTLY = '{name: nightly, cron: "0 20 * * *", for: 6h, gpus: 16, queue: hpc, owner: group}'


def problems_of(text: str) -> tuple[Problem, ...]:
    found = load_policy(text, source="p.yaml")
    assert not isinstance(found, LoadedPolicy)
    assert found
    return found


def only_problem(text: str) -> str:
    (problem,) = problems_of(text)
    return str(problem)


def test_the_smallest_policy_takes_every_default(make_policy: MakePolicy) -> None:
    rules = make_policy().rules(3)
    assert (rules.version, rules.zone, rules.source) == (3, "Europe/Berlin", "test.yaml")
    assert rules.outside == Layout(name="day", sizes=frozenset({1, 2, 4, 8}), queues=frozenset({"interactive"}))
    assert rules.queues == (
        Queue(name="interactive", at_boundary=AtBoundary.PARK),
        Queue(name="hpc", at_boundary=AtBoundary.FINISH, is_scratch=True),
    )
    assert rules.images == ("ubuntu",)
    assert (rules.default_disk_gib, rules.retention_s, rules.grace_s) == (100, 7 * DAY_S, 5 * MINUTE_S)
    assert (rules.min_useful_s, rules.warnings_s) == (30 * MINUTE_S, (HOUR_S, 15 * MINUTE_S))
    assert rules.limits == Limits()


def test_what_the_file_says_replaces_the_defaults(make_policy: MakePolicy) -> None:
    policy = make_policy(
        more=dedent("""\
            defaults: {disk: 1TiB, retention: 14d, grace: 90s, min_useful: 1h30m, warnings: [10m, 2h, 10m]}
            limits: {open_reservations: 3, gpus_at_once: 8, longest: 2d12h}
            """)
    )
    rules = policy.rules(1)
    assert (rules.default_disk_gib, rules.retention_s, rules.grace_s, rules.min_useful_s) == (
        1024,
        14 * DAY_S,
        90,
        5400,
    )
    assert rules.warnings_s == (2 * HOUR_S, 10 * MINUTE_S)
    assert rules.limits == Limits(open_reservations=3, gpus_at_once=8, longest_run_s=60 * HOUR_S)


def test_a_window_is_decided_75_minutes_ahead_by_default(make_policy: MakePolicy) -> None:
    (window,) = make_policy(windows=NIGHT).windows
    assert window.decide_lead_s == 75 * MINUTE_S
    assert window.hosts == ("*",)
    assert window.only_if_queued is False
    assert (window.warnings_s, window.grace_s) == ((HOUR_S, 15 * MINUTE_S), 5 * MINUTE_S)
    assert window.place.source == "test.yaml:12"


def test_the_default_lead_grows_with_warnings_and_grace(make_policy: MakePolicy) -> None:
    (window,) = make_policy(windows=NIGHT.replace("12h", "12h, warnings: [2h], grace: 20m")).windows
    assert window.decide_lead_s == 2 * HOUR_S + 20 * MINUTE_S + 10 * MINUTE_S


def test_a_lead_must_cover_the_longest_warning_and_the_grace(make_text: MakeText, make_policy: MakePolicy) -> None:
    assert make_policy(windows=NIGHT.replace("12h", "12h, decide: 65m")).windows[0].decide_lead_s == 65 * MINUTE_S
    said = only_problem(make_text(windows=NIGHT.replace("12h", "12h, decide: 64m")))
    assert "window night is decided too late" in said
    assert "use at least 1h5m" in said


def test_keep_is_off_by_default_only_where_the_layout_has_the_whole_host_size(make_policy: MakePolicy) -> None:
    day_window = '{name: calm, layout: day, opens: "0 8 * * sun", for: 2h}'
    night, calm = make_policy(windows=f"{NIGHT}\n{day_window}").windows
    assert night.at_boundary == {AtBoundary.PARK, AtBoundary.FINISH}
    assert calm.at_boundary == {AtBoundary.PARK, AtBoundary.FINISH, AtBoundary.KEEP}
    (chosen,) = make_policy(windows=NIGHT.replace("12h", "12h, at_boundary: [keep]")).windows
    assert chosen.at_boundary == {AtBoundary.KEEP}


def test_a_reservation_takes_its_defaults(make_policy: MakePolicy) -> None:
    (entry,) = make_policy(reserve=NIGHTLY).reserve
    assert (entry.count, entry.ahead_s, entry.image, entry.at_boundary, entry.disk_gib) == (
        1,
        7 * DAY_S,
        None,
        None,
        None,
    )


def test_every_problem_is_told_at_once_in_order_of_place(make_text: MakeText) -> None:
    text = make_text(
        zone="Europe/Berlinn",
        windows='{name: night, layout: nigth, opens: "0 20 * * 1-5", for: 12, grase: 5m}',
        reserve='{name: nightly, cron: "0 20 * * *", gpus: 3, queue: hpc, owner: "a b"}',
    )
    problems = problems_of(text)
    assert [(p.place.line, p.place.column) for p in problems] == sorted(
        (p.place.line, p.place.column) for p in problems
    )
    said = [str(problem) for problem in problems]
    assert len(said) == 8
    for expected in (
        "p.yaml:2:7: policy zone is not a zone of the IANA database: 'Europe/Berlinn'; did you mean Europe/Berlin?",
        "p.yaml:12:27: window night layout is not a layout of this policy: 'nigth'; did you mean night?",
        "p.yaml:12:41: window night opens: weekday numbers mean different days in different tools: '0 20 * * 1-5'; "
        "write mon-fri (if you mean crontab's days, where 0 and 7 are sun)",
        "p.yaml:12:62: window night for has no unit: '12'; write 12m or 12h",
        "p.yaml:12:66: window night has no such key: 'grase'; did you mean grace?",
        "p.yaml:14:5: reserve nightly has no for; add for: 8h",
        "p.yaml:14:47: reserve nightly wants GPUs that no layout gives to queue hpc: '3'; use 16",
    ):
        assert any(expected in line for line in said), (expected, said)


@pytest.mark.parametrize(
    ("replaced", "by", "expected"),
    [
        ("version: 1", "version: 2", "1:10: policy version is out of range: '2'; use 1 to 1"),
        ("version: 1", "version: 1.0", "version must be a whole number from 1 to 1, not a number with a fraction"),
        ("version: 1\n", "", "policy has no version; add version: 1"),
        ("outside: day", "outside: dya", "outside is not a layout of this policy: 'dya'; did you mean day?"),
        ("outside: day", "outsid: day", "policy has no such key: 'outsid'; did you mean outside?"),
        (
            "sizes: [16]",
            "sizes: [.nan]",
            "sizes must be a whole number from 1 to 1024, not a number with a fraction: '.nan'",
        ),
        ("sizes: [16]", "sizes: [0x10]", "sizes must be a whole number from 1 to 1024"),
        ("sizes: [16]", "sizes: [-16]", "sizes must be a whole number from 1 to 1024"),
        ("sizes: [16]", f"sizes: [{'9' * 4000}]", "sizes must be a whole number from 1 to 1024"),
        ("sizes: [16]", "sizes: 16", "sizes must be a list, not a whole number: '16'; write [16]"),
        (
            "queues: [hpc]",
            "queues: [hcp]",
            "layout night queues is not a queue of this policy: 'hcp'; did you mean hpc?",
        ),
        ("scratch: true", "scratch: yes", "scratch must be true or false, not text: 'yes'"),
        ("scratch: true", "default_disk: 100GB", "default_disk is not a size in GiB or TiB: '100GB'; write 100GiB"),
        ("scratch: true", "default_disk: 100", "default_disk is not a size in GiB or TiB: '100'; write 100GiB"),
        ("at_boundary: finish", "at_boundary: finnish", "unknown choice: 'finnish'; did you mean finish?"),
        ("images: [ubuntu]", "images: []", "policy has no images"),
        ("images: [ubuntu]", "images:", "images has no value"),
        (
            "images: [ubuntu]",
            "images: [ubuntu]\nimages: [debian]",
            "twice, first in line 10: 'images'; keep one of them",
        ),
        ("images: [ubuntu]", "images: !!python/object:os.system [ubuntu]", "tags are not allowed"),
        ("images: [ubuntu]", "images: [ubuntu]\n<<: {a: 1}", "merge keys are not allowed"),
        ("images: [ubuntu]", "images: [ubuntu]\n? [a]\n: 1", "a key must be a plain text"),
        ("images: [ubuntu]", "images: [ubuntu]\ntimezone: UTC", "no such key: 'timezone'; did you mean zone?"),
        ("images: [ubuntu]", "images: [ubuntu]\n---\na: 1", "expected a single document"),
        (
            "images: [ubuntu]",
            "images: [*ubuntu]",
            "undefined alias 'ubuntu'; put quotes around a text that begins with *",
        ),
        ("images: [ubuntu]", "images:\n\t- ubuntu", "indent with spaces"),
        ("images: [ubuntu]", "images: [ubu\x07ntu]", "a character that YAML does not allow: '\\x07'"),
    ],
)
def test_each_mistake_gets_one_clear_line(make_text: MakeText, replaced: str, by: str, expected: str) -> None:
    text = make_text()
    assert replaced in text
    said = only_problem(text.replace(replaced, by, 1))
    assert said.startswith("p.yaml:")
    assert expected in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("replaced", "by", "expected"),
    [
        ('"0 20 * * mon-fri"', '"0 20 * *"', "has 5 fields, this has 4"),
        ('"0 20 * * mon-fri"', '"0 0 20 * * mon"', "has 5 fields, this has 6"),
        ('"0 20 * * mon-fri"', '"61 20 * * mon"', "the minute of a cron expression is wrong"),
        ('"0 20 * * mon-fri"', '"0 25 * * mon"', "the hour of a cron expression is wrong"),
        ('"0 20 * * mon-fri"', '"0 20 * 13 mon"', "the month of a cron expression is wrong"),
        ('"0 20 * * mon-fri"', '"0 20 30 feb *"', "no month of this cron expression has such a day"),
        ('"0 20 * * mon-fri"', '"0 20 * * monday"', "did you mean mon?"),
        ('"0 20 * * mon-fri"', '"0 20 * * 7"', "write sun"),
        ('"0 20 * * mon-fri"', '"0 20 * * 0,6"', "write sun,sat"),
        ('"0 20 * * mon-fri"', '"0 20 * * */2"', "write names"),
        ('"0 20 * * mon-fri"', "* * * * *", "put quotes around a text that begins with *"),
        ("for: 12h", "for: 32d", "for is out of range: '32d'; use 1m to 31d"),
        ("for: 12h", "for: half a day", "for is not a duration: 'half a day'"),
        ("for: 12h", "for: 1h, cron: x", "did you mean opens?"),
        ("for: 12h", "for: 1h, at_boundary: keep", "at_boundary must be a list, not text: 'keep'; write [keep]"),
        ("for: 12h", 'for: 1h, hosts: ["dgx2[ab]"]', "hosts is not a pattern of host names: 'dgx2[ab]'"),
        ("name: night", 'name: "night@2"', "name is not a name: 'night@2'"),
        ("name: night", "name: 7", "name must be a name, not a whole number: '7'; write \"7\""),
    ],
)
def test_each_mistake_in_a_window_gets_one_clear_line(
    make_text: MakeText, replaced: str, by: str, expected: str
) -> None:
    assert replaced in NIGHT
    assert expected in only_problem(make_text(windows=NIGHT.replace(replaced, by)))


@pytest.mark.parametrize(
    ("replaced", "by", "expected"),
    [
        ("gpus: 16", "gpus: 8", "wants GPUs that no layout gives to queue hpc: '8'; use 16"),
        ("gpus: 16", "gpus: sixteen", "gpus must be a whole number from 1 to 1024, not text: 'sixteen'"),
        ("gpus: 16", "gpus: 0", "gpus is out of range: '0'; use 1 to 1024"),
        ("gpus: 16", "gpus: 16, count: 65", "count is out of range: '65'; use 1 to 64"),
        ("gpus: 16", "gpus: 16, image: ubunt", "image is not an image of this policy: 'ubunt'; did you mean ubuntu?"),
        ("gpus: 16", "gpus: 16, ahead: 90d", "ahead is out of range: '90d'; use 1m to 89d"),
        ("for: 6h", "for: 31d", "for is out of range: '31d'; use 1m to 30d"),
        ("queue: hpc", "queue: hcp", "queue is not a queue of this policy: 'hcp'; did you mean hpc?"),
        ("owner: group", "owner: a b", "owner is not an owner: 'a b'"),
    ],
)
def test_each_mistake_in_a_reservation_gets_one_clear_line(
    make_text: MakeText, replaced: str, by: str, expected: str
) -> None:
    assert replaced in NIGHTLY
    assert expected in only_problem(make_text(reserve=NIGHTLY.replace(replaced, by)))


def test_a_name_is_given_once(make_text: MakeText) -> None:
    said = only_problem(make_text(windows=f"{NIGHT}\n{NIGHT}"))
    assert said == "p.yaml:13:5: windows: the name is taken by line 12: 'night'; choose another"


def test_aliases_are_expanded_and_a_mistake_in_one_is_told_where_it_is_written(
    make_text: MakeText, make_policy: MakePolicy
) -> None:
    shared = NIGHT.replace('"0 20', '&when "0 20') + "\n" + NIGHT.replace("name: night", "name: other")
    shared = shared.replace('other, layout: night, opens: "0 20 * * mon-fri"', "other, layout: night, opens: *when")
    first, second = make_policy(windows=shared).windows
    assert first.opens == second.opens
    for problem in problems_of(make_text(windows=shared.replace("0 20", "0 24"))):
        assert "the hour" in problem.what
        assert problem.place.line == 12


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_an_empty_file_is_told_how_to_begin(text: str) -> None:
    assert "version: 1" in str(problems_of(text)[0])


@pytest.mark.parametrize("text", ["night", "- night", "12", "null"])
def test_a_file_of_another_shape_is_refused(text: str) -> None:
    assert "a policy is a group of keys, not" in only_problem(text)


def test_of_very_many_problems_the_first_are_told() -> None:
    problems = problems_of("".join(f"k{number}: 1\n" for number in range(1000)))
    assert len(problems) == MOST_PROBLEMS + 1
    assert "more problems" in problems[-1].what
