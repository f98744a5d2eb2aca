"""The topology values, their lookups, and what the checks of a profile refuse."""

import copy
import pickle
from collections.abc import Iterable
from dataclasses import replace
from itertools import chain, combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.topology import (
    CoreShare,
    Fabric,
    Gpu,
    HandoverBounds,
    Hca,
    HostProfile,
    NvSwitch,
    Partition,
    PartitionId,
    Share,
    Thread,
    UnknownGpu,
    UnknownPartition,
    UnknownSize,
    mask_of,
)
from scheduler.core.topology_checks import MAX_GPUS, MAX_PARTITIONS, check_profile, heaviest_mix, shared_cores

GPUS = 4
CORES_PER_GPU = 2
CORES = GPUS * CORES_PER_GPU
HCA_OF_GPUS_0_1 = "0000:30:00.0"
SWITCH_OF_NODE_0 = "0000:40:00.0"


def node_of(gpu: int) -> int:
    return gpu * 2 // GPUS


def block(*gpus: int, hcas: tuple[str, ...] = (), nvswitches: tuple[str, ...] = ()) -> Partition:
    """A partition with all threads of its GPUs' cores for vCPUs, but its first core, which is its emulator's."""
    cores = [CORES_PER_GPU * gpu + k for gpu in gpus for k in range(CORES_PER_GPU)]
    threads = tuple(thread for core in cores[1:] for thread in (core, core + CORES))
    nodes = sorted({node_of(gpu) for gpu in gpus})
    share = Share(
        vcpus=len(threads),
        memory_gib=16 * len(gpus),
        memory_gib_by_node=tuple((node, 16 * sum(node_of(gpu) == node for gpu in gpus)) for node in nodes),
        hcas=hcas,
        nvswitches=nvswitches,
        nvlinks_per_gpu=0,
        vcpu_threads=threads,
        emulator_threads=(cores[0], cores[0] + CORES),
        shared_cores=(),
    )
    name = f"{len(gpus)}g{'_'.join(str(gpu) for gpu in gpus)}"
    return Partition(id=PartitionId(name), gpus=frozenset(gpus), mask=mask_of(gpus), share=share)


def with_share(partition: Partition, **changes: object) -> Partition:
    return replace(partition, share=replace(partition.share, **changes))  # type: ignore[arg-type]


def host(*partitions: Partition) -> HostProfile:
    """Four GPUs on two sockets, with two cores of two threads each, an HCA of GPUs 0 and 1, a switch, 64 GiB."""
    return HostProfile(
        name="small",
        gpus=tuple(
            Gpu(index=i, address=f"0000:{0x10 + i:02x}:00.0", numa_node=node_of(i), root=f"0000:0{node_of(i)}")
            for i in range(GPUS)
        ),
        nvswitches=(NvSwitch(index=0, address=SWITCH_OF_NODE_0, numa_node=0, root="0000:00"),),
        hcas=(Hca(index=0, address=HCA_OF_GPUS_0_1, numa_node=0, root="0000:00", gpus=frozenset({0, 1})),),
        nvmes=(),
        threads=tuple(
            Thread(
                id=thread,
                core=thread % CORES,
                socket=thread % CORES * 2 // CORES,
                sibling=(thread + CORES) % (2 * CORES),
            )
            for thread in range(2 * CORES)
        ),
        partitions=partitions,
        host_threads=(),
        memory_gib=64,
        bounds=HandoverBounds(destroy_s=60, reset_s=120, start_s_by_size=((1, 180), (2, 180), (3, 200), (4, 240))),
        pool_gib=1000,
        scratch_gib=200,
        os_disk_gib=50,
    )


SINGLES = tuple(block(gpu) for gpu in range(GPUS))
SMALL = host(
    *SINGLES, block(0, 1, hcas=(HCA_OF_GPUS_0_1,), nvswitches=(SWITCH_OF_NODE_0,)), block(2, 3), block(0, 1, 2, 3)
)


