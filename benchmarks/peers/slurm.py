"""One cycle of Slurm's backfill over a batch, and the starts that it would give.

All is running and queued before the cycle begins; the partition is down until then. The cycle's time is Slurm's own
(`sdiag`), which leaves out what it slept; beside it is the processor time of slurmctld meanwhile. It tests more for
each job than we do: partitions, licences, features.
"""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from benchmarks.peers.peer import NotHere, PeerPlan, best
from benchmarks.peers.slurm_site import Layout, Site, up
from benchmarks.workload import Batch

CYCLE_WITHIN_S = 1200.0
RUNNING_WITHIN_S = 60.0
_JOB = "#!/bin/sh\nexec sleep 86400\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Backfill:
    """What `sdiag` says of the backfill: the cycle that ended last, and how many there were."""

    cycles: int
    last_cycle_us: int
    depth: int
    """So many jobs were tested."""
    table: int


def plan(batch: Batch, *, layout: Layout | None = None, times: int = 1) -> PeerPlan:
    """Set a Slurm up, queue the batch, and return the fastest of so many backfill cycles.

    Without a layout: hosts as nodes, and GPUs as nodes where GPUs are booked ahead, which Slurm 22.05 can do for whole
    nodes only.
    """
    chosen = layout or (Layout.B if batch.reservations else Layout.A)
    if chosen is Layout.A and batch.reservations:
        raise NotHere("Slurm books whole nodes ahead, which are hosts in layout A: take --slurm-layout B")
    with up(batch.hosts, chosen) as site:
        (site.directory / "job.sh").write_text(_JOB, encoding="utf-8")
        began_at = _occupy(site, batch)
        site.call("scontrol", "update", "PartitionName=all", "State=DOWN")
        reserved_s, refused = _reserve(site, batch, began_at)
        submitted_s, index_by_job = _submit(site, batch)
        site.call("scontrol", "update", "PartitionName=all", "State=UP")
        cycles, cpu_s = _cycles(site, times)
        starts = _starts(site, batch, index_by_job, began_at)
    facts: dict[str, object] = {
        "layout": str(chosen),
        "submit_per_s": round(len(batch.requests) / submitted_s, 1) if submitted_s else None,
        "cycles_s": [round(cycle.last_cycle_us / 1e6, 3) for cycle in cycles],
        "table": cycles[-1].table,
    }
    if batch.reservations:
        facts |= {"reservations_refused": refused, "reserve_per_s": round(len(batch.reservations) / reserved_s, 1)}
    return best(
        [
            PeerPlan(seconds=cycle.last_cycle_us / 1e6, cpu_s=used_s, planned=cycle.depth, starts=starts, facts=facts)
            for cycle, used_s in zip(cycles, cpu_s, strict=True)
        ]
    )


def read_sdiag(text: str) -> Backfill:
    """Read the backfill's part of what `sdiag` prints; all is 0 before the first cycle."""
    _, _, part = text.partition("Backfilling stats")
    if not part:
        raise NotHere("sdiag printed no backfilling stats: another version of Slurm than 22.05?")

    def number(label: str) -> int:
        found = re.search(rf"^\s*{re.escape(label)}:\s*(\d+)\s*$", part, re.MULTILINE)
        return int(found[1]) if found else 0

    return Backfill(
        cycles=number("Total cycles"),
        last_cycle_us=number("Last cycle"),
        depth=number("Last depth cycle"),
        table=number("Last table size"),
    )


def read_starts(text: str) -> Mapping[int, int | None]:
    """Read lines of `JOB|START`, in UTC, as instants by job; `None` where Slurm has no start for a job."""
    starts: dict[int, int | None] = {}
    for line in text.splitlines():
        job, _, start = line.strip().partition("|")
        known = start not in ("N/A", "Unknown", "")
        starts[int(job)] = int(datetime.fromisoformat(start).replace(tzinfo=UTC).timestamp()) if known else None
    return starts


def _occupy(site: Site, batch: Batch) -> int:
    """Start one job with all GPUs of each host, and return the instant at which the first began."""
    for host, until_s in batch.occupied:
        nodes = ",".join(site.nodes_of(host))
        _sbatch(site, f"--nodelist={nodes}", f"--time={until_s // 60}", *site.ask(16))
    until = time.monotonic() + RUNNING_WITHIN_S
    while True:
        running = read_starts(site.call("squeue", "--noheader", "--states=RUNNING", "--format=%i|%S"))
        if len(running) == len(batch.occupied):
            return min(at for at in running.values() if at is not None) if running else int(time.time())
        if time.monotonic() > until:
            raise NotHere(f"{len(running)} of {len(batch.occupied)} jobs run on Slurm after {RUNNING_WITHIN_S:.0f} s")
        time.sleep(0.5)


def _reserve(site: Site, batch: Batch, began_at: int) -> tuple[float, int]:
    """Book ahead, through one scontrol; return the seconds that it took and how many were refused."""
    if not batch.reservations:
        return 0.0, 0
    lines = []
    for number, (start_s, gpus, run_s) in enumerate(batch.reservations):
        start = datetime.fromtimestamp(began_at + start_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        nodes = f"NodeCnt={gpus} PartitionName=all Users=root"
        name = f"ReservationName=r{number}"
        lines.append(f"create reservation {name} StartTime={start} Duration={run_s // 60} {nodes}")
    began_s = time.perf_counter()
    said = site.tell("scontrol", [*lines, "quit"])
    return time.perf_counter() - began_s, len(lines) - said.count("Reservation created")


def _submit(site: Site, batch: Batch) -> tuple[float, Mapping[int, int]]:
    """Queue the requests one by one, so that their order is that of the batch; return the seconds and who is who."""
    began_s = time.perf_counter()
    jobs = [_sbatch(site, f"--time={run_s // 60}", *site.ask(gpus)) for gpus, run_s in batch.requests]
    return time.perf_counter() - began_s, {job: index for index, job in enumerate(jobs)}


def _sbatch(site: Site, *options: str) -> int:
    return int(site.call("sbatch", "--parsable", "--output=/dev/null", *options, "job.sh"))


def _cycles(site: Site, times: int) -> tuple[Sequence[Backfill], Sequence[float]]:
    """Wait for so many cycles that had jobs to test; return the processor time from one end to the next with them."""
    cycles: list[Backfill] = []
    cpu_s: list[float] = []
    used_s = site.cpu_s("slurmctld")
    seen = read_sdiag(site.call("sdiag")).cycles
    until_s = time.monotonic() + CYCLE_WITHIN_S
    while len(cycles) < times:
        if time.monotonic() > until_s:
            raise NotHere(f"{len(cycles)} of {times} backfill cycles ended, and none for {CYCLE_WITHIN_S:.0f} s")
        time.sleep(0.5)
        now = read_sdiag(site.call("sdiag"))
        if now.cycles > seen and now.depth:
            cycles.append(now)
            cpu_s.append(site.cpu_s("slurmctld") - used_s)
            used_s = site.cpu_s("slurmctld")
            until_s = time.monotonic() + CYCLE_WITHIN_S
        seen = now.cycles
    return cycles, cpu_s


def _starts(site: Site, batch: Batch, index_by_job: Mapping[int, int], began_at: int) -> tuple[int | None, ...]:
    starts: list[int | None] = [None] * len(batch.requests)
    for job, at in read_starts(site.call("squeue", "--noheader", "--states=PENDING", "--format=%i|%S")).items():
        if at is not None:
            starts[index_by_job[job]] = at - began_at
    return tuple(starts)
