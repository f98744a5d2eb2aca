"""Why a policy was applied, why it was let break promises, and which data its windows were made with: columns more.

Frozen: a later change of the tables is a later migration.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns. Of the versions that are there nothing was written down."""
    for name in ("message", "override"):
        op.add_column("policy", sa.Column(name, sa.String(), server_default=sa.text("''"), nullable=False))
    op.add_column("policy", sa.Column("made_with", sa.String(), server_default="[]", nullable=False))
