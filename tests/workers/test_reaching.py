"""How a worker opens hosts: racks where they are, real hosts over libvirt, and what it says where it cannot."""

import builtins
from pathlib import Path
from typing import Any

import pytest

from scheduler.core.plan import Host
from scheduler.core.replay import VirtualClock
from scheduler.core.requests import HostId
from scheduler.profiles.loading import load_profile
from workers.drivers.simulated.rack import SimulatedRack
from workers.ports import HostUnreachable
from workers.reaching import NoLibvirt, NoRack, RealHostNeedsRealTime, reach

CLOCK = VirtualClock(1_772_445_600)
PROFILE = load_profile("dgx-2")


def host(connect: str = "") -> Host:
    return Host(id=HostId("dgx2-a"), profile=PROFILE, storage="local", connect=connect)


def unheard() -> None:
    raise AssertionError("nothing happened on this host")


def test_a_rack_is_opened_where_it_is(tmp_path: Path) -> None:
    SimulatedRack(tmp_path / "racks", HostId("dgx2-a"), PROFILE, CLOCK, seed=1).close()
    reached = reach(host(), tmp_path, CLOCK, speed=60, on_change=unheard)
    reached.need_images(["ubuntu-22.04-cuda"])
    assert len(reached.drivers().hypervisor.look().devices) == 36
    reached.close()


def test_a_rack_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(NoRack, match="nightshift up --rack dgx2-a=dgx-2"):
        reach(host(), tmp_path, CLOCK, speed=1, on_change=unheard)
    assert not list(tmp_path.iterdir())


def test_a_real_host_is_refused_in_scaled_time(tmp_path: Path) -> None:
    with pytest.raises(RealHostNeedsRealTime, match=r"speed 60 here; start Nightshift without --speed"):
        reach(host("qemu:///system"), tmp_path, CLOCK, speed=60, on_change=unheard)


def test_without_the_binding_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_libvirt(name: str, *rest: Any, **more: Any) -> Any:
        if name == "workers.drivers.libvirt.host":
            raise ImportError("No module named 'libvirt'")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_libvirt)
    with pytest.raises(NoLibvirt, match=r"install nightshift\[host\], which needs gcc, pkg-config and libvirt-dev"):
        reach(host("qemu:///system"), tmp_path, CLOCK, speed=1, on_change=unheard)


def test_a_real_host_is_opened_without_being_asked_and_its_first_look_says_that_it_is_away(tmp_path: Path) -> None:
    pytest.importorskip("libvirt", reason="libvirt-python is not installed: it is built where libvirt's headers are")
    reached = reach(host("qemu+tcp://127.0.0.1:1/system"), tmp_path, CLOCK, speed=1, on_change=unheard)
    reached.need_images(["ubuntu-22.04-cuda"])
    assert reached.next_due_at() is None
    with pytest.raises(HostUnreachable, match="Connection refused"):
        reached.drivers().hypervisor.look()
    reached.close()
