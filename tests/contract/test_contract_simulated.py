"""The simulated rack keeps the drivers' contract, in memory and in a file."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from scheduler.core.topology import HostProfile
from scheduler.profiles.loading import load_profile
from tests.contract.hypervisor_contract import CopyContract, HostBench, HostContract
from tests.contract.simulated_bench import SimulatedBench


@pytest.fixture(scope="module")
def profile() -> HostProfile:
    return load_profile("dgx-2")


class TestSimulatedInMemory(HostContract, CopyContract):
    @pytest.fixture
    def bench(self, profile: HostProfile) -> Iterator[HostBench]:
        bench = SimulatedBench(profile)
        yield bench
        bench.rack.close()


class TestSimulatedInAFile(HostContract, CopyContract):
    @pytest.fixture
    def bench(self, profile: HostProfile, tmp_path: Path) -> Iterator[HostBench]:
        bench = SimulatedBench(profile, directory=tmp_path, seed=2)
        yield bench
        bench.rack.close()
