"""The fault script of a rack: what goes wrong, at which call or at which instant. Kept in the rack, outlives processes.

Holds the faults and which call they fall on; what each one does to the host is in `clockwork` (happenings) and in
`calls` and the verbs (faults of a call). Two sorts:

- faults of a call: `fail` `hang` `act_half` `lie` `ignore_shutdown`. They need a verb and fall on its `nth` matching
  call from now, and the `times - 1` after it;
- happenings: all others. They happen at the instant `at`; or, with a verb instead, `after_s` after a matching call
  began, to the subject of that call.
"""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from scheduler.core.spans import Instant


class RackVerb(StrEnum):
    """The verbs of the five ports, one name each."""

    LOOK = "look"
    DEFINE = "define"
    START = "start"
    ASK_SHUTDOWN = "ask_shutdown"
    DESTROY = "destroy"
    UNDEFINE = "undefine"
    BIND = "bind"
    ASK_RESET = "ask_reset"
    REBIND = "rebind"
    ACTIVATE = "activate"
    DEACTIVATE = "deactivate"
    CREATE_DISK = "create_disk"
    DELETE_DISK = "delete_disk"
    WARN = "warn"


class FaultKind(StrEnum):
    FAIL = "fail"
    """The verb raises in libvirt's words and does nothing; a look raises HostUnreachable."""
    HANG = "hang"
    """A blocking verb ends at `until_at` (None: never); an asking verb returns and nothing ever comes of it; any other
    verb is cut off by the connection's keepalive and does nothing."""
    ACT_HALF = "act_half"
    """The verb does a part of its work, then raises."""
    LIE = "lie"
    """The verb returns as if done and does nothing."""
    IGNORE_SHUTDOWN = "ignore_shutdown"
    """From this asking on the guest ignores the ACPI button, until it is started again. The agent still obeys."""

    VANISH = "vanish"
    """A domain is gone from the host, definition and all."""
    REBOOT = "reboot"
    """The host reboots and answers again at `until_at`."""
    UNREACHABLE = "unreachable"
    """The host does not answer until `until_at`; what is on it goes on."""
    GPU_DIES = "gpu_dies"
    """A device's config space reads all ones, until `until_at` if given; a domain that has it crashes."""
    AGENT_SILENT = "agent_silent"
    """The guest agent does not answer, until `until_at` if given."""
    GUEST_CRASH = "guest_crash"
    GUEST_SHUTDOWN = "guest_shutdown"
    """The guest powers itself off."""
    FOREIGN = "foreign"
    """Somebody makes a domain with `gpus` by hand, named by `subject`; it goes away at `until_at` if given."""


OF_A_CALL = frozenset({FaultKind.FAIL, FaultKind.HANG, FaultKind.ACT_HALF, FaultKind.LIE, FaultKind.IGNORE_SHUTDOWN})

DEFAULT_OUTAGE_S = 180
"""How long a reboot or an outage lasts if the fault does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One entry of the script.

    `subject` is a domain's UUID, name or reservation, a disk, a device's address or a partition; None: any. A happening
    with an instant befalls the first `times` matching subjects in order of name.
    """

    kind: FaultKind
    verb: RackVerb | None = None
    subject: str | None = None
    at: Instant | None = None
    nth: int = 1
    times: int = 1
    until_at: Instant | None = None
    after_s: int | None = None
    gpus: tuple[int, ...] = ()
    message: str = ""
    """What a failing verb says; empty: libvirt's words for it."""

    def __post_init__(self) -> None:
        if self.nth < 1 or self.times < 1:
            raise ValueError(f"nth and times count from 1: nth={self.nth}, times={self.times}")
        if self.kind in OF_A_CALL and (self.verb is None or self.at is not None or self.after_s is not None):
            raise ValueError(f"{self.kind} is a fault of a call: give it a verb, and neither `at` nor `after_s`")
        if self.kind not in OF_A_CALL and (self.at is None) == (self.verb is None):
            raise ValueError(f"{self.kind} happens at an instant: give it either `at`, or a verb and `after_s`")
        if self.kind not in OF_A_CALL and self.verb is not None and (self.after_s is None or self.after_s < 1):
            raise ValueError(f"{self.kind} after a call needs `after_s` of at least 1, not {self.after_s}")
        if self.kind is FaultKind.IGNORE_SHUTDOWN and self.verb is not RackVerb.ASK_SHUTDOWN:
            raise ValueError(f"ignore_shutdown falls on ask_shutdown, not on {self.verb}")
        if self.verb is RackVerb.LOOK and self.kind in OF_A_CALL and self.kind is not FaultKind.FAIL:
            raise ValueError(f"a look can only fail, it cannot {self.kind}")
        if self.kind is FaultKind.FOREIGN and not self.gpus:
            raise ValueError("a foreign domain needs the GPUs that it takes")