def problems_with(*partitions: Partition) -> str:
    return "\n".join(check_profile(host(*partitions)))


# --- values and lookups


def test_a_sound_profile_has_no_problems() -> None:
    assert check_profile(SMALL) == ()


@given(st.frozensets(st.integers(0, 15), min_size=1), st.frozensets(st.integers(0, 15), min_size=1))
def test_partitions_overlap_exactly_if_they_have_a_gpu_in_common(one: frozenset[int], other: frozenset[int]) -> None:
    share = SINGLES[0].share
    left = Partition(id=PartitionId("left"), gpus=one, mask=mask_of(one), share=share)
    right = Partition(id=PartitionId("right"), gpus=other, mask=mask_of(other), share=share)
    assert left.overlaps(right) == right.overlaps(left) == bool(one & other)


def test_bit_i_of_a_mask_is_gpu_i() -> None:
    assert mask_of([0, 3]) == 0b1001
    assert mask_of([]) == 0


def test_partitions_are_found_by_id_size_and_exact_set() -> None:
    assert SMALL.partition(PartitionId("2g2_3")).gpus == {2, 3}
    assert SMALL.sizes == (1, 2, 4)
    assert [partition.id for partition in SMALL.partitions_of_size(2)] == ["2g0_1", "2g2_3"]
    assert SMALL.partitions_of_size(3) == ()
    assert SMALL.partition_of([1, 0]) is SMALL.partition(PartitionId("2g0_1"))
    assert SMALL.partition_of([1, 2]) is None


def test_an_unknown_partition_is_named_with_the_known_ones() -> None:
    with pytest.raises(UnknownPartition, match=r"small.*'8g0-7'.*1g0, 1g1, .*4g0_1_2_3") as caught:
        SMALL.partition(PartitionId("8g0-7"))
    assert caught.value.code == "partition.unknown"
    assert caught.value.facts["partition"] == "8g0-7"
    assert not caught.value.retryable


def test_an_unknown_gpu_and_an_unknown_size_are_named() -> None:
    with pytest.raises(UnknownGpu, match="no GPU 9; its GPUs are 0, 1, 2, 3"):
        SMALL.gpu(9)
    with pytest.raises(UnknownSize, match="VM of 8 GPUs; this host's sizes are 1, 2, 3, 4"):
        SMALL.bounds.start_s(8)


def test_devices_of_a_partition_are_its_gpus_then_switches_then_hcas() -> None:
    pair = SMALL.partition(PartitionId("2g0_1"))
    assert SMALL.devices(pair) == ("0000:10:00.0", "0000:11:00.0", SWITCH_OF_NODE_0, HCA_OF_GPUS_0_1)


def test_shares_of_the_pool_leave_the_scratch_alone() -> None:
    assert [SMALL.disk_share_gib(size) for size in (1, 2, 4)] == [200, 400, 800]


def test_profiles_are_equal_by_their_data_and_keep_their_lookups_through_copies() -> None:
    twins = (replace(SMALL), copy.deepcopy(SMALL), pickle.loads(pickle.dumps(SMALL)))
    for twin in twins:
        assert twin == SMALL
        assert hash(twin) == hash(SMALL)
        assert twin.partition_of([2, 3]) == SMALL.partition_of([2, 3])
    assert replace(SMALL, memory_gib=65) != SMALL
    assert "_partition_by" not in repr(SMALL)


def test_lookups_follow_the_partitions_when_a_profile_is_replaced() -> None:
    fewer = replace(SMALL, partitions=SINGLES[:2])
    assert fewer.sizes == (1,)
    assert fewer.partition_of([2, 3]) is None


# --- shared cores


