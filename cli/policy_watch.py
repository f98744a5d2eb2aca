"""`nightshift policy watch`: applies policy files as they change. What cannot be applied changes nothing, and is said.

Files are looked at every few seconds, by what they hold: that finds every change on every file system, also on NFS and
where a directory is swapped by a link, and needs no library. What was just changed is waited for until it is whole.

What was applied is asked of the server, nothing is kept here: a watch that is started again applies nothing twice.
"""

import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from cli.client import Json, Problem, ServerAway, reasons_of
from cli.connecting import Connection, with_server
from cli.output import EXIT_NO, EXIT_USAGE, complain
from cli.policy_problems import line_in
from cli.policy_server import current_policy
from cli.waiting import decided_intent
from policies.files import PolicyText, Unreadable, read_policy
from scheduler.core.errors import NightshiftError

SETTLES_IN_S = 1.0
"""Files that did not change for so long are whole."""
MOST_LOOKS = 30
"""So often a look is repeated while files keep changing."""
SIGN_OF_LIFE_EVERY_S = 60.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
"""Before another try at a server that is away: twice as long each time."""
MOST_VERSIONS = 500
_MOST_CHARACTERS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """What became of what files hold."""

    problem: str | None
    """Why it is not applied; None: it is, or it was."""
    said: str
    """For the terminal."""
    lines: tuple[str, ...] = ()
    """All that is wrong, a line each."""


@dataclass(slots=True)
class _Watch:
    """One path that is watched."""

    connection: Connection
    path: Path
    seen: PolicyText | Unreadable | None = None
    """What was tried last."""
    told: str | None = None
    """The trouble that the server was told last; empty: none."""
    told_at_s: float = 0.0
    waited_s: float = field(default=0.0)
    """By our own count, as far as we slept."""

    @property
    def name(self) -> str:
        return f"{socket.gethostname()}:{self.path.absolute()}"[:300]

    @property
    def message(self) -> str:
        return f"watched: {self.path.absolute()}"[:500]

    def sleep(self, seconds: float) -> None:
        self.connection.surroundings.sleep(seconds)
        self.waited_s += seconds

    def read_whole(self) -> PolicyText | Unreadable:
        """Read files until they hold the same twice: nobody is writing them any more."""
        read = read_policy(self.path)
        for _ in range(MOST_LOOKS):
            if read == self.seen:
                return read
            self.sleep(SETTLES_IN_S)
            again = read_policy(self.path)
            if again == read:
                return read
            read = again
        return Unreadable(path=self.path, what="its files keep changing; the next look is at what they hold then")


def watch(
    connection: Connection,
    path: Annotated[
        Path, typer.Argument(metavar="DIR|FILE", help="The policy file, or the directory of them.", show_default=False)
    ],
    every: Annotated[float, typer.Option(min=0.5, max=3600, metavar="SECONDS", help="How often to look.")] = 2.0,
    once: Annotated[
        bool, typer.Option("--once", help="Look once and end: 0 if it holds now, 1 if it cannot be applied.")
    ] = False,
) -> None:
    """Apply a policy whenever its files change. A bad one changes nothing: the last good one holds on.

    Only changes are applied: what somebody else applies meanwhile stays. It never breaks a promise. Ctrl-C ends it.
    """
    if not once and not path.exists():
        complain(f"{path}: there is no such file or directory")
        raise typer.Exit(EXIT_USAGE)
    watched = _Watch(connection=connection, path=path)
    if once:
        _require_admin(connection)
        outcome = _look(watched)
        if outcome is not None:
            _say(watched, outcome)
            _tell(watched, outcome.problem, state="once")
        raise typer.Exit(EXIT_NO if outcome is not None and outcome.problem is not None else 0)
    with _ended_by_signals():
        try:
            _go_on(watched, every_s=every)
        except KeyboardInterrupt:
            with suppress(NightshiftError):
                _tell(watched, watched.told or None, state="ended")
            _log("no longer watched")


def _go_on(watched: _Watch, *, every_s: float) -> None:
    pause_s = FIRST_PAUSE_S
    is_away = is_begun = False
    while True:
        try:
            if not is_begun:
                _require_admin(watched.connection)
                _log(f"watching {watched.path} every {every_s:g} s")
                is_begun = True
            outcome = _look(watched)
            if outcome is not None:
                _say(watched, outcome)
                watched.told = outcome.problem or ""
                _tell(watched, outcome.problem)
            elif watched.waited_s >= watched.told_at_s + SIGN_OF_LIFE_EVERY_S:
                _tell(watched, watched.told or None)
        except NightshiftError as error:
            if not error.retryable:
                raise
            if not is_away:
                _log(f"{error.message}; trying again")
            is_away = True
            watched.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            continue
        if is_away:
            _log("the server answers again")
        is_away, pause_s = False, FIRST_PAUSE_S
        watched.sleep(every_s)


