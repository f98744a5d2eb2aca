"""The chains of starts, read from calls whose every second is known; the figures; and what is said where nothing is."""

import argparse
import shutil
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from benchmarks import lab
from benchmarks.driver_calls import Call, Calls, NotCalled, chain_of, first, last_specs, timed
from benchmarks.lab import NOT_HERE, PARTS, start_figures, swap_figures
from benchmarks.lab_figures import Start, Swap
from scheduler.core.replay import VirtualClock
from scheduler.core.requests import DiskId, HostId, ReservationId
from scheduler.core.topology import PartitionId
from scheduler.profiles.loading import load_profile
from workers.drivers.simulated.rack import SimulatedRack
from workers.ports import DomainSpec, NoSuchDomain

PROFILE = load_profile("dgx-2-lab")
MONDAY_AT = 1_772_434_800


def spec_of(reservation: str = "r-1", *, generation: int = 1) -> DomainSpec:
    partition = PROFILE.partition(PartitionId("2g0-1"))
    return DomainSpec(
        uuid=uuid4(),
        name=f"{reservation}-2g0-1",
        reservation=ReservationId(reservation),
        generation=generation,
        partition=partition,
        devices=PROFILE.devices(partition),
        disk=DiskId(f"d-{reservation}"),
        image="guest",
        ssh_key=None,
        mac="52:54:00:00:00:01",
        host_name=reservation,
    )


def call(verb: str, argument: object, began_s: float, took_s: float) -> Call:
    return Call(verb=verb, arguments=(argument,), began_s=began_s, ended_s=began_s + took_s)


def start_of(spec: DomainSpec, began_s: float) -> tuple[Call, ...]:
    """Return the calls of a start: half a second to make the disk, 8 to create, a quarter between each two."""
    return (
        call("bind", spec.devices, began_s, 0.25),
        call("create_disk", spec.disk, began_s + 0.5, 0.5),
        call("activate", spec.partition, began_s + 2, 0.25),
        call("define", spec, began_s + 2.5, 0.25),
        call("start", spec.uuid, began_s + 3, 8),
    )


def test_a_chain_goes_from_its_first_step_to_the_end_of_its_last() -> None:
    spec = spec_of()
    chain = chain_of(start_of(spec, 100), spec)
    assert (chain.began_s, chain.created_s) == (100, 111)
    assert chain.step_s == {"disk": 0.5, "bind": 0.25, "check": 1, "activate": 0.25, "define": 0.25, "create": 8}
    assert chain.between_s == 0.75


def test_of_a_start_that_was_made_again_the_last_counts() -> None:
    lost, made = spec_of(), spec_of(generation=2)
    # What is made anew has another UUID, on the same disk and devices.
    calls = (*start_of(lost, 100), *start_of(made, 200))
    assert last_specs(calls) == (made,)
    assert chain_of(calls, made).began_s == 200


def test_a_start_that_failed_before_it_was_defined_is_no_part_of_the_chain() -> None:
    spec = spec_of()
    calls = (call("bind", spec.devices, 90, 0.1), call("create_disk", spec.disk, 91, 0.5), *start_of(spec, 100))
    assert chain_of(calls, spec).began_s == 100


def test_calls_that_do_not_hold_the_start_make_no_chain() -> None:
    spec = spec_of()
    with pytest.raises(NotCalled, match="start of"):
        chain_of(start_of(spec, 100)[:-1], spec)
    with pytest.raises(NotCalled, match="ask_shutdown was not called"):
        first(start_of(spec, 100), "ask_shutdown")


def test_what_is_called_through_timed_drivers_is_written_down_also_when_it_fails() -> None:
    rack = SimulatedRack(None, HostId("a"), PROFILE, VirtualClock(MONDAY_AT), seed=1)
    calls = Calls()
    drivers, nobody = timed(rack.drivers(), calls), UUID(int=1)
    drivers.hypervisor.look()
    with pytest.raises(NoSuchDomain):
        drivers.hypervisor.destroy(nobody, timeout_s=1)
    assert [(made.verb, made.arguments) for made in calls.since(0)] == [("look", ()), ("destroy", (nobody,))]
    assert all(made.took_s >= 0 for made in calls.since(0))
    rack.close()


def a_start(took_s: float, *parts: str) -> Start:
    return Start(took_s=took_s, part_s=dict.fromkeys(parts, 1.0))


def test_the_ratio_of_starts_is_that_of_their_medians() -> None:
    figures = start_figures(
        [a_start(took_s, *PARTS) for took_s in (11, 10.5, 30)],
        [a_start(took_s, "disk", "define", "create", "boot") for took_s in (10, 9, 20)],
    )
    assert (figures["nightshift_s"], figures["bare_s"], figures["ratio"]) == (11, 10, 1.1)


def test_the_longest_chain_of_a_swap_is_its_stop_and_the_slowest_of_those_that_came() -> None:
    swap = Swap(
        took_s=30,
        stop_s=4,
        waited_s=5,
        by_rule_s=4,
        again=0,
        chains=(a_start(16, "boot"), a_start(21, "boot")),
    )
    figures = swap_figures(swap, 60)
    assert (figures["longest_chain_s"], figures["ratio"], figures["one_after_the_other_s"]) == (25, 1.2, 60)
    assert replace(swap, took_s=25).longest_chain_s == 25


def test_without_the_emulator_it_ends_with_one_line_and_its_own_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(SystemExit) as ended:
        lab.run(argparse.Namespace(rounds=1, cache=tmp_path))
    assert ended.value.code == NOT_HERE
    said = capsys.readouterr().err
    assert "qemu-system-x86_64" in said
    assert said.count("\n") == 1
