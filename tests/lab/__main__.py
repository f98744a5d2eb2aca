"""The virtual DGX-2: build it, live through a day on it, or boot it until Ctrl-C and run commands in it.

Building needs root, or a cache that root has filled; all else needs none. `boot` prints the libvirt URI; `run` works
from another terminal.
"""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.lab.guest.build import BuildError, build_guest
from tests.lab.host_image import HostImageError, build_host_image, default_cache
from tests.lab.machine import COMMAND_LIMIT_S, Build, CommandFailed, LabError, boot, run_in
from tests.lab.proof import NOT_PROVEN, Proof


def main(arguments: Sequence[str]) -> int:
    """Do what the command line asks for and return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "build":
            _build(options.cache)
        elif options.command == "day":
            return _day(options.cache)
        elif options.command == "boot":
            _boot(options.cache, options.directory, port=options.port, network=options.network)
        else:
            print(run_in(options.directory, options.shell_command, options.timeout_s), end="")
    except CommandFailed as failed:
        print(failed.output, end="")
        return failed.status
    except (HostImageError, LabError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where images are kept (%(default)s)")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="build the image unless the cache holds it")
    commands.add_parser("day", help="live through a day with Nightshift; the last line is JSON, 3: not all was proven")
    boot_parser = commands.add_parser("boot", help="boot and stay until Ctrl-C")
    boot_parser.add_argument("--port", type=int, default=0, help="where libvirt listens on the loopback (any free one)")
    boot_parser.add_argument("--network", action="store_true", help="start the libvirt network `nightshift`")
    run_parser = commands.add_parser("run", help="run a shell command in the virtual DGX-2 that `boot` runs")
    run_parser.add_argument("shell_command", metavar="COMMAND")
    run_parser.add_argument("--timeout-s", type=float, default=COMMAND_LIMIT_S)
    for parser_of_running in (boot_parser, run_parser):
        parser_of_running.add_argument(
            "--directory", type=Path, default=Path("/tmp/nightshift-lab"), help="the machine's files (%(default)s)"
        )
    return parser


def _build(cache: Path) -> None:
    started_s = time.monotonic()
    image = build_host_image(cache, progress=_say)
    print(f"{image.disk} in {time.monotonic() - started_s:.1f} s")


def _day(cache: Path) -> int:
    """Live through the day; 0 only when all of it was proven."""
    proof, why_not = Proof(), ""
    try:
        # Not everywhere is libvirt's binding, which the day itself needs.
        from tests.lab.day import Day

        with tempfile.TemporaryDirectory(prefix="nightshift-lab.") as folder:
            directory = Path(folder)
            guest_image = build_guest(directory / "guest.img")
            with boot(build_host_image(cache, progress=_say), directory / "host") as machine:
                day = Day(machine=machine, guest_image=guest_image, data=directory / "nightshift" / "data", say=_say)
                proof = day.live()
                why_not = "\n".join(day.failures)
    except (ImportError, BuildError, HostImageError, LabError) as error:
        why_not = str(error)
    if why_not:
        _say(f"not proven: {why_not}")
    _say(proof.line())
    return 0 if proof.is_whole() and not why_not else NOT_PROVEN


def _boot(cache: Path, directory: Path, *, port: int, network: bool) -> None:
    image = build_host_image(cache, progress=_say)
    started_s = time.monotonic()
    with boot(image, directory, port=port, build=Build(network=network)) as machine:
        print(f"{machine.uri} in {time.monotonic() - started_s:.1f} s; Ctrl-C ends it", flush=True)
        # Blocked only now: the emulator would inherit it.
        ends = {signal.SIGINT, signal.SIGTERM}
        signal.pthread_sigmask(signal.SIG_BLOCK, ends)
        signal.sigwait(ends)


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
