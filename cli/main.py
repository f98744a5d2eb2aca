"""The command `nightshift`: mounts its commands, and turns our own failures into one line and an exit code.

Holds no command of its own beyond `--version`. Heavy parts are imported by the command that needs them: the light
client starts fast and has no server parts.
"""

import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from cli import policy, rack, simulate
from cli.output import fail
from scheduler.core.errors import NightshiftError

app = typer.Typer(
    name="nightshift",
    help="One GPU server: many tenants by day, one supercomputer by night.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(policy.app, name="policy")
app.add_typer(rack.app, name="rack")
app.command("simulate")(simulate.simulate)


def _print_version(wanted: bool) -> None:
    if wanted:
        try:
            print(f"nightshift {version('nightshift')}")
        except PackageNotFoundError:
            print("nightshift (not installed)")
        raise typer.Exit


@app.callback()
def root(
    show_version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and end.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """One GPU server: many tenants by day, one supercomputer by night."""


def main() -> None:
    """Run a command; our own failures end in one line on stderr, never in a traceback."""
    try:
        app()
    except NightshiftError as error:
        sys.exit(fail(error))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output went away, as `| head` does.
        sys.stderr.close()
        sys.exit(141)


if __name__ == "__main__":
    main()