def test_a_core_with_a_tenants_and_a_reserved_thread_is_shared_and_says_with_whom() -> None:
    found = shared_cores(
        threads=SMALL.threads, vcpu_threads=(0, 1, 9, 2, 10, 3), emulator_threads=(8,), host_threads=(11,)
    )
    assert found == (
        CoreShare(core=0, tenant_threads=(0,), reserved_threads=(8,), reserved_for="emulator"),
        CoreShare(core=3, tenant_threads=(3,), reserved_threads=(11,), reserved_for="host"),
    )


# --- the heaviest mix


def every_mix(partitions: tuple[Partition, ...]) -> Iterable[tuple[Partition, ...]]:
    chosen = chain.from_iterable(combinations(partitions, count) for count in range(len(partitions) + 1))
    return (mix for mix in chosen if not any(one.overlaps(other) for one, other in combinations(mix, 2)))


@given(st.lists(st.tuples(st.frozensets(st.integers(0, 6), min_size=1, max_size=4), st.integers(1, 50)), max_size=8))
def test_the_heaviest_mix_is_what_trying_every_mix_finds(rows: list[tuple[frozenset[int], int]]) -> None:
    partitions = tuple(
        Partition(
            id=PartitionId(f"p{place}"),
            gpus=gpus,
            mask=mask_of(gpus),
            share=replace(SINGLES[0].share, memory_gib=memory_gib),
        )
        for place, (gpus, memory_gib) in enumerate(rows)
    )
    best = max(sum(partition.share.memory_gib for partition in mix) for mix in every_mix(partitions))
    found, mix = heaviest_mix(partitions, lambda share: share.memory_gib)
    assert found == best == sum(partition.share.memory_gib for partition in mix)
    assert not any(one.overlaps(other) for one, other in combinations(mix, 2))


# --- what is refused


def test_the_same_set_twice_is_refused_and_both_are_named() -> None:
    again = replace(block(1, 0), id=PartitionId("again"))
    assert "2g0_1 and again are the same set of GPUs: 0, 1" in problems_with(block(0, 1), again)


def test_the_same_id_twice_is_refused() -> None:
    problems = problems_with(SINGLES[0], replace(SINGLES[1], id=PartitionId("1g0")))
    assert "partition id 1g0 is listed 2 times" in problems


def test_an_unknown_gpu_is_refused_and_named() -> None:
    stray = replace(SINGLES[0], gpus=frozenset({0, 17}), mask=mask_of({0, 17}))
    assert "partition 1g0 names unknown GPU 17" in problems_with(stray)


def test_a_mask_that_is_not_the_gpus_is_refused() -> None:
    assert "partition 1g1 has mask 0x1, its GPUs 1" in problems_with(replace(SINGLES[1], mask=1))


def test_an_empty_partition_is_refused() -> None:
    assert "partition 1g0 has no GPUs" in problems_with(replace(SINGLES[0], gpus=frozenset(), mask=0))


def test_one_set_more_than_the_limit_is_refused_and_the_limit_itself_is_not() -> None:
    gpu_sets = list(chain.from_iterable(combinations(range(7), size) for size in range(1, 8)))
    sets = [replace(SINGLES[0], id=PartitionId(f"set{n}"), gpus=frozenset(g)) for n, g in enumerate(gpu_sets)]
    assert "65 partitions, at most 64: set64 is one too many" in problems_with(*sets[: MAX_PARTITIONS + 1])
    assert "at most 64" not in problems_with(*sets[:MAX_PARTITIONS])


def test_one_gpu_more_than_the_limit_is_refused_and_the_limit_itself_is_not() -> None:
    def problems(count: int) -> str:
        gpus = tuple(replace(SMALL.gpus[0], index=i, address=f"0000:{i:02x}:00.0") for i in range(count))
        return "\n".join(check_profile(replace(SMALL, gpus=gpus)))

    assert "65 GPUs, at most 64: GPU 64 (0000:40:00.0) is one too many" in problems(MAX_GPUS + 1)
    assert "at most 64" not in problems(MAX_GPUS)


