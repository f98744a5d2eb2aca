"""The guest under the local QEMU, emulated: it boots from its disk, uses its devices, counts its boots, obeys its host.

No root, no libvirt: machines are QEMU processes with the devices that libvirt would give them.
"""

import base64
import json
import os
import shlex
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab.guest.build import (
    PACKAGE_BY_PROGRAM,
    BuildError,
    build_guest,
    make_deaf,
    read_boots,
)
from tests.lab.guest.reading import GuestReport, read_console
from tests.running import required_program, wait_for

_QEMU = "qemu-system-x86_64"
# Far above what it takes: the machine may be busy with other tests.
_WITHIN_S = 60.0
_IDLE_LOOK_S = 2.0

# One GPU stand-in on the root bus, one beside the switch's behind a bridge, as libvirt places conventional PCI devices.
_MACHINE = shlex.split("""
    -machine q35 -accel tcg -m 64 -smp 2 -nodefaults -display none -boot strict=on
    -device pcie-root-port,id=port1,chassis=1,addr=2.0,multifunction=on
    -device pcie-root-port,id=port2,chassis=2,addr=2.1
    -device pcie-root-port,id=port3,chassis=3,addr=2.2
    -drive if=none,id=disk,file=disk.img,format=raw
    -device virtio-blk-pci,drive=disk,bus=port1,bootindex=1
    -device edu,addr=3
    -device pcie-pci-bridge,id=bridge,bus=port2
    -device edu,bus=bridge,addr=1
    -device pci-testdev,bus=bridge,addr=2
    -device virtio-serial-pci,bus=port3
    -chardev socket,id=agent,path=agent.sock,server=on,wait=off
    -device virtserialport,chardev=agent,name=org.qemu.guest_agent.0
    -chardev file,id=console,path=console.log,append=on -serial chardev:console
    -qmp unix:qmp.sock,server=on,wait=off
""")

Json = dict[str, object]


class Conversation:
    """One JSON object a line, over a socket."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_WITHIN_S)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("rb")

    def say(self, execute: str, **arguments: object) -> None:
        self.say_bytes(json.dumps({"execute": execute, "arguments": arguments}).encode() + b"\n")

    def say_bytes(self, raw: bytes) -> None:
        self._socket.sendall(raw)

    def hear_bytes(self) -> bytes:
        return self._lines.readline()

    def ask(self, execute: str, **arguments: object) -> Json:
        """Return the answer; events that come first are passed over."""
        self.say(execute, **arguments)
        while "event" in (answer := json.loads(self.hear_bytes())):
            pass
        assert isinstance(answer, dict)
        return answer

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


class Machine:
    """A virtual machine with the guest's disk, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._conversations: list[Conversation] = []

    @property
    def disk(self) -> Path:
        return self._folder / "disk.img"

    @property
    def boots(self) -> tuple[GuestReport, ...]:
        log = self._folder / "console.log"
        return read_console(log.read_text(encoding="utf-8")) if log.exists() else ()

    def start(self, *more: str) -> GuestReport:
        """Start it, and return what the guest said until it was ready."""
        before = len(self.boots)
        with (self._folder / "qemu.log").open("ab") as log:
            self._process = subprocess.Popen([_QEMU, *_MACHINE, *more], cwd=self._folder, stdout=log, stderr=log)
        self.wait("the guest is ready", lambda: len(self.boots) > before and self.boots[-1].is_ready)
        return self.boots[-1]

    def wait(self, what: str, look: Callable[[], bool]) -> None:
        wait_for(what, look, within_s=_WITHIN_S, evidence=self._evidence)

    def agent(self) -> Conversation:
        return self._talk("agent.sock")

    def monitor(self) -> Conversation:
        monitor = self._talk("qmp.sock")
        assert b"QMP" in monitor.hear_bytes()
        monitor.ask("qmp_capabilities")
        return monitor

    def wait_until_off(self) -> None:
        assert self._process is not None
        assert self._process.wait(_WITHIN_S) == 0, self._evidence()
        self.kill()

    def cpu_s(self) -> float:
        """Return the processor time that it has used."""
        assert self._process is not None
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """End it as a power cut does. May be called twice."""
        for conversation in self._conversations:
            conversation.close()
        self._conversations = []
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _talk(self, name: str) -> Conversation:
        conversation = Conversation(self._folder / name)
        self._conversations.append(conversation)
        return conversation

    def _evidence(self) -> str:
        logs = (path for path in sorted(self._folder.glob("*.log")))
        return "\n".join(f"{path.name}: {path.read_text(encoding='utf-8', errors='replace')}" for path in logs)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the guest's disk, once; without a compiler these tests are skipped."""
    for program, package in PACKAGE_BY_PROGRAM.items():
        required_program(program, "qemu", package)
    return build_guest(tmp_path_factory.mktemp("guest") / "guest.img")


