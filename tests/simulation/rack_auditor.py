"""An auditor that knows nothing of the planner: it holds what the racks' logs say against what people were told.

    racks' logs ─▶ holds (who had which GPUs when, and when a guest was up) ─┐
                                                                             ├─▶ violations, as sentences
    what was told (promises, notices, ends, bookings, retention) ────────────┘

All arithmetic is done anew, slowly and plainly. What a fault may excuse is said at each rule; a history in which
nothing was made to fail excuses nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from uuid import UUID

from scheduler.core.plan import BookedSpan
from scheduler.core.reasons import ReasonCode
from scheduler.core.requests import AtBoundary, DiskId, HostId, Promise, ReservationId
from scheduler.core.spans import FOREVER, HOUR_S, MINUTE_S, Instant
from scheduler.core.topology import PartitionId
from scheduler.core.windows import Layout
from tests.simulation.told import History, Told, Unwatched
from workers.drivers.simulated.log import LogLine

OWED_S = MINUTE_S
"""Fewer hours missing than this are not worth another start."""
SILENT_BOOT_S = 10 * MINUTE_S
"""With a silent agent nobody can tell when the guest was up; it is taken for up once it has had its time to boot."""
NOTICE_S = MINUTE_S
"""How soon after a promise has passed, and somebody looks, its owner is told."""
LONGEST_COPY_S = 10 * MINUTE_S
"""A start that has begun goes on for so long before the domain is started, unless something fails."""
LONGEST_STOP_S = 20 * MINUTE_S
"""Grace, destroy and reset of any policy here; nothing runs on past its time for longer, unless something fails."""


@dataclass(slots=True, kw_only=True)
class Hold:
    """One stretch in which a domain had GPUs of a host."""

    host: HostId
    domain: UUID
    reservation: ReservationId | None
    generation: int | None
    partition: PartitionId | None
    gpus: tuple[int, ...]
    """What it was started with."""
    left: tuple[int, ...]
    """What it still has, after a part was let go."""
    from_at: Instant
    until_at: Instant | None = None
    running_at: Instant | None = None
    up: list[tuple[Instant, Instant | None]] = field(default_factory=list)
    """When the guest was up."""
    how: str = ""
    was_hit: bool = False
    """Its guest crashed or shut itself down: what hours that cost is its owner's affair."""
    stop_asked_at: Instant | None = None

    def close(self, at: Instant, how: str) -> None:
        self.until_at = at
        self.how = how
        self.close_guest(at)

    def close_guest(self, at: Instant) -> None:
        if self.up and self.up[-1][1] is None:
            self.up[-1] = (self.up[-1][0], at)


def audit(history: History) -> list[str]:
    """Return everything that is wrong with a history; what holds at each instant, then what was promised."""
    found: list[str] = []
    holds: list[Hold] = []
    for host in sorted(history.logs):
        holds += _read(history, host, found)
    holds.sort(key=lambda hold: (hold.from_at, hold.host, str(hold.domain)))
    found += _twice_at_once(holds)
    for told in (history.ledger.told[key] for key in sorted(history.ledger.told)):
        mine = [hold for hold in holds if hold.reservation == told.id]
        found += _raised_silently(history, told)
        found += _started_late(history, told, mine)
        found += _hours_short(history, told, mine)
        found += _wrong_size(told, mine)
        found += _ran_on(history, told, mine)
    found += _disks(history)
    return found


def audit_quiet(history: History) -> list[str]:
    """Return what was left after everything was given up, all is mended, and every retention is over."""
    found: list[str] = []
    unread: list[str] = []
    for host, log in sorted(history.logs.items()):
        for hold in _read(history, host, unread):
            if hold.until_at is None:
                found.append(f"{host}: {hold.reservation or hold.domain} still has GPUs {hold.left}")
        disks: set[str] = set()
        for line in log:
            if line.what in ("disk.copying", "disk.made", "disk.cut_off"):
                disks.add(str(line.fact("disk")))
            elif line.what == "disk.deleted":
                disks.discard(str(line.fact("disk")))
        found += [f"{host}: disk {disk} was never deleted" for disk in sorted(disks)]
    for key, told in sorted(history.ledger.told.items()):
        if told.outcome is None:
            found.append(f"{key} never came to an end")
    return found


