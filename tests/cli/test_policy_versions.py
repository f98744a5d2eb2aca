"""`nightshift policy history | rollback | diff` on the real API."""

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from cli.output import EXIT_NO, EXIT_USAGE
from policies.applying import check_text
from scheduler.core.spans import HOUR_S
from tests.api.bench import POLICY, Bench, opened
from tests.cli.command_line import CommandLine, environment
from tests.cli.fake_server import URL
from tests.cli.test_commands_on_the_api import InProcessTransport

SHORTER = POLICY.replace("for: 12h", "for: 11h")
LATER = POLICY.replace('opens: "0 20 * * *", for: 12h', 'opens: "0 21 * * *", for: 11h')
NOON = POLICY.replace('opens: "0 20 * * *"', 'opens: "0 12 * * *"')
WRONG = POLICY.replace("zone: Europe/Berlin", "zone: Europe/Berln")


@pytest.fixture
def bench() -> Iterator[Bench]:
    with opened() as bench:
        yield bench


@pytest.fixture
def root(bench: Bench, tmp_path: Path) -> CommandLine:
    environ = environment(tmp_path, NIGHTSHIFT_SERVER=URL, NIGHTSHIFT_TOKEN=bench.secrets["root"])
    keys = (f"root-{number}" for number in count(1))
    return CommandLine(transport=InProcessTransport(bench), environ=environ, slept_s=[], keys=keys)


def written(tmp_path: Path, text: str) -> str:
    file = tmp_path / "new.yaml"
    file.write_text(text, encoding="utf-8")
    return str(file)


def test_history_and_rollback(root: CommandLine, tmp_path: Path) -> None:
    assert root("policy", "apply", written(tmp_path, LATER)).code == 0
    back = root("policy", "rollback", "1")
    assert (back.code, back.out) == (0, "The text of version 1 is applied as version 3.\n"), back.err
    lines = root("policy", "history").out.splitlines()
    assert lines[0].split() == ["version", "applied", "by", "file", "message"]
    assert [line.split()[0] for line in lines[1:]] == ["3", "2", "1"]
    assert "root" in lines[1]
    assert "holds now, the text of version 1" in lines[1]
    assert "new.yaml" in lines[2]
    assert len(json.loads(root("policy", "history", "--limit", "2", "--json").out)["policies"]) == 2
    assert json.loads(root("policy", "rollback", "2", "--json").out)["version"] == 4


def test_a_rollback_that_is_not_done_says_why_in_a_line(bench: Bench, root: CommandLine, tmp_path: Path) -> None:
    assert root("policy", "apply", written(tmp_path, NOON)).code == 0
    assert root("policy", "apply", written(tmp_path, POLICY)).code == 0
    bench.reserve(gpus=1, run_s=HOUR_S, at="2026-03-03T12:00:00Z", at_night="finish")
    refused = root("policy", "rollback", "2")
    assert (refused.code, "break the promise of r-" in refused.one_line) == (EXIT_NO, True)
    holds = root("policy", "rollback", "3")
    assert (holds.code, "holds already" in holds.one_line) == (EXIT_NO, True)
    assert root("policy", "rollback", "9").code == EXIT_NO


