"""The libvirt of the virtual DGX-2 keeps the whole contract, devices passed through included: `make lab-contract`."""

import base64
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("libvirt", reason="libvirt-python is not installed: it is built where libvirt's headers are")

from scheduler.core.facts import CheckResult
from scheduler.profiles.loading import load_profile
from tests.contract.hypervisor_contract import DeviceContract, DomainContract, HostBench
from tests.contract.libvirt_bench import LabBench
from tests.lab.guest.build import build_guest
from tests.lab.host_image import build_host_image, default_cache
from tests.lab.machine import VirtualDgx2, boot
from tests.lab.site import PROFILE
from workers.drivers.libvirt import sysfs
from workers.drivers.libvirt.guest_sight import GUEST, SEEN


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


class TestDevicesSeenByGuests:
    """What a guest says of the devices that it was given, once its agent answers."""

    @pytest.mark.parametrize("size", [1, 16])
    def test_a_guest_sees_every_device_that_it_was_given(self, bench: HostBench, size: int) -> None:
        spec = bench.define(bench.spec(bench.partition(size)))
        bench.start_up(spec)

        def is_seen() -> bool:
            return all(bench.device(address).result_of(SEEN) is CheckResult.PASSED for address in spec.devices)

        bench.wait_until(is_seen, 60)
        checks = [check for address in spec.devices for check in bench.device(address).checks if check.name == SEEN]
        assert {check.source for check in checks} == {GUEST}

    def test_a_guest_that_says_nothing_is_unverified(self, bench: HostBench) -> None:
        spec = bench.define(bench.spec(bench.partition(1), image=bench.silent_image))
        bench.start(spec)
        assert {bench.device(address).result_of(SEEN) for address in spec.devices} == {CheckResult.UNVERIFIED}


class TestDevicesInTheHostsOwnSysfs:
    """What a worker that runs on the host itself sees: its module, run there, on devices that VFIO really has."""

    def run_there(self, machine: VirtualDgx2, *lines: str) -> list[str]:
        script = base64.b64encode("\n".join((Path(sysfs.__file__).read_text(encoding="utf-8"), *lines)).encode())
        return machine.run(f"echo {script.decode()} | base64 -d | python3 -").splitlines()

    def test_a_free_device_is_read_and_reset_and_a_missing_one_is_told(
        self, bench: HostBench, machine: VirtualDgx2
    ) -> None:
        address = bench.profile.gpu(0).address
        said = self.run_there(
            machine,
            "here = Sysfs()",
            f"print(here.config_problem({address!r}), here.can_reset({address!r}))",
            f"here.reset({address!r})",
            f"print(here.config_problem({address!r}))",
            "print(here.config_problem('0000:ff:1f.0'), here.can_reset('0000:ff:1f.0'))",
            "print(here.boot_id())",
        )
        assert said[:2] == ["None True", "None"]
        assert said[2] == "its config space cannot be read: No such file or directory False"
        # The same that is read from afar, through a storage pool.
        assert said[3] == bench.drivers.hypervisor.look().boot_id
