"""Run the virtual DGX-2: two NUMA nodes, an IOMMU, and stand-ins for 16 GPUs and 12 NVSwitches, all emulated.

Needs no privileges, no KVM and no changes to QEMU. The machine is a child of the process that boots it, and ends with
it; its disk is a throw-away overlay over the image, so that every boot starts from the same host.
"""

import base64
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

import cli.parent_watch
from tests.lab.host_image import HostImage

QEMU = "qemu-system-x86_64"

NUMA_NODES = 2
VCPUS = NUMA_NODES
"""One socket with one processor on each node: emulation does not profit from more."""
HUGEPAGES_GIB_PER_NODE = 8
"""In pages of 2 MiB. Reserved, not touched: they cost the machine below nothing until a virtual machine uses them."""
HOST_MEMORY_GIB_PER_NODE = 1
PROCESSOR = "max,erms=off,fsrm=off"
"""Without the fast copy of bytes: emulated byte by byte, it makes clearing the memory of VMs twice as slow."""
FIRST_BUS_OF_NODE = (0x20, 0x60)
GPUS_PER_NODE = 8
NVSWITCHES_PER_NODE = 6
GPU_STAND_IN = "1234:11e8"
"""QEMU's `edu`: it computes, raises interrupts and does DMA."""
NVSWITCH_STAND_IN = "1b36:0005"
"""QEMU's `pci-testdev`: a device with memory to map."""

BOOT_LIMIT_S = 180.0
SILENT_LIMIT_S = 50.0
"""On a busy machine an emulated kernel may stop for ever before it says anything: it is reset then, and boots."""
STOP_LIMIT_S = 10.0
COMMAND_LIMIT_S = 60.0
CHANNEL_GRACE_S = 15.0
"""What the way in and out of the host may take on top of the command itself."""
MONITOR_LIMIT_S = 10.0
LOOK_EVERY_S = 0.1
SHOWN_LINES = 25

_LIBVIRT_PORT = 16509
_SSH_PORT = 22
_INIT, _READY, _FAILED, _PANIC = "lab: init", "lab: ready", "lab: failed", "Kernel panic"
"""What the host's init and kernel write on the console."""


class LabError(Exception):
    """The virtual DGX-2 does not do what it was asked to."""


class CommandFailed(LabError):
    """A command inside the host ended with a status other than 0."""

    def __init__(self, command: str, status: int, output: str) -> None:
        super().__init__(f"`{command}` ended with status {status} in the virtual DGX-2:\n{output}")
        self.command, self.status, self.output = command, status, output


@dataclass(frozen=True, slots=True, kw_only=True)
class StandIn:
    """A PCI device of the virtual DGX-2 and where it sits."""

    address: str
    numa_node: int


def gpus() -> tuple[StandIn, ...]:
    """Return the stand-ins for GPUs, in the order of their addresses."""
    return _stand_ins(range(GPUS_PER_NODE))


def nvswitches() -> tuple[StandIn, ...]:
    """Return the stand-ins for NVSwitches, in the order of their addresses."""
    return _stand_ins(range(GPUS_PER_NODE, GPUS_PER_NODE + NVSWITCHES_PER_NODE))


