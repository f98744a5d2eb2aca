"""The hosts of a plan, looked up."""

from dataclasses import replace

from scheduler.core.plan import Host
from scheduler.core.planner.host_book import HostBook
from scheduler.core.requests import HostId
from scheduler.profiles.loading import load_profile

DGX2, A100 = load_profile("dgx-2"), load_profile("hgx-a100-16")


def book(*hosts: Host) -> HostBook:
    return HostBook({host.id: host for host in hosts})


def host(name: str, *, storage: str = "", is_drained: bool = False) -> Host:
    return Host(id=HostId(name), profile=DGX2, storage=storage or name, is_drained=is_drained)


def test_hosts_come_by_their_ids_and_each_profile_once() -> None:
    other = replace(host("a"), profile=A100)
    alike = replace(host("c"), profile=replace(DGX2))
    found = book(host("d"), host("b", is_drained=True), alike, other)
    assert list(found.by_id) == ["a", "b", "c", "d"]
    assert found.profiles == (A100, DGX2)
    assert found.sizes == {*A100.sizes, *DGX2.sizes}
    assert found.drained == {"b"}
    assert found.ids == {"a", "b", "c", "d"}


def test_hosts_that_share_a_storage_have_one_pool() -> None:
    found = book(host("a", storage="nfs"), host("b", storage="nfs"), host("c"))
    assert {storage: [host.id for host in hosts] for storage, hosts in found.by_storage.items()} == {
        "c": ["c"],
        "nfs": ["a", "b"],
    }
    assert list(found.by_storage) == ["c", "nfs"]
    assert found.pool_gib("nfs", is_scratch=True) == DGX2.scratch_gib
    assert found.pool_gib("nfs", is_scratch=False) == DGX2.pool_gib - DGX2.scratch_gib
    assert found.pool_gib("elsewhere", is_scratch=False) == 0


def test_no_hosts_offer_nothing() -> None:
    none = book()
    assert (none.profiles, none.sizes, none.by_storage) == ((), frozenset(), {})


def test_the_smallest_pool_is_that_of_any_host() -> None:
    small = replace(host("b"), profile=replace(DGX2, name="small", pool_gib=3000, scratch_gib=500))
    found = book(host("a"), small)
    assert found.least_pool_gib(is_scratch=False) == 2500
    assert found.least_pool_gib(is_scratch=True) == 500
    assert book().least_pool_gib(is_scratch=False) == 0
