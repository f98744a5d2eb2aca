"""The tables: plan rows, intents, facts, the record of events, leases, heartbeats, and who may speak.

Holds columns, keys and the checks that fit in one row. Constraints over several rows or over time (no double booking, a
promise never slips, nothing decided twice) are triggers and exclusions, and only a migration makes those; a test holds
the migrations to these tables. Must not hold queries or anything that turns rows into values.

Instants are BIGINT seconds; JSON is text written by `codec`, so that equal values are equal bytes.
"""

from typing import ClassVar, cast

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Table,
    UniqueConstraint,
    text,
)
from sqlmodel import Field, SQLModel

_NAMES = {
    "pk": "pk_%(table_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
}
"""Constraints are named alike on both databases, so a broken one has one name."""


_NO_TEXT = text("''")
"""What a text column that came later holds in rows that were there before."""


def _check(name: str, condition: str) -> CheckConstraint:
    return CheckConstraint(condition, name=name)


def _seq() -> Column[int]:
    """Return a key that the database counts up; SQLite counts only its own INTEGER."""
    return Column("seq", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True)


class Row(SQLModel):
    """What all tables share: one metadata apart from other users of SQLModel."""

    metadata: ClassVar[MetaData] = MetaData(naming_convention=_NAMES)


# Plan rows: written by plan commits only.


class PlanRow(Row, table=True):
    __tablename__ = "plan"
    __table_args__ = (_check("single_row", "id = 1"), _check("version_not_negative", "version >= 0"))
    id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    version: int = Field(sa_type=BigInteger)
    horizon_at: int = Field(sa_type=BigInteger)
    rules: str | None


class PolicyRow(Row, table=True):
    __tablename__ = "policy"
    version: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    text: str
    rules: str
    applied_at: int = Field(sa_type=BigInteger)
    author: str
    message: str = Field(sa_column_kwargs={"server_default": _NO_TEXT})
    override: str = Field(sa_column_kwargs={"server_default": _NO_TEXT})
    made_with: str = Field(sa_column_kwargs={"server_default": "[]"})


class HostRow(Row, table=True):
    __tablename__ = "host"
    id: str = Field(primary_key=True)
    profile: str
    storage: str
    connect: str = Field(sa_column_kwargs={"server_default": _NO_TEXT})
    is_drained: bool
    mended: str


class WindowRow(Row, table=True):
    __tablename__ = "plan_window"
    __table_args__ = (
        _check("start_before_end", "start_at < end_at"),
        _check("known_state", "state IN ('planned', 'open', 'released')"),
        _check("released_from_when_released", "(state = 'released') = (released_from_at IS NOT NULL)"),
        Index(None, "end_at"),
    )
    id: str = Field(primary_key=True)
    name: str
    layout: str
    hosts: str
    start_at: int = Field(sa_type=BigInteger)
    end_at: int = Field(sa_type=BigInteger)
    decide_at: int = Field(sa_type=BigInteger)
    only_if_queued: bool
    at_boundary: str
    warnings_s: str
    grace_s: int = Field(sa_type=BigInteger)
    policy_version: int = Field(sa_type=BigInteger)
    source: str
    state: str
    released_from_at: int | None = Field(sa_type=BigInteger)


class ReservationRow(Row, table=True):
    __tablename__ = "reservation"
    __table_args__ = (
        _check("gpus_positive", "gpus > 0 OR coalesce(outcome, '') = 'refused'"),
        _check("run_positive", "run_s > 0 OR coalesce(outcome, '') = 'refused'"),
        _check("promise_whole", "(start_by_at IS NULL) = (end_by_at IS NULL)"),
        _check("promise_in_order", "start_by_at <= end_by_at"),
        _check("closed_has_outcome", "NOT is_closed OR outcome IS NOT NULL"),
        UniqueConstraint("key"),
        # Lists are newest first, and history is long: each is read from its end.
        Index(None, "is_closed", "submitted_at", "id"),
        Index(None, "owner", "submitted_at", "id"),
        Index(None, "ended_at"),
    )
    id: str = Field(primary_key=True)
    owner: str
    queue: str
    gpus: int
    run_s: int = Field(sa_type=BigInteger)
    submitted_at: int = Field(sa_type=BigInteger)
    not_before_at: int | None = Field(sa_type=BigInteger)
    asked_start_by_at: int | None = Field(sa_type=BigInteger)
    at_boundary: str
    image: str
    disk_gib: int = Field(sa_type=BigInteger)
    memory_gib: int | None = Field(sa_type=BigInteger)
    vcpus: int | None = Field(sa_type=BigInteger)
    ssh_key: str | None
    continues: str | None
    key: str | None
    start_by_at: int | None = Field(sa_type=BigInteger)
    end_by_at: int | None = Field(sa_type=BigInteger)
    generation: int = Field(sa_type=BigInteger)
    restart_after: int = Field(sa_type=BigInteger)
    disk: str | None
    outcome: str | None
    ended_at: int | None = Field(sa_type=BigInteger)
    is_closed: bool
    promise_notice: int = Field(sa_type=BigInteger)
    reasons: str


