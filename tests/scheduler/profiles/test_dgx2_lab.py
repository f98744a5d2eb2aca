"""The virtual DGX-2's profile: the partitions of the real one, on two threads that all VMs share."""

import pytest

from scheduler.core.topology import Accelerator, Firmware, Partition
from scheduler.profiles.loading import known_profiles, load_profile

DGX2 = load_profile("dgx-2")
LAB = load_profile("dgx-2-lab")
each_partition = pytest.mark.parametrize("partition", LAB.partitions, ids=lambda partition: partition.id)


def switches(profile_name: str, partition: Partition) -> list[int]:
    index_by_address = {switch.address: switch.index for switch in load_profile(profile_name).nvswitches}
    return [index_by_address[address] for address in partition.share.nvswitches]


def test_it_is_shipped() -> None:
    assert "dgx-2-lab" in known_profiles()


def test_it_has_the_gpus_and_switches_of_a_dgx2_on_the_same_nodes_and_no_adapters() -> None:
    assert [(gpu.index, gpu.numa_node) for gpu in LAB.gpus] == [(gpu.index, gpu.numa_node) for gpu in DGX2.gpus]
    assert [(s.index, s.numa_node) for s in LAB.nvswitches] == [(s.index, s.numa_node) for s in DGX2.nvswitches]
    assert LAB.hcas == ()


def test_its_partitions_are_those_of_a_dgx2_with_the_same_switches() -> None:
    assert [(partition.id, partition.gpus) for partition in LAB.partitions] == [
        (partition.id, partition.gpus) for partition in DGX2.partitions
    ]
    for partition in LAB.partitions:
        assert switches("dgx-2-lab", partition) == switches("dgx-2", DGX2.partition(partition.id))


@each_partition
def test_vcpus_and_emulator_are_on_the_thread_of_each_node_of_the_gpus(partition: Partition) -> None:
    share = partition.share
    nodes = tuple(sorted({gpu // 8 for gpu in partition.gpus}))
    assert share.vcpu_threads == share.emulator_threads == nodes
    assert share.vcpus == len(nodes)
    assert share.memory_gib_by_node == tuple((node, 1) for node in nodes)


def test_vms_on_it_are_emulated_and_in_no_network() -> None:
    assert LAB.shares_threads
    vm = LAB.vm
    assert (vm.accelerator, vm.firmware, vm.hugepage_kib) == (Accelerator.EMULATED, Firmware.BIOS, 2048)
    assert (vm.pool, vm.image_pool) == (DGX2.vm.pool, DGX2.vm.image_pool)
    assert (vm.network, vm.network_filter) == ("", "")
    assert LAB.pci_ids.gpus == ("1234:11e8",)
    assert LAB.pci_ids.nvswitches == ("1b36:0005",)
