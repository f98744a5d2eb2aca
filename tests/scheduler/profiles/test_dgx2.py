"""The DGX-2's profile: its shares, that any legal mix of VMs fits at once, and that a bad file is refused by name."""

import tomllib
from collections import Counter
from collections.abc import Iterator
from importlib import resources
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.errors import NightshiftError
from scheduler.core.topology import Accelerator, Firmware, HostProfile, Partition, PartitionId, PciIds, VmSettings
from scheduler.profiles.loading import BadProfile, UnknownProfile, known_profiles, load_profile

DGX2 = load_profile("dgx-2")
TEXT = resources.files("scheduler.profiles").joinpath("dgx-2.toml").read_text(encoding="utf-8")
SIZES = (1, 2, 4, 8, 16)
CORE_BY_THREAD = {thread.id: thread.core for thread in DGX2.threads}
SOCKET_BY_THREAD = {thread.id: thread.socket for thread in DGX2.threads}
SINGLES = DGX2.partitions_of_size(1)

# size: vCPUs, GiB, HCAs, NVSwitches, NVLinks per GPU, emulator threads
TABLE = {
    1: (5, 90, 0, 0, 0, 1),
    2: (10, 180, 1, 1, 1, 2),
    4: (22, 361, 2, 3, 3, 2),
    8: (46, 723, 4, 6, 6, 2),
    16: (92, 1446, 8, 12, 6, 4),
}


def block(first: int, size: int) -> Partition:
    partition = DGX2.partition_of(range(first, first + size))
    assert partition is not None
    return partition


def tilings(first: int, size: int) -> Iterator[tuple[Partition, ...]]:
    """Every way to fill `size` GPUs from `first` on with aligned blocks: whole, or each half in every way."""
    yield (block(first, size),)
    if size > 1:
        half = size // 2
        for left in tilings(first, half):
            for right in tilings(first + half, half):
                yield left + right


