"""A private, real libvirtd keeps the drivers' contract, as far as it needs no device: `make libvirt`, as root."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("libvirt", reason="libvirt-python is not installed: make libvirt proves this")

from scheduler.core.requests import HostId
from tests.contract.hypervisor_contract import DomainContract, HostBench
from tests.contract.libvirt_bench import PrivateBench, named_uri
from tests.contract.plain_host import plain_host
from tests.lab.guest.build import build_guest
from workers.drivers.libvirt.host import LibvirtHost
from workers.drivers.libvirt.refusals import LOGIN_MEND
from workers.ports import HostUnreachable


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


class TestOverTls:
    """The same libvirt, reached over TLS: whoever has a certificate that its CA signed is let in."""

    @pytest.fixture
    def uri(self) -> str:
        uri = os.environ.get("NIGHTSHIFT_TEST_TLS")
        if uri is None:
            pytest.skip("no libvirtd of its own: make libvirt starts one, as root")
        return uri

    def look(self, uri: str) -> Any:
        host = LibvirtHost(HostId("plain"), plain_host(), uri, on_change=lambda: None)
        try:
            return host.drivers().hypervisor.look()
        finally:
            host.close()

    def pki(self, name: str) -> str:
        return f"?pkipath={os.environ['NIGHTSHIFT_TEST_PKI']}/{name}"

    def test_with_a_certificate_that_is_known_it_shows_what_it_shows_at_home(self, uri: str) -> None:
        local = named_uri()
        assert local is not None
        over_tls, at_home = self.look(uri + self.pki("known")), self.look(local)
        assert (over_tls.domains, over_tls.disks, over_tls.boot_id) == (at_home.domains, at_home.disks, at_home.boot_id)

    def test_a_strangers_certificate_is_refused_with_what_to_do(self, uri: str) -> None:
        with pytest.raises(HostUnreachable, match=LOGIN_MEND):
            self.look(uri + self.pki("stranger"))

    def test_a_server_under_another_name_than_its_certificates_is_refused(self, uri: str) -> None:
        other = re.sub(r"127\.0\.0\.1", "localhost", uri)
        with pytest.raises(HostUnreachable, match=r"(?i)certificate.*; give the worker's user access"):
            self.look(other + self.pki("known"))
