"""`nightshift policy simulate`: the policy that holds and a new one on the same demand, in simulated time.

Here are its options. What it does is in `policy_trial`, which is imported when it is done.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.connecting import Connection, with_server
from cli.recorded import Asks

_A_MONDAY = "2026-03-02"


def simulate(
    connection: Connection | None,
    new: Annotated[Path, typer.Argument(help="The new policy, YAML, or a directory of them.", show_default=False)],
    old: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="What it is compared with; the applied one if not given.", show_default=False
        ),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(metavar="F.csv[.gz]", help="Demand: submit_s,gpus,duration_s,user.", show_default=False),
    ] = None,
    since: Annotated[
        str, typer.Option("--history", metavar="30d", help="Demand without a trace: the server's of so long.")
    ] = "30d",
    hosts: Annotated[
        str | None,
        typer.Option(metavar="N|NAMES", help="So many hosts, or a,b,c; the server's if not given.", show_default=False),
    ] = None,
    profile: Annotated[str, typer.Option(metavar="NAME|FILE", help="The kind of those hosts.")] = "dgx-2",
    from_date: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="YYYY-MM-DD",
            help=f"The first day; of a trace {_A_MONDAY}, of a history its own if not given.",
            show_default=False,
        ),
    ] = "",
    days: Annotated[
        int | None, typer.Option(min=1, max=3_660, help="Only so many days of the demand.", show_default=False)
    ] = None,
    asks: Annotated[
        Asks, typer.Option(help="What a trace's people ask for: as long as they ran, or up to three times that.")
    ] = Asks.OVER,
    seed: Annotated[int, typer.Option(help="Other factors of what they ask for.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Also draw what is shown.", show_default=False)
    ] = None,
) -> None:
    """Try a policy beside the one that holds, in simulated time: waits, use, parkings, refusals. Changes nothing.

    Both have the same planner, the same hosts, which are free at first, and the same demand.
    """
    from cli.policy_trial import Trial, try_policy

    trial = Trial(
        new=new,
        old=old,
        trace=trace,
        since=since,
        hosts=hosts,
        profile=profile,
        from_date=from_date or (_A_MONDAY if trace is not None else ""),
        days=days,
        asks=asks,
        seed=seed,
        as_json=as_json,
        picture=picture,
    )
    try_policy(trial, connection)


def _local_first(on_server: Callable[..., None]) -> Callable[..., None]:
    """Ask no server where nothing is needed of one."""

    def command(ctx: typer.Context, *, server: str | None, token: str | None, insecure: bool, **given: Any) -> None:
        if all(given[name] is not None for name in ("old", "trace", "hosts")):
            simulate(None, **given)
        else:
            on_server(ctx, server=server, token=token, insecure=insecure, **given)

    command.__doc__ = on_server.__doc__
    command.__signature__ = inspect.signature(on_server)  # type: ignore[attr-defined]
    command.__annotations__ = on_server.__annotations__
    return command


def mount(app: typer.Typer) -> None:
    """Add the command to `nightshift policy`."""
    app.command(
        "simulate",
        epilog="Examples:\n\n  nightshift policy simulate university.yaml\n\n"
        "  nightshift policy simulate new.yaml --old university.yaml --trace jobs.csv --hosts 4\n\n"
        "  nightshift policy simulate new.yaml --history 14d --from 2026-12-14 --picture new.svg",
    )(_local_first(with_server(simulate)))
