"""`python -m benchmarks WHAT`: what is measured against limits that the same run shows, each a command with a table."""

import argparse
import json
import sys
from importlib import import_module
from pathlib import Path

_MEASURES = (
    "steps",
    "fleet",
    "swap",
    "latency",
    "lab",
    "trace",
    "plan",
    "calendar",
    "optimum",
    "policies",
    "peer-trace",
)


def main() -> None:
    """Measure one thing, print its table, and write its figures to a file if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="what", required=True)
    # Only what is asked for is loaded: processes that a measure starts come by here too, and are timed.
    wanted = [name for name in _MEASURES if name in sys.argv[1:2]]
    modules = {name: import_module(f"benchmarks.{name.replace('-', '_')}") for name in wanted}
    for name in _MEASURES:
        measure = modules.get(name)
        command = commands.add_parser(
            name,
            description=None if measure is None else measure.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if measure is not None:
            measure.add_arguments(command)
        command.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    figures = modules[arguments.what].run(arguments)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
