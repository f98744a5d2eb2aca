"""Everything: tables, indexes, and the refusals that hold over several rows or over time.

Frozen: a later change of the tables is a later migration.
"""

import sqlalchemy as sa
from alembic import op

from scheduler.store.migrations.refusals_0001 import REFUSALS, statements

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(), nullable=nullable)


def _big(name: str, *, nullable: bool = False, autoincrement: bool = True) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable, autoincrement=autoincrement and "auto")


def _int(name: str, *, nullable: bool = False, autoincrement: bool = True) -> sa.Column[int]:
    return sa.Column(name, sa.Integer(), nullable=nullable, autoincrement=autoincrement and "auto")


def _flag(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean(), nullable=False)


def _seq() -> sa.Column[int]:
    return sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False)


def upgrade() -> None:
    """Make the schema, and the plan's one row at version 0."""
    _make_tables()
    op.execute("INSERT INTO plan (id, version, horizon_at, rules) VALUES (1, 0, 0, NULL)")
    for statement in statements(op.get_bind().dialect.name, REFUSALS):
        op.execute(statement)


def _make_tables() -> None:
    op.create_table(
        "asked",
        _text("host"),
        _text("verb"),
        _text("subject"),
        _big("asked_at"),
        _big("until_at"),
        _int("attempt"),
        _text("detail"),
        sa.PrimaryKeyConstraint("host", "verb", "subject", name=op.f("pk_asked")),
    )
    op.create_table(
        "disk_fact",
        _text("host"),
        _text("disk"),
        _big("size_gib"),
        _big("made_at"),
        _big("deleted_at", nullable=True),
        sa.PrimaryKeyConstraint("host", "disk", name=op.f("pk_disk_fact")),
    )
    op.create_index(op.f("ix_disk_fact_disk"), "disk_fact", ["disk"], unique=False)
    op.create_table(
        "event",
        _seq(),
        _text("kind"),
        _big("at"),
        _text("reservation", nullable=True),
        _text("host", nullable=True),
        _text("actor"),
        _text("facts"),
        _flag("is_notice"),
        _text("key", nullable=True),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_event")),
        sa.UniqueConstraint("key", name=op.f("uq_event_key")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_event_reservation_seq"), "event", ["reservation", "seq"], unique=False)
    op.create_table(
        "foreign_domain",
        _text("host"),
        _text("uuid"),
        _text("name"),
        _text("gpus"),
        sa.PrimaryKeyConstraint("host", "uuid", name=op.f("pk_foreign_domain")),
    )
    op.create_table(
        "gpu_fact",
        _text("host"),
        _int("gpu", autoincrement=False),
        _text("state"),
        _big("since_at"),
        _text("problem"),
        sa.PrimaryKeyConstraint("host", "gpu", name=op.f("pk_gpu_fact")),
    )
    op.create_table(
        "host",
        _text("id"),
        _text("profile"),
        _text("storage"),
        _flag("is_drained"),
        _text("mended"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_host")),
    )
    op.create_table(
        "host_fact",
        _text("host"),
        _text("boot_id", nullable=True),
        _big("seen_at", nullable=True),
        _big("unreachable_since_at", nullable=True),
        _text("problem"),
        _big("revision"),
        sa.PrimaryKeyConstraint("host", name=op.f("pk_host_fact")),
    )
    op.create_table(
        "intent",
        _seq(),
        _big("at"),
        _text("author"),
        _text("role"),
        _text("key", nullable=True),
        _text("kind"),
        _text("payload"),
        _big("decided_version", nullable=True),
        _big("decided_at", nullable=True),
        _text("reservation", nullable=True),
        _text("reasons"),
        sa.CheckConstraint("(decided_version IS NULL) = (decided_at IS NULL)", name=op.f("ck_intent_decided_whole")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_intent")),
        sa.UniqueConstraint("key", name=op.f("uq_intent_key")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_intent_decided_at_seq"), "intent", ["decided_at", "seq"], unique=False)
    op.create_table(
        "lease",
        _text("name"),
        _text("token"),
        _big("expires_machine_ms"),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_lease")),
    )
    op.create_table(
        "measurement",
        _seq(),
        _text("host"),
        _text("what"),
        _int("gpus"),
        _big("took_s"),
        _big("at"),
        _text("extra"),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_measurement")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_measurement_what_gpus_seq"), "measurement", ["what", "gpus", "seq"], unique=False)
    op.create_table(
        "plan",
        _int("id", autoincrement=False),
        _big("version"),
        _big("horizon_at"),
        _text("rules", nullable=True),
        sa.CheckConstraint("id = 1", name=op.f("ck_plan_single_row")),
        sa.CheckConstraint("version >= 0", name=op.f("ck_plan_version_not_negative")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_plan")),
    )
    op.create_table(
        "plan_window",
        _text("id"),
        _text("name"),
        _text("layout"),
        _text("hosts"),
        _big("start_at"),
        _big("end_at"),
        _big("decide_at"),
        _flag("only_if_queued"),
        _text("at_boundary"),
        _text("warnings_s"),
        _big("grace_s"),
        _big("policy_version"),
        _text("source"),
        _text("state"),
        _big("released_from_at", nullable=True),
        sa.CheckConstraint(
            "(state = 'released') = (released_from_at IS NOT NULL)",
            name=op.f("ck_plan_window_released_from_when_released"),
        ),
        sa.CheckConstraint("state IN ('planned', 'open', 'released')", name=op.f("ck_plan_window_known_state")),
        sa.CheckConstraint("start_at < end_at", name=op.f("ck_plan_window_start_before_end")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_plan_window")),
    )
    op.create_index(op.f("ix_plan_window_end_at"), "plan_window", ["end_at"], unique=False)
    op.create_table(
        "policy",
        _big("version", autoincrement=False),
        _text("text"),
        _text("rules"),
        _big("applied_at"),
        _text("author"),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_policy")),
    )
    op.create_table(
        "reservation",
        _text("id"),
        _text("owner"),
        _text("queue"),
        _int("gpus"),
        _big("run_s"),
        _big("submitted_at"),
        _big("not_before_at", nullable=True),
        _big("asked_start_by_at", nullable=True),
        _text("at_boundary"),
        _text("image"),
        _big("disk_gib"),
        _text("ssh_key", nullable=True),
        _text("continues", nullable=True),
        _text("key", nullable=True),
        _big("start_by_at", nullable=True),
        _big("end_by_at", nullable=True),
        _big("generation"),
        _big("restart_after"),
        _text("disk", nullable=True),
        _text("outcome", nullable=True),
        _big("ended_at", nullable=True),
        _flag("is_closed"),
        _big("promise_notice"),
        _text("reasons"),
        sa.CheckConstraint("(start_by_at IS NULL) = (end_by_at IS NULL)", name=op.f("ck_reservation_promise_whole")),
        sa.CheckConstraint("NOT is_closed OR outcome IS NOT NULL", name=op.f("ck_reservation_closed_has_outcome")),
        sa.CheckConstraint("gpus > 0 OR coalesce(outcome, '') = 'refused'", name=op.f("ck_reservation_gpus_positive")),
        sa.CheckConstraint("run_s > 0 OR coalesce(outcome, '') = 'refused'", name=op.f("ck_reservation_run_positive")),
        sa.CheckConstraint("start_by_at <= end_by_at", name=op.f("ck_reservation_promise_in_order")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reservation")),
        sa.UniqueConstraint("key", name=op.f("uq_reservation_key")),
    )
    op.create_index(op.f("ix_reservation_is_closed"), "reservation", ["is_closed"], unique=False)
    op.create_index(op.f("ix_reservation_owner"), "reservation", ["owner"], unique=False)
    op.create_table(
        "vm_fact",
        _text("reservation"),
        _big("generation", autoincrement=False),
        _text("host"),
        _text("partition"),
        _big("asked_at"),
        _big("up_at", nullable=True),
        _big("running_at", nullable=True),
        _flag("is_agent_silent"),
        _big("stop_asked_at", nullable=True),
        _big("off_at", nullable=True),
        _text("end", nullable=True),
        _text("problem"),
        _flag("is_gone"),
        sa.PrimaryKeyConstraint("reservation", "generation", name=op.f("pk_vm_fact")),
    )
    op.create_index(op.f("ix_vm_fact_host_off_at"), "vm_fact", ["host", "off_at"], unique=False)
    op.create_table(
        "booked_disk",
        _text("id"),
        _text("reservation"),
        _text("owner"),
        _big("size_gib"),
        _text("storage"),
        _flag("is_scratch"),
        _big("from_at"),
        _big("until_at"),
        sa.CheckConstraint("from_at <= until_at", name=op.f("ck_booked_disk_from_not_after_until")),
        sa.CheckConstraint("size_gib > 0", name=op.f("ck_booked_disk_size_positive")),
        sa.ForeignKeyConstraint(["reservation"], ["reservation.id"], name=op.f("fk_booked_disk_reservation")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_booked_disk")),
    )
    op.create_table(
        "booked_span",
        _text("reservation"),
        _int("number", autoincrement=False),
        _big("start_at"),
        _big("end_at"),
        _text("host"),
        _text("partition"),
        _big("generation", nullable=True),
        sa.CheckConstraint("start_at < end_at", name=op.f("ck_booked_span_start_before_end")),
        sa.ForeignKeyConstraint(["host"], ["host.id"], name=op.f("fk_booked_span_host")),
        sa.ForeignKeyConstraint(["reservation"], ["reservation.id"], name=op.f("fk_booked_span_reservation")),
        sa.PrimaryKeyConstraint("reservation", "number", name=op.f("pk_booked_span")),
    )
    op.create_table(
        "gpu_hold",
        _text("host"),
        _int("gpu", autoincrement=False),
        _text("reservation"),
        _big("generation"),
        sa.ForeignKeyConstraint(
            ["reservation", "generation"],
            ["vm_fact.reservation", "vm_fact.generation"],
            name=op.f("fk_gpu_hold_reservation_generation"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("host", "gpu", name=op.f("pk_gpu_hold")),
    )
    op.create_index(op.f("ix_gpu_hold_reservation_generation"), "gpu_hold", ["reservation", "generation"], unique=False)
    op.create_table(
        "span_gpu",
        _text("reservation"),
        _int("number", autoincrement=False),
        _int("gpu", autoincrement=False),
        _text("host"),
        _big("start_at"),
        _big("end_at"),
        sa.CheckConstraint("start_at < end_at", name=op.f("ck_span_gpu_start_before_end")),
        sa.ForeignKeyConstraint(
            ["reservation", "number"],
            ["booked_span.reservation", "booked_span.number"],
            name=op.f("fk_span_gpu_reservation_number"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("reservation", "number", "gpu", name=op.f("pk_span_gpu")),
    )
    op.create_index(
        op.f("ix_span_gpu_host_gpu_end_at_start_at"), "span_gpu", ["host", "gpu", "end_at", "start_at"], unique=False
    )
