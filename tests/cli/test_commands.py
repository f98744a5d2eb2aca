"""What each command says to people and to machines, and what it asks the server for."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from cli.main import app
from cli.output import EXIT_NO, EXIT_USAGE
from tests.cli.command_line import CommandLine, environment
from tests.cli.fake_server import CALENDAR, HOST, NOW, TOKEN, URL, FakeServer, Json, reservation

PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1k3b8y5w7nJm0q9d8r7s6t5u4v3w2x1y0zABCDEFGH ada@laptop"


# Reserving.


def test_reserving_says_the_promise_first_then_the_night_then_what_to_type(
    nightshift: CommandLine, server: FakeServer
) -> None:
    ran = nightshift("reserve", "--gpus", "2", "--for", "14h")
    assert ran.code == 0, ran.err
    assert ran.out.splitlines() == [
        "r-17: 2 GPUs for 14 h. Running by Mon 09:12 (in 4 min), all hours by Tue 11:20.",
        "Booked on dgx2-a, GPUs 0-1 from Mon 09:08.",
        "Parked at Mon 20:00, resumed from Tue 08:00. Its disk is kept, and being parked uses up no hours.",
        "Next: nightshift show r-17 · nightshift why r-17 · nightshift cancel r-17",
    ]
    assert server.bodies("/reservations") == [{"gpus": 2, "run_s": 14 * 3600}]


def test_every_option_reaches_the_server_as_its_field(
    nightshift: CommandLine, server: FakeServer, tmp_path: Path
) -> None:
    key = tmp_path / "id_ed25519.pub"
    key.write_text(f"# mine\n{PUBLIC_KEY}\n")
    ran = nightshift(
        *("reserve", "-g", "4", "-f", "1h30m", "--not-before", "tomorrow 09:00", "--start-by", "2026-11-24T12:00Z"),
        *("--queue", "interactive", "--at-night", "finish", "--image", "ubuntu", "--ssh-key", str(key)),
        *("--disk", "1TiB", "--like", "r-9", "--continue", "12", "--owner", "bob"),
    )
    assert ran.code == 0, ran.err
    assert server.bodies("/reservations") == [
        {
            "gpus": 4, "run_s": 5400, "not_before_at": "2026-11-24T08:00:00Z", "start_by_at": "2026-11-24T12:00:00Z",
            "queue": "interactive", "at_night": "finish", "image": "ubuntu", "ssh_key": PUBLIC_KEY, "disk_gib": 1024,
            "like": "r-9", "continues": "r-12", "owner": "bob",
        }
    ]  # fmt: skip


def test_a_time_is_read_by_the_servers_clock_and_not_by_this_machines(
    nightshift: CommandLine, server: FakeServer
) -> None:
    nightshift("reserve", "--gpus", "1", "--for", "1h", "--at", "in 2h")
    assert server.bodies("/reservations")[0]["at"] == "2026-11-23T10:08:00Z"


def test_continuing_alone_takes_over_size_and_hours(nightshift: CommandLine, server: FakeServer) -> None:
    assert nightshift("reserve", "--continue", "r-9").code == 0
    assert nightshift("reserve", "--like", "r-9", "--for", "1h").code == 0
    assert server.bodies("/reservations") == [
        {"continues": "r-9", "like": "r-9"},
        {"like": "r-9", "run_s": 3600},
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--gpus", "2"), "--for is missing; say it like `--for 3h`"),
        (("--for", "2h"), "--gpus is missing; say it like `--gpus 2`"),
        (("--gpus", "two", "--for", "2h"), "Invalid value 'two' for '--gpus' / '-g': write a whole number"),
        (("--gpus", "2", "--for", "3 hourz"), "--for '3 hourz' is not a duration"),
        (("--gpus", "2", "--for", "3"), "--for '3' is not a duration"),
        (("--gpus", "2", "--for", "2h", "--at", "tomorow 9:00"), "--at 'tomorow 9:00' is not a time"),
        (("--gpus", "2", "--for", "2h", "--at", "yesterday 09:00"), "which is past: it is Mon 09:08 there"),
        (("--gpus", "2", "--for", "2h", "--at", "2027-03-28 02:30"), "does not exist in Europe/Berlin"),
        (("--gpus", "2", "--for", "2h", "--at", "in 1h", "--start-by", "in 2h"), "--at names one start"),
        (("--gpus", "2", "--for", "2h", "--disk", "200"), "--disk '200' is not a size; write it like 200GiB"),
        (("--gpus", "2", "--for", "2h", "--disk", "200GB"), "--disk '200GB' is not a size"),
        (("--gpus", "2", "--for", "2h", "--like", "me"), "--like 'me' is not a reservation; ids look like r-17"),
        (("--gpus", "2", "--for", "2h", "--at-night", "sleep"), "'sleep' is not one of 'park', 'finish', 'keep'"),
        (("--gpus", "2", "--for", "2h", "--ssh-key", "/nonexistent.pub"), "cannot be read: No such file"),
        (("--gpus", "2", "--for", "2h", "--ssh-key", "/"), "cannot be read: Is a directory"),
        (("--gpsu", "2"), "No such option: --gpsu"),
        (("--gpus", "2", "--for", "2h", "--image", "\udcff"), "an option holds bytes that are not text"),
    ],
)
def test_a_mistake_gets_one_line_and_nothing_is_reserved(
    nightshift: CommandLine, server: FakeServer, options: tuple[str, ...], said: str
) -> None:
    ran = nightshift("reserve", *options)
    assert (ran.code, ran.out) == (EXIT_USAGE, "")
    assert said in ran.one_line
    assert server.bodies("/reservations") == []


@pytest.mark.parametrize(
    "text",
    ["-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blbn\n-----END OPENSSH PRIVATE KEY-----\n", "PuTTY-User-Key-File-2: x\n"],
)
def test_a_private_key_is_never_sent(nightshift: CommandLine, server: FakeServer, tmp_path: Path, text: str) -> None:
    key = tmp_path / "id_ed25519"
    key.write_text(text)
    ran = nightshift("reserve", "--gpus", "1", "--for", "1h", "--ssh-key", str(key))
    assert ran.code == EXIT_USAGE
    assert f"{key} IS A PRIVATE KEY and was not sent" in ran.one_line
    assert f"{key}.pub" in ran.one_line
    assert server.asked == []


@pytest.mark.parametrize(
    "text", ["", "hello", f"{PUBLIC_KEY}\n{PUBLIC_KEY}", "ssh-ed25519 AAAA", "x" * 20_000, "\x7fELF"]
)
def test_what_is_not_one_public_key_is_refused(nightshift: CommandLine, tmp_path: Path, text: str) -> None:
    key = tmp_path / "key"
    key.write_text(text)
    ran = nightshift("reserve", "--gpus", "1", "--for", "1h", "--ssh-key", str(key))
    assert (ran.code, "does not hold one public key" in ran.one_line) == (EXIT_USAGE, True)


def test_a_public_key_may_come_on_stdin(nightshift: CommandLine, server: FakeServer) -> None:
    assert nightshift("reserve", "--gpus", "1", "--for", "1h", "--ssh-key", "-", stdin=PUBLIC_KEY + "\n").code == 0
    assert server.bodies("/reservations")[0]["ssh_key"] == PUBLIC_KEY


def test_a_quote_says_what_would_be_and_reserves_nothing(nightshift: CommandLine, server: FakeServer) -> None:
    ran = nightshift("quote", "--gpus", "2", "--for", "14h")
    assert ran.code == 0
    assert ran.out.startswith("2 GPUs for 14 h. It would be running by Mon 09:12 (in 4 min), all hours by Tue 11:20;")
    assert "likely Mon 09:10" in ran.out
    assert server.bodies("/reservations") == []


def test_a_quote_without_a_promise_is_a_no_with_its_reasons(nightshift: CommandLine, server: FakeServer) -> None:
    never = {"code": "request.never_fits", "sentence": "16 GPUs for 864000 s fit nowhere", "facts": {}}
    server.answers["POST /quotes"] = lambda request: httpx.Response(
        200, json={"promise": None, "likely_start_at": None, "spans": [], "reasons": [never], "plan_version": 1}
    )
    ran = nightshift("quote", "--gpus", "16", "--for", "10d")
    assert (ran.code, ran.out) == (EXIT_NO, "No promise can be given.\n- 16 GPUs for 10d fit nowhere\n")


# Looking.


def test_ls_says_for_each_what_comes_next(nightshift: CommandLine) -> None:
    lines = [" ".join(line.split()) for line in nightshift("ls").out.splitlines()]
    assert lines == [
        "id size phase when host GPUs left",
        "r-17 2 promised runs by Mon 09:12 dgx2-a 0-1 14h",
        "r-12 4 running until Mon 20:00 dgx2-a 8-11 13h30m",
        "r-18 2 waiting no place booked 14h",
        "r-19 2 parked resumes Mon 09:08 dgx2-a 0-1 14h",
        "r-9 1 ended completed Mon 09:08",
    ]


def test_an_admin_sees_whose_they_are_and_may_choose(nightshift: CommandLine, server: FakeServer) -> None:
    server.role = "admin"
    assert "owner" in nightshift("ls", "--all", "--owner", "ada", "--phase", "running", "--limit", "5").out
    assert dict(server.asked[0].url.params) == {"all": "true", "owner": "ada", "phase": "running", "limit": "5"}


def test_an_empty_list_says_what_to_try(nightshift: CommandLine, server: FakeServer) -> None:
    server.answers["GET /reservations"] = lambda request: httpx.Response(
        200, json={"reservations": [], "plan_version": 0, "now": NOW}
    )
    assert "Try `nightshift free`" in nightshift("ls").out


def test_show_has_every_span_and_the_parking_between(nightshift: CommandLine) -> None:
    shown = nightshift("show", "17").out
    lines = [" ".join(line.strip("│╭╮╰╯─ ").split()) for line in shown.splitlines()]
    assert "next starts by Mon 09:12" in lines
    assert "Mon 09:08 Mon 20:00 dgx2-a, GPUs 0-1 now" in lines
    assert "Mon 20:00 Tue 08:00 parked, its disk is kept" in lines
    assert "Tue 08:00 Tue 11:20 dgx2-a, GPUs 4-5" in lines


def test_why_says_the_reasons_the_promise_and_what_would_help(nightshift: CommandLine) -> None:
    lines = nightshift("why", "r-17").out.splitlines()
    assert lines[:2] == ["r-17 is promised, and this keeps it:", "  - r-3 has 2g0-1 of dgx2-a until Mon 09:11"]
    assert lines[2].startswith("The promise holds: running by Mon 09:12")
    assert lines[3].startswith("What would help: a smaller size")


def test_free_says_now_or_by_when_and_why_not(nightshift: CommandLine, server: FakeServer) -> None:
    ran = nightshift("free", "--for", "3h")
    lines = [" ".join(line.split()) for line in ran.out.splitlines()]
    assert "1 interactive 5 Mon 09:12 (in 4 min) Mon 09:08" in lines
    assert "16 hpc 0 -" in lines
    assert "8 interactive 0 Mon 09:12 (in 4 min)" in lines
    assert "16 GPUs: 16 GPUs for 1d in queue 'hpc' fit nowhere; ask for less" in lines
    assert lines[-1] == "Next: nightshift reserve --gpus 1 --for 3h"
    assert dict(server.asked[0].url.params) == {"run_s": "10800"}


def no_promise(gpus: int, *causes: str) -> dict[str, object]:
    never = {"code": "request.never_fits", "sentence": f"{gpus} GPUs fit nowhere", "facts": {"gpus": gpus}}
    reasons = [never, *({"code": "host.drained", "sentence": cause, "facts": {"host": "a"}} for cause in causes)]
    return {"gpus": gpus, "queue": "q", "free_now": 0, "promise": None, "likely_start_at": None, "reasons": reasons}


@pytest.mark.parametrize(
    ("causes", "said"),
    [
        (("host a is drained", "host a is drained"), ["No size can be promised: host a is drained"]),
        (("a is drained", "b is full"), ["2 GPUs: 2 GPUs fit nowhere; a is drained",
                                         "4 GPUs: 4 GPUs fit nowhere; b is full"]),
    ],
)  # fmt: skip
def test_free_says_once_what_is_in_the_way_of_every_size(
    nightshift: CommandLine, server: FakeServer, causes: tuple[str, str], said: list[str]
) -> None:
    sizes = [no_promise(gpus, cause) for gpus, cause in zip((2, 4), causes, strict=True)]
    server.answers["GET /free"] = lambda request: httpx.Response(
        200, json={"now": NOW, "plan_version": 3, "sizes": sizes}
    )
    lines = nightshift("free").out.splitlines()
    assert [line for line in lines[5:] if line] == said


def listed(*phases: str) -> httpx.Response:
    found = [reservation(f"r-{number}", phase=phase) for number, phase in enumerate(phases, start=1)]
    return httpx.Response(200, json={"reservations": found, "plan_version": 3, "now": NOW})


@pytest.mark.parametrize(
    ("phases", "options", "ids", "last"),
    [
        (("refused", "running", "refused"), (), ["r-2"], "2 refused ones are hidden; see them with --all"),
        (("refused", "running"), (), ["r-2"], "1 refused one is hidden; see it with --all"),
        (("refused", "running"), ("--all",), ["r-1", "r-2"], None),
        (("refused",), ("--phase", "refused"), ["r-1"], None),
        (("refused",), (), [], "1 refused one is hidden; see it with --all"),
    ],
)
def test_refused_ones_do_not_bury_what_is_open(
    nightshift: CommandLine,
    server: FakeServer,
    phases: tuple[str, ...],
    options: tuple[str, ...],
    ids: list[str],
    last: str | None,
) -> None:
    server.answers["GET /reservations"] = lambda request: listed(*phases)
    lines = nightshift("ls", *options).out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("r-")] == ids
    assert (lines[-1] if "hidden" in lines[-1] else None) == last
    assert ("Nothing is reserved" in lines[0]) == (not ids)
    in_json = json.loads(nightshift("ls", "--json").out)["reservations"]
    assert [one["phase"] for one in in_json] == list(phases)


def test_one_that_is_stopping_says_so_once(nightshift: CommandLine, server: FakeServer) -> None:
    assert nightshift("stop", "r-17").out.startswith("r-17 is stopping since Mon 09:08. Its disk")
    stopping = reservation(phase="stopping", outcome="completed", ended_at=NOW)
    server.answers["POST /reservations/r-17/stop"] = lambda request: httpx.Response(200, json=stopping)
    assert nightshift("stop", "r-17").out == "r-17 is stopping, completed Mon 09:08.\n"


@pytest.mark.parametrize(
    ("running_at", "generation", "said"),
    [
        (NOW, 1, "kept: running since Mon 09:08 (now), all hours by Tue 11:20"),
        ("2026-11-23T08:13:00Z", 1, "late, it was to run by Mon 09:12: running since Mon 09:13"),
        ("2026-11-23T08:13:00Z", 2, "running since Mon 09:13"),
        (None, 1, "Running by Mon 09:12 (in 4 min), all hours by Tue 11:20"),
    ],
)
def test_of_one_that_runs_the_promise_says_since_when(
    nightshift: CommandLine, server: FakeServer, running_at: str | None, generation: int, said: str
) -> None:
    vm = {"host": "dgx2-a", "gpus": [0, 1], "generation": generation, "running_at": running_at}
    one = reservation(phase="running", vm=vm)
    server.answers["GET /reservations/r-17"] = lambda request: httpx.Response(200, json=one)
    shown = " ".join(nightshift("show", "r-17").out.replace("│", " ").split())
    assert f" promise {said}" in shown
    assert ("kept: " in shown) == said.startswith("kept")


def test_the_calendar_marks_now_names_windows_and_tells_ones_own_from_others(
    nightshift: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = nightshift("calendar").out.splitlines()
    assert lines[0] == "dgx2-a  dgx-2, Europe/Berlin, now Mon 09:08  out of the plan: GPU 7"
    assert "Mon 12:00" in lines[1]
    assert "Tue 00:00" in lines[1]
    assert "[night──" in lines[2]
    gpu = {line[:6].strip(): line for line in lines if line.startswith((" GPU", "GPU"))}
    assert len(gpu) == 16
    assert "│r-17···" in gpu["GPU 0"]
    assert "│" in gpu["GPU 15"]
    assert "[·····]" in gpu["GPU 4"]
    assert "taken by others" in lines[-1]
    assert max(len(line) for line in lines) <= 80


def test_the_calendar_uses_the_columns_that_are_there(nightshift: CommandLine) -> None:
    def width(*options: str) -> int:
        return max(len(line) for line in nightshift("calendar", *options).out.splitlines())

    assert width("--width", "60") <= 60 < width("--width", "200") <= 200


def test_the_calendar_asks_for_the_stretch_that_was_named(nightshift: CommandLine, server: FakeServer) -> None:
    assert nightshift("calendar", "--from", "2026-11-27", "--for", "12h", "--host", "dgx2-a").code == 0
    asked = dict(server.asked[-1].url.params)
    assert asked == {"from_at": "2026-11-26T23:00:00Z", "until_at": "2026-11-27T11:00:00Z"}
    assert "known hosts: dgx2-a" in nightshift("calendar", "--host", "nohost").one_line
    assert "draw 1h to 14d" in nightshift("calendar", "--for", "15d").one_line


# Acting.


@pytest.mark.parametrize(
    ("arguments", "path", "body", "said"),
    [
        (("cancel", "r-17"), "cancel", {}, "r-17 is cancelled. Its disk of 100 GiB is kept"),
        (("stop", "17"), "stop", {}, "`nightshift start r-17` goes on with it"),
        (("restart", "r-17"), "restart", {}, "r-17 is promised"),
        (("extend", "r-17", "--by", "2h"), "extend", {"by_s": 7200}, "r-17 now has 14 h. Running by Mon 09:12"),
        (("start", "r-17"), "start", {}, "r-18: 2 GPUs for 14 h."),
        (("start", "r-17", "--for", "1h"), "start", {"run_s": 3600}, "r-18: 2 GPUs for 14 h."),
    ],
)
def test_acting_on_a_reservation_says_what_came_of_it(
    nightshift: CommandLine, server: FakeServer, arguments: tuple[str, ...], path: str, body: object, said: str
) -> None:
    ran = nightshift(*arguments)
    assert ran.code == 0, ran.err
    assert said in ran.out
    assert server.bodies(f"/reservations/r-17/{path}") == [body]


@pytest.mark.parametrize("command", ["show", "why", "cancel", "stop", "start", "restart"])
def test_anothers_reservation_is_not_there(nightshift: CommandLine, command: str) -> None:
    ran = nightshift(command, "r-99")
    assert (ran.code, ran.out) == (EXIT_NO, "")
    assert "there is no reservation r-99" in ran.one_line


@pytest.mark.parametrize("name", ["", "x", "r-", "r-1x", "../users", "r-1/why", "r-99999999999999999", "\x00", "٣"])
def test_what_is_no_id_is_refused_before_anything_is_sent(
    nightshift: CommandLine, server: FakeServer, name: str
) -> None:
    ran = nightshift("cancel", name)
    assert (ran.code, server.asked) == (EXIT_USAGE, [])
    assert "is not a reservation; ids look like r-17" in ran.one_line


# Admins.


def test_hosts_are_listed_and_shown_with_what_is_wrong(nightshift: CommandLine) -> None:
    assert "1 GPU with a problem" in nightshift("host", "ls").out
    shown = nightshift("host", "show", "dgx2-a").out
    assert "GPU 7: quarantined since Mon 09:08: it did not come back" in shown
    assert "not ours, left alone: old-vm" in shown


REAL: Json = HOST | {
    "connect": "qemu+ssh://root@dgx2-a/system",
    "gpu_problems": [],
    "troubles": [
        {"code": "check.x", "kind": "unverified", "problem": "x is not seen", "mend": "run the worker there"},
        {"code": "host.no_iommu", "kind": "wrong", "problem": "it has no IOMMU", "mend": "switch it on"},
    ],
}


def test_a_real_host_is_shown_with_what_is_wrong_with_it_and_what_cannot_be_checked(
    nightshift: CommandLine, server: FakeServer
) -> None:
    server.answers["GET /hosts/dgx2-a"] = lambda request: httpx.Response(200, json=REAL)
    server.answers["GET /hosts"] = lambda request: httpx.Response(200, json={"hosts": [REAL], "now": NOW})
    assert nightshift("host", "ls").out.rstrip().endswith("1 trouble")
    shown = nightshift("host", "show", "dgx2-a").out.splitlines()
    assert "Reached by qemu+ssh://root@dgx2-a/system." in shown
    wrong = shown.index("it has no IOMMU")
    assert shown[wrong + 1] == "→ switch it on"
    unverified = shown.index("cannot be checked from where the worker runs:")
    assert shown[unverified + 1] == "  x is not seen → run the worker there"
    assert "Reached" not in nightshift("host", "show", "dgx2-a", "--json").out


def test_why_a_host_does_not_answer_is_said_once(nightshift: CommandLine, server: FakeServer) -> None:
    trouble = {"code": "host.unreachable", "kind": "wrong", "problem": "refused", "mend": "start libvirtd"}
    silent = REAL | {"unreachable_since_at": NOW, "problem": "refused; start libvirtd", "troubles": [trouble]}
    server.answers["GET /hosts/dgx2-a"] = lambda request: httpx.Response(200, json=silent)
    shown = nightshift("host", "show", "dgx2-a").out
    assert "does not answer since Mon 09:08: refused; start libvirtd" in shown
    assert shown.count("refused") == 1


@pytest.mark.parametrize("file", ["mine.toml", "./mine", "/etc/nightshift/mine.toml"])
def test_a_profile_file_is_not_sent_as_a_name_and_where_to_put_it_is_said(
    nightshift: CommandLine, server: FakeServer, file: str
) -> None:
    server.role = "admin"
    ran = nightshift("host", "add", "b", "--profile", file)
    assert (ran.code, server.asked) == (EXIT_USAGE, [])
    assert 'as mine.toml with name = "mine" in it' in ran.one_line


def test_what_only_looks_like_a_uri_is_not_even_sent(nightshift: CommandLine, server: FakeServer) -> None:
    server.role = "admin"
    for arguments in (
        ("host", "add", "b", "--profile", "dgx-2", "--connect", "qemu+ssh://root:hunter2@b/system"),
        ("host", "connect", "dgx2-a", "qemu+ssh://root:hunter2@b/system"),
    ):
        ran = nightshift(*arguments)
        assert (ran.code, server.asked) == (EXIT_USAGE, [])
        assert "it holds a password" in ran.one_line
        assert "hunter2" not in ran.err
    assert nightshift("host", "connect", "dgx2-a", "qemu+tls://dgx2-a/system").code == 0
    assert server.bodies("/hosts/dgx2-a/connect") == [{"connect": "qemu+tls://dgx2-a/system"}]
    assert nightshift("host", "add", "b", "--profile", "dgx-2", "--connect", "qemu:///system").code == 0
    assert server.bodies("/hosts") == [{"id": "b", "profile": "dgx-2", "storage": "b", "connect": "qemu:///system"}]


def test_less_than_a_share_is_asked_for_and_shown(nightshift: CommandLine, server: FakeServer) -> None:
    for command, path in (("reserve", "/reservations"), ("quote", "/quotes")):
        assert nightshift(command, "--gpus", "2", "--for", "3h", "--memory", "64", "--vcpus", "8").code == 0
        (body,) = server.bodies(path)
        assert (body["memory_gib"], body["vcpus"]) == (64, 8)
    assert "vCPUs" not in nightshift("show", "r-17").out
    small = reservation(memory_gib=64, vcpus=8)
    server.answers["GET /reservations/r-17"] = lambda request: httpx.Response(200, json=small)
    shown = nightshift("show", "r-17").out
    assert re.search(r"memory +64 GiB", shown)
    assert re.search(r"vCPUs +8 ", shown)


def test_the_layout_of_a_host_is_shown_outside_of_windows_too(nightshift: CommandLine, server: FakeServer) -> None:
    assert "day until Mon 20:00" in nightshift("host", "ls").out
    outside = HOST | {"window": None, "layout": "daytime"}
    server.answers["GET /hosts"] = lambda request: httpx.Response(200, json={"hosts": [outside], "now": NOW})
    server.answers["GET /hosts/dgx2-a"] = lambda request: httpx.Response(200, json=outside)
    assert " daytime " in nightshift("host", "ls").out
    assert "13 are free. Layout daytime." in nightshift("host", "show", "dgx2-a").out


def test_a_drain_names_what_cannot_leave(nightshift: CommandLine, server: FakeServer) -> None:
    server.role = "admin"
    ran = nightshift("host", "drain", "dgx2-a")
    assert "These stay booked there, since nowhere else has room: r-12" in ran.out


@pytest.mark.parametrize(
    "arguments",
    [("host", "drain", "dgx2-a"), ("host", "add", "h", "--profile", "dgx-2"), ("user", "ls"), ("user", "add", "bob"),
     ("doctor",)],
)  # fmt: skip
def test_what_is_for_admins_is_a_no_for_students(nightshift: CommandLine, arguments: tuple[str, ...]) -> None:
    ran = nightshift(*arguments)
    assert (ran.code, ran.one_line) == (EXIT_NO, "nightshift: only an admin may do this; ask one")


def test_a_new_token_is_alone_on_stdout_when_piped(nightshift: CommandLine) -> None:
    assert nightshift("user", "token", "ada").out == "ns_secret\n"


def test_tokens_are_listed_without_secrets_and_revoked_by_id(nightshift: CommandLine, server: FakeServer) -> None:
    assert "laptop" in nightshift("user", "tokens", "ada").out
    assert nightshift("user", "revoke", "t-1").out == "Token t-1 is revoked.\n"
    assert (server.asked[-1].method, server.asked[-1].url.path) == ("DELETE", "/api/v1/tokens/t-1")


def test_doctor_ends_with_a_no_when_something_is_wrong_and_says_what_to_do(
    nightshift: CommandLine, server: FakeServer
) -> None:
    server.role = "admin"
    ran = nightshift("doctor")
    assert ran.code == EXIT_NO
    assert "FAILED  worker" in ran.out
    assert "→ is `nightshift worker` running?" in ran.out
    assert "1 of 2 checks failed." in ran.out


def test_a_policy_is_applied_by_its_text(nightshift: CommandLine, server: FakeServer, tmp_path: Path) -> None:
    server.role = "admin"
    file = tmp_path / "p.yaml"
    file.write_text("version: 1\n")
    ran = nightshift("policy", "apply", str(file))
    assert (ran.code, "is applied as version 2" in ran.out) == (0, True)
    assert server.bodies("/policies") == [{"text": "version: 1\n", "source": "p.yaml"}]


def test_a_policy_with_errors_is_told_line_by_line(nightshift: CommandLine, server: FakeServer, tmp_path: Path) -> None:
    server.role = "admin"
    file = tmp_path / "p.yaml"
    file.write_text("windos: []\n")
    ran = nightshift("policy", "apply", str(file))
    assert ran.code == EXIT_NO
    assert ran.out == f"{file}:3:1: windos is not a key: 'windos'\n"
    assert f"{file} was not applied" in ran.one_line


def test_applied_policies_are_listed_and_printed_as_they_are(nightshift: CommandLine) -> None:
    assert "holds now" in nightshift("policy", "history").out
    assert nightshift("policy", "show").out == "version: 1\n"


# Logging in.


def test_login_keeps_the_server_and_the_token_after_trying_them(
    nightshift: CommandLine, server: FakeServer, tmp_path: Path
) -> None:
    nightshift.environ = environment(tmp_path)
    ran = nightshift("login", URL, stdin=f"{TOKEN}\n")
    assert ran.code == 0, ran.err
    assert "You are ada (student) at http://127.0.0.1:8470" in ran.out
    assert TOKEN not in ran.out
    assert (tmp_path / "client.toml").stat().st_mode & 0o777 == 0o600
    assert "from nightshift login" in nightshift("whoami").out


def test_a_login_that_does_not_work_keeps_nothing(nightshift: CommandLine, tmp_path: Path) -> None:
    nightshift.environ = environment(tmp_path)
    assert nightshift("login", URL, stdin="ns_wrong\n").code == EXIT_USAGE
    assert nightshift("login", URL).code == EXIT_USAGE
    assert "is another machine" in nightshift("login", "http://gpu.uni.edu", stdin=f"{TOKEN}\n").one_line
    assert not (tmp_path / "client.toml").exists()


def test_whoami_says_who_where_and_when(nightshift: CommandLine) -> None:
    assert nightshift("whoami").out.splitlines() == [
        f"ada (student) at {URL} (from --server or NIGHTSHIFT_SERVER)",
        "It is Mon 09:08 there (Europe/Berlin); version 0.1.0",
    ]


# For machines.

JSON_COMMANDS = [
    ("reserve", "--gpus", "2", "--for", "3h"), ("quote", "--gpus", "2", "--for", "3h"), ("ls",), ("show", "r-17"),
    ("why", "r-17"), ("cancel", "r-17"), ("stop", "r-17"), ("restart", "r-17"), ("extend", "r-17", "--by", "1h"),
    ("start", "r-17"), ("free",), ("calendar",), ("whoami",), ("doctor",), ("host", "ls"), ("host", "show", "dgx2-a"),
    ("host", "add", "b", "--profile", "dgx-2"), ("host", "drain", "dgx2-a"), ("host", "undrain", "dgx2-a"),
    ("host", "connect", "dgx2-a", "qemu:///system"),
    ("user", "ls"), ("user", "add", "bob"), ("user", "token", "ada"), ("user", "tokens", "ada"),
    ("user", "revoke", "t-1"), ("user", "disable", "ada"), ("user", "enable", "ada"),
    ("policy", "show"), ("policy", "history"), ("policy", "rollback", "1"),
]  # fmt: skip


@pytest.mark.parametrize("arguments", JSON_COMMANDS, ids=" ".join)
def test_json_is_the_servers_answer_untouched(
    nightshift: CommandLine, server: FakeServer, arguments: tuple[str, ...]
) -> None:
    server.role = "admin"
    answers: list[object] = []
    own = server.answer

    def kept(request: httpx.Request) -> httpx.Response:
        answer = own(request)
        answers.append(json.loads(answer.content))
        return answer

    nightshift.transport = httpx.MockTransport(kept)
    ran = nightshift(*arguments, "--json")
    assert ran.err == ""
    assert json.loads(ran.out) in answers


def test_the_calendar_in_json_is_whole(nightshift: CommandLine) -> None:
    assert json.loads(nightshift("calendar", "--json").out) == CALENDAR


# The command line itself.


def all_commands() -> list[tuple[str, ...]]:
    """Return every command that speaks to a server or runs here, by its words."""
    found: list[tuple[str, ...]] = [(str(command.name),) for command in app.registered_commands]
    for group in app.registered_groups:
        assert group.typer_instance is not None
        found += [(str(group.name), str(command.name)) for command in group.typer_instance.registered_commands]
    return found


@pytest.mark.parametrize("words", all_commands(), ids=" ".join)
def test_every_command_has_help_with_an_example(nightshift: CommandLine, words: tuple[str, ...]) -> None:
    ran = nightshift(*words, "--help")
    assert ran.code == 0, ran.err
    assert "Usage: nightshift" in ran.out
    needs_example = words[0] not in ("up", "init", "api", "ticker", "worker", "demo", "rack")
    assert not needs_example or f"nightshift {' '.join(words)}" in ran.out.split("Example", 1)[-1]


def test_the_help_is_in_panels_of_one_line_each(nightshift: CommandLine) -> None:
    shown = nightshift("--help").out
    panels = [shown.index(f"─ {name} ─") for name in ("Reserve", "Look", "Admin", "Run the server", "Try it out")]
    assert panels == sorted(panels)


@pytest.mark.parametrize("arguments", [("foo",), ("ls", "extra"), ("host", "foo"), ("extend", "r-1"), ("--foo",)])
def test_wrong_use_gets_one_line_that_names_the_help(nightshift: CommandLine, arguments: tuple[str, ...]) -> None:
    ran = nightshift(*arguments)
    assert ran.code == EXIT_USAGE
    assert "--help`" in ran.one_line


def complete(words: str, environ: dict[str, str]) -> list[str]:
    """Return what bash would offer for a command line."""
    ran = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv[0] = 'nightshift'; from cli.main import main; main()"],
        env={
            "PATH": os.environ["PATH"], "PYTHONPATH": ":".join(sys.path), "_NIGHTSHIFT_COMPLETE": "complete_bash",
            "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1), **environ,
        },
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert ran.stderr == ""
    return ran.stdout.split()


def test_the_shell_completes_commands_and_is_silent_without_a_server(tmp_path: Path) -> None:
    assert complete("nightshift res", environment(tmp_path)) == ["reserve", "restart"]
    assert complete("nightshift show r-", environment(tmp_path, NIGHTSHIFT_SERVER="http://127.0.0.1:9")) == []


def test_the_shell_completes_the_ids_of_ones_reservations(server: FakeServer, tmp_path: Path) -> None:
    import typer

    from cli.client import Surroundings
    from cli.connecting import complete_reservation

    class Shell(typer.Context):
        """The context in which a shell asks."""

    surroundings = Surroundings(
        environ=environment(tmp_path, NIGHTSHIFT_SERVER=URL, NIGHTSHIFT_TOKEN=TOKEN), transport=server.transport()
    )
    context = Shell(typer.main.get_command(app), obj=surroundings)
    offered = complete_reservation(context, "r-1")
    assert [name for name, _ in offered] == ["r-17", "r-12", "r-18", "r-19"]
    server.first = [httpx.ConnectError("refused")]
    assert complete_reservation(context, "r-1") == []
    assert len(server.asked) == 2


def test_colours_are_for_terminals_only(nightshift: CommandLine) -> None:
    assert "\x1b" not in nightshift("ls").out + nightshift("calendar").out + nightshift("show", "r-17").out


def test_texts_of_the_server_are_shown_as_they_are_and_never_read_as_markup(
    nightshift: CommandLine, server: FakeServer
) -> None:
    odd = reservation(image="[red]x[/red]", owner="[bold]", next="[/] done")
    server.answers["GET /reservations/r-17"] = lambda request: httpx.Response(200, json=odd)
    shown = nightshift("show", "r-17").out
    assert "[red]x[/red]" in shown
    assert "[/] done" in shown


def test_a_reader_that_goes_away_is_no_trouble(tmp_path: Path) -> None:
    ran = subprocess.run(
        f"{sys.executable} -m cli.main --help | head -1",
        shell=True, capture_output=True, text=True, timeout=20, check=False,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    assert "Traceback" not in ran.stderr


def test_a_file_that_cannot_be_used_at_all_is_one_line_too(nightshift: CommandLine) -> None:
    ran = nightshift("rack", "log", "--data", "x" * 3000)
    assert ran.code == EXIT_USAGE
    assert "cannot be used: File name too long" in ran.one_line
