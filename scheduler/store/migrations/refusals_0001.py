"""The refusals of the first schema: what no single row can say, as triggers, in one text for both databases.

Each refusal names an invariant; its condition over OLD and NEW is SQL that SQLite and PostgreSQL read alike. Only
double booking is said twice: on SQLite by triggers, on PostgreSQL by an exclusion, which also holds between
transactions that run at once. Frozen, like the migration that uses it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A change of a table's rows that breaks an invariant, and the sentence that says so."""

    name: str
    table: str
    on: tuple[str, ...]
    """`INSERT`, `UPDATE`, `DELETE`."""
    when: str
    says: str
    locks: str = ""
    """A query that PostgreSQL runs first, so that what the condition reads cannot change before the commit."""
    is_exclusion_on_postgresql: bool = False


_BOOKED_TWICE = """EXISTS (SELECT 1 FROM span_gpu
    WHERE host = NEW.host AND gpu = NEW.gpu AND end_at > NEW.start_at AND start_at < NEW.end_at{but})"""

REFUSALS: tuple[Refusal, ...] = (
    Refusal(
        name="span_gpu_no_double_booking",
        table="span_gpu",
        on=("INSERT",),
        when=_BOOKED_TWICE.format(but=""),
        says="a GPU would be in two bookings at one instant",
        is_exclusion_on_postgresql=True,
    ),
    Refusal(
        name="span_gpu_no_double_booking",
        table="span_gpu",
        on=("UPDATE",),
        when=_BOOKED_TWICE.format(
            but=" AND NOT (reservation = OLD.reservation AND number = OLD.number AND gpu = OLD.gpu)"
        ),
        says="a GPU would be in two bookings at one instant",
        is_exclusion_on_postgresql=True,
    ),
    Refusal(
        name="promise_start_never_slips",
        table="reservation",
        on=("UPDATE",),
        when="""OLD.start_by_at IS NOT NULL AND NEW.promise_notice <= OLD.promise_notice
    AND (NEW.start_by_at IS NULL OR NEW.start_by_at > OLD.start_by_at)""",
        says="the promised start would slip without a notice",
    ),
    Refusal(
        name="promise_end_never_slips",
        table="reservation",
        on=("UPDATE",),
        when="""OLD.end_by_at IS NOT NULL AND NEW.promise_notice <= OLD.promise_notice
    AND NEW.end_by_at > OLD.end_by_at AND NEW.run_s <= OLD.run_s""",
        says="the promised end would slip without a notice, and the owner did not extend it",
    ),
    Refusal(
        name="promise_notice_only_rises",
        table="reservation",
        on=("UPDATE",),
        when="NEW.promise_notice < OLD.promise_notice",
        says="a notice that was given would be taken back",
    ),
    Refusal(
        name="reservation_generation_only_rises",
        table="reservation",
        on=("UPDATE",),
        when="NEW.generation < OLD.generation",
        says="a generation that was handed out would be handed out again",
    ),
    Refusal(
        name="reservation_closed_is_final",
        table="reservation",
        on=("UPDATE",),
        when="OLD.is_closed AND NOT NEW.is_closed",
        says="a closed reservation would be opened again",
    ),
    Refusal(
        name="booked_span_generation_only_rises",
        table="booked_span",
        on=("UPDATE",),
        when="OLD.generation IS NOT NULL AND (NEW.generation IS NULL OR NEW.generation < OLD.generation)",
        says="a pinned span would be unpinned, or its generation fall",
    ),
    Refusal(
        name="plan_version_rises_by_one",
        table="plan",
        on=("UPDATE",),
        when="NEW.version <> OLD.version + 1",
        says="the version of the plan would not rise by exactly one",
    ),
    Refusal(
        name="plan_row_stays",
        table="plan",
        on=("DELETE",),
        when="OLD.id = 1",
        says="the one row of the plan would be deleted",
    ),
    Refusal(
        name="window_state_only_moves_on",
        table="plan_window",
        on=("UPDATE",),
        when="""(OLD.state = 'open' AND NEW.state = 'planned') OR (OLD.state = 'released' AND NEW.state <> 'released')
    OR (OLD.state = 'released' AND NEW.released_from_at > OLD.released_from_at)""",
        says="a decision on a window would be undone, or a released stretch retaken",
    ),
    Refusal(
        name="window_decided_keeps_its_policy",
        table="plan_window",
        on=("UPDATE",),
        when="OLD.state <> 'planned' AND NEW.policy_version <> OLD.policy_version",
        says="a decided window would change its policy version",
    ),
    Refusal(
        name="booked_disk_retention_never_shrinks",
        table="booked_disk",
        on=("UPDATE",),
        when="""NEW.until_at < OLD.until_at
    AND EXISTS (SELECT 1 FROM disk_fact WHERE disk = OLD.id AND deleted_at IS NULL)""",
        says="the retention of a disk that exists would end earlier",
    ),
    Refusal(
        name="booked_disk_kept_while_it_exists",
        table="booked_disk",
        on=("DELETE",),
        when="EXISTS (SELECT 1 FROM disk_fact WHERE disk = OLD.id AND deleted_at IS NULL)",
        says="the room of a disk that exists would be given back",
    ),
    Refusal(
        name="disk_fact_deleted_after_retention",
        table="disk_fact",
        on=("INSERT", "UPDATE"),
        when="""NEW.deleted_at IS NOT NULL
    AND EXISTS (SELECT 1 FROM booked_disk WHERE id = NEW.disk AND until_at > NEW.deleted_at)""",
        says="a disk would be deleted before its retention ended",
        locks="SELECT 1 FROM booked_disk WHERE id = NEW.disk FOR SHARE",
    ),
    Refusal(
        name="asked_delete_after_retention",
        table="asked",
        on=("INSERT", "UPDATE"),
        when="""NEW.verb = 'delete_disk'
    AND EXISTS (SELECT 1 FROM booked_disk WHERE id = NEW.subject AND until_at > NEW.asked_at)
    AND EXISTS (SELECT 1 FROM disk_fact WHERE host = NEW.host AND disk = NEW.subject AND deleted_at IS NULL)""",
        says="a host would be asked to delete a disk before its retention ended",
        locks="SELECT 1 FROM booked_disk WHERE id = NEW.subject FOR SHARE",
    ),
    Refusal(
        name="intent_decided_is_final",
        table="intent",
        on=("UPDATE",),
        when="OLD.decided_at IS NOT NULL",
        says="an intent that was decided would be decided again",
    ),
    Refusal(
        name="intent_stays_as_filed",
        table="intent",
        on=("UPDATE",),
        when="""NEW.seq <> OLD.seq OR NEW.at <> OLD.at OR NEW.author <> OLD.author OR NEW.role <> OLD.role
    OR NEW.kind <> OLD.kind OR NEW.payload <> OLD.payload OR COALESCE(NEW.key, '') <> COALESCE(OLD.key, '')""",
        says="an intent would be changed after it was filed",
    ),
    Refusal(
        name="intent_open_is_kept",
        table="intent",
        on=("DELETE",),
        when="OLD.decided_at IS NULL",
        says="an intent would be deleted before it was decided",
    ),
    Refusal(
        name="event_is_final",
        table="event",
        on=("UPDATE",),
        when="OLD.seq IS NOT NULL",
        says="a line of the record would be changed",
    ),
)


