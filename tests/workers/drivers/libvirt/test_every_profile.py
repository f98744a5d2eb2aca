"""A VM can be defined on every partition of every kind of host that ships, also where a set of GPUs crosses boards."""

import pytest

from scheduler.profiles.loading import known_profiles, load_profile
from tests.workers.drivers.libvirt.test_definition import spec_of, text_of
from workers.drivers.libvirt.reading import read_domain


@pytest.mark.parametrize("name", known_profiles())
def test_a_vm_on_each_partition_has_exactly_its_devices_and_tells_which_partition_it_is_on(name: str) -> None:
    profile = load_profile(name)
    for partition in profile.partitions:
        seen = read_domain(text_of(spec_of(profile, partition.id), profile))
        assert seen.partition == partition.id
        assert seen.devices == frozenset(profile.devices(partition))
