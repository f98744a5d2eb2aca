"""What the check before a hand-over finds, and which GPUs leave the plan for it."""

from dataclasses import replace
from typing import Any, cast

import pytest

from scheduler.core.converging.actions import StartVm
from scheduler.core.converging.asking import new_start
from scheduler.core.facts import ObservedHost, Verb, domain_uuid
from scheduler.core.topology import PartitionId
from tests.scheduler.core.converging.acting_values import PROFILE, R1, compare, facts, look, plan, reservation
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


def test_what_was_asked_for_of_memory_and_vcpus_reaches_the_driver_and_the_rest_is_the_share() -> None:
    wanted = reservation(R1)
    for memory_gib, vcpus in ((None, None), (64, 8)):
        asked = replace(wanted, request=replace(wanted.request, memory_gib=memory_gib, vcpus=vcpus))
        (action,) = (action for action in compare(facts(), look(), plan(asked)).actions if isinstance(action, StartVm))
        spec = spec_of(action, new_start(action, 0), PROFILE)
        assert (spec.memory_gib, spec.vcpus) == (memory_gib, vcpus)
