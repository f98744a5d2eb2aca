"""The profiles of hosts with a Fabric Manager: its tables, set by set, whichever GPU has which module."""

import re
from importlib import resources
from itertools import chain, combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.core.topology import Fabric, HostProfile, PartitionId
from scheduler.profiles.loading import BadProfile, load_profile


def text_of(name: str) -> str:
    return resources.files("scheduler.profiles").joinpath(f"{name}.toml").read_text(encoding="utf-8")


def numbered(first_id: int, sets: list[list[int]]) -> dict[int, set[int]]:
    return {first_id + place: set(modules) for place, modules in enumerate(sets)}


def row(first: int, last: int) -> list[int]:
    return list(range(first, last + 1))


def singles(count: int) -> list[list[int]]:
    return [[module] for module in row(1, count)]


# Fabric Manager User Guide r2.3, by physical ids; written down here a second time, to compare with.
DGX2 = numbered(
    0,
    [
        row(1, 16), row(1, 8), row(9, 16), [1, 4, 6, 7, 9, 12, 14, 15], [2, 3, 5, 8, 10, 11, 13, 16],
        [1, 4, 6, 7], [2, 3, 5, 8], [9, 12, 14, 15], [10, 11, 13, 16],
        [1, 4], [2, 3], [5, 8], [6, 7], [9, 12], [10, 11], [13, 16], [14, 15],
        *singles(16),
    ],
)  # fmt: skip
A100 = numbered(
    0,
    [
        row(1, 16), row(1, 8), row(9, 16),
        row(1, 4) + row(9, 12), row(5, 8) + row(13, 16), row(1, 4) + row(13, 16), row(5, 8) + row(9, 12),
        row(1, 4), row(5, 8), row(9, 12), row(13, 16),
        [1, 2], [3, 4], [5, 6], [7, 8], [9, 10], [11, 12], [13, 14], [15, 16],
        *singles(16),
    ],
)  # fmt: skip
H100 = numbered(0, [row(1, 8), row(1, 4), row(5, 8), [1, 3], [2, 4], [5, 7], [6, 8], *singles(8)])
B200 = numbered(1, [row(1, 8), row(1, 4), row(5, 8), [1, 2], [3, 4], [5, 6], [7, 8], *singles(8)])
TABLES = {
    "dgx-2-fabric": DGX2,
    "hgx-a100-16": A100,
    # One board: the sets of GPUs that are there, by the numbers that they keep.
    "dgx-a100": {id_: modules for id_, modules in A100.items() if max(modules) <= 8},
    "hgx-h100": H100,
    "hgx-h200": H100,
    "hgx-b200": B200,
}
LINKS = {"dgx-2-fabric": 6, "hgx-a100-16": 12, "dgx-a100": 12, "hgx-h100": 18, "hgx-h200": 18, "hgx-b200": 18}
each_table = pytest.mark.parametrize("name", TABLES)


def sets_of(profile: HostProfile) -> dict[int | None, set[int | None]]:
    """The modules of each set, by its number in Fabric Manager's list."""
    module_by_gpu = {gpu.index: gpu.module for gpu in profile.gpus}
    return {partition.fabric_id: {module_by_gpu[gpu] for gpu in partition.gpus} for partition in profile.partitions}


def test_the_tables_have_as_many_sets_as_the_guide_says() -> None:
    assert {name: len(table) for name, table in TABLES.items()} == {
        "dgx-2-fabric": 33,
        "hgx-a100-16": 35,
        "dgx-a100": 15,
        "hgx-h100": 15,
        "hgx-h200": 15,
        "hgx-b200": 15,
    }


@each_table
def test_a_profiles_sets_are_those_of_the_table(name: str) -> None:
    profile = load_profile(name)
    assert profile.fabric is Fabric.SHARED
    assert sets_of(profile) == TABLES[name]
    assert len(profile.gpus) == max(chain(*TABLES[name].values()))


@each_table
def test_a_set_is_named_by_its_size_and_its_number(name: str) -> None:
    for partition in load_profile(name).partitions:
        assert partition.id == f"{partition.size}g-fm{partition.fabric_id}"


@each_table
def test_a_vm_of_one_gpu_has_no_links_and_others_have_all_but_on_a_dgx2(name: str) -> None:
    for partition in load_profile(name).partitions:
        wanted = 0 if partition.size == 1 else LINKS[name]
        # Of a DGX-2 only the whole host and the two boards have all six.
        if name == "dgx-2-fabric" and partition.size > 1 and partition.fabric_id not in (0, 1, 2):
            wanted = 5
        assert partition.share.nvlinks_per_gpu == wanted, partition.id


@pytest.mark.parametrize(("name", "crossing"), [("dgx-2-fabric", 4), ("hgx-a100-16", 12), ("hgx-h100", 0)])
def test_on_hosts_of_two_boards_sets_cross(name: str, crossing: int) -> None:
    pairs = combinations(load_profile(name).partitions, 2)
    crossed = [
        (one.id, other.id)
        for one, other in pairs
        if one.overlaps(other) and not (one.gpus <= other.gpus or other.gpus <= one.gpus)
    ]
    assert len(crossed) == crossing