def statements(dialect: str, refusals: Iterable[Refusal]) -> Iterator[str]:
    """Yield the statements that put the refusals in place on `sqlite` or `postgresql`."""
    if dialect == "postgresql":
        yield "CREATE EXTENSION IF NOT EXISTS btree_gist"
        yield (
            "ALTER TABLE span_gpu ADD CONSTRAINT span_gpu_no_double_booking EXCLUDE USING gist"
            " (host WITH =, gpu WITH =, int8range(start_at, end_at) WITH &&)"
        )
    for refusal in refusals:
        if dialect == "sqlite":
            yield from on_sqlite(refusal)
        elif not refusal.is_exclusion_on_postgresql:
            yield from on_postgresql(refusal)


def on_sqlite(refusal: Refusal) -> Iterator[str]:
    for change in refusal.on:
        yield (
            f"CREATE TRIGGER {refusal.name}_{change.lower()} BEFORE {change} ON {refusal.table}\n"
            f"WHEN {refusal.when}\n"
            f"BEGIN SELECT RAISE(ABORT, '{refusal.name}: {refusal.says}'); END"
        )


def on_postgresql(refusal: Refusal) -> Iterator[str]:
    row = "OLD" if refusal.on == ("DELETE",) else "NEW"
    locks = f"PERFORM {refusal.locks.removeprefix('SELECT ')};" if refusal.locks else ""
    yield (
        f"CREATE FUNCTION refuse_{refusal.name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {locks}\n"
        f"IF {refusal.when} THEN\n"
        f"RAISE EXCEPTION '{refusal.name}: {refusal.says}' USING ERRCODE = 'check_violation',"
        f" CONSTRAINT = '{refusal.name}', TABLE = '{refusal.table}';\n"
        f"END IF; RETURN {row}; END $$"
    )
    yield (
        f"CREATE TRIGGER {refusal.name} BEFORE {' OR '.join(refusal.on)} ON {refusal.table}"
        f" FOR EACH ROW EXECUTE FUNCTION refuse_{refusal.name}()"
    )
