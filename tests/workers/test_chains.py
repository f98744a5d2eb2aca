"""What the check before a hand-over finds, and which GPUs leave the plan for it."""

from dataclasses import replace
from typing import Any, cast

import pytest

from scheduler.core.converging.actions import StartVm
from scheduler.core.converging.asking import new_start
from scheduler.core.facts import ObservedHost, Verb, domain_uuid
from scheduler.core.topology import PartitionId
from tests.scheduler.core.converging.acting_values import (
    PROFILE,
    R1,
    compare,
    facts,
    failing,
    look,
    mistaken,
    neighbour_held,
    plan,
    reservation,
)
from workers.chains import HandOverFailed, Ticket, check_hand_over, spec_of
from workers.ports import DomainSpec, Drivers

PARTITION = PROFILE.partition(PartitionId("4g0-3"))
SPEC = DomainSpec(
    uuid=domain_uuid(R1, 1),
    name="r-1-4g0-3",
    reservation=R1,
    generation=1,
    partition=PARTITION,
    devices=PROFILE.devices(PARTITION),
    disk="d-r-1",  # type: ignore[arg-type]
    image="ubuntu",
    ssh_key="",
    mac="52:54:00:00:00:01",
    host_name="r-1",
)


def drivers(shown: ObservedHost) -> Drivers:
    class Hypervisor:
        def look(self) -> ObservedHost:
            return shown

    port = cast(Any, Hypervisor())
    return Drivers(host=shown.host, hypervisor=port, pci=port, fabric=port, images=port, guest=port)


def unfit(shown: ObservedHost) -> dict[int, str]:
    ticket = Ticket(verb=Verb.START, subject="x", token="t")
    with pytest.raises(HandOverFailed):
        check_hand_over(drivers(shown), SPEC, ticket, PROFILE)
    return ticket.unfit_gpus


def test_a_gpu_that_is_not_fit_leaves_the_plan_itself() -> None:
    assert list(unfit(look(unreadable=[2]))) == [2]


def test_for_a_switch_that_is_not_fit_a_gpu_of_every_partition_that_needs_it_leaves_the_plan() -> None:
    # It was found at each start, and nothing left the plan for it.
    switch = PARTITION.share.nvswitches[2]
    (gpu,) = found = unfit(look(dead=[switch]))
    assert all(gpu in p.gpus for p in PROFILE.partitions if switch in p.share.nvswitches)
    assert switch in found[gpu]


NEIGHBOURS_HOLDER = domain_uuid(R1, 9)


@pytest.mark.parametrize("address", [PROFILE.gpu(2).address, PARTITION.share.nvswitches[2]])
def test_a_device_whose_neighbour_is_held_is_refused_by_name_and_nothing_leaves_the_plan_for_it(address: str) -> None:
    # Its GPU was quarantined until an admin said `mended`, and a neighbour's VM was all that there was.
    shown = neighbour_held(look(), address, NEIGHBOURS_HOLDER)
    ticket = Ticket(verb=Verb.START, subject="x", token="t")
    with pytest.raises(HandOverFailed, match=f"{address} group_free: .* is held by domain {NEIGHBOURS_HOLDER}"):
        check_hand_over(drivers(shown), SPEC, ticket, PROFILE)
    assert ticket.unfit_gpus == {}
    check_hand_over(drivers(look()), SPEC, ticket, PROFILE)


def test_a_group_that_is_not_free_for_another_reason_still_takes_its_gpu_out_of_the_plan() -> None:
    driver = "0000:f0:00.1 of its IOMMU group is bound to snd_hda_intel"
    assert list(unfit(failing(look(), PROFILE.gpu(2).address, "group_free", driver))) == [2]


def test_a_held_neighbour_hides_no_fault_of_the_device_itself() -> None:
    assert list(unfit(neighbour_held(look(unreadable=[2]), PROFILE.gpu(2).address, NEIGHBOURS_HOLDER))) == [2]


def test_another_device_than_the_profile_says_is_handed_to_nobody_and_no_hardware_leaves_the_plan_for_it() -> None:
    # One wrong line in `[pci_ids]` quarantined every GPU of the host.
    shown = mistaken(look(), PROFILE.gpu(2).address, PARTITION.share.nvswitches[0])
    ticket = Ticket(verb=Verb.START, subject="x", token="t")
    with pytest.raises(HandOverFailed, match=r"is not what profile dgx-2 says: it is 10de:20b0"):
        check_hand_over(drivers(shown), SPEC, ticket, PROFILE)
    assert ticket.unfit_gpus == {}


def test_ids_that_nobody_compared_are_not_told_as_unverified() -> None:
    ticket = Ticket(verb=Verb.START, subject="x", token="t")
    check_hand_over(drivers(look()), SPEC, ticket, PROFILE)
    assert [told for told in ticket.unverified if "ids_match" in told] == []


def test_what_was_asked_for_of_memory_and_vcpus_reaches_the_driver_and_the_rest_is_the_share() -> None:
    wanted = reservation(R1)
    for memory_gib, vcpus in ((None, None), (64, 8)):
        asked = replace(wanted, request=replace(wanted.request, memory_gib=memory_gib, vcpus=vcpus))
        (action,) = (action for action in compare(facts(), look(), plan(asked)).actions if isinstance(action, StartVm))
        spec = spec_of(action, new_start(action, 0), PROFILE)
        assert (spec.memory_gib, spec.vcpus) == (memory_gib, vcpus)
