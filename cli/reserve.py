"""`nightshift reserve` and `nightshift quote`: what is asked for, from options to a request of the API."""

import re
import shlex
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.client import Json, as_text, part, reasons_of
from cli.connecting import AsJson, Connection, complete_reservation, with_server
from cli.output import EXIT_NO, say
from cli.reservation_report import breaks_text, next_commands, place_text, promise_lines, promise_text
from cli.times import Times, api_text, hours_text, instant, read_duration_s
from cli.waiting import decided, until_running
from policies.units import duration_text, parse_size_gib
from scheduler.core.errors import NightshiftError

_LONGEST_KEY = 16 * 1024
_ID = re.compile(r"(?:r-)?(\d{1,15})", re.ASCII)
_PUBLIC_KEY = re.compile(
    r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp\d{3}|sk-ssh-ed25519@openssh\.com|sk-ecdsa-sha2-nistp256@openssh\.com)"
    r" [A-Za-z0-9+/]{32,}={0,3}( [^\r\n]*)?",
    re.ASCII,
)


class BadOption(NightshiftError):
    """An option that cannot be used as it is written."""

    code = "option.bad"


class AtNight(StrEnum):
    """What happens when the night comes."""

    PARK = "park"
    FINISH = "finish"
    KEEP = "keep"


Gpus = Annotated[int | None, typer.Option("--gpus", "-g", help="GPUs of the VM: 1, 2, 4, 8 …", show_default=False)]
For = Annotated[
    str | None,
    typer.Option("--for", "-f", metavar="TIME", help="Hours of running: 3h, 90m, 1h30m.", show_default=False),
]
At = Annotated[
    str | None,
    typer.Option(metavar="WHEN", help='Start then: "tomorrow 09:00", "fri 18:00", "in 2h".', show_default=False),
]
NotBefore = Annotated[str | None, typer.Option(metavar="WHEN", help="Start then or later.", show_default=False)]
StartBy = Annotated[
    str | None, typer.Option(metavar="WHEN", help="Start then or earlier, or not at all.", show_default=False)
]
Queue = Annotated[
    str | None, typer.Option(help="The queue; otherwise the first that has this size.", show_default=False)
]
AtNightOption = Annotated[
    AtNight | None,
    typer.Option(
        help="When a night comes: be parked and resumed, be done before, or be kept running where that is allowed.",
        show_default=False,
    ),
]
Image = Annotated[str | None, typer.Option(help="The image of the guest.", show_default=False)]
SshKey = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="A public key file (- reads it from stdin) that may log in.", show_default=False),
]
Disk = Annotated[str | None, typer.Option(metavar="SIZE", help="The disk: 200GiB, 1TiB.", show_default=False)]
Memory = Annotated[
    int | None,
    typer.Option(
        metavar="GIB", help="Memory of the VM in GiB; otherwise its partition's whole share.", show_default=False
    ),
]
Vcpus = Annotated[
    int | None,
    typer.Option(metavar="N", help="vCPUs of the VM; otherwise its partition's whole share.", show_default=False),
]
Like = Annotated[
    str | None,
    typer.Option(
        metavar="ID",
        help="Take over what is not said here from this one.",
        show_default=False,
        autocompletion=complete_reservation,
    ),
]
Continue = Annotated[
    str | None,
    typer.Option(
        "--continue",
        metavar="ID",
        help="Go on with the kept disk of one that has ended.",
        show_default=False,
        autocompletion=complete_reservation,
    ),
]
Owner = Annotated[str | None, typer.Option(help="Admins: for whom.", show_default=False)]


def reserve(
    connection: Connection,
    gpus: Gpus = None,
    run_for: For = None,
    at: At = None,
    not_before: NotBefore = None,
    start_by: StartBy = None,
    queue: Queue = None,
    at_night: AtNightOption = None,
    image: Image = None,
    ssh_key: SshKey = None,
    disk: Disk = None,
    memory: Memory = None,
    vcpus: Vcpus = None,
    like: Like = None,
    continues: Continue = None,
    owner: Owner = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait and watch until the guest runs.")] = False,
    as_json: AsJson = False,
) -> None:
    """Reserve GPUs, and be promised when they run.

    The answer is a promise: running by then, all hours delivered by then. It never slips because of what others do.
    """
    body = _body(
        connection,
        gpus=gpus,
        run_for=run_for,
        at=at,
        not_before=not_before,
        start_by=start_by,
        queue=queue,
        at_night=at_night,
        image=image,
        ssh_key=ssh_key,
        disk=disk,
        memory=memory,
        vcpus=vcpus,
        like=like,
        continues=continues,
        owner=owner,
    )
    tell_new(connection, connection.client.post("/reservations", body), is_awaited=wait, as_json=as_json)


