"""Every profile that ships: whatever runs on such a host at once leaves everything else alone."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.core.topology import HostProfile, Partition
from scheduler.profiles.loading import known_profiles, load_profile

PROFILES = tuple(load_profile(name) for name in known_profiles())


def test_the_kinds_of_hosts_that_ship() -> None:
    assert known_profiles() == (
        "dgx-2",
        "dgx-2-fabric",
        "dgx-2-lab",
        "dgx-a100",
        "generic",
        "hgx-a100-16",
        "hgx-b200",
        "hgx-h100",
        "hgx-h200",
    )


@settings(max_examples=10)
@given(st.data())
@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_whatever_is_started_in_whatever_order_fits_with_what_runs(profile: HostProfile, data: st.DataObject) -> None:
    running: list[Partition] = []
    for partition in data.draw(st.permutations(profile.partitions)):
        if not any(partition.overlaps(other) for other in running):
            running.append(partition)
    devices = Counter(address for partition in running for address in profile.devices(partition))
    assert max(devices.values()) == 1
    threads = Counter(thread for partition in running for thread in partition.share.vcpu_threads)
    assert profile.shares_threads or max(threads.values()) == 1
    assert set(threads).isdisjoint(profile.host_threads)
    by_node_gib: Counter[int] = Counter()
    for partition in running:
        by_node_gib.update(dict(partition.share.memory_gib_by_node))
    nodes = {thread.socket for thread in profile.threads}
    assert all(gib < profile.memory_gib // len(nodes) for gib in by_node_gib.values())
    assert sum(profile.disk_share_gib(partition.size) for partition in running) <= profile.pool_gib


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_partitions_of_a_size_have_equal_shares_and_larger_ones_start_no_faster(profile: HostProfile) -> None:
    bounds_s = [profile.bounds.start_s(size) for size in profile.sizes]
    assert bounds_s == sorted(bounds_s)
    for partition in profile.partitions:
        others = [other.share for other in profile.partitions if other.size == partition.size]
        assert {share.vcpus for share in others} == {partition.share.vcpus}
        assert {share.memory_gib for share in others} == {partition.share.memory_gib}
