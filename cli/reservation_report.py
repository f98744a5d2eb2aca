"""Shows reservations to people: the promise in words, the table, one in full. Pure: answers of the API in, text out."""

from collections.abc import Sequence
from itertools import pairwise

from rich.box import ROUNDED
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from cli.client import Json, reasons_of
from cli.times import Times, hours_text, instant, instant_in
from policies.units import duration_text
from scheduler.core.spans import MINUTE_S, Instant

PHASE_STYLES = {
    "waiting": "magenta",
    "promised": "cyan",
    "starting": "yellow",
    "running": "bold green",
    "parking": "yellow",
    "parked": "blue",
    "resuming": "yellow",
    "stopping": "yellow",
    "ended": "dim",
    "cancelled": "dim",
    "refused": "red",
    "failed": "bold red",
}
FINAL_PHASES = frozenset({"ended", "cancelled", "refused", "failed"})


def promise_lines(reservation: Json, times: Times) -> list[str]:
    """Say what is promised, where it is booked, and what may happen on the way; the promise first."""
    lines = [f"{reservation['id']}: {_size(reservation)}. {promise_text(reservation, times)}"]
    spans = list(reservation.get("spans") or [])
    if spans:
        first = spans[0]
        lines.append(f"Booked on {place_text(first)} from {times.show(instant(first['start_at']))}.")
        lines.append(breaks_text(spans, times))
    return lines


def promise_text(answer: Json, times: Times) -> str:
    """Say the promise of a reservation or a quote in one sentence; of one that runs, since when it does."""
    promise = answer.get("promise")
    if not isinstance(promise, dict):
        return "Nothing is promised yet."
    start_by_at, end_by_at = instant(promise["start_by_at"]), instant(promise["end_by_at"])
    running_at = _running_at(answer)
    if running_at is not None:
        return f"Running since {times.show_near(running_at)}, all hours by {times.show(end_by_at)}."
    likely_at = instant_in(answer, "likely_start_at")
    likely = "" if likely_at is None else f"; likely {times.show(likely_at)}"
    return f"Running by {times.show_near(start_by_at)}, all hours by {times.show(end_by_at)}{likely}."


def _running_at(answer: Json) -> Instant | None:
    """Return since when the guest of one that runs is up."""
    vm = answer.get("vm")
    return instant_in(vm, "running_at") if answer.get("phase") == "running" and isinstance(vm, dict) else None


def _promise_fact(reservation: Json, times: Times) -> str:
    """Say the promise as a line of `show`; that its first part is kept where that is known."""
    promise = reservation.get("promise")
    if not isinstance(promise, dict):
        return ""
    said = promise_text(reservation, times).removesuffix(".")
    running_at, start_by_at = _running_at(reservation), instant(promise["start_by_at"])
    if running_at is None:
        return said
    said = f"{said[0].lower()}{said[1:]}"
    if running_at <= start_by_at:
        return f"kept: {said}"
    # Of a later start it is not known here when the first one was.
    is_first = int(reservation["vm"]["generation"]) == 1
    return f"late, it was to run by {times.show(start_by_at)}: {said}" if is_first else said


def breaks_text(spans: Sequence[Json], times: Times) -> str:
    """Say when it is parked and resumed; that it is not, if so."""
    breaks = [
        (instant(before["end_at"]), instant(after["start_at"]))
        for before, after in pairwise(spans)
        if instant(after["start_at"]) > instant(before["end_at"])
    ]
    if not breaks:
        return "Nothing is planned to interrupt it."
    shown = [f"parked at {times.show(end_at)}, resumed from {times.show(start_at)}" for end_at, start_at in breaks[:3]]
    more = f", and {len(breaks) - 3} times more" if len(breaks) > 3 else ""
    text = "; ".join(shown) + more
    return f"{text[0].upper()}{text[1:]}. Its disk is kept, and being parked uses up no hours."


