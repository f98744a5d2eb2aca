"""A kind of host without any device to pass through: one NUMA node, one thread, blocks of 1 to 16 GPUs in name only.

What a libvirt shows of VMs and disks can be proven on it anywhere.
"""

from scheduler.core.topology import (
    Accelerator,
    Gpu,
    HandoverBounds,
    HostProfile,
    Partition,
    PartitionId,
    Share,
    Thread,
    VmSettings,
    mask_of,
)

GPUS = 16
SIZES = (1, 2, 4, 8, 16)


def plain_host() -> HostProfile:
    """Return the profile."""
    return HostProfile(
        name="plain",
        gpus=tuple(
            Gpu(index=index, address=f"0000:f0:{index:02x}.0", numa_node=0, root="0000:f0") for index in range(GPUS)
        ),
        nvswitches=(),
        hcas=(),
        nvmes=(),
        threads=(Thread(id=0, core=0, socket=0, sibling=0),),
        partitions=tuple(_block(size, first) for size in SIZES for first in range(0, GPUS, size)),
        host_threads=(),
        memory_gib=16,
        bounds=HandoverBounds(destroy_s=20, reset_s=5, start_s_by_size=tuple((size, 60) for size in SIZES)),
        pool_gib=4,
        scratch_gib=0,
        os_disk_gib=1,
        vm=VmSettings(accelerator=Accelerator.EMULATED, network="", network_filter=""),
        shares_threads=True,
    )


def _block(size: int, first: int) -> Partition:
    gpus = range(first, first + size)
    last = "" if size == 1 else f"-{first + size - 1}"
    return Partition(
        id=PartitionId(f"{size}g{first}{last}"),
        gpus=frozenset(gpus),
        mask=mask_of(gpus),
        share=Share(
            vcpus=1,
            memory_gib=1,
            memory_gib_by_node=((0, 1),),
            hcas=(),
            nvswitches=(),
            nvlinks_per_gpu=0,
            vcpu_threads=(0,),
            emulator_threads=(0,),
            shared_cores=(),
        ),
    )