@pytest.fixture
def machine(image: Path) -> Iterator[Machine]:
    """Give a machine that was never started; without QEMU these tests are skipped."""
    required_program(_QEMU, "qemu", "qemu-system-x86")
    # Not pytest's own directory: too long a path for a socket.
    with tempfile.TemporaryDirectory(prefix="ns-guest-") as folder:
        made = Machine(Path(folder))
        made.disk.write_bytes(image.read_bytes())
        try:
            yield made
        finally:
            made.kill()


def test_the_same_sources_make_the_same_bytes(image: Path, tmp_path: Path) -> None:
    assert build_guest(tmp_path / "again.img").read_bytes() == image.read_bytes()


def test_a_missing_compiler_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match=r"no gcc, ld, objcopy here \(apt install binutils gcc\)"):
        build_guest(tmp_path / "guest.img")


def test_a_disk_that_is_no_guest_is_not_touched(tmp_path: Path) -> None:
    other = tmp_path / "other.img"
    other.write_bytes(bytes(4096))
    with pytest.raises(ValueError, match="no raw image of the guest"):
        make_deaf(other)
    assert other.read_bytes() == bytes(4096)


def test_it_boots_and_every_gpu_computes_and_reaches_memory(machine: Machine) -> None:
    report = machine.start()
    assert (report.vcpus, report.memory_mib) == (2, 64)
    assert [(gpu.address, gpu.id, gpu.identification) for gpu in report.gpus] == [
        ("00:03.0", "1234:11e8", "010000ed"),
        ("03:01.0", "1234:11e8", "010000ed"),
    ]
    assert all(gpu.is_usable for gpu in report.gpus)
    assert [(switch.address, switch.id) for switch in report.switches] == [("03:02.0", "1b36:0005")]
    assert report.summary is not None
    assert (report.summary.gpus, report.summary.switches, report.summary.dma_ok) == (2, 1, 2)
    assert report.faults == ()


def test_it_finds_gpus_below_an_expander(machine: Machine) -> None:
    expander = "-device pxb-pcie,id=expander,bus_nr=64 -device pcie-root-port,id=far,bus=expander,chassis=9"
    report = machine.start(*expander.split(), "-device", "edu,bus=far")
    assert len(report.gpus) == 3
    assert report.gpus[-1].address > "40"
    assert report.dma_ok == 3


def test_boots_are_counted_on_the_disk(machine: Machine) -> None:
    assert read_boots(machine.disk) == 0
    assert machine.start().boots == 1
    machine.kill()
    assert read_boots(machine.disk) == 1
    assert machine.start().boots == 2
    machine.monitor().ask("system_reset")
    machine.wait("it boots again", lambda: len(machine.boots) == 3 and machine.boots[-1].is_ready)
    assert [report.boots for report in machine.boots] == [1, 2, 3]
    assert read_boots(machine.disk) == 3


def test_the_power_button_switches_it_off(machine: Machine) -> None:
    machine.start()
    machine.monitor().ask("system_powerdown")
    machine.wait_until_off()
    assert machine.boots[-1].was_button_pressed
    assert machine.boots[-1].is_powered_off
    assert not machine.boots[-1].was_shut_down_by_agent


def test_a_deaf_guest_ignores_the_button_and_obeys_the_agent(machine: Machine) -> None:
    make_deaf(machine.disk)
    machine.start()
    monitor = machine.monitor()
    monitor.ask("system_powerdown")
    machine.wait("the button was felt", lambda: machine.boots[-1].ignored_presses == 1)
    monitor.ask("system_powerdown")
    machine.wait("it was felt again", lambda: machine.boots[-1].ignored_presses == 2)
    machine.agent().say("guest-shutdown", mode="powerdown")
    machine.wait_until_off()
    assert machine.boots[-1].was_shut_down_by_agent
    assert machine.boots[-1].is_powered_off