def _require_admin(connection: Connection) -> None:
    if not connection.is_admin:
        complain("only an admin may apply policies; ask one for a token")
        raise typer.Exit(EXIT_NO)


def _look(watched: _Watch) -> _Outcome | None:
    """Try what the files hold if it is not what was tried last; return what became of it."""
    read = watched.read_whole()
    if read == watched.seen:
        return None
    outcome = _unreadable(read) if isinstance(read, Unreadable) else _try(watched, read)
    # Only now: what a server that was away did not take is tried again.
    watched.seen = read
    return outcome


def _unreadable(read: Unreadable) -> _Outcome:
    said = f"{read.path}: {read.what}"
    return _Outcome(problem=said, said=said)


def _try(watched: _Watch, read: PolicyText) -> _Outcome:
    client = watched.connection.client
    current = current_policy(watched.connection)
    if current is not None and _is_same(current, read):
        return _Outcome(problem=None, said=f"{watched.path} is what holds, version {current['version']}")
    earlier = _applied_before(watched, read)
    if earlier is not None:
        assert current is not None
        return _Outcome(
            problem=None,
            said=f"{watched.path} was applied as version {earlier}, and version {current['version']} since then by"
            f" {current['author']}: that one is left; change a file, or nightshift policy apply {watched.path}",
        )
    try:
        body = {"text": read.text, "source": read.name, "message": watched.message}
        answer = decided_intent(watched.connection, client.post("/policies", body))
    except Problem as problem:
        if problem.retryable or problem.status not in (409, 422):
            raise
        return _refused(watched, problem)
    version = answer.get("version")
    if version is None and answer.get("status") != "accepted":
        raise ServerAway(f"{client.address.url} has not decided on it yet; is planning well? see `nightshift doctor`")
    return _Outcome(
        problem=None,
        said=f"{watched.path} is applied{'' if version is None else f' as version {version}'}",
        lines=_lines(answer, watched.path),
    )


def _refused(watched: _Watch, problem: Problem) -> _Outcome:
    lines = _lines(problem.document, watched.path)
    reasons = tuple(str(reason.get("sentence", "")) for reason in reasons_of(problem.document))
    found = lines or reasons or (problem.message,)
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return _Outcome(problem=f"{found[0][:_MOST_CHARACTERS]}{more}", said=f"{watched.path} is not applied", lines=found)


def _lines(document: Json, path: Path) -> tuple[str, ...]:
    found = document.get("problems")
    return tuple(line_in(one, path) for one in found) if isinstance(found, list) else ()


def _is_same(version: Json, read: PolicyText) -> bool:
    return (version["text"], version["source"]) == (read.text, read.name)


def _applied_before(watched: _Watch, read: PolicyText) -> int | None:
    """Return the version as which this very text was applied by this watch last, if it was the last it applied."""
    listed = watched.connection.client.get("/policies", limit=MOST_VERSIONS)["policies"]
    last = next((one for one in listed if one["message"] == watched.message), None)
    if last is None:
        return None
    version = int(last["version"])
    return version if _is_same(watched.connection.client.get(f"/policies/{version}"), read) else None


def _say(watched: _Watch, outcome: _Outcome) -> None:
    if outcome.problem is None:
        for line in outcome.lines:
            print(line)
        _log(outcome.said)
        return
    for line in outcome.lines:
        complain(line)
    complain(f"{_now()} {outcome.said}; what held before holds on")


def _tell(watched: _Watch, problem: str | None, *, state: str = "watching") -> None:
    """Tell the server how it is: `nightshift doctor` shows it, and an event if it is another trouble than before."""
    body = {"name": watched.name, "state": state, "problem": problem}
    watched.connection.client.post("/policies/watches", body)
    watched.told_at_s = watched.waited_s


def _log(text: str) -> None:
    print(f"{_now()} {text}", flush=True)


def _now() -> str:
    return time.strftime("%H:%M:%S")


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """End on SIGTERM as on Ctrl-C."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before: Any = None
    with suppress(ValueError):
        # In another thread than the first there are no signals.
        before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def mount(app: typer.Typer) -> None:
    """Add the command to `nightshift policy`."""
    app.command(
        "watch",
        epilog="Examples:\n\n  nightshift policy watch /etc/nightshift/policy.d\n\n"
        "  nightshift policy watch university.yaml --once",
    )(with_server(watch))