def test_a_gpu_whose_number_leaves_a_gap_is_refused() -> None:
    apart = replace(SMALL, gpus=(*SMALL.gpus[:3], replace(SMALL.gpus[3], index=7)))
    assert "GPU 7 has no place among 4 GPUs, which are numbered from 0 to 3" in check_profile(apart)


def test_a_profile_without_partitions_is_refused() -> None:
    assert check_profile(host()) == ("the profile has no partitions",)


def test_sets_that_cross_are_no_problem() -> None:
    assert check_profile(host(*SINGLES, block(0, 1), block(1, 2), block(2, 3), block(0, 3), block(0, 1, 2))) == ()


def test_a_size_without_a_start_bound_is_refused() -> None:
    unbounded = replace(SMALL, bounds=replace(SMALL.bounds, start_s_by_size=((1, 180), (4, 240))))
    assert check_profile(unbounded) == ("size 2 has no start bound",)


@given(st.sampled_from(SMALL.partitions), st.sampled_from(SMALL.partitions), st.data())
def test_a_thread_given_to_two_partitions_that_may_run_at_once_is_refused(
    one: Partition, other: Partition, data: st.DataObject
) -> None:
    if one.overlaps(other):
        return
    mine = one.share.vcpu_threads
    stolen = data.draw(st.sampled_from(other.share.vcpu_threads + other.share.emulator_threads))
    thief = with_share(one, vcpu_threads=(*mine[:-1], stolen))
    swapped = tuple(thief if partition is one else partition for partition in SMALL.partitions)
    problems = check_profile(replace(SMALL, partitions=swapped))
    assert any(
        problem.startswith(f"thread {stolen} ") and one.id in problem and other.id in problem for problem in problems
    )


def test_two_tenants_on_one_core_are_refused_though_their_threads_differ() -> None:
    half_a_core = with_share(SINGLES[1], vcpus=1, vcpu_threads=(3,))
    intruder = with_share(SINGLES[0], vcpu_threads=(1, 11))
    assert "core 3 is given to both 1g0 and 1g1" in problems_with(intruder, half_a_core)


def test_an_emulator_on_another_tenants_core_is_refused() -> None:
    intruder = with_share(SINGLES[0], emulator_threads=(11,))
    half_a_core = with_share(SINGLES[1], vcpus=1, vcpu_threads=(3,))
    assert "core 3 is given to both 1g0 and 1g1" in problems_with(intruder, half_a_core)


def test_emulators_may_meet_on_the_hosts_own_threads() -> None:
    partitions = (with_share(SINGLES[0], emulator_threads=(0, 8)), with_share(SINGLES[1], emulator_threads=(0, 8)))
    assert "thread 0 is given to both 1g0 and 1g1" in problems_with(*partitions)
    assert check_profile(replace(host(*partitions), host_threads=(0, 8))) == ()


