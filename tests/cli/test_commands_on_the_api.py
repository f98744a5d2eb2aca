"""The commands on the real API: real planning, real converging, a simulated host, virtual time."""

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import httpx
import pytest

from scheduler.core.spans import MINUTE_S
from tests.api.bench import POLICY, Bench, opened
from tests.cli.command_line import CommandLine, environment
from tests.cli.fake_server import URL

_NUMBERS = count(1)
"""No two requests of any test have one key."""


class InProcessTransport(httpx.BaseTransport):
    """Hands requests to the application of a bench."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers.raw}
        target = request.url.raw_path.decode("ascii")
        answered = self._bench.connection.send(request.method, target, body=request.read(), headers=headers)
        return httpx.Response(answered.status, headers=dict(answered.headers), content=answered.body, request=request)


@pytest.fixture(scope="module")
def shared() -> Iterator[Bench]:
    """Return a bench for what changes nothing of what others look at."""
    with opened() as bench:
        yield bench


@pytest.fixture
def bench() -> Iterator[Bench]:
    with opened() as bench:
        yield bench


def command_line(bench: Bench, user: str, tmp_path: Path) -> CommandLine:
    """Return the command line of one of the bench's people; sleeping lets the product's time pass."""
    environ = environment(tmp_path, NIGHTSHIFT_SERVER=URL, NIGHTSHIFT_TOKEN=bench.secrets[user])
    keys = (f"{user}-{number}" for number in _NUMBERS)
    return CommandLine(transport=InProcessTransport(bench), environ=environ, slept_s=[], keys=keys)


@pytest.fixture
def ann(bench: Bench, tmp_path: Path) -> CommandLine:
    return command_line(bench, "ann", tmp_path)


@pytest.fixture
def root(bench: Bench, tmp_path: Path) -> CommandLine:
    return command_line(bench, "root", tmp_path)


def test_a_day_of_a_student(bench: Bench, ann: CommandLine) -> None:
    assert "It is Mon 08:00 there (Europe/Berlin)" in ann("whoami").out
    assert "reserve --gpus 1" in ann("free", "--for", "3h").out
    quoted = ann("quote", "--gpus", "2", "--for", "3h")
    assert quoted.out.startswith("2 GPUs for 3 h. It would be running by Mon 08:"), quoted.err
    reserved = ann("reserve", "--gpus", "2", "--for", "3h", "--json")
    assert reserved.code == 0, reserved.err
    name = json.loads(reserved.out)["id"]
    assert "runs by Mon 08:" in ann("ls").out
    assert f"{name} is " in ann("why", name).out
    bench.pass_time(15 * MINUTE_S)
    assert "running" in ann("show", name).out
    assert "nothing keeps it" in ann("why", name).out
    assert f"─ {name}" in ann("show", name.removeprefix("r-")).out
    extended = ann("extend", name, "--by", "1h")
    assert f"{name} now has 4 h." in extended.out, extended.err
    stopped = ann("stop", name)
    assert f"{name} is stopping" in stopped.out, stopped.err
    bench.pass_time(15 * MINUTE_S)
    assert "stopped Mon 08:" in ann("ls").out
    started = ann("start", name)
    assert started.code == 0, started.err
    assert "Running by Mon 08:" in started.out


def test_a_night_is_said_when_reserving_and_drawn_in_the_calendar(
    bench: Bench, ann: CommandLine, root: CommandLine
) -> None:
    reserved = ann("reserve", "--gpus", "2", "--for", "20h")
    assert "Parked at Mon 20:00, resumed from Tue 08:00." in reserved.out, reserved.err
    assert root("reserve", "--gpus", "16", "--for", "4h", "--owner", "climate").code == 0
    drawn = ann("calendar", "--width", "100").out
    assert "[night" in drawn
    assert "taken by others" in drawn
    assert "climate" not in drawn
    assert "climate" in root("ls").out


def test_at_a_time_that_is_taken_the_answer_names_the_earliest(ann: CommandLine) -> None:
    for _ in range(2):
        assert ann("reserve", "--gpus", "8", "--for", "6h").code == 0
    ran = ann("reserve", "--gpus", "8", "--for", "2h", "--start-by", "today 12:00")
    assert ran.code == 1
    assert "the earliest promise is" in ran.one_line


def test_waiting_watches_until_the_guest_runs(bench: Bench, ann: CommandLine) -> None:
    ann.sleep = lambda _: bench.pass_time(MINUTE_S)
    ran = ann("reserve", "--gpus", "1", "--for", "1h", "--wait")
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert lines[-1].endswith(" runs.")
    assert any(" starting, runs by Mon 08:" in line for line in lines)


def test_anothers_reservation_is_not_there_for_a_student(bench: Bench, ann: CommandLine, tmp_path: Path) -> None:
    name = bench.reserve(user="ben")["id"]
    for command in ("show", "why", "cancel", "stop", "restart", "start"):
        ran = ann(command, name)
        assert (ran.code, f"there is no reservation {name}" in ran.one_line) == (1, True), command
    assert ann("ls", "--owner", "ben").code == 1


def test_an_admin_looks_after_hosts_people_and_policies(
    bench: Bench, ann: CommandLine, root: CommandLine, tmp_path: Path
) -> None:
    assert "dgx2-a" in root("host", "ls").out
    assert "of 16 GPUs run" in root("host", "show", "dgx2-a").out
    added = root("host", "add", "dgx2-b", "--profile", "dgx-2")
    assert added.code == 0, added.err
    drained = root("host", "drain", "dgx2-b")
    assert "dgx2-b is drained" in drained.out, drained.err
    assert "drained" in root("host", "ls").out
    assert root("host", "undrain", "dgx2-b").code == 0
    assert root("host", "add", "dgx2-b", "--profile", "dgx-2").code == 1
    assert "nohost" in root("host", "drain", "nohost").one_line
    connected = root("host", "connect", "dgx2-b", "qemu+tls://dgx2-b/system")
    assert "dgx2-b is reached by qemu+tls://dgx2-b/system" in connected.out, connected.err
    assert "Reached by qemu+tls://dgx2-b/system." in root("host", "show", "dgx2-b").out
    assert "Reached" not in ann("host", "show", "dgx2-b").out

    assert root("user", "add", "ada").code == 0
    secret = root("user", "token", "ada", "--label", "laptop").out.strip()
    assert secret.startswith("ns_")
    (listed,) = json.loads(root("user", "tokens", "ada", "--json").out)["tokens"]
    ada = CommandLine(
        transport=ann.transport, environ=ann.environ | {"NIGHTSHIFT_TOKEN": secret}, slept_s=[], keys=ann.keys
    )
    assert "ada (student)" in ada("whoami").out
    assert root("user", "revoke", listed["id"]).code == 0
    assert ada("whoami").code == 2
    assert root("user", "disable", "ada").code == root("user", "enable", "ada").code == 0
    assert "1 to 32 of a-z" in root("user", "add", "Ada").one_line

    file = tmp_path / "p.yaml"
    file.write_text(POLICY.replace("open_reservations: 20", "open_reservations: 1"))
    applied = root("policy", "apply", str(file))
    assert applied.code == 0, applied.err
    assert "open_reservations: 1" in root("policy", "show").out
    assert "holds now" in root("policy", "history").out
    file.write_text(POLICY.replace("windows", "windos"))
    refused = root("policy", "apply", str(file))
    assert refused.code == 1
    assert f"{file}:" in refused.out
    assert ann("reserve", "--gpus", "1", "--for", "1h").code == 0
    over = ann("reserve", "--gpus", "1", "--for", "1h")
    assert (over.code, "ann would hold 2 of at most 1" in over.one_line) == (1, True)
    assert ann("policy", "apply", str(file)).code == 1
    assert "worker" in root("doctor").out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("reserve", "--gpus", "3", "--for", "1h"), 1, "3 GPUs cannot be given to one VM"),
        (("reserve", "--gpus", "0", "--for", "1h"), 2, "gpus '0'"),
        (("reserve", "--gpus", "99999999999999999999", "--for", "1h"), 2, ""),
        (("reserve", "--gpus", "1", "--for", "99999d"), 2, "run_s"),
        (("reserve", "--gpus", "1", "--for", "400d"), 1, "is out of range"),
        (("reserve", "--gpus", "1", "--for", "1h", "--queue", "fast"), 1, "'fast' is not in the policy"),
        (("reserve", "--gpus", "1", "--for", "1h", "--image", "windows"), 1, "'windows' is not in the policy"),
        (("reserve", "--gpus", "1", "--for", "1h", "--disk", "900TiB"), 1, "is out of range"),
        (("reserve", "--gpus", "1", "--for", "1h", "--at", "2030-01-01T00:00Z"), 1, "past the planning horizon"),
        (("reserve", "--gpus", "1", "--for", "1h", "--like", "r-999"), 1, "r-999"),
        (("reserve", "--gpus", "1", "--for", "1h", "--owner", "ben"), 1, "admin"),
        (("reserve", "--gpus", "1", "--for", "1h", "--image", "x" * 100), 2, "image"),
        (("ls", "--phase", "asleep"), 2, "phase"),
        (("host", "show", "x y"), 1, "there is no host x y"),
        (("policy", "show", "999"), 1, "there is no policy version 999"),
    ],
)
def test_what_the_server_refuses_is_one_line_with_the_value(
    shared: Bench, tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    ran = command_line(shared, "ann", tmp_path)(*arguments)
    assert ran.code == code, ran.err
    assert said in ran.one_line
    assert len(ran.one_line) < 400
