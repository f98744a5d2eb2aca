"""Builds the guest's disk: a raw image that a BIOS boots, the same bytes for the same sources and compiler.

    python -m tests.lab.guest.build OUT.img

Sectors have 512 bytes. Sector 0 is the boot sector, sector 1 the state, C code follows, the rest is zeros. The state:

    offset 512   8 bytes   magic, "NSGGUEST"
    offset 520   u32       boots so far, little-endian; the guest counts up and writes back at each boot
    offset 524   u8        flags; 0x01 makes it deaf: it ignores the power button and still obeys the agent

Needs gcc and binutils and nothing for 32 bits besides: the guest has no C library. Does not boot anything.
"""

import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

IMAGE_BYTES = 1024 * 1024
MAGIC = b"NSGGUEST"
MAGIC_OFFSET = 512
BOOTS_OFFSET = 520
FLAGS_OFFSET = 524
FLAG_DEAF = 0x01

SOURCES = Path(__file__).parent / "source"
# Debian's packages of what is needed. gcc calls ld by itself.
PACKAGE_BY_PROGRAM = {"gcc": "gcc", "ld": "binutils", "objcopy": "binutils"}
_COMPILE_TIMEOUT_S = 60
# A processor without units that would have to be set up first, code without a C library and at a fixed place.
_COMPILE = (
    *("-m32", "-march=i686", "-mgeneral-regs-only", "-std=c11", "-Os", "-Wall", "-Wextra"),
    *("-ffreestanding", "-fno-builtin", "-fno-pic", "-fno-pie", "-fno-stack-protector"),
    *("-fno-asynchronous-unwind-tables", "-fcf-protection=none"),
    *("-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none"),
)


class BuildError(Exception):
    """The guest cannot be built; the message says why and what to do."""


def build_guest(target: Path) -> Path:
    """Build the guest's disk at this path, over what may be there, and return the path; raises BuildError."""
    missing = missing_programs()
    if missing:
        packages = " ".join(sorted({PACKAGE_BY_PROGRAM[name] for name in missing}))
        raise BuildError(f"cannot build the guest: no {', '.join(missing)} here (apt install {packages})")
    with tempfile.TemporaryDirectory(prefix="ns-guest-") as folder:
        target.write_bytes(_link(Path(folder)).ljust(IMAGE_BYTES, b"\0"))
    return target


def missing_programs() -> tuple[str, ...]:
    """List the programs that the build needs and that are not on the path."""
    return tuple(name for name in PACKAGE_BY_PROGRAM if shutil.which(name) is None)


def make_deaf(image: Path) -> None:
    """Let the guest on this disk ignore the power button. May be called twice."""
    with image.open("r+b") as opened:
        flags = _state(opened.read(MAGIC_OFFSET + 512), image)[1]
        opened.seek(FLAGS_OFFSET)
        opened.write(bytes([flags | FLAG_DEAF]))


def read_boots(image: Path) -> int:
    """Read how often the guest on this disk has booted."""
    with image.open("rb") as opened:
        return _state(opened.read(MAGIC_OFFSET + 512), image)[0]


def _state(head: bytes, image: Path) -> tuple[int, int]:
    """Return boots and flags."""
    if head[MAGIC_OFFSET : MAGIC_OFFSET + len(MAGIC)] != MAGIC:
        raise ValueError(f"{image} is no raw image of the guest: no {MAGIC!r} at {MAGIC_OFFSET}")
    boots, flags = struct.unpack_from("<IB", head, BOOTS_OFFSET)
    return int(boots), int(flags)


def _link(folder: Path) -> bytes:
    """Compile and link in this folder, and return what lies on the disk."""
    sources = sorted(str(path) for path in SOURCES.iterdir() if path.suffix in (".c", ".S"))
    linked = folder / "guest.elf"
    loaded = folder / "guest.bin"
    _run("gcc", *_COMPILE, f"-Wl,-T,{SOURCES / 'guest.ld'}", "-o", str(linked), *sources)
    _run("objcopy", "-O", "binary", str(linked), str(loaded))
    return loaded.read_bytes()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILE_TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise BuildError(f"cannot build the guest: {command[0]} ended with {done.returncode}\n{done.stderr.strip()}")


def main(arguments: list[str]) -> int:
    """Build at the one path that is given; return the exit status."""
    if len(arguments) != 1:
        print("usage: python -m tests.lab.guest.build OUT.img", file=sys.stderr)
        return 2
    try:
        print(build_guest(Path(arguments[0])))
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
