"""`nightshift policy show`: what a policy will do in the coming days, as tables, a picture and JSON."""

import json
from pathlib import Path

import pytest

from cli.policy import FOUND_ERRORS, UNREADABLE
from tests.cli.command_line import CommandLine, environment
from tests.cli.fake_server import FakeServer
from tests.policies.conftest import policy_text
from tests.policies.policy_texts import example_policy


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "university.yaml"
    file.write_text(example_policy("university.yaml").text, encoding="utf-8")
    return file


def test_a_file_on_this_machine_is_shown_without_a_server(
    nightshift: CommandLine, server: FakeServer, file: Path, tmp_path: Path
) -> None:
    nightshift.environ = environment(tmp_path)
    ran = nightshift("policy", "show", str(file), "--from", "2026-03-28", "--days", "2")
    assert ran.code == 0, ran.err
    assert server.asked == []
    lines = ran.out.splitlines()
    assert lines[1] == "Sun 2026-03-29 has 23 hours: at 02:00 the clock is set to 03:00."
    assert any("Sat 2026-03-28 18:00" in line and "03-28 17:00Z – 03-29 06:00Z" in line for line in lines)


def test_the_picture_has_a_row_for_each_day_and_names_the_day_of_the_change(
    nightshift: CommandLine, file: Path
) -> None:
    out = nightshift("policy", "show", str(file), "--from", "2026-10-23", "--days", "4").out
    picture = [line.rstrip() for line in out[out.index("Windows on dgx2-*") :].splitlines()]
    assert picture[:6] == [
        "Windows on dgx2-*",
        "           00       03       06       09       12       15       18       21",
        "Fri 10-23                                                              [night──────",
        "Sat 10-24  ───────────────────────]                              [weekend──────────",
        "Sun 10-25  ───────────────────────]                              [weekend──────────   ← clock 03:00→02:00",
        "Mon 10-26  ───────────────────────]                                    [night──────",
    ]
    assert picture[6] == "Tue 10-27  ───────────────────────]"
    assert "Fri 10-23                                     climate-nightly, 16 GPUs ▲" in picture


def test_json_has_local_times_utc_and_the_changes_of_the_clock(nightshift: CommandLine, file: Path) -> None:
    ran = nightshift("policy", "show", str(file), "--from", "2026-03-28", "--days", "2", "--json")
    shown = json.loads(ran.out)
    assert (shown["zone"], shown["from"], shown["until"]) == (
        "Europe/Berlin",
        "2026-03-27T23:00:00Z",
        "2026-03-29T23:00:00Z",
    )
    assert shown["clock_changes"] == [
        {
            "at": "2026-03-29T01:00:00Z",
            "date": "2026-03-29",
            "from_local": "2026-03-29T02:00",
            "to_local": "2026-03-29T03:00",
            "shift_s": 3600,
        }
    ]
    assert [(window["id"], window["start_at"], window["end_at"]) for window in shown["windows"]] == [
        ("weekend@2026-03-28T18:00", "2026-03-28T17:00:00Z", "2026-03-29T06:00:00Z"),
        ("weekend@2026-03-29T18:00", "2026-03-29T16:00:00Z", "2026-03-30T06:00:00Z"),
    ]


def test_a_shift_of_half_an_hour_is_named_too(nightshift: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(policy_text(zone="Australia/Lord_Howe"), encoding="utf-8")
    out = nightshift("policy", "show", str(file), "--from", "2026-10-04", "--days", "1").out
    assert "Sun 2026-10-04 has 23.5 hours: at 02:00 the clock is set to 02:30." in out


def test_a_directory_is_shown_with_one_picture_for_each_set_of_hosts(nightshift: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "p.d").mkdir()
    night = '{name: NAME, layout: night, hosts: [HOST], opens: "0 20 * * *", for: 12h}'
    windows = "\n".join(night.replace("NAME", f"n{host}").replace("HOST", host) for host in ("a", "b"))
    (tmp_path / "p.d" / "p.yaml").write_text(policy_text(windows=windows), encoding="utf-8")
    out = nightshift("policy", "show", str(tmp_path / "p.d"), "--from", "2026-03-01").out
    assert "Windows on a\n" in out
    assert "Windows on b\n" in out
    assert "for 7 days" in out


def test_what_is_wrong_is_said_as_check_says_it(nightshift: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(policy_text(zone="Mars"), encoding="utf-8")
    ran = nightshift("policy", "show", str(file))
    assert ran.code == FOUND_ERRORS
    assert f"{file}:2:7: policy zone is not a zone" in ran.out
    missing = nightshift("policy", "show", str(tmp_path / "none.yaml"))
    assert missing.code == UNREADABLE
    assert "there is no such file" in missing.err


def test_an_applied_version_is_shown_by_its_days(nightshift: CommandLine, server: FakeServer) -> None:
    ran = nightshift("policy", "show", "1", "--days", "3")
    # The server of these tests has a policy of one line.
    assert ran.code == FOUND_ERRORS
    assert "policy version 1:1:1: policy has no zone" in ran.out
    assert [request.url.path for request in server.asked] == ["/api/v1/policies/1"]


def test_without_days_an_applied_version_is_printed_as_it_was_applied(nightshift: CommandLine) -> None:
    assert nightshift("policy", "show", "1").out == "version: 1\n"