def crowded(*partitions: Partition) -> HostProfile:
    """The host whose partitions' vCPUs and emulators are all on the first thread of their socket."""

    def crowd(partition: Partition) -> Partition:
        threads = tuple(0 if node == 0 else CORES // 2 for node, _ in partition.share.memory_gib_by_node)
        met = shared_cores(threads=SMALL.threads, vcpu_threads=threads, emulator_threads=threads, host_threads=())
        return with_share(
            partition, vcpus=len(threads), vcpu_threads=threads, emulator_threads=threads, shared_cores=met
        )

    return replace(host(*(crowd(partition) for partition in partitions)), shares_threads=True)


def test_on_a_host_that_shares_threads_vms_and_emulators_may_meet_on_them() -> None:
    profile = crowded(*SINGLES, block(0, 1), block(2, 3), block(0, 1, 2, 3))
    assert check_profile(profile) == ()
    problems = check_profile(replace(profile, shares_threads=False))
    assert "thread 0 is given to both 1g0 and 1g1, which may run at once" in problems
    assert "partition 1g0 is given thread 0 2 times" in problems


def test_on_a_host_that_shares_threads_all_else_is_held_to() -> None:
    twins = (block(0, nvswitches=(SWITCH_OF_NODE_0,)), block(1, nvswitches=(SWITCH_OF_NODE_0,)))
    given_twice = f"NVSwitch {SWITCH_OF_NODE_0} is given to both 1g0 and 1g1, which may run at once"
    assert given_twice in check_profile(crowded(*twins))
    big = with_share(SINGLES[0], memory_gib=33, memory_gib_by_node=((0, 33),))
    assert "1g0 at once take 33 GiB of NUMA node 0, which has 32 GiB" in check_profile(crowded(big))
    profile = crowded(SINGLES[0])
    far = with_share(profile.partitions[0], vcpu_threads=(7,), shared_cores=())
    problems = check_profile(replace(profile, partitions=(far,)))
    assert "partition 1g0 has its vCPU threads on NUMA nodes 1, its GPUs on 0" in problems
    twice = with_share(profile.partitions[0], vcpus=2, vcpu_threads=(0, 0))
    assert "partition 1g0 is given thread 0 2 times" in check_profile(replace(profile, partitions=(twice,)))


def test_a_thread_of_the_hosts_given_to_a_tenant_is_refused() -> None:
    problems = check_profile(replace(SMALL, host_threads=(1,)))
    assert "partition 1g0 is given thread 1, which is the host's" in problems


def test_a_shared_core_that_is_not_admitted_is_refused() -> None:
    quiet = with_share(SINGLES[0], vcpus=3, vcpu_threads=(0, 1, 9), emulator_threads=(8,))
    assert "partition 1g0 says it shares cores none, its threads say 0" in problems_with(quiet)


def test_vcpus_without_threads_for_them_are_refused() -> None:
    assert "partition 1g0 has 3 vCPUs and 2 threads for them" in problems_with(with_share(SINGLES[0], vcpus=3))


def test_threads_off_the_gpus_socket_are_refused() -> None:
    far = with_share(SINGLES[0], vcpu_threads=(7, 15))
    assert "partition 1g0 has its vCPU threads on NUMA nodes 1, its GPUs on 0" in problems_with(far)


def test_memory_off_the_gpus_node_is_refused() -> None:
    far = with_share(SINGLES[0], memory_gib_by_node=((1, 16),))
    assert "partition 1g0 has its memory on NUMA nodes 1, its GPUs on 0" in problems_with(far)


def test_memory_that_does_not_add_up_over_the_nodes_is_refused() -> None:
    assert "partition 1g0 has 17 GiB of memory, 16 GiB over" in problems_with(with_share(SINGLES[0], memory_gib=17))


def test_a_device_of_the_other_socket_is_refused() -> None:
    far = block(2, 3, nvswitches=(SWITCH_OF_NODE_0,))
    assert f"partition 2g2_3 is given {SWITCH_OF_NODE_0} on NUMA node 0, its GPUs are on 1" in problems_with(far)


def test_an_hca_that_also_serves_a_gpu_outside_is_refused() -> None:
    single = block(0, hcas=(HCA_OF_GPUS_0_1,))
    assert f"partition 1g0 is given HCA {HCA_OF_GPUS_0_1}, which also serves GPUs 1" in problems_with(single)


def test_a_device_given_to_two_partitions_that_may_run_at_once_is_refused() -> None:
    problems = problems_with(block(0, nvswitches=(SWITCH_OF_NODE_0,)), block(1, nvswitches=(SWITCH_OF_NODE_0,)))
    assert f"NVSwitch {SWITCH_OF_NODE_0} is given to both 1g0 and 1g1, which may run at once" in problems


def test_a_device_given_to_two_partitions_that_can_never_meet_is_fine() -> None:
    assert problems_with(block(0, 1, nvswitches=(SWITCH_OF_NODE_0,)), block(0, nvswitches=(SWITCH_OF_NODE_0,))) == ""


def test_unknown_devices_and_threads_are_refused_and_named() -> None:
    stray = with_share(block(0, hcas=("0000:99:00.0",), nvswitches=("0000:98:00.0",)), vcpu_threads=(1, 99))
    problems = problems_with(stray)
    for offender in ("HCA 0000:99:00.0", "NVSwitch 0000:98:00.0", "thread 99"):
        assert f"partition 1g0 names unknown {offender}" in problems


def test_a_mix_with_more_memory_than_its_node_has_is_refused_and_the_mix_is_named() -> None:
    big = with_share(SINGLES[0], memory_gib=17, memory_gib_by_node=((0, 17),))
    assert "1g0, 1g1 at once take 33 GiB of NUMA node 0, which has 32 GiB" in problems_with(big, *SINGLES[1:])


def test_one_address_for_two_devices_is_refused() -> None:
    twin = replace(SMALL.gpus[0], index=4)
    assert "PCI address 0000:10:00.0 is listed 2 times" in check_profile(replace(SMALL, gpus=(*SMALL.gpus, twin)))


def test_scratch_larger_than_the_pool_is_refused() -> None:
    assert check_profile(replace(SMALL, scratch_gib=1001)) == (
        "scratch of 1001 GiB is not a part of the pool of 1000 GiB",
    )


def test_a_bound_of_nothing_is_refused() -> None:
    hasty = replace(SMALL, bounds=replace(SMALL.bounds, reset_s=0))
    assert check_profile(hasty) == ("bound reset_s is 0; a bound is at least 1 second",)


def test_threads_that_do_not_name_each_other_as_siblings_are_refused() -> None:
    lone = replace(SMALL, threads=(replace(SMALL.threads[0], sibling=5), *SMALL.threads[1:]))
    assert "thread 0 and its sibling 5 do not name each other on core 0" in check_profile(lone)


# --- a fabric that is shared


def shared(*partitions: Partition) -> HostProfile:
    """The host with a Fabric Manager, which knows GPU 0 as module 1, and the partitions by their order."""
    gpus = tuple(replace(gpu, module=gpu.index + 1) for gpu in SMALL.gpus)
    numbered = tuple(replace(partition, fabric_id=place) for place, partition in enumerate(partitions))
    return replace(host(*numbered), gpus=gpus, nvswitches=(), fabric=Fabric.SHARED)


def test_a_host_with_a_shared_fabric_is_sound_where_everything_has_its_number() -> None:
    assert check_profile(shared(*SINGLES, block(0, 1), block(0, 2))) == ()


def test_where_the_fabric_is_shared_switches_are_in_no_profile() -> None:
    problems = check_profile(replace(shared(*SINGLES), nvswitches=SMALL.nvswitches))
    assert problems == (f"NVSwitch {SWITCH_OF_NODE_0} is listed, but where the fabric is shared no VM is given one",)


def test_what_a_shared_fabric_cannot_know_by_number_is_refused() -> None:
    sound = shared(*SINGLES)
    nameless = replace(sound, gpus=(*sound.gpus[:3], SMALL.gpus[3]), partitions=(*sound.partitions[:3], SINGLES[3]))
    assert check_profile(nameless) == (
        "GPU 3 has no module, by which a shared fabric knows it",
        "partition 1g3 has no fabric_id, by which a shared fabric knows it",
    )


def test_a_number_that_two_have_is_refused() -> None:
    sound = shared(*SINGLES)
    twins = replace(
        sound,
        gpus=(*sound.gpus[:3], replace(sound.gpus[3], module=1)),
        partitions=(*sound.partitions[:3], replace(sound.partitions[3], fabric_id=2)),
    )
    assert check_profile(twins) == ("GPU module 1 is listed 2 times", "fabric_id 2 is listed 2 times")


def test_a_number_in_a_fabric_that_is_not_shared_is_refused() -> None:
    stray = replace(SINGLES[1], fabric_id=7)
    assert "partition 1g1 has fabric_id 7, but the fabric is not shared" in problems_with(SINGLES[0], stray)
