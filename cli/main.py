"""The command `nightshift`: mounts its commands, and turns our own failures into one line and an exit code.

Holds no command of its own beyond `--version`. Heavy parts are imported by the command that needs them: the light
client starts fast and has no server parts.
"""

import sys
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from cli import (
    applied_policies,
    calendar,
    doctor,
    free,
    hosts,
    login,
    policy,
    rack,
    reservations,
    reserve,
    server_commands,
    simulate,
    users,
)
from cli.client import Surroundings
from cli.output import EXIT_USAGE, complain, fail
from cli.waiting import INTERRUPTED
from scheduler.core.errors import NightshiftError

RESERVE, LOOK, ADMIN, RUN, TRY = "Reserve", "Look", "Admin", "Run the server", "Try it out"
"""The panels of the help."""

EPILOG = """A first day:  nightshift login URL · nightshift free · nightshift reserve --gpus 2 --for 3h --wait

On your own machine:  nightshift up, in another terminal nightshift free"""

_LONGEST_NAME = 200
_CLEARER = (
    ("Input should be a valid integer, unable to parse string as an integer", "write a whole number"),
    ("Input should be", "it should be"),
    ("Value error, ", ""),
)
"""What Typer says, and what it means."""

app = typer.Typer(
    name="nightshift",
    help="One GPU server: many tenants by day, one supercomputer by night.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
reserve.mount(app, RESERVE)
reservations.mount(app, acts=RESERVE, looks=LOOK)
free.mount(app, LOOK)
calendar.mount(app, LOOK)
login.mount(app, acts=RESERVE, looks=LOOK)
doctor.mount(app, ADMIN)
applied_policies.mount(policy.app)
app.add_typer(hosts.app, name="host", rich_help_panel=ADMIN)
app.add_typer(policy.app, name="policy", rich_help_panel=ADMIN)
app.add_typer(users.app, name="user", rich_help_panel=ADMIN)
server_commands.mount(app, server_commands.RUN, RUN)
server_commands.mount(app, server_commands.TRY, TRY)
app.command("simulate", rich_help_panel=TRY)(simulate.simulate)
app.add_typer(rack.app, name="rack", rich_help_panel=TRY)


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


def run(arguments: Sequence[str] | None = None, *, surroundings: Surroundings | None = None) -> int:
    """Run one command line and return its exit code; what fails ends in one line on stderr, never in a traceback."""
    try:
        ended = _parser()(arguments, prog_name="nightshift", standalone_mode=False, obj=surroundings)
    except NightshiftError as error:
        return fail(error)
    except BrokenPipeError:
        raise
    except OSError as error:
        # A file, a directory or a terminal that cannot be used: what is wrong with it, not where in our code.
        named = f"{str(error.filename)[:_LONGEST_NAME]!r}" if error.filename else "input or output"
        complain(f"{named} cannot be used: {error.strerror or error}; name another, or see to its rights and room")
        return EXIT_USAGE
    except typer.Abort:
        complain("stopped; nothing was changed")
        return INTERRUPTED
    except Exception as error:
        return _wrong_use(error, sys.argv[1:] if arguments is None else arguments)
    return ended if isinstance(ended, int) else 0


@cache
def _parser() -> Callable[..., object]:
    """Return what reads command lines; made once, which takes longer than most commands do."""
    return typer.main.get_command(app)


def main() -> None:
    """Run the command line that the process was called with."""
    try:
        sys.exit(run())
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output went away, as `| head` does.
        sys.stderr.close()
        sys.exit(141)


def _wrong_use(error: Exception, arguments: Sequence[str]) -> int:
    """Say in one line how a command line is wrong; raises what is not about the command line."""
    # Typer shows the base class of its usage errors under no name of its own that all its versions share.
    say, context = getattr(error, "format_message", None), getattr(error, "ctx", None)
    if say is None:
        raise error
    if context is not None and type(error).__name__ == "NoArgsIsHelpError":
        print(context.get_help())
        return EXIT_USAGE
    path = "nightshift" if context is None else context.command_path
    said = str(say()).strip().rstrip(".")
    for theirs, ours in _CLEARER:
        said = said.replace(theirs, ours)
    value = _value_of(getattr(error, "param", None), arguments)
    if value is not None and said.startswith("Invalid value for"):
        said = said.replace("Invalid value for", f"Invalid value {value!r} for", 1)
    complain(f"{said}; see `{path} --help`")
    return EXIT_USAGE


def _value_of(parameter: object, arguments: Sequence[str]) -> str | None:
    """Return what was written for an option; messages about numbers do not say it."""
    names = (*getattr(parameter, "opts", ()),)
    for position, argument in enumerate(arguments):
        name, has_value, value = argument.partition("=")
        if name in names and has_value:
            return value
        if argument in names and position + 1 < len(arguments):
            return arguments[position + 1]
    return None


if __name__ == "__main__":
    main()