class SpanRow(Row, table=True):
    __tablename__ = "booked_span"
    __table_args__ = (
        _check("start_before_end", "start_at < end_at"),
        ForeignKeyConstraint(["reservation"], ["reservation.id"]),
        ForeignKeyConstraint(["host"], ["host.id"]),
    )
    reservation: str = Field(primary_key=True)
    number: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    start_at: int = Field(sa_type=BigInteger)
    end_at: int = Field(sa_type=BigInteger)
    host: str
    partition: str
    generation: int | None = Field(sa_type=BigInteger)


class SpanGpuRow(Row, table=True):
    """One GPU of one span of a reservation that is not closed: what the rule against double booking looks at."""

    __tablename__ = "span_gpu"
    __table_args__ = (
        _check("start_before_end", "start_at < end_at"),
        ForeignKeyConstraint(
            ["reservation", "number"], ["booked_span.reservation", "booked_span.number"], ondelete="CASCADE"
        ),
        Index(None, "host", "gpu", "end_at", "start_at"),
    )
    reservation: str = Field(primary_key=True)
    number: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    gpu: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    host: str
    start_at: int = Field(sa_type=BigInteger)
    end_at: int = Field(sa_type=BigInteger)


class BookedDiskRow(Row, table=True):
    __tablename__ = "booked_disk"
    __table_args__ = (
        _check("from_not_after_until", "from_at <= until_at"),
        _check("size_positive", "size_gib > 0"),
        ForeignKeyConstraint(["reservation"], ["reservation.id"]),
    )
    id: str = Field(primary_key=True)
    reservation: str
    owner: str
    size_gib: int = Field(sa_type=BigInteger)
    storage: str
    is_scratch: bool
    from_at: int = Field(sa_type=BigInteger)
    until_at: int = Field(sa_type=BigInteger)


# Intents: filed by the edges, decided by plan commits.


class IntentRow(Row, table=True):
    __tablename__ = "intent"
    __table_args__ = (
        _check("decided_whole", "(decided_version IS NULL) = (decided_at IS NULL)"),
        UniqueConstraint("key"),
        Index(None, "decided_at", "seq"),
        {"sqlite_autoincrement": True},
    )
    seq: int = Field(sa_column=_seq())
    at: int = Field(sa_type=BigInteger)
    author: str
    role: str
    key: str | None
    kind: str
    payload: str
    decided_version: int | None = Field(sa_type=BigInteger)
    decided_at: int | None = Field(sa_type=BigInteger)
    reservation: str | None
    reasons: str


# Facts: written by the host's converge only.


class HostFactRow(Row, table=True):
    __tablename__ = "host_fact"
    host: str = Field(primary_key=True)
    boot_id: str | None
    seen_at: int | None = Field(sa_type=BigInteger)
    unreachable_since_at: int | None = Field(sa_type=BigInteger)
    problem: str
    troubles: str = Field(sa_column_kwargs={"server_default": "[]"})
    revision: int = Field(sa_type=BigInteger)
    """Rises with every change of facts that planning reads: whoever has read this one need not read again."""


class VmFactRow(Row, table=True):
    __tablename__ = "vm_fact"
    __table_args__ = (Index(None, "host", "off_at"),)
    reservation: str = Field(primary_key=True)
    generation: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    host: str
    partition: str
    asked_at: int = Field(sa_type=BigInteger)
    up_at: int | None = Field(sa_type=BigInteger)
    running_at: int | None = Field(sa_type=BigInteger)
    is_agent_silent: bool
    stop_asked_at: int | None = Field(sa_type=BigInteger)
    off_at: int | None = Field(sa_type=BigInteger)
    end: str | None
    problem: str
    is_gone: bool


class GpuHoldRow(Row, table=True):
    """A GPU and the one start that holds it, from the asking until the VM was seen off; the key keeps a second out."""

    __tablename__ = "gpu_hold"
    __table_args__ = (
        ForeignKeyConstraint(
            ["reservation", "generation"], ["vm_fact.reservation", "vm_fact.generation"], ondelete="CASCADE"
        ),
        Index(None, "reservation", "generation"),
    )
    host: str = Field(primary_key=True)
    gpu: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    reservation: str
    generation: int = Field(sa_type=BigInteger)


class GpuFactRow(Row, table=True):
    __tablename__ = "gpu_fact"
    host: str = Field(primary_key=True)
    gpu: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    state: str
    since_at: int = Field(sa_type=BigInteger)
    problem: str


