"""Commands on one's reservations: ls, show, why, cancel, extend, stop, start, restart."""

from typing import Annotated

import typer
from rich.text import Text

from cli.client import Json, as_text, reasons_of
from cli.connecting import AsJson, Connection, complete_reservation, tables, with_server
from cli.output import console, say
from cli.reservation_report import FINAL_PHASES, panel, promise_text, table, when_text
from cli.reserve import reservation_path, tell_new
from cli.times import hours_text, read_duration_s
from cli.waiting import decided

NOTHING_RESERVED = "Nothing is reserved. Try `nightshift free`, then `nightshift reserve --gpus 1 --for 2h`."

Id = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="The reservation: r-17, or 17.", show_default=False, autocompletion=complete_reservation
    ),
]


def ls(
    connection: Connection,
    is_all: Annotated[bool, typer.Option("--all", "-a", help="Those that have ended, too.")] = False,
    owner: Annotated[str | None, typer.Option(help="Admins: those of one person.", show_default=False)] = None,
    phase: Annotated[
        str | None, typer.Option(help="Only those in this phase, as `running`.", show_default=False)
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, max=1000, help="At most so many.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """List your reservations.

    What runs, what waits, and until when; those that ended within a day too. What was refused is shown with --all.
    Admins see everybody's.
    """
    answer = connection.client.get("/reservations", all=is_all or None, owner=owner, phase=phase, limit=limit)
    if as_json:
        print(as_text(answer))
        return
    found = list(answer["reservations"])
    # Asks that came to nothing bury what is open; who names a phase wants to see it.
    is_refused_shown = is_all or phase is not None
    shown = [one for one in found if is_refused_shown or one["phase"] != "refused"]
    if shown:
        is_owner_shown = connection.is_admin or len({one["owner"] for one in shown}) > 1
        tables().print(table(shown, connection.times(answer), is_owner_shown=is_owner_shown))
    else:
        print(NOTHING_RESERVED)
    hidden = len(found) - len(shown)
    if hidden:
        count = "1 refused one is" if hidden == 1 else f"{hidden} refused ones are"
        tables().print(Text(f"{count} hidden; see {'it' if hidden == 1 else 'them'} with --all", style="dim"))


def show(connection: Connection, name: Id, as_json: AsJson = False) -> None:
    """Show one reservation in full.

    Its promise, its bookings with every parking, its VM and its disk.
    """
    answer = connection.client.get(reservation_path(name))
    if as_json:
        print(as_text(answer))
    else:
        console().print(panel(answer, connection.times()))


def why(connection: Connection, name: Id, as_json: AsJson = False) -> None:
    """Say what a reservation waits for, and until when.

    Which rule, which other reservation, which fault; and what would help.
    """
    path = reservation_path(name)
    answer = connection.client.get(f"{path}/why")
    if as_json:
        print(as_text(answer))
        return
    times = connection.times(answer)
    reasons = reasons_of(answer)
    phase = str(answer["phase"])
    wait_text = _wait_text(answer.get("wait"))
    if not reasons:
        say(f"{answer['id']} is {phase}; nothing keeps it.{f' {wait_text}' if wait_text else ''}")
        return
    say(f"{answer['id']} is {phase}{'' if phase in FINAL_PHASES else ', and this keeps it'}:")
    for reason in reasons:
        say(f"  - {times.in_text(str(reason.get('sentence', '')))}")
    if answer.get("promise") and phase not in FINAL_PHASES:
        promised = promise_text(answer, times)
        say(f"The promise holds: {promised[0].lower()}{promised[1:]}")
    if wait_text:
        say(wait_text)
    help_text = _what_helps({str(reason.get("code")) for reason in reasons}, str(answer["id"]))
    if help_text and phase not in FINAL_PHASES:
        say(f"What would help: {help_text}")


def _wait_text(wait: Json | None) -> str:
    """Say what one was told of its wait when it was asked for, beside what came of it."""
    if not wait or not wait["told_s"]:
        return ""
    told = (
        f"It was told a wait of at most {hours_text(int(wait['told_s']))}, likely {hours_text(int(wait['likely_s']))}"
    )
    waited_s = wait.get("waited_s")
    return f"{told}." if waited_s is None else f"{told}; it waited {hours_text(int(waited_s))}."


def cancel(connection: Connection, name: Id, as_json: AsJson = False) -> None:
    """Give a reservation up.

    One that runs is shut down with grace. Its disk is kept for a while: `nightshift start` goes on with it.
    """
    _act(connection, name, "cancel", {}, as_json=as_json)


def extend(
    connection: Connection,
    name: Id,
    by: Annotated[
        str, typer.Option("--by", "-b", metavar="TIME", help="How much longer: 1h, 90m.", show_default=False)
    ],
    as_json: AsJson = False,
) -> None:
    """Ask for more hours.

    If there is no room for them the answer is no, and the old promise holds.
    """
    _act(connection, name, "extend", {"by_s": read_duration_s(by, option="--by")}, as_json=as_json)


def stop(connection: Connection, name: Id, as_json: AsJson = False) -> None:
    """End a running reservation now, and keep its disk.

    `nightshift start` goes on with the disk, in a new reservation.
    """
    _act(connection, name, "stop", {}, as_json=as_json)


def restart(connection: Connection, name: Id, as_json: AsJson = False) -> None:
    """Start a guest again that shut itself down.

    It runs on in the time that it still has. Without a restart its reservation ends soon after it shut down.
    """
    _act(connection, name, "restart", {}, as_json=as_json)


def start(
    connection: Connection,
    name: Id,
    run_for: Annotated[
        str | None,
        typer.Option("--for", "-f", metavar="TIME", help="Hours; otherwise what was left.", show_default=False),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait and watch until the guest runs.")] = False,
    as_json: AsJson = False,
) -> None:
    """Go on with the disk of one that has ended.

    A new reservation of the same size, for the hours that were left.
    """
    body: Json = {} if run_for is None else {"run_s": read_duration_s(run_for, option="--for")}
    answer = connection.client.post(f"{reservation_path(name)}/start", body)
    tell_new(connection, answer, is_awaited=wait, as_json=as_json)


def _act(connection: Connection, name: str, action: str, body: Json, *, as_json: bool) -> None:
    answer = connection.client.post(f"{reservation_path(name)}/{action}", body)
    reservation = decided(connection, answer)
    if as_json:
        print(as_text(answer if reservation is None else reservation))
    elif reservation is None:
        say(f"{answer.get('reservation') or name} is still being planned; see `nightshift ls`")
    else:
        say(_outcome_text(connection, action, reservation))


def _outcome_text(connection: Connection, action: str, reservation: Json) -> str:
    times = connection.times()
    name, phase = reservation["id"], str(reservation["phase"])
    if action == "extend":
        return f"{name} now has {hours_text(int(reservation['run_s']))}. {promise_text(reservation, times)}"
    said = f"{name} is {phase}"
    when = when_text(reservation, times)
    glue = " " if when.startswith("since ") else ", "
    said += "." if when == phase or phase in FINAL_PHASES else f"{glue}{when}."
    disk = reservation.get("disk")
    if action in ("stop", "cancel") and isinstance(disk, dict):
        said += f" Its disk of {disk['size_gib']} GiB is kept; `nightshift start {name}` goes on with it."
    return said


def _what_helps(codes: set[str], name: str) -> str:
    """Say what its owner could do about the reasons."""
    if codes & {"wait.held_by", "wait.booked_later", "wait.window_end", "wait.hand_over"}:
        return "a smaller size or a shorter time may fit earlier, see `nightshift free`."
    if codes & {"wait.window", "request.never_fits"}:
        return "nothing before the window opens; `nightshift calendar` shows it."
    if codes & {"wait.disk"}:
        return "a smaller --disk."
    if any(code.startswith("fault.") or code == "host.drained" for code in codes):
        return f"nothing that you could do: your admin is told. `nightshift show {name}` has the booking."
    return ""


EXAMPLES = {
    "ls": "Examples:\n\n  nightshift ls\n\n  nightshift ls --all --json",
    "show": "Example:\n\n  nightshift show r-17",
    "why": "Example:\n\n  nightshift why r-17",
    "cancel": "Example:\n\n  nightshift cancel r-17",
    "extend": "Example:\n\n  nightshift extend r-17 --by 2h",
    "stop": "Example:\n\n  nightshift stop r-17",
    "start": "Examples:\n\n  nightshift start r-17\n\n  nightshift start r-17 --for 4h --wait",
    "restart": "Example:\n\n  nightshift restart r-17",
}


def mount(app: typer.Typer, *, acts: str, looks: str) -> None:
    """Add the commands to the command line, each in its panel."""
    for command in (
        with_server(extend),
        with_server(cancel),
        with_server(stop),
        with_server(start),
        with_server(restart),
    ):
        app.command(command.__name__, rich_help_panel=acts, epilog=EXAMPLES[command.__name__])(command)
    for command in (with_server(ls), with_server(show), with_server(why)):
        app.command(command.__name__, rich_help_panel=looks, epilog=EXAMPLES[command.__name__])(command)