# What the log says.


def _read(history: History, host: HostId, found: list[str]) -> list[Hold]:
    """Read one log line by line; what is wrong at an instant is found on the way."""
    holds: list[Hold] = []
    hold_by_domain: dict[UUID, Hold] = {}
    holder_by_gpu: dict[int, UUID] = {}

    def take(line: LogLine, hold: Hold) -> None:
        for gpu in hold.gpus:
            holder = holder_by_gpu.setdefault(gpu, hold.domain)
            if holder != hold.domain:
                found.append(f"{host}: GPU {gpu} is held by {holder} and by {hold.domain} at {line.at}")

    def let_go(hold: Hold, gpus: tuple[int, ...]) -> None:
        for gpu in gpus:
            if holder_by_gpu.get(gpu) == hold.domain:
                del holder_by_gpu[gpu]

    for line in history.logs[host]:
        if line.domain is None:
            continue
        hold = hold_by_domain.get(line.domain)
        match line.what:
            case "vm.starting" | "vm.foreign" | "vm.stuck" if hold is None:
                hold = hold_by_domain[line.domain] = Hold(
                    host=host,
                    domain=line.domain,
                    reservation=line.reservation,
                    generation=line.generation,
                    partition=line.partition,
                    gpus=line.gpus,
                    left=line.gpus,
                    from_at=line.at,
                )
                holds.append(hold)
                take(line, hold)
                if line.what == "vm.starting":
                    found += _wrong_start(history, host, line)
            case "vm.stuck" if hold is not None:
                let_go(hold, tuple(gpu for gpu in hold.left if gpu not in line.gpus))
                hold.left = line.gpus
            case "vm.running" if hold is not None:
                hold.running_at = line.at
            case "guest.up" if hold is not None:
                hold.up.append((line.at, None))
            case "fault.guest_crash" | "fault.guest_shutdown" if hold is not None:
                hold.was_hit = True
            case "guest.down" if hold is not None:
                hold.close_guest(line.at)
            case "vm.shutdown_asked" | "vm.destroy_asked":
                found += _wrong_stop(history, host, line, hold)
                if hold is not None:
                    hold.stop_asked_at = hold.stop_asked_at or line.at
            case "vm.off" | "vm.vanished" | "vm.undefined":
                if line.what == "vm.undefined" and line.reservation is None and (host, line.at) not in history.leaves:
                    found.append(f"{host}: {line.name}, which is somebody else's, was undefined at {line.at}")
                if line.what == "vm.undefined" and line.reservation is not None and hold is not None:
                    found.append(f"{host}: {line.name} was undefined while it ran, at {line.at}")
                if hold is not None:
                    hold.close(line.at, str(line.fact("reason") or line.what))
                    let_go(hold, hold.left)
                    del hold_by_domain[line.domain]
            case _:
                pass
    return holds


def _wrong_start(history: History, host: HostId, line: LogLine) -> Iterator[str]:
    """A VM gets exactly one partition, clean, in a time in which its kind may run, and only if it was promised."""
    if line.reservation is None:
        return
    partition = next((p for p in history.profiles[host].partitions if p.id == line.partition), None)
    if partition is None or set(line.gpus) != partition.gpus:
        yield f"{host}: {line.name} was started with GPUs {line.gpus}, which are not partition {line.partition}"
    if line.fact("dirty"):
        yield f"{host}: {line.name} was started at {line.at} with {line.fact('dirty')} devices not reset"
    if not history.has_faults and not line.fact("is_fabric_set"):
        yield f"{host}: {line.name} was started at {line.at} without its routing"
    told = history.ledger.told.get(line.reservation)
    if told is None:
        yield f"{host}: {line.name} was started and nobody was promised it"
        return
    if told.ended_at is not None and line.at > told.ended_at and not _was_begun(history, told, line):
        yield f"{host}: {line.name} was started at {line.at}, it had ended at {told.ended_at}"
    closed = _closed_to(history, told, host, line.at)
    if closed is not None:
        yield f"{host}: {line.name} was started at {line.at} while layout {closed.name} holds"


