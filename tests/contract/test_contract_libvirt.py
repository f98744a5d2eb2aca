"""A private, real libvirtd keeps the drivers' contract, as far as it needs no device: `make libvirt`, as root."""

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("libvirt", reason="libvirt-python is not installed: make libvirt proves this")

from tests.contract.hypervisor_contract import DomainContract, HostBench
from tests.contract.libvirt_bench import PrivateBench, named_uri
from tests.contract.plain_host import plain_host
from tests.lab.guest.build import build_guest


@pytest.fixture(scope="module")
def guest_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_guest(tmp_path_factory.mktemp("guest") / "guest.img")


class TestPrivateLibvirt(DomainContract):
    @pytest.fixture
    def bench(self, guest_image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostBench]:
        uri = named_uri()
        if uri is None:
            pytest.skip("no libvirtd of its own: make libvirt starts one, as root")
        bench = PrivateBench(plain_host(), uri, guest_image, tmp_path_factory.getbasetemp() / "pools")
        yield bench
        bench.close()