def next_commands(reservation: Json) -> str:
    """Say what to type next."""
    name = reservation["id"]
    return f"Next: nightshift show {name} · nightshift why {name} · nightshift cancel {name}"


def place_text(span: Json) -> str:
    """Write host and GPUs: `dgx2-a, GPUs 0-1`."""
    gpus = [int(gpu) for gpu in span.get("gpus") or []]
    return f"{span['host']}, GPU{'' if len(gpus) == 1 else 's'} {gpus_text(gpus)}"


def gpus_text(gpus: Sequence[int]) -> str:
    """Write GPU indices shortly: `0-3,8-11`."""
    runs: list[list[int]] = []
    for gpu in sorted(gpus):
        if runs and gpu == runs[-1][1] + 1:
            runs[-1][1] = gpu
        else:
            runs.append([gpu, gpu])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs) or "-"


def when_text(reservation: Json, times: Times) -> str:
    """Say what comes next for one of the table."""
    spans = list(reservation.get("spans") or [])
    promise = reservation.get("promise") or {}
    start_by_at, end_by_at = instant_in(promise, "start_by_at"), instant_in(promise, "end_by_at")
    match reservation["phase"]:
        case "promised" | "starting" | "waiting" if start_by_at is not None:
            return f"runs by {times.show(start_by_at)}"
        case "running":
            ends = [instant(s["end_at"]) for s in spans if instant(s["start_at"]) <= times.now < instant(s["end_at"])]
            return f"until {times.show(ends[0])}" if ends else "running"
        case "parking" | "parked" | "resuming":
            starts = [instant(s["start_at"]) for s in spans if instant(s["end_at"]) > times.now]
            if starts:
                return f"resumes {times.show(max(starts[0], times.now))}"
            return "resumes" if end_by_at is None else f"done by {times.show(end_by_at)}"
        case "waiting":
            return "no place booked"
        case _:
            ended_at = instant_in(reservation, "ended_at")
            how = str(reservation.get("outcome") or reservation["phase"])
            if (reservation["phase"], how) == ("stopping", "stopped") and ended_at is not None:
                return f"since {times.show(ended_at)}"
            return how if ended_at is None else f"{how} {times.show(ended_at)}"


def table(reservations: Sequence[Json], times: Times, *, is_owner_shown: bool) -> Table:
    """Return the table of `ls`."""
    shown = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    shown.add_column("id", no_wrap=True)
    if is_owner_shown:
        shown.add_column("owner", no_wrap=True)
    shown.add_column("size", justify="right")
    shown.add_column("phase", no_wrap=True)
    shown.add_column("when", no_wrap=True)
    shown.add_column("host", no_wrap=True)
    shown.add_column("GPUs")
    shown.add_column("left", justify="right", no_wrap=True)
    for one in reservations:
        phase = str(one["phase"])
        owner = [Text(str(one["owner"]))] if is_owner_shown else []
        shown.add_row(
            Text(str(one["id"])),
            *owner,
            str(one["gpus"]),
            Text(phase, style=PHASE_STYLES.get(phase, "")),
            Text(when_text(one, times)),
            *(Text(text) for text in place_of(one, times)),
            "" if phase in FINAL_PHASES else _left_text(one),
            style="dim" if phase in FINAL_PHASES else "",
        )
    return shown


def place_of(reservation: Json, times: Times) -> tuple[str, str]:
    """Return host and GPUs where its VM is, or will be."""
    vm = reservation.get("vm")
    coming = [s for s in reservation.get("spans") or [] if instant(s["end_at"]) > times.now]
    place = vm if isinstance(vm, dict) else coming[0] if coming else None
    if place is None or reservation["phase"] in FINAL_PHASES:
        return "", ""
    return str(place["host"]), gpus_text([int(gpu) for gpu in place["gpus"]])