def _was_begun(history: History, told: Told, line: LogLine) -> bool:
    """Whether a start was under way when its reservation ended: its disk was being made, say. It is stopped then."""
    assert told.ended_at is not None
    was_pinned = any(
        span.generation == line.generation
        for since_at, spans in told.bookings
        if since_at <= told.ended_at
        for span in spans
    )
    return was_pinned and (history.has_faults or line.at <= told.ended_at + LONGEST_COPY_S)


def _closed_to(history: History, told: Told, host: HostId, at: Instant) -> Layout | None:
    """Return the layout that holds on a host and does not let a reservation run; None when it may."""
    outside = next((layout for since_at, layout in reversed(history.ledger.outside) if since_at <= at), None)
    assert outside is not None
    is_tenant = outside.admits(gpus=told.gpus, queue=told.queue)
    for window in history.ledger.windows.values():
        closed = window.closed_span
        if host not in window.hosts or closed is None or not closed.start_at <= at < closed.end_at:
            continue
        if window.layout.admits(gpus=told.gpus, queue=told.queue):
            return None
        is_kept = is_tenant and told.at_boundary is AtBoundary.KEEP and AtBoundary.KEEP in window.at_boundary
        return None if is_kept else window.layout
    return None if is_tenant else outside


def _wrong_stop(history: History, host: HostId, line: LogLine, hold: Hold | None) -> Iterator[str]:
    """Nobody is stopped by a mistake: only what has ended, or whose booking on this place is over."""
    if line.reservation is None:
        yield f"{host}: {line.name}, which is somebody else's, was asked to stop at {line.at} ({line.what})"
        return
    if line.what == "vm.destroy_asked" and hold is not None and hold.running_at is None:
        # A start that got stuck half-way: no guest has ever run in it.
        return
    if line.what == "vm.destroy_asked" and hold is not None and hold.stop_asked_at is None and not history.has_faults:
        yield f"{host}: {line.name} was destroyed at {line.at} without having been asked to shut down"
    told = history.ledger.told.get(line.reservation)
    if told is None:
        yield f"{host}: {line.name} was stopped at {line.at}, and nobody knows it"
        return
    if told.ended_at is not None and told.ended_at <= line.at:
        return
    booked = next((span for span in told.spans_at(line.at) if span.start_at <= line.at < span.end_at), None)
    is_there = booked is not None and (booked.host, booked.partition) == (host, line.partition)
    if booked is not None and is_there and not _has_run_out(told, host, line):
        yield f"{host}: {line.name} was stopped at {line.at}, it is booked there until {booked.end_at} ({line.what})"


def _has_run_out(told: Told, host: HostId, line: LogLine) -> bool:
    """Whether the booking of this very start had come to its end before, and what is booked there now is another run.

    A gap in a booking parks: who is stopped late, because nobody watched in the gap, is stopped all the same. Only an
    end that was booked when it came counts, so that nobody's end is put back into the past.
    """
    end_at = _run_end_at(told.spans_at(line.at), host, line)
    return end_at is not None and end_at < line.at and _run_end_at(told.spans_at(end_at), host, line) == end_at


def _run_end_at(spans: tuple[BookedSpan, ...], host: HostId, line: LogLine) -> Instant | None:
    """Return the end of the run that a start was made for: spans on one place without a gap are one run."""
    here = sorted((s for s in spans if (s.host, s.partition) == (host, line.partition)), key=lambda s: s.start_at)
    end_at = next((span.end_at for span in here if span.generation == line.generation), None)
    for span in here:
        if span.start_at == end_at:
            end_at = span.end_at
    return end_at


