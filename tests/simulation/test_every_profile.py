"""Every kind of host that ships, lived on: tenants of all sizes until it is full and beyond, on a simulated rack."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from random import Random

import pytest

from cli.in_process import HostSetup, InProcess
from policies.format import LoadedPolicy
from policies.loading import load_policy
from scheduler.core.facts import DomainState
from scheduler.core.intents import Submit
from scheduler.core.plan import Outcome
from scheduler.core.requests import Ask, HostId, ReservationId
from scheduler.core.spans import HOUR_S, Instant
from scheduler.core.topology import HostProfile
from scheduler.profiles.loading import known_profiles, load_profile
from scheduler.service.free import free_sizes
from scheduler.service.snapshot import take_snapshot
from tests.simulation.judged import audited
from tests.simulation.kill_points import watch_commits
from tests.simulation.told import Ledger
from workers.drivers.simulated.faults import Fault, FaultKind

HOST = HostId("host-a")
FIRST_AT: Instant = 1_772_409_600
POLICY = """\
version: 1
zone: UTC
outside: always
layouts:
  always: {{sizes: {sizes}, queues: [interactive]}}
queues:
  interactive: {{default_disk: {disk}GiB}}
images: [ubuntu]
defaults: {{retention: 1h, grace: 5m, min_useful: 30m}}
"""
BOTH_BOARDS = ("dgx-2-fabric", "hgx-a100-16")


@dataclass(slots=True, kw_only=True)
class Site:
    home: InProcess
    ledger: Ledger
    profile: HostProfile

    def ask(self, gpus: int, *, run_s: int = HOUR_S) -> ReservationId:
        owner = f"owner-{gpus}"
        ask = Ask(owner=owner, queue="interactive", gpus=gpus, run_s=run_s)
        decided = self.home.do(Submit(ask=ask), author=owner)
        assert decided.is_accepted, decided.reasons
        assert decided.reservation is not None
        return decided.reservation

    def run(self, seconds: int) -> None:
        self.home.agenda.run_until(self.home.clock.now() + seconds)

    def running(self) -> list[frozenset[int]]:
        """The GPUs of each guest that is up, as the rack says."""
        gpu_by_address = {gpu.address: gpu.index for gpu in self.profile.gpus}
        look = self.home.racks[HOST].drivers().hypervisor.look()
        return [
            frozenset(gpu_by_address[address] for address in domain.devices if address in gpu_by_address)
            for domain in look.domains
            if domain.state is DomainState.RUNNING and domain.is_guest_up
        ]

    def free_now(self) -> dict[int, int]:
        snapshot = take_snapshot(plans=self.home.plans, known_facts=self.home.known_facts, clock=self.home.clock)
        sizes = free_sizes(
            owner="ada",
            run_s=HOUR_S,
            snapshot=snapshot,
            store=self.home.store,
            plans=self.home.plans,
            clock=self.home.clock,
            settings=self.home.settings,
        )
        return {size.gpus: size.free_now for size in sizes}


@contextmanager
def site(profile_name: str) -> Iterator[Site]:
    profile = load_profile(profile_name)
    setup = HostSetup(host=HOST, profile=profile_name, storage=HOST)
    with closing(InProcess(now=FIRST_AT, hosts=(setup,))) as home:
        ledger = watch_commits(home)
        loaded = load_policy(POLICY.format(sizes=list(profile.sizes), disk=profile.os_disk_gib), source="p.yaml")
        assert isinstance(loaded, LoadedPolicy), loaded
        assert home.apply_policy(loaded).is_accepted
        home.agenda.run_until(FIRST_AT + 10 * 60)
        yield Site(home=home, ledger=ledger, profile=profile)


@pytest.mark.parametrize("name", known_profiles())
def test_tenants_of_all_sizes_run_until_all_are_served_and_every_promise_is_kept(name: str) -> None:
    with site(name) as here:
        random = Random(name)
        asked = [here.ask(gpus) for gpus in here.profile.sizes]
        for _ in range(6):
            here.run(random.randrange(HOUR_S // 4))
            asked.append(here.ask(random.choice(here.profile.sizes), run_s=random.randint(1, 3) * HOUR_S))
        here.run(40 * HOUR_S)
        outcomes = [here.home.store.reservation(id_) for id_ in asked]
        assert [r and r.outcome for r in outcomes] == [Outcome.COMPLETED] * len(asked)
        assert audited(here.home, here.ledger, has_faults=False) == []


@pytest.mark.parametrize("name", known_profiles())
def test_of_an_idle_host_of_each_size_as_many_are_free_as_its_gpus_make(name: str) -> None:
    with site(name) as here:
        gpus = len(here.profile.gpus)
        # Also where more sets are free, because some of them cross.
        assert here.free_now() == {size: gpus // size for size in here.profile.sizes}


@pytest.mark.parametrize("name", BOTH_BOARDS)
def test_where_a_gpu_of_each_board_is_dead_eight_gpus_of_both_still_run(name: str) -> None:
    with site(name) as here:
        rack = here.home.racks[HOST]
        for module in (1, 9):
            (address,) = (gpu.address for gpu in here.profile.gpus if gpu.module == module)
            rack.inject(Fault(kind=FaultKind.GPU_DIES, subject=address, at=here.home.clock.now()))
        here.home.wake.host(HOST)
        here.run(10 * 60)
        assert here.free_now()[8] == 1
        here.ask(8)
        here.run(30 * 60)
        # Neither board is whole: the set has four GPUs of each.
        (gpus,) = here.running()
        partition = here.profile.partition_of(gpus)
        assert partition is not None
        assert partition.fabric_id == 4
        assert len([gpu for gpu in gpus if gpu < 8]) == len([gpu for gpu in gpus if gpu >= 8]) == 4
        assert here.free_now()[8] == 0