def test_a_rollback_to_what_has_errors_today_names_their_lines(
    bench: Bench, root: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert root("policy", "apply", written(tmp_path, LATER)).code == 0
    monkeypatch.setattr("api.policies.check_text", lambda _, **options: check_text(WRONG, **options))
    refused = root("policy", "rollback", "1")
    assert refused.code == EXIT_NO
    assert refused.out.startswith("bench.yaml:3:7: policy zone is not a zone")
    assert "version 1 was not applied again" in refused.one_line
    assert json.loads(root("policy", "rollback", "1", "--json").out)["code"] == "policy.invalid"


def test_messages_are_in_the_history(root: CommandLine, tmp_path: Path) -> None:
    ran = root("policy", "apply", written(tmp_path, LATER), "--message", "shorter  nights\nfor the [summer]")
    assert ran.code == 0, ran.err
    assert root("policy", "rollback", "1", "-m", "winter").code == 0
    lines = root("policy", "history").out.splitlines()
    assert "  winter  " in lines[1]
    assert "  shorter nights for the [summer]" in lines[2]
    found = json.loads(root("policy", "history", "--json").out)["policies"]
    assert [one["message"] for one in found] == ["winter", "shorter nights for the [summer]", ""]
    assert set(found[0]["made_with"]) == {"holidays", "tzdata"}
    long = root("policy", "apply", written(tmp_path, LATER), "--message", "x" * 501)
    assert (long.code, "give at most 500" in long.one_line) == (EXIT_USAGE, True)


def test_an_override_says_whom_it_hit(bench: Bench, root: CommandLine, tmp_path: Path) -> None:
    made = bench.reserve(gpus=1, run_s=HOUR_S, at="2026-03-03T12:00:00Z", at_night="finish")["id"]
    file = written(tmp_path, NOON)
    foreseen = root("policy", "diff", file).out
    assert f"Against those promises: nightshift policy apply {file} --override REASON" in foreseen
    (row,) = [line for line in foreseen.splitlines() if line.startswith(made)]
    assert "Tue 13:00 to Tue 14:00" in row
    assert root("policy", "apply", file).code == EXIT_NO
    empty = root("policy", "apply", file, "--override", " ")
    assert (empty.code, "needs a reason" in empty.one_line) == (EXIT_USAGE, True)
    ran = root("policy", "apply", file, "--override", "power work")
    assert ran.code == 0, ran.err
    assert "Promises that it broke; each was told:" in ran.out
    (hit,) = [line for line in ran.out.splitlines() if made in line]
    assert hit.startswith(f"  {made} (ann): now promised to start by ")
    # What was foreseen is what is promised now.
    promise = bench.get(f"/reservations/{made}")["promise"]
    assert json.loads(root("show", made, "--json").out)["promise"] == promise
    assert "an override: power work" in root("policy", "history").out.splitlines()[1]


def test_the_policy_that_holds_is_compared_and_applied_again(root: CommandLine, bench: Bench, tmp_path: Path) -> None:
    for arguments in ((), ("--applied",)):
        same = root("policy", "diff", *arguments)
        assert (same.code, "would change nothing of version 1" in same.out) == (0, True), same.err
    again = root("policy", "apply", "--applied", "--message", "new zones")
    assert (again.code, "bench.yaml is applied as version 2" in again.out) == (0, True), again.err
    assert bench.get("/policies/2")["text"] == POLICY
    for wrong in ((), (written(tmp_path, POLICY), "--applied")):
        ran = root("policy", "apply", *wrong)
        assert (ran.code, "--applied" in ran.one_line) == (EXIT_USAGE, True)
    assert root("policy", "diff", written(tmp_path, POLICY), "--applied").code == EXIT_USAGE


def test_without_a_policy_there_is_none_to_compare_or_to_apply_again(tmp_path: Path) -> None:
    with opened(policy=None) as bench:
        environ = environment(tmp_path, NIGHTSHIFT_SERVER=URL, NIGHTSHIFT_TOKEN=bench.secrets["root"])
        line = CommandLine(transport=InProcessTransport(bench), environ=environ, slept_s=[], keys=iter("ab"))
        for command in (("diff",), ("apply", "--applied")):
            ran = line("policy", *command)
            assert (ran.code, "no policy is applied" in ran.one_line) == (EXIT_NO, True)


def test_a_diff_of_what_holds_ends_with_0(root: CommandLine, tmp_path: Path) -> None:
    ran = root("policy", "diff", written(tmp_path, POLICY))
    assert ran.code == 0, ran.err
    assert "would change nothing of version 1" in ran.out


def test_a_diff_shows_windows_and_bookings_and_changes_nothing(bench: Bench, root: CommandLine, tmp_path: Path) -> None:
    made = bench.reserve(gpus=1, run_s=20 * HOUR_S)["id"]
    bench.pass_time(HOUR_S)
    file = written(tmp_path, SHORTER)
    ran = root("policy", "diff", file)
    assert ran.code == EXIT_NO, ran.err
    assert ran.out.startswith("Compared with version 1; windows until")
    (night,) = [line for line in ran.out.splitlines() if line.startswith("night")]
    assert night.split()[1:4] == ["dgx2-a", "moves", "89"]
    assert "Mon 20:00 to Tue 08:00" in night
    assert "Mon 20:00 to Tue 07:00" in night
    assert "-60 min" in night
    (booking,) = [line for line in ran.out.splitlines() if line.startswith(made)]
    assert booking.split()[1:3] == ["ann", "1"]
    assert booking.split()[-4:] == ["dgx2-a", "2", "Tue", "16:22"]
    assert "To be told: ann" in ran.out
    assert f"Every promise holds. Next: nightshift policy apply {file}" in ran.out
    assert bench.get("/policies")["current"] == 1


def test_a_diff_names_the_promises_that_would_break(bench: Bench, root: CommandLine, tmp_path: Path) -> None:
    made = bench.reserve(gpus=1, run_s=HOUR_S, at="2026-03-03T12:00:00Z", at_night="finish")["id"]
    ran = root("policy", "diff", written(tmp_path, NOON))
    assert ran.code == EXIT_NO
    assert "Promises that would break" in ran.out
    assert f"the policy would break the promise of {made} (ann)" in ran.out
    assert "It would not be applied." in ran.out


def test_a_diff_for_machines_is_the_servers_answer(root: CommandLine, tmp_path: Path) -> None:
    ran = root("policy", "diff", written(tmp_path, LATER), "--json")
    found = json.loads(ran.out)
    assert (ran.code, len(found["windows"]), found["is_empty"]) == (EXIT_NO, 89, False)


def test_a_diff_of_a_policy_with_errors_names_their_lines(root: CommandLine, tmp_path: Path) -> None:
    file = written(tmp_path, WRONG)
    ran = root("policy", "diff", file)
    assert ran.code == EXIT_NO
    assert ran.out.startswith(f"{file}:3:7: policy zone is not a zone")
    assert f"nightshift policy check {file}" in ran.one_line
    assert json.loads(root("policy", "diff", file, "--json").out)["code"] == "policy.invalid"


def test_a_diff_of_more_rows_than_anybody_reads_says_how_many_are_left_out(
    root: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.policy_diff.MOST_ROWS", 1)
    found = root("policy", "diff", written(tmp_path, LATER.replace("0 21 * * *", "0 21 * * mon-fri"))).out
    assert "… and 1 more; --json has them all" in found
    assert "moves" in found
    assert "vanishes" not in found