def _twice_at_once(holds: list[Hold]) -> Iterator[str]:
    """One reservation never has two VMs: both would write on one disk."""
    last: dict[ReservationId, Hold] = {}
    for hold in holds:
        if hold.reservation is None:
            continue
        before = last.get(hold.reservation)
        if before is not None and (before.until_at is None or before.until_at > hold.from_at):
            yield f"{hold.reservation} has two VMs at {hold.from_at}: on {before.host} and on {hold.host}"
        last[hold.reservation] = hold


# What was promised.


def _unwatched_s(unwatched: tuple[Unwatched, ...], hosts: set[HostId], from_at: Instant, until_at: Instant) -> int:
    return sum(
        max(0, min(gap.until_at, until_at) - max(gap.from_at, from_at)) for gap in unwatched if gap.host in hosts
    )


def _raised_silently(history: History, told: Told) -> Iterator[str]:
    """A promise only ever gets better, or its owner is told in the same commit, or asked for more hours."""
    for (_, before), (at, after) in zip(told.promises, told.promises[1:], strict=False):
        is_told = any(told_at == at and promise == after for told_at, promise in told.raised)
        is_longer = any(told_at == at and end_by_at == after.end_by_at for told_at, end_by_at in told.extended)
        if after.start_by_at > before.start_by_at and not is_told:
            yield f"{told.id}: its start was put off at {at} without a notice: {before} to {after}"
        if after.end_by_at > before.end_by_at and not (is_told or is_longer):
            yield f"{told.id}: its end was put off at {at} without a notice: {before} to {after}"
    if told.raised and not history.has_faults:
        at, promise = told.raised[0]
        yield f"{told.id}: its promise was broken at {at} although nothing failed: {told.promises[0][1]} to {promise}"


def _is_given_up(told: Told, at: Instant, promise: Promise) -> bool:
    """Whether a notice says that nothing can be promised any more: it puts nothing off, or to what is past already."""
    changes = [since_at for since_at, promised in told.promises if promised == promise]
    return promise.end_by_at <= at or at not in changes


def _started_late(history: History, told: Told, holds: list[Hold]) -> Iterator[str]:
    up_at = min((up for hold in holds for up, _ in hold.up), default=None)
    seen_at = min(at for at in (up_at, told.ended_at, history.until_at) if at is not None)
    start_by_at = told.promises[0][1].start_by_at
    for at, promise in told.promises:
        if at <= seen_at:
            start_by_at = min(start_by_at, promise.start_by_at)
    late_s = NOTICE_S + _unwatched_s(history.unwatched, set(history.logs), start_by_at, FOREVER)
    is_told = False
    for at, promise in told.raised:
        if at > start_by_at + late_s:
            break
        if _is_given_up(told, at, promise):
            return
        is_told = True
        start_by_at = max(start_by_at, promise.start_by_at)
        late_s = NOTICE_S + _unwatched_s(history.unwatched, set(history.logs), start_by_at, FOREVER)
    if history.has_faults and any(hold.running_at is not None and not hold.up for hold in holds):
        # A guest whose agent is silent is not heard of when it is up.
        start_by_at += SILENT_BOOT_S
    # A cause is told once: as long as it lasts, the promise that it broke is not put off again and again.
    if not is_told and seen_at > start_by_at + (late_s if up_at is None or history.has_faults else 0):
        what = f"was up at {up_at}" if up_at is not None else f"was not up until {seen_at}"
        yield f"{told.id}: promised to start by {start_by_at}, {what}"
    elif up_at is None and not told.was_given_up and told.outcome is not None and not _is_excused(history, told, holds):
        yield f"{told.id}: has ended as {told.outcome} ({', '.join(sorted(told.reasons))}) and never ran"


def _is_excused(history: History, told: Told, holds: list[Hold]) -> bool:
    """Whether the guest, or so many failures that its owner was told, made an end of it."""
    if any(hold.was_hit for hold in holds):
        return True
    return history.has_faults and bool(told.reasons & {ReasonCode.CRASHED_TOO_OFTEN, ReasonCode.START_FAILED})


