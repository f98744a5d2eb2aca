"""`nightshift policy check`: what a person sees, and what the exit code says."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.policy import FOUND_ERRORS, UNREADABLE, app

MakeText = Callable[..., str]


def check(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["check", *map(str, arguments)])


@pytest.fixture
def example_file(tmp_path: Path, example_text: str) -> Path:
    file = tmp_path / "university.yaml"
    file.write_text(example_text, encoding="utf-8")
    return file


def test_a_good_file_shows_its_windows_and_reservations_in_local_time_and_utc(example_file: Path) -> None:
    result = check(example_file, "--from", "2026-03-23")
    assert result.exit_code == 0, result.output
    assert "no errors" in result.output
    (night,) = [line for line in result.output.splitlines() if "Mon 2026-03-23 20:00" in line and "night " in line]
    opens_and_closes = "night Mon 2026-03-23 20:00 Tue 2026-03-24 08:00 03-23 19:00Z – 03-24 07:00Z"
    assert " ".join(night.split()) == f"{opens_and_closes} Mon 2026-03-23 18:45 dgx2-*"
    (course,) = [line for line in result.output.splitlines() if "deep-learning-course" in line]
    what_and_when = "deep-learning-course Tue 2026-03-24 10:00 03-24 09:00Z 2h 8 × 2"
    assert " ".join(course.split()) == f"{what_and_when} interactive dl-course Tue 2026-03-17 10:00"


def test_the_night_of_the_clock_change_is_shown_as_it_will_be(example_file: Path) -> None:
    result = check(example_file, "--from", "2026-03-28", "--days", "1")
    assert "Sun 2026-03-29 08:00" in result.output
    assert "03-28 17:00Z – 03-29 06:00Z" in result.output


def test_without_a_date_the_next_week_is_shown(example_file: Path) -> None:
    result = check(example_file, "--json")
    assert result.exit_code == 0
    assert len(json.loads(result.output)["windows"]) == 7


def test_json_says_the_same_for_machines(example_file: Path) -> None:
    report = json.loads(check(example_file, "--json", "--from", "2026-03-23", "--days", "2").output)
    assert (report["ok"], report["problems"]) == (True, [])
    assert report["windows"][0] == {
        "id": "night@2026-03-23T20:00",
        "layout": "night",
        "hosts": ["dgx2-*"],
        "start_at": "2026-03-23T19:00:00Z",
        "end_at": "2026-03-24T07:00:00Z",
        "decide_at": "2026-03-23T17:45:00Z",
        "local_start": "2026-03-23T20:00",
        "local_end": "2026-03-24T08:00",
    }
    assert [reservation["name"] for reservation in report["reservations"]] == [
        "climate-nightly",
        "deep-learning-course",
        "climate-nightly",
    ]


def test_every_error_is_printed_one_a_line_with_its_place(tmp_path: Path, make_text: MakeText) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(make_text(zone="Europe/Berlinn", windows="{name: night, layout: nihgt, for: 12}"), encoding="utf-8")
    result = check(file)
    assert result.exit_code == FOUND_ERRORS
    lines = result.output.splitlines()
    assert [line.removeprefix(str(file)).split(": ")[0] for line in lines] == [":2:7", ":12:5", ":12:27", ":12:39"]
    as_json = check(file, "--json")
    assert as_json.exit_code == FOUND_ERRORS
    report = json.loads(as_json.output)
    assert report["ok"] is False
    assert [f"{file}:{p['line']}:{p['column']}: {p['message']}" for p in report["problems"]] == lines


def test_an_overlap_is_an_error_and_a_warning_is_not(tmp_path: Path, make_text: MakeText) -> None:
    night = '{name: night, layout: night, opens: "0 20 * * *", for: 12h}'
    file = tmp_path / "p.yaml"
    file.write_text(make_text(windows=f"{night}\n{night.replace('name: night', 'name: other')}"), encoding="utf-8")
    overlap = check(file)
    assert overlap.exit_code == FOUND_ERRORS
    assert "overlaps window night (line 12)" in overlap.output
    file.write_text(make_text(windows=night.replace("12h", "20m")), encoding="utf-8")
    warned = check(file, "--from", "2026-03-02")
    assert warned.exit_code == 0
    assert "warning: window night is too short" in warned.output
    assert "no errors" in warned.output


def one_line(result: Result) -> str:
    assert result.exit_code == UNREADABLE
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


def test_what_cannot_be_read_gets_one_clear_line(tmp_path: Path) -> None:
    assert one_line(check(tmp_path / "none.yaml")) == f"{tmp_path / 'none.yaml'}: there is no such file"
    assert "this is a directory without a policy file; name them *.yaml" in one_line(check(tmp_path))
    file = tmp_path / "p.yaml"
    file.write_bytes(b"version: 1\n\xff\xfe")
    assert "not a text file: byte 11 is not UTF-8" in one_line(check(file))
    file.write_bytes(b"\x7fELF\0\0")
    assert "not a text file: byte 4 is zero" in one_line(check(file))
    file.write_bytes(b"a" * (1024 * 1024 + 1))
    assert "larger than 1 MiB" in one_line(check(file))
    assert "not a directory" in one_line(check(file / "below")).lower()
    as_json = check(tmp_path / "none.yaml", "--json")
    assert as_json.exit_code == UNREADABLE
    assert json.loads(as_json.output)["unreadable"] == "there is no such file"


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path, example_text: str) -> None:
    file = tmp_path / "p.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + example_text.encode())
    assert check(file).exit_code == 0


def test_a_directory_is_one_policy_and_each_problem_names_its_file(tmp_path: Path, make_text: MakeText) -> None:
    (tmp_path / "a.yaml").write_text(make_text(), encoding="utf-8")
    (tmp_path / "b.yaml").write_text('version: 1\nwindows: [{name: n, layout: nihgt, opens: "0 20 * * *", for: 12h}]\n')
    wrong = check(tmp_path)
    assert wrong.exit_code == FOUND_ERRORS
    assert wrong.output.startswith(f"{tmp_path}/b.yaml:2:29: window n layout is not a layout of this policy: 'nihgt'")
    (problem,) = json.loads(check(tmp_path, "--json").output)["problems"]
    assert (problem["file"], problem["line"], problem["column"]) == (f"{tmp_path}/b.yaml", 2, 29)
    (tmp_path / "b.yaml").write_text('version: 1\nwindows: [{name: n, layout: night, opens: "0 20 * * *", for: 12h}]\n')
    assert check(tmp_path).exit_code == 0


def test_strict_ends_with_1_for_warnings_too(tmp_path: Path, make_text: MakeText) -> None:
    file = tmp_path / "p.yaml"
    night = '{name: night, layout: night, opens: "0 20 * * *", for: 12h}'
    file.write_text(make_text(windows=night), encoding="utf-8")
    assert check(file, "--strict").exit_code == 0
    file.write_text(make_text(windows=night, more="unused: {idle_after: 2h}\n"), encoding="utf-8")
    warned = check(file, "--strict")
    assert warned.exit_code == FOUND_ERRORS
    assert f"{file}:11:9: warning: unused is not enforced yet" in warned.output
    assert check(file).exit_code == 0
    assert json.loads(check(file, "--json").output)["problems"][0]["severity"] == "warning"


@pytest.mark.parametrize("text", ["tomorrow", "2026-13-01", "0001-01-01"])
def test_a_date_that_is_none_gets_one_clear_line(example_file: Path, text: str) -> None:
    assert f"--from: {text!r} is" in one_line(check(example_file, "--from", text))
