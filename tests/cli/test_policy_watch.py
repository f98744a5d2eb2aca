"""`nightshift policy watch` on the real API: what changes is applied, what is bad changes nothing and is told."""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import httpx
import pytest

from cli import policy_watch
from cli.output import EXIT_FAILED, EXIT_NO, EXIT_USAGE
from scheduler.core.spans import HOUR_S
from tests.api.bench import POLICY, Bench, opened
from tests.cli.command_line import CommandLine, Ran, environment
from tests.cli.fake_server import URL
from tests.cli.test_commands_on_the_api import InProcessTransport

LONGER = POLICY.replace("for: 12h", "for: 13h")
LATER = POLICY.replace('opens: "0 20 * * *", for: 12h', 'opens: "0 21 * * *", for: 11h')
NOON = POLICY.replace('opens: "0 20 * * *"', 'opens: "0 12 * * *"')
WRONG = POLICY.replace("zone: Europe/Berlin", "zone: Europe/Berln")


@pytest.fixture
def bench() -> Iterator[Bench]:
    with opened() as bench:
        yield bench


class Breaking(InProcessTransport):
    """A connection that is down now and then."""

    is_down = False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if self.is_down:
            raise httpx.ConnectError("refused", request=request)
        return super().handle_request(request)


class Watcher:
    """Somebody who watches a directory, to whom something happens at each look."""

    def __init__(self, bench: Bench, tmp_path: Path) -> None:
        self.directory = tmp_path / "policy.d"
        self.directory.mkdir()
        self.file = self.directory / "uni.yaml"
        self.transport = Breaking(bench)
        environ = environment(tmp_path, NIGHTSHIFT_SERVER=URL, NIGHTSHIFT_TOKEN=bench.secrets["root"])
        keys = (f"root-{number}" for number in count(1))
        self.line = CommandLine(transport=self.transport, environ=environ, slept_s=[], keys=keys)

    def write(self, text: str) -> None:
        self.file.write_text(text, encoding="utf-8")

    def run(self, *happenings: Callable[[], object]) -> Ran:
        """Watch, with one thing happening in each pause between looks; then press Ctrl-C."""
        coming = iter(happenings)

        def pause(seconds: float) -> None:
            if seconds == policy_watch.SETTLES_IN_S:
                return
            following = next(coming, None)
            if following is None:
                raise KeyboardInterrupt
            following()

        self.line.sleep = pause
        return self.line("policy", "watch", str(self.directory), "--every", "5")


@pytest.fixture
def watcher(bench: Bench, tmp_path: Path) -> Watcher:
    return Watcher(bench, tmp_path)


def texts(bench: Bench) -> list[str]:
    """Return the messages of the versions that were applied after the first, oldest first."""
    return [one["message"] for one in bench.get("/policies")["policies"][::-1]][1:]


def told(bench: Bench) -> list[tuple[str, str | None]]:
    """Return the events about watches."""
    return [
        (event.kind.removeprefix("policy.watch_"), dict(event.facts)["problem"])  # type: ignore[misc]
        for _, event in bench.home.store.events()
        if event.kind.startswith("policy.watch")
    ]


def check(bench: Bench) -> tuple[bool, str, str]:
    """Return what doctor says of the watch."""
    (found,) = [one for one in bench.get("/doctor", user="root")["checks"] if one["name"].startswith("watch:")]
    return found["ok"], found["detail"], found["remedy"]


def nothing() -> None:
    pass


def test_what_changes_is_applied_with_a_message_that_says_so(bench: Bench, watcher: Watcher) -> None:
    watcher.write(LONGER)
    ran = watcher.run(nothing, lambda: watcher.write(LATER), nothing)
    assert (ran.code, ran.err) == (0, "")
    said = [line.split(" ", 1)[1] for line in ran.out.splitlines()]
    assert said == [
        f"watching {watcher.directory} every 5 s",
        f"{watcher.directory} is applied as version 2",
        f"{watcher.directory} is applied as version 3",
        "no longer watched",
    ]
    assert texts(bench) == [f"watched: {watcher.directory}"] * 2
    assert "for: 11h" in bench.get("/policies/3")["text"]
    assert told(bench) == []


def test_a_bad_file_keeps_the_old_policy_and_is_told_everywhere(bench: Bench, watcher: Watcher) -> None:
    watcher.write(LONGER)
    seen: list[tuple[bool, str, str]] = []
    ran = watcher.run(
        lambda: watcher.write(WRONG),
        lambda: seen.append(check(bench)),
        nothing,
        lambda: watcher.write(LATER),
        lambda: seen.append(check(bench)),
    )
    assert ran.code == 0
    assert [line for line in ran.err.splitlines() if "uni.yaml:3:7: policy zone is not a zone" in line]
    assert "is not applied; what held before holds on" in ran.err
    (is_ok, detail, remedy), (is_ok_again, _, _) = seen
    assert (is_ok, is_ok_again) == (False, True)
    assert "not applied, version 2 holds on: " in detail
    assert "uni.yaml:3:7" in detail
    assert "correct the files" in remedy
    assert [kind for kind, _ in told(bench)] == ["failed", "recovered"]
    assert bench.get("/policies")["current"] == 3


def test_what_breaks_a_promise_is_not_applied_and_not_tried_again(bench: Bench, watcher: Watcher) -> None:
    bench.reserve(gpus=1, run_s=HOUR_S, at="2026-03-03T12:00:00Z", at_night="finish")
    watcher.write(NOON)
    filed = bench.filed
    ran = watcher.run(nothing, nothing, nothing)
    assert "would break the promise of r-" in ran.err
    assert (bench.get("/policies")["current"], bench.filed) == (1, filed + 1)
    assert [kind for kind, _ in told(bench)] == ["failed"]