def assert_fits(mix: tuple[Partition, ...]) -> None:
    """Assert that these VMs can run at once and leave each other and the host alone."""
    for owned in (
        [gpu for partition in mix for gpu in partition.gpus],
        [thread for partition in mix for thread in partition.share.vcpu_threads + partition.share.emulator_threads],
        [address for partition in mix for address in DGX2.devices(partition)],
        # A core may run a tenant's vCPUs and its own emulator, never anything of two tenants.
        [
            core
            for partition in mix
            for core in {CORE_BY_THREAD[t] for t in partition.share.vcpu_threads + partition.share.emulator_threads}
        ],
    ):
        assert [value for value, times in Counter(owned).items() if times > 1] == []
    tenant_threads = {thread for partition in mix for thread in partition.share.vcpu_threads}
    assert tenant_threads.isdisjoint(DGX2.host_threads)
    assert len(tenant_threads) <= 92
    by_node_gib: Counter[int] = Counter()
    for partition in mix:
        by_node_gib.update(dict(partition.share.memory_gib_by_node))
    assert all(gib <= DGX2.memory_gib // 2 for gib in by_node_gib.values())
    assert by_node_gib.total() <= 1446
    assert sum(DGX2.disk_share_gib(partition.size) for partition in mix) <= DGX2.pool_gib - DGX2.scratch_gib


# --- the shares


def test_the_host_is_a_dgx2() -> None:
    assert DGX2.name == "dgx-2"
    assert (len(DGX2.gpus), len(DGX2.nvswitches), len(DGX2.hcas), len(DGX2.threads)) == (16, 12, 8, 96)
    assert Counter(nvme.use for nvme in DGX2.nvmes) == {"data": 8, "os": 2}
    assert [gpu.index for gpu in DGX2.gpus] == list(range(16))
    assert [gpu.address for gpu in DGX2.gpus] == sorted(gpu.address for gpu in DGX2.gpus)
    assert {gpu.root for gpu in DGX2.gpus} == {"0000:2b", "0000:4e", "0000:ae", "0000:d7"}


def test_threads_n_and_n_plus_48_are_siblings_and_sockets_have_24_cores() -> None:
    for thread in DGX2.threads:
        assert thread.sibling == (thread.id + 48) % 96
        assert thread.core == thread.id % 48
        assert thread.socket == (0 if thread.core < 24 else 1)


def test_there_are_31_aligned_partitions_named_as_nvidia_vm_names_vms() -> None:
    wanted = {
        (f"{size}g{first}" if size == 1 else f"{size}g{first}-{first + size - 1}"): frozenset(
            range(first, first + size)
        )
        for size in SIZES
        for first in range(0, 16, size)
    }
    assert {str(partition.id): partition.gpus for partition in DGX2.partitions} == wanted
    assert len(DGX2.partitions) == 31
    assert DGX2.sizes == SIZES


@pytest.mark.parametrize("partition", DGX2.partitions, ids=lambda partition: partition.id)
def test_a_partition_has_its_sizes_share(partition: Partition) -> None:
    share = partition.share
    found = (
        len(share.vcpu_threads),
        share.memory_gib,
        len(share.hcas),
        len(share.nvswitches),
        share.nvlinks_per_gpu,
        len(share.emulator_threads),
    )
    assert found == TABLE[partition.size]
    assert share.vcpus == len(share.vcpu_threads)


@pytest.mark.parametrize("partition", DGX2.partitions, ids=lambda partition: partition.id)
def test_threads_memory_and_devices_are_on_the_gpus_sockets(partition: Partition) -> None:
    share = partition.share
    nodes = {gpu // 8 for gpu in partition.gpus}
    assert {SOCKET_BY_THREAD[thread] for thread in share.vcpu_threads} == nodes
    assert {SOCKET_BY_THREAD[thread] for thread in share.emulator_threads} == nodes
    node_by_address = {device.address: device.numa_node for device in DGX2.nvswitches}
    node_by_address |= {device.address: device.numa_node for device in DGX2.hcas}
    assert {node_by_address[address] for address in share.nvswitches + share.hcas} <= nodes
    split = ((0, 723), (1, 723)) if partition.size == 16 else ((min(nodes), share.memory_gib),)
    assert share.memory_gib_by_node == split


@pytest.mark.parametrize("partition", DGX2.partitions, ids=lambda partition: partition.id)
def test_vcpus_run_on_their_own_gpus_cores_with_siblings_side_by_side(partition: Partition) -> None:
    own_cores = {3 * gpu + k for gpu in partition.gpus for k in range(3)}
    cores = [CORE_BY_THREAD[thread] for thread in partition.share.vcpu_threads]
    assert set(cores) <= own_cores
    assert cores == sorted(cores)


@pytest.mark.parametrize("partition", DGX2.partitions, ids=lambda partition: partition.id)
def test_a_partition_has_the_hcas_of_exactly_its_whole_pairs(partition: Partition) -> None:
    whole = tuple(hca.address for hca in DGX2.hcas if hca.gpus <= partition.gpus)
    assert partition.share.hcas == whole


def test_each_hca_is_under_the_root_of_its_pair_of_gpus() -> None:
    for hca in DGX2.hcas:
        assert hca.gpus == {2 * hca.index, 2 * hca.index + 1}
        assert {DGX2.gpu(gpu).root for gpu in hca.gpus} == {hca.root}


def test_vms_are_made_with_kvm_uefi_and_pages_of_a_gib() -> None:
    assert DGX2.vm == VmSettings(
        accelerator=Accelerator.KVM,
        firmware=Firmware.UEFI,
        hugepage_kib=1048576,
        pool="nightshift",
        image_pool="nightshift-images",
        network="nightshift",
        network_filter="clean-traffic",
    )
    assert DGX2.pci_ids == PciIds(gpus=("10de:1db8",), nvswitches=("10de:1ac2",), hcas=())
    assert not DGX2.shares_threads


def test_five_minutes_of_grace_and_the_handover_to_16_gpus_take_15_minutes_at_most() -> None:
    bounds = DGX2.bounds
    assert 300 + bounds.destroy_s + bounds.reset_s + bounds.start_s(16) == 900
    starts_s = [bounds.start_s(size) for size in SIZES]
    assert starts_s == sorted(starts_s)


# --- any legal mix fits


def test_every_full_layout_fits_at_once() -> None:
    layouts = list(tilings(0, 16))
    assert len(layouts) == 677
    for layout in layouts:
        assert sum(partition.size for partition in layout) == 16
        assert_fits(layout)


@given(st.lists(st.sampled_from(DGX2.partitions), max_size=40))
def test_whatever_is_started_in_whatever_order_fits_with_what_runs(starts: list[Partition]) -> None:
    running: list[Partition] = []
    for partition in starts:
        if not any(partition.overlaps(other) for other in running):
            running.append(partition)
    assert_fits(tuple(running))


def test_host_threads_are_exactly_those_that_every_full_layout_leaves_out() -> None:
    everywhere_left_out = {thread.id for thread in DGX2.threads}
    for layout in tilings(0, 16):
        everywhere_left_out -= {thread for partition in layout for thread in partition.share.vcpu_threads}
    assert set(DGX2.host_threads) == everywhere_left_out == {48, 72}


def test_threads_0_and_24_are_the_hosts_unless_one_gpu_vms_are_on_gpu_0_or_8() -> None:
    users = {
        thread: {partition.id for partition in DGX2.partitions if thread in partition.share.vcpu_threads}
        for thread in (0, 24)
    }
    assert users == {0: {"1g0"}, 24: {"1g8"}}


# --- shared cores


def test_no_two_vms_that_may_run_at_once_meet_on_a_core() -> None:
    for one, other in combinations(DGX2.partitions, 2):
        if not one.overlaps(other):
            assert_fits((one, other))


@pytest.mark.parametrize("partition", SINGLES, ids=lambda partition: partition.id)
def test_a_one_gpu_vm_shares_its_first_core_with_its_emulator_or_the_host_and_says_so(partition: Partition) -> None:
    (gpu,) = partition.gpus
    (shared,) = partition.share.shared_cores
    assert shared.core == 3 * gpu
    assert shared.tenant_threads == (3 * gpu,)
    assert shared.reserved_threads == partition.share.emulator_threads == (3 * gpu + 48,)
    assert shared.reserved_for == ("host" if gpu in (0, 8) else "emulator")


def test_exactly_the_16_one_gpu_partitions_share_a_core() -> None:
    sharing = [partition for partition in DGX2.partitions if partition.share.shared_cores]
    assert sharing == list(SINGLES)
    assert len(sharing) == 16


@pytest.mark.parametrize("partition", [p for p in DGX2.partitions if p.size > 1], ids=lambda partition: partition.id)
def test_from_two_gpus_on_a_vms_cores_are_its_own(partition: Partition) -> None:
    share = partition.share
    siblings = {thread.sibling for thread in DGX2.threads if thread.id in share.vcpu_threads}
    assert siblings == set(share.vcpu_threads)


# --- disks


def test_a_full_layout_of_any_sizes_may_have_its_disks_beside_the_scratch() -> None:
    assert [DGX2.disk_share_gib(size) for size in SIZES] == [1250, 2500, 5000, 10000, 20000]
    assert DGX2.disk_share_gib(16) + DGX2.scratch_gib <= DGX2.pool_gib


# --- loading


def load_text(folder: Path, text: str) -> HostProfile:
    file = folder / "mine.toml"
    file.write_text(text, encoding="utf-8")
    return load_profile(file)


def changed(old: str, new: str) -> str:
    assert TEXT.count(old) == 1, f"{old!r} is in the file {TEXT.count(old)} times"
    return TEXT.replace(old, new)


ROW_1G3 = '{ id = "1g3", gpus = [3], nvswitches = [], hcas = [], emulator_threads = [57] },'


def test_every_shipped_profile_loads_under_its_own_name() -> None:
    assert "dgx-2" in known_profiles()
    for name in known_profiles():
        assert load_profile(name).name == name


def test_a_file_is_loaded_by_its_path_as_a_path_or_as_text(tmp_path: Path) -> None:
    assert load_text(tmp_path, TEXT) == DGX2
    assert load_profile(str(tmp_path / "mine.toml")) == DGX2


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownProfile, match=r"'dgx-9'; name one of .*dgx-2") as caught:
        load_profile("dgx-9")
    assert isinstance(caught.value, NightshiftError)
    assert caught.value.code == "profile.unknown"


def test_a_path_without_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownProfile, match=r"no profile file at .*absent\.toml"):
        load_profile(tmp_path / "absent.toml")


