"""Users, their tokens, and heartbeats; what may never happen to the first two, as triggers; indexes for long lists.

Frozen: a later change of the tables is a later migration.
"""

import sqlalchemy as sa
from alembic import op

from scheduler.store.migrations.refusals_0002 import REFUSALS, statements

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(), nullable=False)


def _big(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def upgrade() -> None:
    """Make the tables and indexes. No row that is in the database already is touched."""
    op.create_table(
        "heartbeat",
        _text("kind"),
        _text("name"),
        _big("machine_ms"),
        _text("detail"),
        sa.PrimaryKeyConstraint("kind", "name", name=op.f("pk_heartbeat")),
    )
    op.create_table(
        "account",
        _text("name"),
        _text("role"),
        _big("created_at"),
        sa.Column("is_disabled", sa.Boolean(), nullable=False),
        sa.CheckConstraint("role IN ('student', 'admin')", name=op.f("ck_account_known_role")),
        sa.CheckConstraint("length(name) BETWEEN 1 AND 32", name=op.f("ck_account_name_of_1_to_32")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_account")),
    )
    op.create_table(
        "token",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        _text("owner"),
        _text("label"),
        _text("secret_sha256"),
        _big("created_at"),
        _big("last_used_at", nullable=True),
        _big("used_machine_ms", nullable=True),
        _big("revoked_at", nullable=True),
        sa.CheckConstraint("length(secret_sha256) = 64", name=op.f("ck_token_hash_is_sha256")),
        sa.CheckConstraint("revoked_at >= created_at", name=op.f("ck_token_revoked_not_before_issued")),
        sa.CheckConstraint("(last_used_at IS NULL) = (used_machine_ms IS NULL)", name=op.f("ck_token_used_whole")),
        sa.ForeignKeyConstraint(["owner"], ["account.name"], name=op.f("fk_token_owner")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_token")),
        sa.UniqueConstraint("secret_sha256", name=op.f("uq_token_secret_sha256")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_token_owner_seq"), "token", ["owner", "seq"], unique=False)
    _make_indexes_for_lists()
    for statement in statements(op.get_bind().dialect.name, REFUSALS):
        op.execute(statement)


def _make_indexes_for_lists() -> None:
    """Index reservations in the order in which they are listed; the new ones serve all that the dropped ones did."""
    op.drop_index(op.f("ix_reservation_is_closed"), table_name="reservation")
    op.drop_index(op.f("ix_reservation_owner"), table_name="reservation")
    for columns in (("is_closed", "submitted_at", "id"), ("owner", "submitted_at", "id"), ("ended_at",)):
        op.create_index(op.f(f"ix_reservation_{'_'.join(columns)}"), "reservation", list(columns), unique=False)