def _left_text(reservation: Json) -> str:
    """Write the hours that it still has to get, in whole minutes."""
    left_s = max(0, int(reservation["run_s"]) - int(reservation["delivered_s"]))
    return duration_text(-(-left_s // MINUTE_S) * MINUTE_S)


def panel(reservation: Json, times: Times) -> RenderableType:
    """Return one reservation in full."""
    phase = str(reservation["phase"])
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column()
    for name, value in _facts(reservation, times):
        facts.add_row(name, value)
    spans = list(reservation.get("spans") or [])
    parts: list[RenderableType] = [facts]
    if spans:
        parts += [Text(), _spans(spans, times)]
    title = Text.assemble((str(reservation["id"]), "bold"), "  ", (phase, PHASE_STYLES.get(phase, "")))
    return Panel(Group(*parts), title=title, title_align="left", box=ROUNDED, expand=False, padding=(0, 1))


def _facts(reservation: Json, times: Times) -> list[tuple[str, Text]]:
    said = times.in_text(str(reservation.get("next") or ""))
    run_s, delivered_s = int(reservation["run_s"]), int(reservation["delivered_s"])
    asked = [
        f"{word} {times.show(at)}"
        for word, at in (
            ("not before", instant_in(reservation, "not_before_at")),
            ("start by", instant_in(reservation, "asked_start_by_at")),
        )
        if at is not None
    ]
    lines = [
        ("next", said),
        ("owner", str(reservation["owner"])),
        ("size", f"{_size(reservation)}, queue {reservation['queue']}"),
        ("asked for", ", ".join(asked)),
        ("promise", _promise_fact(reservation, times)),
        ("had", f"{hours_text(delivered_s)} of {hours_text(run_s)}" if delivered_s else ""),
        ("at night", str(reservation.get("at_boundary") or "")),
        ("image", str(reservation.get("image") or "")),
        ("disk", _disk_text(reservation, times)),
        ("memory", f"{reservation['memory_gib']} GiB" if reservation.get("memory_gib") else ""),
        ("vCPUs", str(reservation.get("vcpus") or "")),
        ("VM", _vm_text(reservation, times)),
        ("continues", str(reservation.get("continues") or "")),
        ("by policy", str(reservation.get("by_policy") or "")),
        *(("because", times.in_text(str(why.get("sentence", "")))) for why in reasons_of(reservation)),
    ]
    return [(name, Text(value)) for name, value in lines if value]


def _spans(spans: Sequence[Json], times: Times) -> Table:
    shown = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("from", "until", "where", ""):
        shown.add_column(name, no_wrap=name != "where")
    previous_end_at: int | None = None
    for span in spans:
        start_at, end_at = instant(span["start_at"]), instant(span["end_at"])
        if previous_end_at is not None and start_at > previous_end_at:
            shown.add_row(
                times.show(previous_end_at), times.show(start_at), "parked, its disk is kept", "", style="blue"
            )
        state = "done" if end_at <= times.now else "now" if start_at <= times.now else ""
        shown.add_row(
            times.show(start_at),
            times.show(end_at),
            Text(place_text(span)),
            state,
            style="dim" if state == "done" else "",
        )
        previous_end_at = end_at
    return shown


def _size(reservation: Json) -> str:
    gpus = int(reservation["gpus"])
    return f"{gpus} GPU{'' if gpus == 1 else 's'} for {hours_text(int(reservation['run_s']))}"


def _disk_text(reservation: Json, times: Times) -> str:
    disk = reservation.get("disk")
    if not isinstance(disk, dict):
        return f"{reservation['disk_gib']} GiB" if reservation.get("disk_gib") else ""
    until_at = instant_in(disk, "kept_until_at")
    return f"{disk['size_gib']} GiB" + ("" if until_at is None else f", kept until {times.show_near(until_at)}")


def _vm_text(reservation: Json, times: Times) -> str:
    vm = reservation.get("vm")
    if not isinstance(vm, dict):
        return ""
    up_at = instant_in(vm, "running_at")
    since = "is not up yet" if up_at is None else f"up since {times.show(up_at)}"
    return f"{place_text(vm)}, {since}, start {vm['generation']}"
