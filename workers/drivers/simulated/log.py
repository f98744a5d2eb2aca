"""The append-only log of a rack: what really happened on the host, whatever anyone believes. Read by auditors.

A line's instant is when it happened, not when somebody looked. Lines are in order of time. The kinds of lines:

`vm.defined` `vm.starting` (its devices are held from here) `vm.foreign` (as `vm.starting`, made by somebody else)
`vm.running` `guest.up` `guest.warned` `guest.agent_back` `vm.shutdown_asked` `guest.ignored_shutdown` `guest.down`
`vm.destroy_asked` `vm.stuck` (holds only the GPUs of this line) `vm.off` (holds nothing; `reason` in the detail)
`vm.vanished` `vm.undefined` · `disk.copying` `disk.made` `disk.cut_off` `disk.deleting` `disk.deleted`
`image.installed` · `device.bound` `device.unbound` `reset.asked` `gpu.reset` `device.reset` `gpu.died` `gpu.mended` ·
`fabric.activated` `fabric.deactivated` · `host.made` `host.rebooted` `host.unreachable` `host.reachable` ·
`verb.refused` `faults.cleared` `fault.injected` `fault.<kind>` `fault.missed`.
"""

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from scheduler.core.errors import FactValue
from scheduler.core.requests import ReservationId
from scheduler.core.spans import Instant
from scheduler.core.topology import PartitionId
from workers.drivers.simulated.schema import FORMAT, BadRack


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """One thing that happened; `detail` in order of its keys."""

    seq: int
    at: Instant
    what: str
    domain: UUID | None
    name: str | None
    reservation: ReservationId | None
    generation: int | None
    gpus: tuple[int, ...]
    partition: PartitionId | None
    detail: tuple[tuple[str, FactValue], ...]

    def fact(self, key: str) -> FactValue:
        """Return one value of the detail; None if it is not there."""
        return dict(self.detail).get(key)

    def as_json(self) -> str:
        """Write the line as one JSON object, always the same bytes."""
        return json.dumps(
            {
                "seq": self.seq,
                "at": self.at,
                "what": self.what,
                "domain": None if self.domain is None else str(self.domain),
                "name": self.name,
                "reservation": self.reservation,
                "generation": self.generation,
                "gpus": list(self.gpus),
                "partition": self.partition,
                "detail": dict(self.detail),
            }
        )


def append(
    connection: sqlite3.Connection,
    at: Instant,
    what: str,
    *,
    domain: tuple[str, str, str | None, int | None, str | None] | None = None,
    gpus: str = "",
    detail: dict[str, FactValue],
) -> None:
    """Write a line; `domain` as (uuid, name, reservation, generation, partition), `gpus` as `0,1,2`."""
    uuid, name, reservation, generation, partition = domain or (None, None, None, None, None)
    connection.execute(
        "INSERT INTO log (at, what, domain, name, reservation, generation, gpus, partition, detail)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (at, what, uuid, name, reservation, generation, gpus, partition, json.dumps(detail, sort_keys=True)),
    )


def last_at(connection: sqlite3.Connection) -> Instant:
    """Return the instant of the last line: the rack has lived at least until then."""
    row = connection.execute("SELECT at FROM log ORDER BY seq DESC LIMIT 1").fetchone()
    return 0 if row is None else int(row[0])


def read(connection: sqlite3.Connection, after_seq: int) -> tuple[LogLine, ...]:
    """Return the lines after a sequence number, oldest first."""
    return tuple(
        _lines(
            connection.execute(
                "SELECT seq, at, what, domain, name, reservation, generation, gpus, partition, detail"
                " FROM log WHERE seq > ? ORDER BY seq",
                (after_seq,),
            )
        )
    )


def read_file(path: Path, *, after_seq: int = 0) -> tuple[LogLine, ...]:
    """Return the lines of a rack's file without touching it; BadRack if it is none.

    What came due since anybody last looked at the host is not written yet.
    """
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        try:
            (found,) = connection.execute("PRAGMA user_version").fetchone()
            if found != FORMAT:
                raise BadRack(f"{path}: rack format {found}, this version reads {FORMAT}", path=str(path), found=found)
            return read(connection, after_seq)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise BadRack(f"{path}: cannot be read as a rack file: {error}", path=str(path)) from error


def _lines(
    rows: Iterable[tuple[int, int, str, str | None, str | None, str | None, int | None, str, str | None, str]],
) -> Iterable[LogLine]:
    for seq, at, what, domain, name, reservation, generation, gpus, partition, detail in rows:
        yield LogLine(
            seq=seq,
            at=at,
            what=what,
            domain=None if domain is None else UUID(domain),
            name=name,
            reservation=None if reservation is None else ReservationId(reservation),
            generation=generation,
            gpus=tuple(int(gpu) for gpu in gpus.split(",") if gpu),
            partition=None if partition is None else PartitionId(partition),
            detail=tuple(sorted(json.loads(detail).items())),
        )
