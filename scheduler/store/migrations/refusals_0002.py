"""The refusals of accounts and tokens: what no single row can say, as triggers, in one text for both databases.

Frozen, like the migration that uses it.
"""

from collections.abc import Iterable, Iterator

from scheduler.store.migrations.refusals_0001 import Refusal, on_postgresql, on_sqlite

REFUSALS: tuple[Refusal, ...] = (
    Refusal(
        name="account_last_admin_stays",
        table="account",
        on=("UPDATE",),
        when="""OLD.role = 'admin' AND NOT OLD.is_disabled AND (NEW.is_disabled OR NEW.role <> 'admin')
    AND NOT EXISTS (SELECT 1 FROM account WHERE name <> OLD.name AND role = 'admin' AND NOT is_disabled)""",
        says="there would be no admin any more who is not disabled",
        locks="SELECT 1 FROM account WHERE role = 'admin' AND NOT is_disabled ORDER BY name FOR UPDATE",
    ),
    Refusal(
        name="account_keeps_its_name",
        table="account",
        on=("UPDATE",),
        when="NEW.name <> OLD.name OR NEW.created_at <> OLD.created_at",
        says="a user would become another",
    ),
    Refusal(
        name="account_is_kept",
        table="account",
        on=("DELETE",),
        when="OLD.name IS NOT NULL",
        says="a name would come free, and with it all that its user had",
    ),
    Refusal(
        name="token_revoked_is_final",
        table="token",
        on=("UPDATE",),
        when="OLD.revoked_at IS NOT NULL AND (NEW.revoked_at IS NULL OR NEW.revoked_at <> OLD.revoked_at)",
        says="a token that was revoked would work again",
    ),
    Refusal(
        name="token_stays_as_issued",
        table="token",
        on=("UPDATE",),
        when="""NEW.seq <> OLD.seq OR NEW.owner <> OLD.owner OR NEW.label <> OLD.label
    OR NEW.secret_sha256 <> OLD.secret_sha256 OR NEW.created_at <> OLD.created_at""",
        says="a token would be changed after it was issued",
    ),
    Refusal(
        name="token_is_kept",
        table="token",
        on=("DELETE",),
        when="OLD.seq IS NOT NULL",
        says="it would be forgotten that a token was issued or revoked",
    ),
)


def statements(dialect: str, refusals: Iterable[Refusal]) -> Iterator[str]:
    """Yield the statements that put the refusals in place on `sqlite` or `postgresql`."""
    for refusal in refusals:
        yield from on_sqlite(refusal) if dialect == "sqlite" else on_postgresql(refusal)