def quote(
    connection: Connection,
    gpus: Gpus = None,
    run_for: For = None,
    at: At = None,
    not_before: NotBefore = None,
    start_by: StartBy = None,
    queue: Queue = None,
    at_night: AtNightOption = None,
    image: Image = None,
    disk: Disk = None,
    memory: Memory = None,
    vcpus: Vcpus = None,
    like: Like = None,
    continues: Continue = None,
    owner: Owner = None,
    as_json: AsJson = False,
) -> None:
    """Say what `reserve` would promise; reserves nothing."""
    body = _body(
        connection,
        gpus=gpus,
        run_for=run_for,
        at=at,
        not_before=not_before,
        start_by=start_by,
        queue=queue,
        at_night=at_night,
        image=image,
        ssh_key=None,
        disk=disk,
        memory=memory,
        vcpus=vcpus,
        like=like,
        continues=continues,
        owner=owner,
    )
    answer = connection.client.post("/quotes", body)
    is_promised = answer.get("promise") is not None
    if as_json:
        print(as_text(answer))
    else:
        times = connection.times()
        size = "" if gpus is None else f"{gpus} GPU{'' if gpus == 1 else 's'}"
        length = "" if "run_s" not in body else f" for {hours_text(body['run_s'])}"
        if is_promised:
            promised = promise_text(answer, times)
            say(f"{f'{size}{length}. ' if size else ''}It would be {promised[0].lower()}{promised[1:]}")
        else:
            say("No promise can be given.")
        for reason in reasons_of(answer):
            say(f"- {times.in_text(str(reason.get('sentence', '')))}")
        spans = list(answer.get("spans") or [])
        if spans:
            first = spans[0]
            say(f"Booked it would be on {place_text(first)} from {times.show(instant(first['start_at']))}.")
            say(breaks_text(spans, times))
        others = list(answer.get("alternatives") or [])
        if others:
            say("Sooner it would be with:" if is_promised else "What can be had instead:")
            for line in _alternatives(others, times):
                say(line)
    if not is_promised:
        raise typer.Exit(EXIT_NO)


def _alternatives(others: list[Json], times: Times) -> list[str]:
    """Say each alternative with the command that reserves it."""
    lines = []
    for other in others:
        ask, promise = other["ask"], other["promise"]
        size = f"{ask['gpus']} GPU{'' if ask['gpus'] == 1 else 's'} for {hours_text(int(ask['run_s']))}"
        going_on = ", on other GPUs once parked" if other["change"] == "split" else ""
        lines.append(f"- {size}, running by {times.show(instant(promise['start_by_at']))}{going_on}")
        lines.append(f"  {shlex.join(_command(ask))}")
    return lines


def _command(ask: Json) -> list[str]:
    """Return the command line that reserves what an alternative asks for."""
    words = ["nightshift", "reserve", "--gpus", str(ask["gpus"]), "--for", duration_text(int(ask["run_s"]))]
    options = (
        ("queue", "--queue"),
        ("at", "--at"),
        ("not_before_at", "--not-before"),
        ("start_by_at", "--start-by"),
        ("at_night", "--at-night"),
        ("image", "--image"),
        ("memory_gib", "--memory"),
        ("vcpus", "--vcpus"),
        ("continues", "--continue"),
    )
    for name, option in options:
        if name in ask:
            words += [option, str(ask[name])]
    if "disk_gib" in ask:
        words += ["--disk", f"{ask['disk_gib']}GiB"]
    return words


def tell_new(connection: Connection, answer: Json, *, is_awaited: bool, as_json: bool) -> None:
    """Say what was promised for a new reservation, and wait for it if asked to."""
    reservation = decided(connection, answer)
    if reservation is None:
        print(as_text(answer)) if as_json else print(
            f"{answer.get('reservation')} is still being planned; see `nightshift show {answer.get('reservation')}`"
        )
        return
    if as_json:
        print(as_text(reservation))
    else:
        for line in promise_lines(reservation, connection.times(reservation)):
            say(line)
        if not is_awaited:
            say(next_commands(reservation))
    if is_awaited:
        code = until_running(connection, reservation, is_quiet=as_json)
        if code:
            raise typer.Exit(code)


def reservation_path(text: str) -> str:
    """Return the API's path of a reservation that a person named, `17` for `r-17`; raises BadOption."""
    return f"/reservations/{part(reservation_id(text, option='ID'))}"


