"""`python -m benchmarks WHAT`: what is measured against limits that the same run shows, each a command with a table."""

import argparse
import json
from pathlib import Path

from benchmarks import calendar, fleet, lab, latency, optimum, peer_trace, plan, policies, steps, swap, trace

_MEASURES = {
    "steps": steps,
    "fleet": fleet,
    "swap": swap,
    "latency": latency,
    "lab": lab,
    "trace": trace,
    "plan": plan,
    "calendar": calendar,
    "optimum": optimum,
    "policies": policies,
    "peer-trace": peer_trace,
}


def main() -> None:
    """Measure one thing, print its table, and write its figures to a file if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="what", required=True)
    for name, measure in _MEASURES.items():
        command = commands.add_parser(
            name, description=measure.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        measure.add_arguments(command)
        command.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    figures = _MEASURES[arguments.what].run(arguments)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
