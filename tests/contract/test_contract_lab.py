"""The libvirt of the virtual DGX-2 keeps the whole contract, devices passed through included: `make lab-contract`."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("libvirt", reason="libvirt-python is not installed: it is built where libvirt's headers are")

from scheduler.profiles.loading import load_profile
from tests.contract.hypervisor_contract import DeviceContract, DomainContract, HostBench
from tests.contract.libvirt_bench import LabBench
from tests.lab.guest.build import build_guest
from tests.lab.host_image import build_host_image, default_cache
from tests.lab.machine import VirtualDgx2, boot
from tests.lab.site import PROFILE


@pytest.fixture(scope="session")
def guest_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_guest(tmp_path_factory.mktemp("guest") / "guest.img")


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualDgx2]:
    if "NIGHTSHIFT_LAB" not in os.environ:
        pytest.skip("the virtual DGX-2 is not booted here: make lab-contract does that")
    with boot(build_host_image(default_cache()), tmp_path_factory.mktemp("lab")) as machine:
        yield machine


@pytest.fixture
def bench(machine: VirtualDgx2, guest_image: Path) -> Iterator[HostBench]:
    bench = LabBench(load_profile(PROFILE), machine, guest_image)
    yield bench
    bench.close()


class TestDevicesOfTheVirtualDgx2(DeviceContract):
    """What only passthrough can show."""


class TestDomainsOfTheVirtualDgx2(DomainContract):
    """What any libvirt shows, here with all their devices."""
