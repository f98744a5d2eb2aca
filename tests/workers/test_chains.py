"""What the check before a hand-over finds, and which GPUs leave the plan for it."""

from typing import Any, cast

import pytest

from scheduler.core.facts import ObservedHost, Verb, domain_uuid
from scheduler.core.topology import PartitionId
from tests.scheduler.core.converging.acting_values import PROFILE, R1, look
from workers.chains import HandOverFailed, Ticket, check_hand_over
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
