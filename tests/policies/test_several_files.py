"""A policy of several files: how they become one, and what is said where they contradict each other."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.applying import apply_to_plan, check_text
from policies.bundle import MOST_FILES, Part, is_bundle, pack, unpack
from policies.files import PolicyText, Unreadable, read_policy
from policies.format import LoadedPolicy
from policies.loading import load_policy
from policies.problems import Problem
from scheduler.core.plan import Plan
from scheduler.core.settings import Settings
from tests.policies.policy_texts import example_policy

SITE = """\
version: 1
zone: Europe/Berlin
outside: day
layouts:
  day: {sizes: [1, 2, 4, 8], queues: [interactive]}
  night: {sizes: [16], queues: [hpc]}
queues:
  interactive:
  hpc: {at_boundary: finish}
images: [ubuntu]
"""
NIGHT = """\
version: 1
windows:
  - {name: night, layout: night, hosts: [a], opens: "0 20 * * *", for: 12h}
"""
CALENDAR = """\
BEGIN:VCALENDAR\r
VERSION:2.0\r
PRODID:x\r
BEGIN:VEVENT\r
UID:1\r
DTSTART;VALUE=DATE:20260803\r
END:VEVENT\r
END:VCALENDAR\r
"""


def load(**texts: str) -> LoadedPolicy | tuple[Problem, ...]:
    parts = [Part(name=name.replace("_", "."), text=text) for name, text in texts.items()]
    return load_policy(pack(parts, is_directory=True), source="p.d")


def said(**texts: str) -> list[str]:
    found = load(**texts)
    assert isinstance(found, tuple)
    return [str(problem) for problem in found]


def test_files_add_up_and_each_entry_keeps_its_own_file_and_line() -> None:
    policy = load(a_yaml=SITE, b_yaml=NIGHT, c_yaml=NIGHT.replace("night, lay", "other, lay").replace("[a]", "[b]"))
    assert isinstance(policy, LoadedPolicy)
    assert [window.place.source for window in policy.windows] == ["p.d/b.yaml:3", "p.d/c.yaml:3"]
    assert policy.rules(1).source == "p.d"


def test_the_order_of_files_is_that_of_their_names_and_images_are_united() -> None:
    policy = load(a_yaml=SITE, b_yaml="version: 1\nimages: [debian, ubuntu]\n")
    assert isinstance(policy, LoadedPolicy)
    assert policy.images == ("ubuntu", "debian")


def test_the_same_said_twice_is_no_conflict() -> None:
    assert isinstance(load(a_yaml=SITE, b_yaml=SITE), LoadedPolicy)


def test_groups_are_united_key_by_key() -> None:
    policy = load(
        a_yaml=SITE + "limits: {gpus_at_once: 8}\ndefaults: {grace: 2m}\n",
        b_yaml="version: 1\nlimits: {open_reservations: 3, gpus_at_once: 8}\nqueues: {long: {at_boundary: park}}\n",
    )
    assert isinstance(policy, LoadedPolicy)
    assert (policy.limits.gpus_at_once, policy.limits.open_reservations, policy.grace_s) == (8, 3, 120)
    assert [queue.name for queue in policy.queues] == ["interactive", "hpc", "long"]


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (
            "zone: UTC",
            "b.yaml:2:7: zone is something else in p.d/a.yaml:2:7: 'UTC here, Europe/Berlin there'; keep one of them",
        ),
        ("limits: {gpus_at_once: 9}", "p.d/b.yaml:2:24: limits.gpus_at_once is something else in p.d/a.yaml:11:24"),
        ("layouts: {day: {sizes: [1]}}", "p.d/b.yaml:2:24: layouts.day.sizes is something else in p.d/a.yaml:5:16"),
        ("queues: {hpc: {at_boundary: keep}}", "queues.hpc.at_boundary is something else in p.d/a.yaml:9:22"),
        ("outside: [day]", "outside is something else in p.d/a.yaml:3:10: 'a list of 1 here, day there'"),
    ],
)
def test_a_conflict_names_both_lines(second: str, expected: str) -> None:
    (line,) = said(a_yaml=SITE + "limits: {gpus_at_once: 8}\n", b_yaml=f"version: 1\n{second}\n")
    assert expected in line


def test_a_name_that_two_files_give_names_both_lines() -> None:
    (line,) = said(a_yaml=SITE, b_yaml=NIGHT, c_yaml=NIGHT)
    assert line == "p.d/c.yaml:3:5: windows: the name is taken by p.d/b.yaml:3: 'night'; choose another"


def test_mistakes_of_all_files_are_told_at_once_each_with_its_file() -> None:
    lines = said(
        a_yaml=SITE.replace("outside: day", "outside: dya"), b_yaml=NIGHT.replace("layout: night", "layout: x")
    )
    assert [line.split(": ")[0] for line in lines] == ["p.d/a.yaml:3:10", "p.d/b.yaml:3:27"]
    unread = said(a_yaml="a: [", b_yaml="b: ]", c_yaml=SITE)
    assert [line.split(":")[0] for line in unread] == ["p.d/a.yaml", "p.d/b.yaml"]


def test_every_file_says_which_version_it_is() -> None:
    (line,) = said(a_yaml=SITE, b_yaml=NIGHT.replace("version: 1\n", ""))
    assert line == "p.d/b.yaml:1:1: policy has no version; every file of a policy begins with version: 1"


def test_many_files_together_may_not_be_larger_than_one_may() -> None:
    many = {f"f{number}_yaml": "version: 1\n# x\nimages: [a, b, c, d, e, f, g]\n" for number in range(MOST_FILES)}
    assert isinstance(load(a_yaml=SITE, **dict(list(many.items())[:100])), LoadedPolicy)
    assert any("more than" in line for line in said(a_yaml=SITE, **many))


def test_a_calendar_beside_the_policy_is_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(SITE + "holidays: {calendars: [closed.ics]}\n")
    (tmp_path / "closed.ics").write_bytes(CALENDAR.encode())
    (tmp_path / "other.ics").write_text("not named, not read")
    read = read_policy(tmp_path / "p.yaml")
    assert isinstance(read, PolicyText)
    policy = load_policy(read.text, source=read.source)
    assert isinstance(policy, LoadedPolicy), policy
    assert [str(days) for days in policy.holidays.listed] == ["2026-08-03"]
    (tmp_path / "closed.ics").write_text(CALENDAR.replace("DTSTART;VALUE=DATE:20260803", "SUMMARY:x"))
    wrong = read_policy(tmp_path / "p.yaml")
    assert isinstance(wrong, PolicyText)
    problems = load_policy(wrong.text, source=wrong.source)
    assert isinstance(problems, tuple)
    assert str(problems[0]).startswith(f"{tmp_path}/closed.ics:4:1: event 'x' has no first day")


def test_a_calendar_is_never_read_from_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "secret.ics").write_text("secret")
    (tmp_path / "inside" / "p.yaml").write_text(SITE + "holidays: {calendars: [../secret.ics]}\n")
    read = read_policy(tmp_path / "inside" / "p.yaml")
    assert isinstance(read, PolicyText)
    assert "secret\n" not in read.text
    assert "names a calendar that is not beside the policy" in str(load_policy(read.text, source="p.yaml"))


def test_of_a_directory_the_policy_files_are_read_by_name(tmp_path: Path) -> None:
    for name, text in {
        "20-b.yml": NIGHT,
        "10-a.yaml": SITE,
        ".hidden.yaml": "x",
        "notes.txt": "x",
        "closed.ics": CALENDAR,
    }.items():
        (tmp_path / name).write_bytes(text.encode())
    (tmp_path / "deeper").mkdir()
    read = read_policy(tmp_path)
    assert isinstance(read, PolicyText)
    assert [part.name for part in unpack(read.text, source="p.d")] == [
        "p.d/10-a.yaml",
        "p.d/20-b.yml",
        "p.d/closed.ics",
    ]
    assert read.name == tmp_path.name


def test_a_directory_that_cannot_be_a_policy_says_why(tmp_path: Path) -> None:
    empty = read_policy(tmp_path)
    assert isinstance(empty, Unreadable)
    assert "without a policy file" in empty.what
    (tmp_path / "p.yaml").write_text("version: 1\n#%file other.yaml\n")
    marked = read_policy(tmp_path)
    assert isinstance(marked, Unreadable)
    assert "#%file" in marked.what
    (tmp_path / "p.yaml").write_bytes(b"\xff")
    binary = read_policy(tmp_path)
    assert isinstance(binary, Unreadable)
    assert binary.path == tmp_path / "p.yaml"


TEXTS = st.text(alphabet=st.sampled_from("ab:#%\n\r \u2028é"), max_size=30).map(lambda text: "a" + text + "\n")


@given(texts=st.lists(TEXTS, min_size=1, max_size=4), is_directory=st.booleans())
def test_what_is_packed_comes_back_to_the_character(texts: list[str], is_directory: bool) -> None:
    names = ["p.yaml", "b.ics", "c.ics", "d.ics"]
    parts = [Part(name=name, text=text) for name, text in zip(names, texts, strict=False)]
    text = pack(parts, is_directory=is_directory)
    assert is_bundle(text) == (is_directory or len(parts) > 1)
    assert [part.text for part in unpack(text, source="dir/p.yaml")] == texts[: len(parts)]
    names_back = [part.name for part in unpack(text, source="dir/p.yaml")]
    within = "dir/p.yaml" if is_directory else "dir"
    expected = [f"{within}/{part.name}" if is_directory or part.is_calendar else "dir/p.yaml" for part in parts]
    assert names_back == expected


def test_what_is_applied_is_one_text_that_loads_again_as_it_was() -> None:
    read = example_policy("institute.d")
    checked = check_text(read.text, source=read.name, now=1_790_000_000, settings=Settings())
    assert checked.policy is not None, checked.problems
    intent = apply_to_plan(checked.policy, Plan(), now=1_790_000_000, settings=Settings())
    again = load_policy(intent.text, source=intent.rules.source)
    assert isinstance(again, LoadedPolicy)
    assert again.rules(intent.rules.version) == intent.rules
    assert [window.place for window in again.windows] == [window.place for window in checked.policy.windows]
    assert again.windows[0].place.source == "institute.d/10-dgx2-a.yaml:3"