def test_metrics_say_that_a_watch_fails(bench: Bench, watcher: Watcher) -> None:
    watcher.write(WRONG)
    found: list[str] = []
    watcher.run(lambda: found.append(bench.send("GET", "/metrics", user="root").body.decode()))
    (line,) = [line for line in found[0].splitlines() if "watch:" in line]
    assert line.startswith('nightshift_check_ok{check="watch:')
    assert line.endswith('policy.d"} 0')
    assert "nightshift_policy_version 1" in found[0].splitlines()


def test_what_holds_already_is_not_filed_and_a_second_start_applies_nothing(bench: Bench, watcher: Watcher) -> None:
    watcher.write(LONGER)
    watcher.run(nothing)
    filed = bench.filed
    ran = watcher.run(nothing)
    assert f"{watcher.directory} is what holds, version 2" in ran.out
    assert bench.filed == filed


def test_what_somebody_else_applied_since_stays_also_over_a_second_start(bench: Bench, watcher: Watcher) -> None:
    watcher.write(LONGER)
    watcher.run(lambda: bench.send("POST", "/policies/1/rollback", user="root"), nothing)
    assert bench.get("/policies")["current"] == 3
    ran = watcher.run(nothing)
    assert "was applied as version 2, and version 3 since then by root: that one is left" in ran.out
    assert bench.get("/policies")["current"] == 3
    watcher.run(lambda: watcher.write(LATER), nothing)
    assert bench.get("/policies")["current"] == 4


def test_a_file_that_is_being_written_is_waited_for(
    bench: Bench, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    half, rest = LONGER[: len(LONGER) // 2], iter([LONGER])
    watcher.write(half)

    def pause(seconds: float) -> None:
        if seconds != policy_watch.SETTLES_IN_S:
            raise KeyboardInterrupt
        for text in rest:
            watcher.write(text)
            return

    watcher.line.sleep = pause
    ran = watcher.line("policy", "watch", str(watcher.directory))
    assert (ran.code, ran.err) == (0, "")
    assert bench.get("/policies")["current"] == 2
    assert told(bench) == []


def test_a_server_that_is_away_is_tried_again_with_longer_pauses(bench: Bench, watcher: Watcher) -> None:
    watcher.write(LONGER)

    def go_down() -> None:
        watcher.transport.is_down = True
        watcher.write(LATER)

    def come_back() -> None:
        watcher.transport.is_down = False

    pauses: list[float] = []
    down = [nothing] * 12
    ran = watcher.run(go_down, *down, come_back, nothing)
    assert ran.code == 0
    assert ran.out.count("cannot reach") == 1
    assert "the server answers again" in ran.out
    assert bench.get("/policies")["current"] == 3
    pauses = [s for s in watcher.line.slept_s if s >= policy_watch.FIRST_PAUSE_S]
    assert max(pauses) <= policy_watch.LONGEST_PAUSE_S


def test_a_directory_that_is_gone_is_told_and_watched_on(bench: Bench, watcher: Watcher) -> None:
    watcher.write(LONGER)
    ran = watcher.run(watcher.file.unlink, nothing, lambda: watcher.write(LATER), nothing)
    assert "without a policy file" in ran.err
    assert [kind for kind, _ in told(bench)] == ["failed", "recovered"]
    assert bench.get("/policies")["current"] == 3


def test_one_look_ends_with_what_came_of_it(bench: Bench, watcher: Watcher) -> None:
    def look() -> Ran:
        return watcher.line("policy", "watch", str(watcher.directory), "--once")

    watcher.write(LONGER)
    assert (look().code, bench.get("/policies")["current"]) == (0, 2)
    assert (look().code, bench.get("/policies")["current"]) == (0, 2)
    watcher.write(WRONG)
    assert look().code == EXIT_NO
    assert look().code == EXIT_NO
    assert [kind for kind, _ in told(bench)] == ["failed"]
    assert check(bench)[0] is False
    watcher.transport.is_down = True
    away = look()
    assert (away.code, "cannot reach" in away.err) == (EXIT_FAILED, True)


def test_a_watch_that_died_is_missed_and_one_that_was_ended_is_not(
    bench: Bench, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher.write(LONGER)

    def die() -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        watcher.run(nothing, die)
    assert check(bench)[0]
    # Virtual time takes no machine time.
    monkeypatch.setattr("scheduler.service.doctor.UNWATCHED_AFTER_MACHINE_S", -1.0)
    is_ok, detail, remedy = check(bench)
    assert (is_ok, "no sign of life for 0 s" in detail) == (False, True)
    assert "is `nightshift policy watch` running?" in remedy
    watcher.run(nothing)
    assert not [one for one in bench.get("/doctor", user="root")["checks"] if one["name"].startswith("watch:")]


def test_mistakes_end_it_at_once_in_one_line(bench: Bench, watcher: Watcher, tmp_path: Path) -> None:
    missing = watcher.line("policy", "watch", str(tmp_path / "none"))
    assert (missing.code, "no such file" in missing.one_line) == (EXIT_USAGE, True)
    watcher.line.environ["NIGHTSHIFT_TOKEN"] = bench.secrets["ann"]
    student = watcher.line("policy", "watch", str(watcher.directory))
    assert (student.code, "only an admin" in student.one_line) == (EXIT_NO, True)
    assert watcher.line("policy", "watch", str(watcher.directory), "--override", "x").code == EXIT_USAGE
    assert bench.send("POST", "/policies/watches", {"name": "x"}).code == "rights.admin_only"