@each_table
def test_no_vm_is_given_a_switch(name: str) -> None:
    profile = load_profile(name)
    assert profile.nvswitches == ()
    assert all(partition.share.nvswitches == () for partition in profile.partitions)


@each_table
def test_a_vm_is_given_exactly_the_adapters_of_which_it_has_every_gpu(name: str) -> None:
    profile = load_profile(name)
    for partition in profile.partitions:
        assert partition.share.hcas == tuple(hca.address for hca in profile.hcas if hca.gpus <= partition.gpus)


# --- which GPU has which module


def with_modules(name: str, modules: list[int]) -> str:
    """The text of a profile whose GPUs have these modules, in their order."""
    left = iter(modules)
    return re.sub(r"\bmodule = \d+", lambda _: f"module = {next(left)}", text_of(name))


BOARD = 8


def boards(count: int) -> st.SearchStrategy[list[int]]:
    """Modules in the order of GPUs: any order within a board of 8, and either board first."""
    each = [st.permutations(row(first, first + BOARD - 1)) for first in range(1, count + 1, BOARD)]
    return st.permutations(each).flatmap(lambda order: st.tuples(*order)).map(lambda found: list(chain(*found)))


@settings(max_examples=10)
@given(st.data())
@each_table
def test_whichever_gpu_has_which_module_only_its_row_has_to_say_so(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    modules = data.draw(boards(len(load_profile(name).gpus)))
    file = tmp_path_factory.getbasetemp() / "mine.toml"
    file.write_text(with_modules(name, modules), encoding="utf-8")
    mine = load_profile(file)
    assert [gpu.module for gpu in mine.gpus] == modules
    assert sets_of(mine) == TABLES[name]


def test_of_an_h100_the_pairs_are_those_of_its_modules() -> None:
    pair = load_profile("hgx-h100").partition(PartitionId("2g-fm3"))
    # Modules 1 and 3, which are neighbours on the bus.
    assert [load_profile("hgx-h100").gpu(gpu).address for gpu in sorted(pair.gpus)] == ["0000:86:00.0", "0000:87:00.0"]


# --- what is refused


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        pytest.param(
            "modules = [5, 7] }",
            "modules = [5, 17] }",
            r"partitions\[5\]\.modules must be .*\(partition 2g-fm5 names unknown module 17\), it is \[5, 17\]",
            id="unknown module",
        ),
        pytest.param(
            "modules = [5, 7] }",
            "modules = [5, 5] }",
            r"partitions\[5\]\.modules must be a list of different GPUs \(partition 2g-fm5\), it is \[5, 5\]",
            id="a module twice in a set",
        ),
        pytest.param(
            "modules = [5, 7] }",
            "modules = [1, 3] }",
            r"partitions 2g-fm3 and 2g-fm5 are the same set of GPUs: 4, 5",
            id="the same set twice",
        ),
        pytest.param(
            "modules = [5, 7] }",
            "modules = [5, 6, 7] }",
            r"partitions\[5\]\.modules must be of a size that has a row in sizes \(1, 2, 4, 8; .* 2g-fm5 has size 3",
            id="a size without a share",
        ),
        pytest.param(
            "modules = [5, 7] }",
            "modules = [5, 7], gpus = [0] }",
            r"partitions\[5\]\.modules must be left out where gpus are named \(partition 2g-fm5\)",
            id="named twice",
        ),
        pytest.param(
            "fabric_id = 5, modules",
            "modules",
            "partition 2g-fm5 has no fabric_id, by which a shared fabric knows it",
            id="no number in the fabric",
        ),
        pytest.param(
            "fabric_id = 5, modules", "fabric_id = 4, modules", "fabric_id 4 is listed 2 times", id="a number twice"
        ),
        pytest.param(
            "index = 4, module = 1,",
            "index = 4, module = 5,",
            r"gpus\[4\]\.module must be a module that no other GPU has, it is 5",
            id="a module twice",
        ),
        pytest.param(
            'fabric = "shared"',
            'fabric = "passthrough"',
            "partition 8g-fm0 has fabric_id 0, but the fabric is not shared",
            id="no Fabric Manager",
        ),
        pytest.param(
            'fabric = "shared"',
            'fabric = "vgpu"',
            "fabric must be one of passthrough, shared, it is 'vgpu'",
            id="a fabric nobody knows",
        ),
    ],
)
def test_a_profile_with_a_wrong_set_is_refused_and_the_offender_named(
    tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    text = text_of("hgx-h100")
    assert text.count(old) == 1
    file = tmp_path / "mine.toml"
    file.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(BadProfile, match=complaint) as caught:
        load_profile(file)
    assert "mine.toml" in str(caught.value)
