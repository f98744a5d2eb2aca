"""Where a host is reached, what troubles it, and less than a whole share for a VM: columns more.

Frozen: a later change of the tables is a later migration.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns. Hosts that are there are simulated racks without troubles, requests want whole shares."""
    op.add_column("host", sa.Column("connect", sa.String(), server_default=sa.text("''"), nullable=False))
    op.add_column("host_fact", sa.Column("troubles", sa.String(), server_default="[]", nullable=False))
    for name in ("memory_gib", "vcpus"):
        op.add_column("reservation", sa.Column(name, sa.BigInteger(), nullable=True))