def _stand_ins(slots: range) -> tuple[StandIn, ...]:
    """Every device is alone behind its root port; the firmware numbers the buses behind them in order."""
    return tuple(
        StandIn(address=f"0000:{FIRST_BUS_OF_NODE[node] + 1 + slot:02x}:00.0", numa_node=node)
        for node in range(NUMA_NODES)
        for slot in slots
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """How a virtual DGX-2 is put together, and what is wrong with it."""

    network: bool = False
    """The libvirt network `nightshift` is started."""
    has_iommu: bool = True
    """Switched on, as the kernel's command line says."""
    absent_gpus: frozenset[int] = frozenset()
    """Stand-ins that are missing from the bus, by index."""


SOUND = Build()


def boot(
    image: HostImage, directory: Path, *, port: int = 0, build: Build = SOUND, limit_s: float = BOOT_LIMIT_S
) -> "VirtualDgx2":
    """Start a virtual DGX-2 whose files are in `directory` and wait until its libvirt answers.

    Port 0 lets the system choose. The machine ends when the calling thread does. Raises LabError, with the end of the
    host's console, when it is not ready after `limit_s`.
    """
    machine = begin_boot(image, directory, port=port, build=build)
    try:
        machine.wait_until_ready(limit_s)
    except BaseException:
        machine.stop()
        raise
    return machine


def begin_boot(image: HostImage, directory: Path, *, port: int = 0, build: Build = SOUND) -> "VirtualDgx2":
    """Start one as `boot` does, and wait for nothing: several come up side by side."""
    directory.mkdir(parents=True, exist_ok=True)
    return VirtualDgx2(image, directory, port=port, build=build)


class VirtualDgx2:
    """A running virtual DGX-2. Use `boot`; as a context manager it stops at the end."""

    def __init__(self, image: HostImage, directory: Path, *, port: int, build: Build) -> None:
        self.directory = directory = directory.resolve()
        self._overlay = directory / "root.qcow2"
        self._console = directory / "console.log"
        self._ready_from = 0
        self._channel_lock = threading.Lock()
        self._create_overlay(image)
        self._console.unlink(missing_ok=True)
        with (directory / "qemu.log").open("wb") as log:
            # The watch becomes QEMU, so that this child is QEMU itself.
            self._process = subprocess.Popen(
                [sys.executable, cli.parent_watch.__file__, "--", *_qemu_command(image, port=port, build=build)],
                cwd=directory,
                env={**os.environ, cli.parent_watch.PARENT_VARIABLE: str(os.getpid())},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._port = port

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """Return the port on the loopback where the host's libvirt listens."""
        return self._port

    @property
    def uri(self) -> str:
        """Return the libvirt URI of the host."""
        return f"qemu+tcp://127.0.0.1:{self._port}/system"

    def start_ssh(self) -> int:
        """Start the host's SSH server, and return the port on the loopback where it listens."""
        self.run("mkdir -p /run/sshd && /usr/sbin/sshd")
        return self._forwarded_port(_SSH_PORT)

    def answer_at(self, port: int) -> None:
        """Have the host's libvirt at another port of the loopback, too."""
        command = f"hostfwd_add net {_forward(port, _LIBVIRT_PORT).removeprefix('hostfwd=')}"
        refused = self._monitor("human-monitor-command", **{"command-line": command})
        if refused:
            raise LabError(f"the emulator does not answer at port {port}: {refused}")

    @property
    def pid(self) -> int:
        """Return the process of the emulator."""
        return self._process.pid

    def console(self) -> str:
        """Return what the host wrote on its console, over all its boots."""
        return _text(self._console)

    def wait_until_ready(self, limit_s: float) -> None:
        """Wait until the host says on its console that libvirt answers, since this boot began."""
        ends_s = time.monotonic() + limit_s
        silent_until_s = time.monotonic() + SILENT_LIMIT_S
        while True:
            said = self.console()[self._ready_from :]
            if _READY in said:
                break
            if self._process.poll() is not None:
                log = _tail(self.directory / "qemu.log")
                raise LabError(f"the emulator ended with status {self._process.returncode}:\n{log}")
            if _FAILED in said or _PANIC in said:
                raise LabError(f"the virtual DGX-2 does not come up:\n{_tail(self._console)}")
            if _INIT not in said and time.monotonic() > silent_until_s:
                self._monitor("system_reset")
                silent_until_s = time.monotonic() + SILENT_LIMIT_S
            if time.monotonic() > ends_s:
                raise LabError(f"the virtual DGX-2 is not ready after {limit_s:.0f} s:\n{_tail(self._console)}")
            time.sleep(LOOK_EVERY_S)
        if self._port == 0:
            self._port = self._forwarded_port(_LIBVIRT_PORT)

    def run(self, command: str, timeout_s: float = COMMAND_LIMIT_S) -> str:
        """Run a command in the host's shell: see `run_in`. Threads take turns."""
        with self._channel_lock:
            return run_in(self.directory, command, timeout_s)

    def reboot(self, limit_s: float = BOOT_LIMIT_S) -> None:
        """Reset the host as its button does, once its writes are on the disk, and wait until libvirt answers again."""
        self.run("sync")
        self._ready_from = len(self.console())
        self._monitor("system_reset")
        self.wait_until_ready(limit_s)

    def guest_console(self, name: str) -> str:
        """Return the file `name` of the folder where libvirt keeps what virtual machines write on their consoles."""
        if not re.fullmatch(r"[\w.@-]+", name):
            raise ValueError(f"{name!r} is no name of a file")
        return self.run(f"cat /var/log/libvirt/qemu/{name}")

    def stop(self) -> None:
        """End the machine and delete its disk; the logs stay. May be called twice."""
        self._process.terminate()
        try:
            self._process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._overlay.unlink(missing_ok=True)

    def _create_overlay(self, image: HostImage) -> None:
        self._overlay.unlink(missing_ok=True)
        command = [
            "qemu-img",
            "create",
            "-q",
            "-f",
            "qcow2",
            "-F",
            "raw",
            "-b",
            str(image.disk.resolve()),
            str(self._overlay),
        ]
        done = subprocess.run(command, check=False, capture_output=True, encoding="utf-8")
        if done.returncode != 0:
            raise LabError(f"cannot create {self._overlay}: {done.stderr.strip()}")

    def _monitor(self, command: str, **arguments: str) -> object:
        """Give the emulator one command of its machine protocol and return what it answers."""
        with (
            _connection(self.directory, "monitor.sock") as connection,
            connection.makefile("rw", encoding="utf-8") as stream,
        ):
            stream.readline()  # the greeting
            _ask(stream, {"execute": "qmp_capabilities"})
            return _ask(stream, {"execute": command, "arguments": arguments})

    def _forwarded_port(self, inner: int) -> int:
        """Return the port that the system chose for one of the host's: the emulator's user network knows it."""
        listing = str(self._monitor("human-monitor-command", **{"command-line": "info usernet"}))
        found = re.search(rf"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s+\S+\s+{inner}\b", listing)
        if found is None:
            raise LabError(f"the emulator forwards no port to the host's {inner}:\n{listing}")
        return int(found[1])


def run_in(directory: Path, command: str, timeout_s: float = COMMAND_LIMIT_S) -> str:
    """Run a command as root in the shell of the host whose files are in `directory`; return all that it printed.

    Raises CommandFailed on any status but 0; a command that takes longer than `timeout_s` is ended with status 124.
    """
    marker, limit_s = uuid.uuid4().hex, timeout_s + CHANNEL_GRACE_S
    request = f"{marker} {timeout_s:.3f} {base64.b64encode(command.encode()).decode()}\n"
    with _connection(directory, "control.sock") as connection:
        connection.settimeout(limit_s)
        try:
            connection.sendall(request.encode())
            answer = _answer(connection, marker)
        except OSError as error:
            raise LabError(
                f"no answer to `{command}` in {limit_s:.0f} s:\n{_tail(directory / 'console.log')}"
            ) from error
    status, _, encoded = answer.partition(" ")
    output = base64.b64decode(encoded).decode(errors="replace")
    if status != "0":
        raise CommandFailed(command, int(status), output)
    return output


def _answer(connection: socket.socket, marker: str) -> str:
    """Read up to the line that begins with the marker; lines before it answer commands that nobody waits for."""
    with connection.makefile("r", encoding="ascii", errors="replace") as lines:
        for line in lines:
            if line.startswith(marker):
                return line.removeprefix(marker).strip()
    raise ConnectionResetError("the emulator ended")


@contextmanager
def _connection(directory: Path, name: str) -> Iterator[socket.socket]:
    """Connect to a socket of the machine's folder, however long its path is."""
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(MONITOR_LIMIT_S)
            try:
                connection.connect(f"/proc/self/fd/{folder}/{name}")
            except OSError as error:
                raise LabError(f"no virtual DGX-2 runs in {directory}: {error}") from error
            yield connection
    finally:
        os.close(folder)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _tail(path: Path) -> str:
    return "\n".join(_text(path).splitlines()[-SHOWN_LINES:])


def _ask(monitor: TextIO, request: Mapping[str, object]) -> object:
    """Send one request of the machine protocol and return its answer, past the events that come in between."""
    monitor.write(json.dumps(request) + "\n")
    monitor.flush()
    for line in monitor:
        answer = json.loads(line)
        if "error" in answer:
            raise LabError(f"the emulator refuses {request['execute']}: {answer['error']['desc']}")
        if "return" in answer:
            return answer["return"]
    raise LabError(f"the emulator ended before it answered {request['execute']}")


def _qemu_command(image: HostImage, *, port: int, build: Build) -> list[str]:
    """Return the emulator's command line; paths of its own files are relative to the machine's folder."""
    memory_gib_per_node = HUGEPAGES_GIB_PER_NODE + HOST_MEMORY_GIB_PER_NODE
    command = [
        QEMU,
        *("-nodefaults", "-no-user-config", "-display", "none"),
        *("-accel", "tcg,thread=multi,tb-size=512", "-machine", "q35", "-cpu", PROCESSOR),
        *("-m", f"{NUMA_NODES * memory_gib_per_node}G", "-smp", f"{VCPUS},sockets={NUMA_NODES}"),
        *("-device", "intel-iommu,intremap=on,caching-mode=on"),
        *("-chardev", "file,id=console,path=console.log", "-serial", "chardev:console"),
        *("-qmp", "unix:monitor.sock,server=on,wait=off"),
        *("-drive", "file=root.qcow2,if=none,id=root,format=qcow2,cache=unsafe,discard=unmap"),
        *("-device", "nvme,drive=root,serial=root,bus=pcie.0,addr=0x1e"),
        *("-netdev", f"user,id=net,{','.join((_forward(port, _LIBVIRT_PORT), _forward(0, _SSH_PORT)))}"),
        *("-device", "virtio-net-pci,netdev=net,bus=pcie.0,addr=0x1d"),
        *("-chardev", "socket,id=control,path=control.sock,server=on,wait=off"),
        *("-device", "virtio-serial-pci,id=serial,bus=pcie.0,addr=0x1c"),
        *("-device", "virtconsole,chardev=control,bus=serial.0"),
        *("-kernel", str(image.kernel.resolve()), "-append", _kernel_arguments(build)),
    ]
    for node in range(NUMA_NODES):
        command += _node_arguments(node, memory_gib_per_node, build.absent_gpus)
    return [*command, "-numa", "dist,src=0,dst=1,val=21"]


def _forward(port: int, inner: int) -> str:
    return f"hostfwd=tcp:127.0.0.1:{port}-:{inner}"


def _node_arguments(node: int, memory_gib: int, absent_gpus: frozenset[int]) -> Iterator[str]:
    """Yield a NUMA node: its memory, its processor, and on a root of its own its PCI devices, each behind a port."""
    yield from ("-object", f"memory-backend-ram,id=memory{node},size={memory_gib}G")
    yield from ("-numa", f"node,nodeid={node},memdev=memory{node},cpus={node}")
    root = f"pxb-pcie,id=node{node},bus=pcie.0,addr={0x10 + node:#x},bus_nr={FIRST_BUS_OF_NODE[node]},numa_node={node}"
    yield from ("-device", root)
    devices = GPUS_PER_NODE + NVSWITCHES_PER_NODE
    for slot in range(devices):
        port, chassis = f"port{node}-{slot}", 1 + node * devices + slot
        windows = "io-reserve=0,mem-reserve=2M,pref64-reserve=2M"
        place = f"bus=node{node},chassis={chassis},slot={slot},addr={slot + 1:#x}"
        yield from ("-device", f"pcie-root-port,id={port},{place},{windows}")
        is_gpu = slot < GPUS_PER_NODE
        if is_gpu and node * GPUS_PER_NODE + slot in absent_gpus:
            continue
        yield from ("-device", f"{'edu' if is_gpu else 'pci-testdev'},bus={port}")


def _kernel_arguments(build: Build) -> str:
    pages, iommu = HUGEPAGES_GIB_PER_NODE * 512, "on iommu=pt" if build.has_iommu else "off"
    return " ".join(
        (
            "console=ttyS0 quiet root=/dev/nvme0n1 rw rootflags=noinit_itable init=/lab-init",
            f"intel_iommu={iommu}",
            f"default_hugepagesz=2M hugepagesz=2M hugepages={','.join(f'{n}:{pages}' for n in range(NUMA_NODES))}",
            # Zeroing pages when they are reserved would touch all of the memory.
            "init_on_alloc=0",
            # On a busy machine the emulated timer may miss the moment at which the kernel tests it, which then panics.
            "no_timer_check",
            # Seconds saved: no services (hotplug, errors) on the 28 ports, no mitigations in an emulated processor.
            "pcie_ports=compat mitigations=off",
            f"lab.network={int(build.network)}",
        )
    )
