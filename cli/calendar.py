"""`nightshift calendar`: GPUs down, time across; windows named, one's own reservations in colour, others' as taken."""

from datetime import datetime
from datetime import time as clock_time
from typing import Annotated

import typer
from rich.text import Text

from cli.client import Json, as_text
from cli.connecting import AsJson, Connection, with_server
from cli.gantt import Bar, Shade, draw
from cli.output import console
from cli.reserve import BadOption
from cli.times import Times, api_text, instant, instant_in, read_duration_s
from policies.occurrences import instant_of, local_of
from scheduler.core.spans import DAY_S, HOUR_S, Instant

EXAMPLES = (
    "Examples:\n\n  nightshift calendar\n\n  nightshift calendar --for 12h --host dgx2-a\n\n"
    '  nightshift calendar --from "fri 18:00" --for 3d'
)
BEFORE_S, LONGEST_S = 2 * HOUR_S, 14 * DAY_S
_NARROWEST = 40


def calendar(
    connection: Connection,
    host: Annotated[str | None, typer.Option(help="Only this host.", show_default=False)] = None,
    from_text: Annotated[
        str | None,
        typer.Option("--from", metavar="WHEN", help="Begin then; otherwise two hours ago.", show_default=False),
    ] = None,
    length: Annotated[str, typer.Option("--for", "-f", metavar="TIME", help="How long; at most 14d.")] = "2d",
    width: Annotated[
        int | None,
        typer.Option(help="Columns to draw in; otherwise the terminal's.", min=60, max=400, show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Draw the GPUs over time.

    What runs and what is booked, with the windows of the policy. Others' reservations are shown as taken.
    """
    length_s = read_duration_s(length, option="--for")
    if not HOUR_S <= length_s <= LONGEST_S:
        raise BadOption(f"--for {length!r} is out of range; draw 1h to 14d")
    times = connection.times()
    from_at = (
        times.now - BEFORE_S if from_text is None else times.read(from_text, option="--from", is_past_allowed=True)
    )
    from_at -= from_at % HOUR_S
    answer = connection.client.get("/calendar", from_at=api_text(from_at), until_at=api_text(from_at + length_s))
    if host is not None and host not in [str(one["id"]) for one in answer["hosts"]]:
        known = ", ".join(str(one["id"]) for one in answer["hosts"]) or "none"
        raise BadOption(f"--host {host!r} is not a host here; known hosts: {known}")
    if as_json:
        print(as_text(answer))
        return
    out = console(width=width)
    hosts = [one for one in answer["hosts"] if host is None or one["id"] == host]
    if not hosts:
        print("There is no host yet; an admin adds one with `nightshift host add`.")
        return
    times = connection.times(answer)
    for one in hosts:
        out.print(_heading(one, answer, times))
        out.print(_picture(one, answer, times, columns=out.width))
    out.print(_legend(answer))


def _heading(host: Json, answer: Json, times: Times) -> Text:
    zone = str(answer.get("zone") or times.zone.key)
    drained = "  drained: nothing new starts" if host.get("is_drained") else ""
    out_gpus = list(host.get("gpus_out") or [])
    lost = f"  out of the plan: GPU {', '.join(str(gpu) for gpu in out_gpus)}" if out_gpus else ""
    return Text.assemble(
        (str(host["id"]), "bold"), f"  {host['profile']}, {zone}, now {times.show(times.now)}", (drained + lost, "red")
    )


def _picture(host: Json, answer: Json, times: Times, *, columns: int) -> Text:
    labels = [f"GPU {gpu}" for gpu in range(int(host["gpus"]))]
    from_at, until_at = instant(answer["from_at"]), instant(answer["until_at"])
    shades = [
        shade
        for window in answer["windows"]
        if host["id"] in window["hosts"]
        for shade in _shades(window, from_at=from_at, until_at=until_at)
    ]
    return draw(
        _bars(str(host["id"]), list(answer["bookings"]), from_at=from_at, until_at=until_at),
        row_labels=labels,
        from_at=from_at,
        until_at=until_at,
        columns=max(_NARROWEST, columns - len(labels[-1]) - 1),
        show_hour=lambda at: _hour(at, times),
        shades=sorted(shades, key=lambda shade: shade.start_at),
        now=times.now,
        hours_from_at=_midnight(from_at, times),
    )


def _bars(host: str, bookings: list[Json], *, from_at: Instant, until_at: Instant) -> list[Bar]:
    """Return the bars: one's own and those that an admin sees in colours, one a reservation; others as taken."""
    colours: dict[str, int] = {}
    bars = []
    for booking in sorted(bookings, key=lambda b: (str(b["start_at"]), str(b["partition"]))):
        start_at, end_at = instant(booking["start_at"]), instant(booking["end_at"])
        if booking["host"] != host or end_at <= from_at or start_at >= until_at:
            continue
        name = booking.get("reservation")
        if name is not None:
            colours.setdefault(str(name), len(colours))
        bars.append(
            Bar(
                rows=frozenset(int(gpu) for gpu in booking["gpus"]),
                start_at=max(start_at, from_at),
                end_at=min(end_at, until_at),
                label="" if name is None else str(name),
                colour=None if name is None else colours[str(name)],
            )
        )
    return bars


def _shades(window: Json, *, from_at: Instant, until_at: Instant) -> list[Shade]:
    """Return a window's stretch, and the part of it that was given back."""
    start_at, end_at = instant(window["start_at"]), instant(window["end_at"])
    released_at = instant_in(window, "released_from_at")
    closed_until_at = end_at if released_at is None else max(start_at, min(released_at, end_at))
    stretches = ((start_at, closed_until_at, str(window["name"])), (closed_until_at, end_at, "released"))
    return [
        Shade(start_at=max(first, from_at), end_at=min(last, until_at), label=label)
        for first, last, label in stretches
        if max(first, from_at) < min(last, until_at)
    ]


def _midnight(at: Instant, times: Times) -> Instant:
    return instant_of(datetime.combine(local_of(at, times.zone).date(), clock_time()), times.zone)


def _hour(at: Instant, times: Times) -> str:
    return f"{datetime.fromtimestamp(at, times.zone):%a %H:%M}"


def _legend(answer: Json) -> Text:
    is_own = any(booking.get("reservation") for booking in answer["bookings"])
    is_other = any(booking.get("reservation") is None for booking in answer["bookings"])
    parts = [
        "[r-1···] a reservation" if is_own else "",
        "[····] taken by others" if is_other else "",
        f"─ {', '.join(sorted({str(window['name']) for window in answer['windows']}))}" if answer["windows"] else "",
        "│ now",
    ]
    return Text("   ".join(part for part in parts if part), style="dim")


def mount(app: typer.Typer, panel: str) -> None:
    """Add the command to the command line."""
    app.command("calendar", rich_help_panel=panel, epilog=EXAMPLES)(with_server(calendar))