def reservation_id(text: str, *, option: str) -> str:
    """Return a reservation's id as the server writes it; raises BadOption."""
    match = _ID.fullmatch(text.strip().lower())
    if match is None:
        raise BadOption(f"{option} {text!r} is not a reservation; ids look like r-17, and `nightshift ls` lists yours")
    return f"r-{int(match[1])}"


def public_key(source: str, read_stdin: Callable[[], str]) -> str:
    """Return the one public key in a file; raises BadOption, loudly where the file is a private key."""
    if source == "-":
        text = read_stdin()
    else:
        path = Path(source).expanduser()
        try:
            with path.open("rb") as file:
                content = file.read(_LONGEST_KEY + 1)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise BadOption(
                f"--ssh-key {source} cannot be read: {reason}; name a file like ~/.ssh/id_ed25519.pub"
            ) from None
        text = content.decode("utf-8", errors="replace")
    if "PRIVATE KEY" in text or "PuTTY-User-Key-File" in text:
        raise BadOption(
            f"--ssh-key {source} IS A PRIVATE KEY and was not sent: never give it to anybody; name the public one,"
            f" {'which ends in .pub' if source == '-' else source + '.pub'}"
        )
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if len(text) > _LONGEST_KEY or len(lines) != 1 or _PUBLIC_KEY.fullmatch(lines[0]) is None:
        raise BadOption(
            f"--ssh-key {source} does not hold one public key; it is one line like `ssh-ed25519 AAAA… you@laptop`"
        )
    return lines[0]


def _body(
    connection: Connection,
    *,
    gpus: int | None,
    run_for: str | None,
    at: str | None,
    not_before: str | None,
    start_by: str | None,
    queue: str | None,
    at_night: AtNight | None,
    image: str | None,
    ssh_key: str | None,
    disk: str | None,
    memory: int | None,
    vcpus: int | None,
    like: str | None,
    continues: str | None,
    owner: str | None,
) -> Json:
    """Put what was said together; what was not said is left to the server."""
    body: Json = {
        "gpus": gpus,
        "run_s": None if run_for is None else read_duration_s(run_for, option="--for"),
        "queue": queue,
        "at_night": None if at_night is None else at_night.value,
        "image": image,
        "disk_gib": None if disk is None else _disk_gib(disk),
        "memory_gib": memory,
        "vcpus": vcpus,
        "ssh_key": None if ssh_key is None else public_key(ssh_key, sys.stdin.read),
        "like": None if like is None else reservation_id(like, option="--like"),
        "continues": None if continues is None else reservation_id(continues, option="--continue"),
        "owner": owner,
    }
    if (gpus is None or run_for is None) and like is None:
        if continues is None:
            option, example = ("--gpus", "--gpus 2") if gpus is None else ("--for", "--for 3h")
            raise BadOption(f"{option} is missing; say it like `{example}`, or take it over with --like ID")
        body["like"] = body["continues"]
    if at is not None and (not_before is not None or start_by is not None):
        raise BadOption(
            "--at names one start, --not-before and --start-by a stretch for it; give the one or the others"
        )
    for name, option, text in (
        ("at", "--at", at),
        ("not_before_at", "--not-before", not_before),
        ("start_by_at", "--start-by", start_by),
    ):
        if text is not None:
            body[name] = api_text(connection.times().read(text, option=option))
    return {name: value for name, value in body.items() if value is not None}


def _disk_gib(text: str) -> int:
    size = parse_size_gib(text.strip())
    if size is None or size == 0:
        raise BadOption(f"--disk {text!r} is not a size; write it like 200GiB or 1TiB")
    return size


RESERVE_EXAMPLES = """Examples:

  nightshift reserve --gpus 2 --for 3h

  nightshift reserve --gpus 8 --for 6h --at "tomorrow 09:00" --wait

  nightshift reserve --gpus 1 --for 12h --at-night finish --ssh-key ~/.ssh/id_ed25519.pub

  nightshift reserve --like r-17 --for 1h

  nightshift reserve --continue r-17 --for 2h"""

QUOTE_EXAMPLES = """Examples:

  nightshift quote --gpus 4 --for 3h

  nightshift quote --gpus 16 --for 6h --start-by "fri 22:00" """


def mount(app: typer.Typer, panel: str) -> None:
    """Add the commands to the command line."""
    app.command("reserve", rich_help_panel=panel, epilog=RESERVE_EXAMPLES)(with_server(reserve))
    app.command("quote", rich_help_panel=panel, epilog=QUOTE_EXAMPLES)(with_server(quote))
