"""`nightshift host`: which hosts there are and how they do; adding, connecting and draining them."""

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from cli.client import Json, as_text, part
from cli.connecting import AsJson, Connection, tables, with_server
from cli.reservation_report import PHASE_STYLES, gpus_text, place_text
from cli.reserve import BadOption
from cli.times import Times, instant, instant_in
from scheduler.core.connect import connect_problem
from scheduler.core.facts import UNREACHABLE, TroubleKind

app = typer.Typer(name="host", help="List, add, connect and drain hosts; see how they do.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="HOST", help="The host's name.", show_default=False)]


@app.command("ls", epilog="Example:\n\n  nightshift host ls")
@with_server
def ls(connection: Connection, as_json: AsJson = False) -> None:
    """List the hosts: what runs, what is free, what is wrong."""
    answer = connection.client.get("/hosts")
    if as_json:
        print(as_text(answer))
        return
    hosts = list(answer["hosts"])
    if not hosts:
        print("There is no host yet; add one with `nightshift host add NAME --profile dgx-2`.")
        return
    shown = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("host", "profile", "GPUs busy", "free", "layout", "seen", "state"):
        shown.add_column(name, no_wrap=name != "state")
    times = connection.times(answer)
    for host in hosts:
        seen_at = instant_in(host, "seen_at")
        shown.add_row(
            Text(str(host["id"])),
            Text(str(host["profile"])),
            f"{host['gpus_running']} of {host['gpus']}",
            str(host["gpus_free"]),
            Text(_layout_text(host, times)),
            "never" if seen_at is None else times.distance(seen_at),
            Text(_state_text(host, times), style="red" if _is_troubled(host) else ""),
        )
    tables().print(shown)


@app.command("show", epilog="Example:\n\n  nightshift host show dgx2-a")
@with_server
def show(connection: Connection, name: Name, as_json: AsJson = False) -> None:
    """Show one host: its VMs, its window, GPUs with a problem, what Nightshift did not make."""
    answer = connection.client.get(f"/hosts/{part(name)}")
    if as_json:
        print(as_text(answer))
    else:
        _show(answer, connection.times())


@app.command(
    "add",
    epilog="Examples:\n\n  nightshift host add dgx2-b --profile dgx-2 --connect qemu+ssh://root@dgx2-b/system\n\n"
    "  nightshift host add simulated --profile dgx-2",
)
@with_server
def add(
    connection: Connection,
    name: Name,
    profile: Annotated[str, typer.Option(help="Its kind: dgx-2, generic or another profile.", show_default=False)],
    storage: Annotated[
        str | None,
        typer.Option(help="Which disks it reaches; hosts with the same label share them. Its name by default."),
    ] = None,
    connect: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            help="Its libvirt: qemu:///system, qemu+ssh://root@HOST/system, qemu+tls://HOST/system. Otherwise a"
            " simulated rack.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add a host; from now on it is planned for."""
    body = {"id": name, "profile": _named(profile), "storage": storage if storage is not None else name}
    if connect is not None:
        body["connect"] = _sound(connect, option="--connect")
    _tell(connection.client.post("/hosts", body), f"{name} is added.", as_json=as_json)


@app.command("connect", epilog="Example:\n\n  nightshift host connect dgx2-a qemu+tls://dgx2-a/system")
@with_server
def connect(
    connection: Connection,
    name: Name,
    uri: Annotated[
        str, typer.Argument(metavar="URI", help="Its libvirt, as for `host add --connect`.", show_default=False)
    ],
    as_json: AsJson = False,
) -> None:
    """Reach a host in another way; on another machine only while none of its VMs and disks are there."""
    answer = connection.client.post(f"/hosts/{part(name)}/connect", {"connect": _sound(uri, option="URI")})
    _tell(answer, f"{name} is reached by {uri} from now on.", as_json=as_json)


@app.command("drain", epilog="Example:\n\n  nightshift host drain dgx2-a")
@with_server
def drain(connection: Connection, name: Name, as_json: AsJson = False) -> None:
    """Let nothing new start on a host; what runs finishes, what is booked moves where it can."""
    answer = connection.client.post(f"/hosts/{part(name)}/drain")
    _tell(answer, f"{name} is drained: nothing new starts there.", as_json=as_json)


@app.command("undrain", epilog="Example:\n\n  nightshift host undrain dgx2-a")
@with_server
def undrain(connection: Connection, name: Name, as_json: AsJson = False) -> None:
    """Let a drained host take part again."""
    _tell(connection.client.post(f"/hosts/{part(name)}/undrain"), f"{name} takes part again.", as_json=as_json)


def _named(profile: str) -> str:
    """Return a profile's name; raises BadOption for a file: workers, ticker and API each find a profile by its name."""
    if "/" in profile or profile.endswith(".toml"):
        raise BadOption(
            f"--profile {profile!r} is a file, and the server knows profiles by name: put it beside the shipped ones,"
            ' as mine.toml with name = "mine" in it, wherever a worker, a ticker or the API runs; start them again,'
            " and write --profile mine. Where that is says docs/tuning.md, under Changing it"
        )
    return profile


def _sound(uri: str, *, option: str) -> str:
    """Return a URI that the server will take; raises BadOption before one that may hold a password is sent."""
    problem = connect_problem(uri)
    if problem is not None:
        raise BadOption(f"{option} cannot be used: {problem}")
    return uri


def _tell(answer: Json, said: str, *, as_json: bool) -> None:
    if as_json:
        print(as_text(answer))
        return
    print("It is being planned; see `nightshift host ls`." if "intent" in answer else said)
    stuck = [str(one) for one in answer.get("stuck") or []]
    if stuck:
        print(f"These stay booked there, since nowhere else has room: {', '.join(stuck)}")


def _show(host: Json, times: Times) -> None:
    out = tables()
    out.print(Text.assemble((str(host["id"]), "bold"), f"  {host['profile']}, storage {host['storage']}"))
    if host.get("connect"):
        print(f"Reached by {host['connect']}.")
    layout = _layout_text(host, times)
    said = f"{host['gpus_running']} of {host['gpus']} GPUs run, {host['gpus_free']} are free."
    print(f"{said} Layout {layout}." if layout else said)
    print(f"{_state_text(host, times)}")
    vms = list(host.get("vms") or [])
    if vms:
        shown = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for name in ("reservation", "owner", "GPUs", "phase", "up since", "start"):
            shown.add_column(name, no_wrap=True)
        for vm in vms:
            up_at = instant_in(vm, "running_at")
            phase = str(vm["phase"])
            shown.add_row(
                Text(str(vm.get("reservation") or "somebody's")),
                Text(str(vm.get("owner") or "")),
                gpus_text([int(gpu) for gpu in vm["gpus"]]),
                Text(phase, style=PHASE_STYLES.get(phase, "")),
                "" if up_at is None else times.show(up_at),
                str(vm.get("generation", "")),
            )
        out.print(shown)
    for problem in host.get("gpu_problems") or []:
        since = times.show(instant(problem["since_at"])) if problem.get("since_at") else "some time"
        out.print(Text(f"GPU {problem['gpu']}: {problem['state']} since {since}: {problem['problem']}", style="red"))
    for trouble in _troubles(host, TroubleKind.WRONG):
        out.print(Text(f"{trouble['problem']}\n→ {trouble['mend']}", style="red"))
    unverified = _troubles(host, TroubleKind.UNVERIFIED)
    if unverified:
        out.print(Text("cannot be checked from where the worker runs:", style="dim"))
    for trouble in unverified:
        out.print(Text(f"  {trouble['problem']} → {trouble['mend']}", style="dim"))
    for foreign in host.get("foreign") or []:
        place = place_text({"host": host["id"], "gpus": foreign.get("gpus") or []})
        out.print(Text(f"not ours, left alone: {foreign['name']} ({foreign['uuid']}) on {place}"))


def _troubles(host: Json, kind: TroubleKind) -> list[Json]:
    """Return the troubles of a kind; that it does not answer is said by its state."""
    troubles: list[Json] = list(host.get("troubles") or [])
    return [trouble for trouble in troubles if trouble["kind"] == kind.value and trouble["code"] != UNREACHABLE]


def _layout_text(host: Json, times: Times) -> str:
    """Write the layout that holds, and in a window until when it does."""
    window = host.get("window")
    if not isinstance(window, dict):
        return str(host.get("layout") or "")
    until_at = instant_in(window, "until_at")
    return str(window["layout"]) + ("" if until_at is None else f" until {times.show(until_at)}")


def _state_text(host: Json, times: Times) -> str:
    since_at = instant_in(host, "unreachable_since_at")
    problems = len(host.get("gpu_problems") or [])
    troubles = len(_troubles(host, TroubleKind.WRONG))
    parts = [
        "" if since_at is None else f"does not answer since {times.show(since_at)}: {host.get('problem') or 'unknown'}",
        str(host.get("problem") or "") if since_at is None else "",
        f"{problems} GPU{'' if problems == 1 else 's'} with a problem" if problems else "",
        f"{troubles} trouble{'' if troubles == 1 else 's'}" if troubles else "",
        "drained" if host.get("is_drained") else "",
    ]
    return "; ".join(part for part in parts if part) or "fine"


def _is_troubled(host: Json) -> bool:
    is_wrong = bool(host.get("gpu_problems") or _troubles(host, TroubleKind.WRONG))
    return is_wrong or bool(host.get("unreachable_since_at") or host.get("problem"))