def test_bad_toml_is_refused_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(BadProfile, match=r"mine\.toml: not valid TOML: .*line 2") as caught:
        load_text(tmp_path, 'name = "mine"\nmemory_gib = = 3\n')
    assert isinstance(caught.value.__cause__, tomllib.TOMLDecodeError)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadProfile, match="cannot be read as UTF-8 text"):
        load_profile(tmp_path / "mine.toml")


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("memory_gib = 1536\n", "", "memory_gib is missing"),
        ('address = "0000:3b:00.0", ', "", r"gpus\[3\]\.address is missing"),
        ("destroy_s = 60", "", r"bounds\.destroy_s is missing"),
        ("memory_gib = 1536\n", 'memory_gib = "1536"\n', "memory_gib must be a whole number, 0 or more, it is '1536'"),
        ("memory_gib = 1536\n", "memory_gib = true\n", "memory_gib must be a whole number, 0 or more, it is True"),
        ("memory_gib = 1536\n", "memory_gib = -1\n", "memory_gib must be a whole number, 0 or more, it is -1"),
        ("host_threads = [48, 72]", "host_threads = 48", "host_threads must be a list of whole numbers"),
        ('address = "0000:3b:00.0"', "address = 59", r"gpus\[3\]\.address must be a text that is not empty, it is 59"),
        ("[bounds]", "[[bounds]]", "bounds must be a table"),
        ("reset_s = 120", "reset_s = 120\nreset_ms = 3", r"bounds\.reset_ms is not a known key; .*destroy_s, reset_s"),
        ('name = "dgx-2"', 'name = "dgx-2"\nswitches = []', "switches is not a known key"),
        ('name = "dgx-2"', 'name = "dgx-2"\nshares_threads = 1', "shares_threads must be true or false, it is 1"),
        ('accelerator = "kvm"', 'accelerator = "xen"', r"vm\.accelerator must be one of kvm, qemu, it is 'xen'"),
        ('firmware = "uefi"', "firmware = true", r"vm\.firmware must be one of bios, uefi, it is True"),
        (
            "hugepage_kib = 1048576",
            "hugepage_kib = -1",
            r"vm\.hugepage_kib must be a whole number, 0 or more, it is -1",
        ),
        ("hugepage_kib = 1048576", "hugepage_gib = 1", r"vm\.hugepage_gib is not a known key"),
        ('pool = "nightshift"\n', 'pool = ""\n', r"vm\.pool must be a text that is not empty, it is ''"),
        ('network = "nightshift"', "network = 0", r"vm\.network must be a text, it is 0"),
        ("[vm]", "[[vm]]", "vm must be a table"),
        ('gpus = ["10de:1db8"]', 'gpus = "10de:1db8"', r"pci_ids\.gpus must be a list of texts"),
        ('gpus = ["10de:1db8"]', "gpus = [4318]", r"pci_ids\.gpus must be a list of texts"),
    ],
)
def test_a_missing_mistyped_or_unknown_key_is_refused_by_its_path(
    tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    with pytest.raises(BadProfile, match=complaint) as caught:
        load_text(tmp_path, changed(old, new))
    assert caught.value.code == "profile.bad"
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        pytest.param(
            ROW_1G3,
            ROW_1G3 + "\n" + ROW_1G3.replace("1g3", "again"),
            "partitions 1g3 and again are the same set of GPUs: 3",
            id="same set twice",
        ),
        pytest.param(
            'id = "1g3", gpus = [3]',
            'id = "1g3", gpus = [16]',
            "partition 1g3 names unknown GPU 16",
            id="unknown GPU",
        ),
        pytest.param(
            'id = "2g0-1", gpus = [0, 1]',
            'id = "2g0-1", gpus = [0, 1, 2]',
            "partition 2g0-1 has size 3",
            id="size without a share",
        ),
        pytest.param(
            'id = "2g0-1", gpus = [0, 1], nvswitches = [0]',
            'id = "2g0-1", gpus = [0, 1], nvswitches = [0, 1]',
            "nvswitches must be 1 of them for partition 2g0-1",
            id="more switches than the size has",
        ),
        pytest.param(
            'id = "2g2-3", gpus = [2, 3], nvswitches = [1]',
            'id = "2g2-3", gpus = [2, 3], nvswitches = [0]',
            "NVSwitch 0000:61:00.0 is given to both 2g0-1 and 2g2-3",
            id="two pairs on one switch",
        ),
        pytest.param(
            'id = "2g2-3", gpus = [2, 3], nvswitches = [1]',
            'id = "2g2-3", gpus = [2, 3], nvswitches = [12]',
            "partition 2g2-3 names unknown 12",
            id="unknown switch",
        ),
        pytest.param(
            'numa_node = 0, root = "0000:2b", cores = [3, 4, 5]',
            'numa_node = 1, root = "0000:2b", cores = [3, 4, 5]',
            "partition 1g1 has its vCPU threads on NUMA nodes 0, its GPUs on 1",
            id="NUMA mismatch",
        ),
        pytest.param(
            "host_threads = [48, 72]",
            "host_threads = [0, 48, 72]",
            "partition 1g0 has 5 vCPUs and 4 threads for them",
            id="a thread of the host's that a VM needs",
        ),
        pytest.param(
            "cores = [3, 4, 5]",
            "cores = [2, 4, 5]",
            "is given to both 1g0 and 1g1",
            id="a core of two GPUs",
        ),
        pytest.param(
            "vcpus = 5, memory_gib = 90,",
            "vcpus = 5, memory_gib = 97,",
            "at once take 776 GiB of NUMA node 0, which has 768 GiB",
            id="more memory than the host has",
        ),
        pytest.param(
            "hugepage_kib = 1048576",
            "hugepage_kib = 3000",
            "huge pages of 3000 KiB do not make up a GiB",
            id="pages of which no GiB is made",
        ),
        pytest.param(
            'nvswitches = ["10de:1ac2"]',
            'nvswitches = ["10DE:1AC2"]',
            "pci_ids.nvswitches has '10DE:1AC2'; an id is vendor:product in lower-case hex",
            id="an id as sysfs does not write it",
        ),
        pytest.param(
            "vcpus = 46,",
            "vcpus = 48,",
            "partition 8g8-15 has 48 vCPUs and 46 threads for them",
            id="more vCPUs than threads",
        ),
    ],
)
def test_a_profile_that_cannot_be_planned_on_is_refused_and_the_offender_named(
    tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    with pytest.raises(BadProfile) as caught:
        load_text(tmp_path, changed(old, new))
    assert complaint in str(caught.value)
    assert "mine.toml" in str(caught.value)


def test_a_file_that_does_not_say_how_vms_are_made_has_them_plain(tmp_path: Path) -> None:
    plain = load_text(tmp_path, TEXT[: TEXT.index("# How VMs are made")])
    assert plain.vm == VmSettings(
        accelerator=Accelerator.KVM,
        firmware=Firmware.BIOS,
        hugepage_kib=0,
        pool="nightshift",
        image_pool="nightshift-images",
        network="nightshift",
        network_filter="clean-traffic",
    )
    assert plain.pci_ids == PciIds()
    assert not plain.shares_threads


def test_an_empty_network_means_none(tmp_path: Path) -> None:
    text = changed('network = "nightshift"', 'network = ""').replace('"clean-traffic"', '""')
    assert (load_text(tmp_path, text).vm.network, load_text(tmp_path, text).vm.network_filter) == ("", "")


def test_memory_that_does_not_divide_over_the_nodes_is_given_out_whole(tmp_path: Path) -> None:
    odd = load_text(tmp_path, changed("memory_gib = 1446,", "memory_gib = 1447,"))
    assert odd.partition(PartitionId("16g0-15")).share.memory_gib_by_node == ((0, 724), (1, 723))


def test_sixty_five_sets_are_refused(tmp_path: Path) -> None:
    quads = [gpus for gpus in combinations(range(8), 4) if DGX2.partition_of(gpus) is None][: 65 - len(DGX2.partitions)]
    rows = "".join(
        f'  {{ id = "set{n}", gpus = {list(gpus)}, nvswitches = [0, 1, 2], hcas = [0, 1], emulator_threads = [0] }},\n'
        for n, gpus in enumerate(quads)
    )
    with pytest.raises(BadProfile, match="65 partitions, at most 64: set33 is one too many"):
        load_text(tmp_path, TEXT.replace("\n]\n\n# The most that each step", f"\n{rows}]\n\n# The most that each step"))


def test_an_unknown_partition_of_the_dgx2_is_named_with_the_known_ids() -> None:
    with pytest.raises(NightshiftError, match=r"'2g1-2'.*2g0-1, 2g2-3"):
        DGX2.partition(PartitionId("2g1-2"))