class DiskFactRow(Row, table=True):
    __tablename__ = "disk_fact"
    __table_args__ = (Index(None, "disk"),)
    host: str = Field(primary_key=True)
    disk: str = Field(primary_key=True)
    size_gib: int = Field(sa_type=BigInteger)
    made_at: int = Field(sa_type=BigInteger)
    deleted_at: int | None = Field(sa_type=BigInteger)


class AskedRow(Row, table=True):
    __tablename__ = "asked"
    host: str = Field(primary_key=True)
    verb: str = Field(primary_key=True)
    subject: str = Field(primary_key=True)
    asked_at: int = Field(sa_type=BigInteger)
    until_at: int = Field(sa_type=BigInteger)
    attempt: int
    detail: str


class ForeignDomainRow(Row, table=True):
    __tablename__ = "foreign_domain"
    host: str = Field(primary_key=True)
    uuid: str = Field(primary_key=True)
    name: str
    gpus: str


class MeasurementRow(Row, table=True):
    __tablename__ = "measurement"
    __table_args__ = (Index(None, "what", "gpus", "seq"), {"sqlite_autoincrement": True})
    seq: int = Field(sa_column=_seq())
    host: str
    what: str
    gpus: int
    took_s: int = Field(sa_type=BigInteger)
    at: int = Field(sa_type=BigInteger)
    extra: str


# The record, who may act, and who is alive.


class EventRow(Row, table=True):
    __tablename__ = "event"
    __table_args__ = (
        UniqueConstraint("key"),
        Index(None, "reservation", "seq"),
        {"sqlite_autoincrement": True},
    )
    seq: int = Field(sa_column=_seq())
    kind: str
    at: int = Field(sa_type=BigInteger)
    reservation: str | None
    host: str | None
    actor: str
    facts: str
    is_notice: bool
    key: str | None


class LeaseRow(Row, table=True):
    __tablename__ = "lease"
    name: str = Field(primary_key=True)
    token: str
    expires_machine_ms: int = Field(sa_type=BigInteger)


class HeartbeatRow(Row, table=True):
    __tablename__ = "heartbeat"
    kind: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    machine_ms: int = Field(sa_type=BigInteger)
    detail: str


# Who may speak.


class AccountRow(Row, table=True):
    """A user. SQL keeps the word "user" for itself."""

    __tablename__ = "account"
    __table_args__ = (
        _check("known_role", "role IN ('student', 'admin')"),
        _check("name_of_1_to_32", "length(name) BETWEEN 1 AND 32"),
    )
    name: str = Field(primary_key=True)
    role: str
    created_at: int = Field(sa_type=BigInteger)
    is_disabled: bool


class TokenRow(Row, table=True):
    __tablename__ = "token"
    __table_args__ = (
        _check("hash_is_sha256", "length(secret_sha256) = 64"),
        _check("revoked_not_before_issued", "revoked_at >= created_at"),
        _check("used_whole", "(last_used_at IS NULL) = (used_machine_ms IS NULL)"),
        ForeignKeyConstraint(["owner"], ["account.name"]),
        UniqueConstraint("secret_sha256"),
        Index(None, "owner", "seq"),
        {"sqlite_autoincrement": True},
    )
    seq: int = Field(sa_column=_seq())
    owner: str
    label: str
    secret_sha256: str
    created_at: int = Field(sa_type=BigInteger)
    last_used_at: int | None = Field(sa_type=BigInteger)
    used_machine_ms: int | None = Field(sa_type=BigInteger)
    """When `last_used_at` was written, in machine time: product time may pass too fast to count writes by."""
    revoked_at: int | None = Field(sa_type=BigInteger)


def _table(row: type[Row]) -> Table:
    return cast(Table, row.__table__)  # type: ignore[attr-defined]  # SQLModel sets it and does not say so


PLAN = _table(PlanRow)
POLICY = _table(PolicyRow)
HOST = _table(HostRow)
WINDOW = _table(WindowRow)
RESERVATION = _table(ReservationRow)
SPAN = _table(SpanRow)
SPAN_GPU = _table(SpanGpuRow)
BOOKED_DISK = _table(BookedDiskRow)
INTENT = _table(IntentRow)
HOST_FACT = _table(HostFactRow)
VM_FACT = _table(VmFactRow)
GPU_HOLD = _table(GpuHoldRow)
GPU_FACT = _table(GpuFactRow)
DISK_FACT = _table(DiskFactRow)
ASKED = _table(AskedRow)
FOREIGN_DOMAIN = _table(ForeignDomainRow)
MEASUREMENT = _table(MeasurementRow)
EVENT = _table(EventRow)
LEASE = _table(LeaseRow)
HEARTBEAT = _table(HeartbeatRow)
ACCOUNT = _table(AccountRow)
TOKEN = _table(TokenRow)