def test_the_host_sees_the_agent_as_connected(machine: Machine) -> None:
    assert machine.start().has_agent
    listed = machine.monitor().ask("query-chardev")["return"]
    assert isinstance(listed, list)
    assert {device["label"]: device["frontend-open"] for device in listed}["agent"] is True


def test_the_agent_answers(machine: Machine) -> None:
    machine.start()
    agent = machine.agent()
    assert agent.ask("guest-sync", id=18446744073709551615) == {"return": 18446744073709551615}
    assert agent.ask("guest-ping") == {"return": {}}
    assert agent.ask("guest-network-get-interfaces") == {"return": []}
    info = agent.ask("guest-info")["return"]
    assert isinstance(info, dict)
    assert {"name": "guest-shutdown", "enabled": True, "success-response": False} in info["supported_commands"]
    assert agent.ask("guest-fsfreeze-freeze") == {
        "error": {"class": "CommandNotFound", "desc": "The command guest-fsfreeze-freeze has not been found"}
    }


def test_the_agent_lists_the_devices_that_the_guest_sees(machine: Machine) -> None:
    machine.start()
    agent = machine.agent()
    assert "error" in agent.ask("guest-file-open", path="/etc/passwd")
    assert agent.ask("guest-file-open", path="/proc/bus/pci/devices") == {"return": 1}
    read = agent.ask("guest-file-read", handle=1)["return"]
    assert isinstance(read, dict)
    content = base64.b64decode(read["buf-b64"]).decode("ascii")
    assert (len(content), read["eof"]) == (read["count"], True)
    functions = [line.split("\t") for line in content.splitlines()]
    assert "00f8" in {address for address, *_ in functions}, "the machine's own bridge is at 00:1f.0"
    assert all(len(id) == 8 for _, id, _ in functions)


def test_the_agent_answers_where_the_firmware_puts_its_device_above_4_gib(machine: Machine) -> None:
    # Something so large moves all 64-bit registers up; it is a switch with memory.
    report = machine.start("-device", "pci-testdev,membar=8G")
    assert len(report.switches) == 2
    assert report.has_agent
    assert machine.agent().ask("guest-ping") == {"return": {}}


def test_the_agent_delimits_an_answer_and_forgets_what_came_before_a_delimiter(machine: Machine) -> None:
    machine.start()
    agent = machine.agent()
    agent.say_bytes(b'{"execute":"guest-pi\xff{"execute": "guest-sync-delimited", "arguments": {"id": 7}}\n')
    assert agent.hear_bytes() == b'\xff{"return":7}\n'


def test_the_agent_survives_what_is_no_command(machine: Machine) -> None:
    machine.start()
    agent = machine.agent()
    for garbage in (b"}{", b'{"execute":7}', b'{"execute":"guest-sync","arguments":{"id"', b"x" * 10_000):
        agent.say_bytes(garbage + b"\n")
        assert b"GenericError" in agent.hear_bytes()
    assert agent.ask("guest-ping") == {"return": {}}


def test_a_warning_is_printed_on_the_console(machine: Machine) -> None:
    machine.start()
    agent = machine.agent()
    text = 'ends at 18:00 – "save" now\nplease'
    started = agent.ask("guest-exec", path="/usr/bin/wall", arg=["--", text], **{"capture-output": True})
    assert started == {"return": {"pid": 1}}
    assert agent.ask("guest-exec-status", pid=1) == {"return": {"exited": True, "exitcode": 0}}
    machine.wait("it is printed", lambda: machine.boots[-1].warned == ('ends at 18:00 – "save" now please',))


def test_the_agent_reconnects(machine: Machine) -> None:
    machine.start()
    for id_ in range(3):
        agent = machine.agent()
        assert agent.ask("guest-sync", id=id_) == {"return": id_}
        agent.close()


def test_an_idle_guest_leaves_the_processor_to_others(machine: Machine) -> None:
    machine.start()
    monitor = machine.monitor()
    before_s, begun_s = machine.cpu_s(), time.monotonic()
    machine.wait("time passes", lambda: time.monotonic() - begun_s > _IDLE_LOOK_S)
    used = (machine.cpu_s() - before_s) / (time.monotonic() - begun_s)
    assert used < 0.1
    assert monitor.ask("query-status")["return"]
