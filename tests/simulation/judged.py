"""What the story of a night came to, and what must be true of it whatever its worker suffered.

Judged by the rack's log and by a last look where that is possible, and not by what Nightshift believes.
"""

from dataclasses import dataclass
from uuid import UUID

from cli.in_process import InProcess
from scheduler.core.facts import DomainState, GpuState
from scheduler.core.requests import ReservationId
from scheduler.core.spans import Instant
from tests.simulation.kill_points import HOST, OUT_OF_ACTION_S, Night
from tests.simulation.rack_auditor import audit
from tests.simulation.told import History, Ledger

SOON_S = OUT_OF_ACTION_S + 5


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """What a story came to."""

    outcomes: tuple[tuple[str, str | None], ...]
    running: tuple[str, ...]
    """Whose guests are up on the host, each as often as it is."""
    disks: tuple[str, ...]
    defined: tuple[str, ...]
    held_gpus: int
    dirty_devices: frozenset[str]
    quarantined: frozenset[int]
    left_asked: tuple[str, ...]
    warned: tuple[str, ...]
    """Whom the outbox told of an end, once for each warning."""


def end_of(night: Night) -> End:
    home = night.home
    look = home.racks[HOST].drivers().hypervisor.look()
    facts = home.store.load_facts(HOST)
    up = [d for d in look.domains if d.state is DomainState.RUNNING and d.is_guest_up]
    reservations = [home.store.reservation(id_) for id_ in (night.ada, night.bela, night.climate)]
    return End(
        outcomes=tuple((r.request.owner, r.outcome and r.outcome.value) for r in reservations if r is not None),
        running=tuple(sorted(str(d.reservation) for d in up)),
        disks=tuple(disk.id for disk in look.disks if disk.is_ready),
        defined=tuple(sorted(str(d.reservation) for d in look.domains)),
        held_gpus=sum(1 for d in look.devices if d.held_by is not None),
        dirty_devices=frozenset(
            d.address for d in look.devices if d.held_by is None and d.result_of("reset_done").value != "passed"
        ),
        quarantined=frozenset(fact.gpu for fact in facts.gpus if fact.state is GpuState.QUARANTINED),
        left_asked=tuple(f"{ask.verb.value} {ask.subject}" for ask in facts.asked),
        warned=tuple(sorted(str(e.reservation) for _, e in home.store.events(limit=10_000, kinds=("vm.warned",)))),
    )


def audited(home: InProcess, ledger: Ledger, *, has_faults: bool) -> list[str]:
    """Return what the auditor finds wrong with a history on one host."""
    history = History(
        until_at=home.clock.now(),
        logs={host: rack.log() for host, rack in home.racks.items()},
        profiles={host: rack.profile for host, rack in home.racks.items()},
        ledger=ledger,
        has_faults=has_faults,
    )
    return audit(history)


def judge(night: Night, unharmed: End) -> None:
    """Hold a story against what must be true of every one, and against one whose worker suffered nothing."""
    check_nobody_ran_twice(night)
    assert audited(night.home, night.ledger, has_faults=True) == []
    check_disks(night)
    check_what_was_written_was_asked(night)
    assert end_of(night) == unharmed
    check_held_gpus_are_wanted(night)
    check_promises(night)
    check_fixed_point(night)


def check_nobody_ran_twice(night: Night) -> None:
    """Check by the rack's log that no reservation, and no GPU, was ever in two running domains."""
    holder_by_gpu: dict[int, UUID] = {}
    domain_by_reservation: dict[str, UUID] = {}
    for line in night.home.racks[HOST].log():
        if line.domain is None or line.reservation is None:
            continue
        if line.what in ("vm.starting", "vm.stuck"):
            assert domain_by_reservation.setdefault(line.reservation, line.domain) == line.domain, line
            for gpu in line.gpus:
                assert holder_by_gpu.setdefault(gpu, line.domain) == line.domain, line
        elif line.what in ("vm.off", "vm.vanished"):
            domain_by_reservation.pop(line.reservation, None)
            holder_by_gpu = {gpu: domain for gpu, domain in holder_by_gpu.items() if domain != line.domain}


def check_disks(night: Night) -> None:
    """Check that only the job's disk was touched, and not before its retention was over."""
    booked_until_at = {
        e.reservation: dict(e.facts)["end_by_at"]
        for _, e in night.home.store.events(limit=10_000, kinds=("reservation.promised",))
    }
    deleting = [line for line in night.home.racks[HOST].log() if line.what == "disk.deleting"]
    assert {line.fact("disk") for line in deleting} == {f"d-{night.climate}"}
    end_at = booked_until_at[night.climate]
    assert isinstance(end_at, int)
    assert all(line.at >= end_at + 3600 for line in deleting)


def check_what_was_written_was_asked(night: Night) -> None:
    """Check that what was written to be asked of a guest was asked of it as soon as somebody was at work again."""
    log = night.home.racks[HOST].log()
    for kind, what in (("vm.stop_asked", "vm.shutdown_asked"), ("vm.warned", "guest.warned")):
        for _, told in night.home.store.events(limit=10_000, kinds=(kind,)):
            if dict(told.facts).get("through") == "agent":
                # Its agent is silent: the host logs only that it was refused.
                continue
            asked_at = [line.at for line in log if line.what == what and line.reservation == told.reservation]
            assert any(told.at <= at <= told.at + SOON_S for at in asked_at), (kind, told.at, asked_at)


def check_held_gpus_are_wanted(night: Night) -> None:
    home = night.home
    look = home.racks[HOST].drivers().hypervisor.look()
    reservation = home.store.reservation(night.bela)
    assert reservation is not None
    span = reservation.span_at(home.clock.now())
    assert span is not None
    assert span.generation == reservation.generation
    gpu_by_address = {gpu.address: gpu.index for gpu in home.racks[HOST].profile.gpus}
    held = {gpu_by_address[d.address] for d in look.devices if d.held_by is not None and d.address in gpu_by_address}
    assert held == home.racks[HOST].profile.partition(span.partition).gpus


def check_promises(night: Night) -> None:
    """Check that everybody's guest ran in time, or that they were told."""
    raised = {e.reservation for _, e in night.home.store.events(limit=10_000, kinds=("promise.raised",))}
    up: dict[ReservationId | None, Instant] = {}
    for line in night.home.racks[HOST].log():
        if line.what == "guest.up":
            up.setdefault(line.reservation, line.at)
    for id_ in (night.ada, night.bela, night.climate):
        reservation = night.home.store.reservation(id_)
        assert reservation is not None
        assert reservation.promise is not None
        assert up[id_] <= reservation.promise.start_by_at
        assert id_ not in raised


def check_fixed_point(night: Night) -> None:
    """Check that converging once more writes nothing and asks nothing."""
    home = night.home
    before = home.store.last_event_seq(), home.store.plan_version(), home.store.load_facts(HOST), home.racks[HOST].log()
    home.workers[HOST].converge()
    after = home.store.last_event_seq(), home.store.plan_version(), home.store.load_facts(HOST), home.racks[HOST].log()
    assert after == before