class Pending(NamedTuple):
    """A fault as the rack keeps it."""

    id: int
    kind: str
    verb: str | None
    subject: str | None
    at: int | None
    skips_left: int
    times_left: int
    until_at: int | None
    after_s: int | None
    gpus: str
    message: str


_COLUMNS = "id, kind, verb, subject, at, skips_left, times_left, until_at, after_s, gpus, message"


def insert(connection: sqlite3.Connection, fault: Fault) -> int:
    """Write a fault into the script and return its number."""
    cursor = connection.execute(
        "INSERT INTO faults (kind, verb, subject, at, skips_left, times_left, until_at, after_s, gpus, message)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            fault.kind.value,
            None if fault.verb is None else fault.verb.value,
            fault.subject,
            fault.at,
            fault.nth - 1,
            fault.times,
            fault.until_at,
            fault.after_s,
            ",".join(str(gpu) for gpu in fault.gpus),
            fault.message,
        ),
    )
    number = cursor.lastrowid
    assert number is not None
    return number


def pending(connection: sqlite3.Connection, number: int) -> Pending | None:
    """Return one fault of the script."""
    row = connection.execute(f"SELECT {_COLUMNS} FROM faults WHERE id = ?", (number,)).fetchone()
    return None if row is None else Pending._make(row)


def use_up(connection: sqlite3.Connection, number: int) -> None:
    """Mark a happening as over."""
    connection.execute("UPDATE faults SET times_left = 0 WHERE id = ?", (number,))


def clear(connection: sqlite3.Connection) -> None:
    """Mark all faults that wait for a call as over."""
    connection.execute("UPDATE faults SET times_left = 0 WHERE verb IS NOT NULL AND at IS NULL")


def has_any_for(connection: sqlite3.Connection, verb: RackVerb) -> bool:
    """Whether some fault waits for a call of this verb."""
    row = connection.execute("SELECT 1 FROM faults WHERE verb = ? AND times_left > 0 LIMIT 1", (verb.value,)).fetchone()
    return row is not None


def take(connection: sqlite3.Connection, verb: RackVerb, subjects: Iterable[str]) -> tuple[Pending, ...]:
    """Count a call against the script and return the faults that fall on it, at most one of them a fault of a call."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM faults WHERE verb = ? AND at IS NULL AND times_left > 0 ORDER BY id", (verb.value,)
    ).fetchall()
    if not rows:
        return ()
    names = frozenset(subjects)
    taken: list[Pending] = []
    for fault in map(Pending._make, rows):
        if fault.subject is not None and fault.subject not in names and fault.kind != FaultKind.FOREIGN:
            continue
        if fault.skips_left > 0:
            connection.execute("UPDATE faults SET skips_left = skips_left - 1 WHERE id = ?", (fault.id,))
            continue
        if fault.kind in OF_A_CALL and any(other.kind in OF_A_CALL for other in taken):
            continue
        connection.execute("UPDATE faults SET times_left = times_left - 1 WHERE id = ?", (fault.id,))
        taken.append(fault)
    return tuple(taken)