def _hours_short(history: History, told: Told, holds: list[Hold]) -> Iterator[str]:
    """All hours asked for are delivered by the end that was promised."""
    if _is_excused(history, told, holds):
        return
    end_by_at = told.promises[0][1].end_by_at
    for at, promise in told.promises:
        # What was promised last before it was over counts, however it came about.
        if at <= max(end_by_at, told.ended_at or 0) + HOUR_S:
            end_by_at = promise.end_by_at
    if told.was_given_up and told.ended_at is not None and told.ended_at < end_by_at:
        return
    if any(_is_given_up(told, at, promise) for at, promise in told.raised):
        return
    if told.was_given_up and told.raised and not any(hold.up for hold in holds):
        # It was held up to the end by what its owner was told, once: `_started_late` sees to it that they were.
        return
    if end_by_at > history.until_at:
        return
    ran_s = 0
    for hold in holds:
        for up_at, down_at in hold.up:
            until_at = min(down_at if down_at is not None else history.until_at, end_by_at)
            ran_s += max(0, until_at - max(up_at, told.not_before_at or 0))
    slack_s = OWED_S
    if history.has_faults:
        on = {hold.host for hold in holds}
        from_at = min((hold.from_at for hold in holds), default=end_by_at)
        slack_s += SILENT_BOOT_S + _unwatched_s(history.unwatched, on, from_at, end_by_at)
    if ran_s < told.run_s - slack_s:
        yield f"{told.id}: promised {told.run_s} s by {end_by_at}, ran {ran_s} s"


def _wrong_size(told: Told, holds: list[Hold]) -> Iterator[str]:
    for hold in holds:
        # One that never ran may have got stuck with a part of its GPUs.
        if len(hold.gpus) != told.gpus and hold.running_at is not None:
            yield f"{told.id}: asked for {told.gpus} GPUs and got {hold.gpus} on {hold.host} at {hold.from_at}"


def _ran_on(history: History, told: Told, holds: list[Hold]) -> Iterator[str]:
    """No VM outlives its end: what is over is stopped, unless it cannot be because something failed."""
    if history.has_faults or told.ended_at is None:
        return
    slack_s = LONGEST_STOP_S + _unwatched_s(history.unwatched, set(history.logs), told.ended_at, FOREVER)
    for hold in holds:
        off_at = hold.until_at if hold.until_at is not None else history.until_at
        if off_at > told.ended_at + slack_s:
            yield f"{told.id}: ended at {told.ended_at} and still had GPUs of {hold.host} at {off_at}"


def _disks(history: History) -> Iterator[str]:
    """No disk is deleted before its retention ends, nor written over."""
    users: dict[DiskId, list[Told]] = {}
    for told in history.ledger.told.values():
        for _, disk in told.disks:
            users.setdefault(disk, []).append(told)
    for host, log in sorted(history.logs.items()):
        made: set[DiskId] = set()
        for line in log:
            if not line.what.startswith("disk."):
                continue
            disk = DiskId(str(line.fact("disk")))
            match line.what:
                case "disk.copying" if disk in made:
                    yield f"{host}: disk {disk} was written over at {line.at}"
                case "disk.made":
                    made.add(disk)
                case "disk.deleting":
                    made.discard(disk)
                    yield from _deleted_too_early(host, disk, line.at, users.get(disk, []))
                case _:
                    pass


def _deleted_too_early(host: HostId, disk: DiskId, at: Instant, users: list[Told]) -> Iterator[str]:
    if not users:
        yield f"{host}: disk {disk}, which is nobody's, was deleted at {at}"
    for told in users:
        if told.kept_until_at is None or told.ended_at is None or told.ended_at > at:
            yield f"{host}: disk {disk} was deleted at {at}, and {told.id} has not ended"
        elif at < told.kept_until_at:
            yield f"{host}: disk {disk} of {told.id} was deleted at {at}, kept until {told.kept_until_at} by promise"
