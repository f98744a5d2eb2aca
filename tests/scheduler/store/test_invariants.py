"""Each invariant that SQL can say is refused by the database itself, whoever writes: raw SQL on all kinds of them."""

import pytest
from sqlalchemy import text

from scheduler.core.errors import BrokenInvariant
from scheduler.core.facts import Asked, DiskFact, HostFacts, Verb, VmFact
from scheduler.core.intents import Drain
from scheduler.core.plan import Decided, PlanChange, event
from scheduler.core.requests import DiskId, ReservationId, Role
from scheduler.core.windows import WindowState
from scheduler.store.accounts import User
from scheduler.store.store import Store
from tests.scheduler.store.values import FIRST_FOUR, HOST_A, booked_disk, host, reservation, span, window

LEASE = f"host.{HOST_A}"


@pytest.fixture
def full_store(store: Store) -> Store:
    """Give a store with a row of every kind in it."""
    intents = [store.file_intent(Drain(host=HOST_A), at=1, author="root", role=Role.ADMIN)[0] for _ in range(2)]
    change = PlanChange(
        hosts=(host(),),
        windows=(
            window("planned"),
            window("open", WindowState.OPEN),
            window("released", WindowState.RELEASED, released_from_at=15_000),
        ),
        reservations=(
            reservation("r-1", span(0, 100, generation=2), span(200, 300), generation=2, promise_notice=1),
            reservation("r-2", span(100, 200)),
            reservation("r-3", is_closed=True),
        ),
        disks=(booked_disk("made"), booked_disk("planned")),
        decided=(Decided(seq=intents[0].seq),),
        events=(event("something", 1),),
    )
    store.commit_plan(0, change, at=1)
    store.acquire_lease(LEASE, "t", now_machine_s=0, ttl_s=10)
    nothing = HostFacts(host=HOST_A)
    facts = HostFacts(
        host=HOST_A,
        vms=(VmFact(reservation=ReservationId("r-1"), generation=1, partition=FIRST_FOUR, asked_at=1),),
        disks=(DiskFact(disk=DiskId("made"), size_gib=100, made_at=1),),
        asked=(Asked(verb=Verb.START, subject="x", asked_at=1, until_at=2),),
    )
    store.record_facts(HOST_A, "t", nothing, facts, now_machine_s=1)
    for user in (User(name="root", role=Role.ADMIN, created_at=10), User(name="ada", role=Role.STUDENT, created_at=10)):
        store.accounts.add(user, by="set-up")
    for label in ("live", "revoked"):
        store.accounts.add_token("ada", label=label, secret_sha256=label.ljust(64, "0"), at=10, by="root")
    store.accounts.revoke("t-2", at=20, by="root")
    return store


def run(store: Store, sql: str) -> int:
    # Under the store on purpose: what is tested is that nothing above the database is needed.
    with store._database.writing("raw") as connection:
        return connection.execute(text(sql)).rowcount


GPU_COLUMNS = "INSERT INTO span_gpu (reservation, number, gpu, host, start_at, end_at) VALUES"
ACCOUNT_COLUMNS = "INSERT INTO account (name, role, created_at, is_disabled) VALUES"
TOKEN_COLUMNS = "INSERT INTO token (owner, label, secret_sha256, created_at) VALUES"
ASKED_COLUMNS = "INSERT INTO asked (host, verb, subject, asked_at, until_at, attempt, detail) VALUES"

REFUSED = [
    # 1. No GPU in two bookings, or with two VMs, at one instant.
    ("span_gpu_no_double_booking", f"{GPU_COLUMNS} ('r-2', 0, 15, 'dgx2-a', 5, 6), ('r-1', 0, 15, 'dgx2-a', 4, 7)"),
    ("span_gpu_no_double_booking", "UPDATE span_gpu SET start_at = 99 WHERE reservation = 'r-2' AND gpu = 3"),
    ("span_gpu_no_double_booking", "UPDATE span_gpu SET end_at = 201 WHERE reservation = 'r-2' AND gpu = 0"),
    ("ck_booked_span_start_before_end", "UPDATE booked_span SET end_at = start_at WHERE reservation = 'r-2'"),
    ("ck_span_gpu_start_before_end", "UPDATE span_gpu SET end_at = start_at WHERE reservation = 'r-2'"),
    (
        "pk_gpu_hold",
        "INSERT INTO gpu_hold (host, gpu, reservation, generation) VALUES ('dgx2-a', 3, 'r-1', 1)",
    ),
    ("reservation_generation_only_rises", "UPDATE reservation SET generation = 1 WHERE id = 'r-1'"),
    ("booked_span_generation_only_rises", "UPDATE booked_span SET generation = 1 WHERE generation = 2"),
    ("booked_span_generation_only_rises", "UPDATE booked_span SET generation = NULL WHERE generation = 2"),
    ("reservation_closed_is_final", "UPDATE reservation SET is_closed = FALSE WHERE id = 'r-3'"),
    ("ck_reservation_closed_has_outcome", "UPDATE reservation SET is_closed = TRUE WHERE id = 'r-1'"),
    # 2. A promise never slips.
    ("promise_start_never_slips", "UPDATE reservation SET start_by_at = start_by_at + 1 WHERE id = 'r-1'"),
    (
        "promise_start_never_slips",
        "UPDATE reservation SET start_by_at = NULL, end_by_at = NULL, run_s = 9999 WHERE id = 'r-1'",
    ),
    (
        "promise_start_never_slips",
        "UPDATE reservation SET start_by_at = start_by_at + 1, run_s = run_s + 1 WHERE id = 'r-1'",
    ),
    ("promise_end_never_slips", "UPDATE reservation SET end_by_at = end_by_at + 1 WHERE id = 'r-1'"),
    ("promise_end_never_slips", "UPDATE reservation SET end_by_at = end_by_at + 1, run_s = run_s - 1 WHERE id = 'r-1'"),
    ("promise_notice_only_rises", "UPDATE reservation SET promise_notice = 0 WHERE id = 'r-1'"),
    ("ck_reservation_promise_whole", "UPDATE reservation SET start_by_at = NULL, promise_notice = 2 WHERE id = 'r-1'"),
    ("ck_reservation_promise_in_order", "UPDATE reservation SET end_by_at = 0 WHERE id = 'r-1'"),
    ("ck_reservation_gpus_positive", "UPDATE reservation SET gpus = 0 WHERE id = 'r-1'"),
    ("ck_reservation_run_positive", "UPDATE reservation SET run_s = 0 WHERE id = 'r-1'"),
    # 3. No disk is deleted before its retention ends.
    ("booked_disk_retention_never_shrinks", "UPDATE booked_disk SET until_at = 9999 WHERE id = 'made'"),
    ("booked_disk_kept_while_it_exists", "DELETE FROM booked_disk WHERE id = 'made'"),
    ("disk_fact_deleted_after_retention", "UPDATE disk_fact SET deleted_at = 9999 WHERE disk = 'made'"),
    (
        "disk_fact_deleted_after_retention",
        "INSERT INTO disk_fact (host, disk, size_gib, made_at, deleted_at) VALUES ('b', 'planned', 1, 1, 9999)",
    ),
    ("asked_delete_after_retention", f"{ASKED_COLUMNS} ('dgx2-a', 'delete_disk', 'made', 9999, 9999, 1, '')"),
    ("asked_delete_after_retention", "UPDATE asked SET verb = 'delete_disk', subject = 'made' WHERE verb = 'start'"),
    ("ck_booked_disk_from_not_after_until", "UPDATE booked_disk SET until_at = 1 WHERE id = 'planned'"),
    ("ck_booked_disk_size_positive", "UPDATE booked_disk SET size_gib = 0 WHERE id = 'planned'"),
    # A window is decided once; the plan moves on by one; what was said stays said.
    ("window_state_only_moves_on", "UPDATE plan_window SET state = 'planned' WHERE id = 'open'"),
    (
        "window_state_only_moves_on",
        "UPDATE plan_window SET state = 'open', released_from_at = NULL WHERE id = 'released'",
    ),
    ("window_state_only_moves_on", "UPDATE plan_window SET released_from_at = 15001 WHERE id = 'released'"),
    ("window_decided_keeps_its_policy", "UPDATE plan_window SET policy_version = 2 WHERE id = 'open'"),
    ("ck_plan_window_known_state", "UPDATE plan_window SET state = 'ajar' WHERE id = 'open'"),
    ("ck_plan_window_released_from_when_released", "UPDATE plan_window SET state = 'released' WHERE id = 'open'"),
    ("ck_plan_window_start_before_end", "UPDATE plan_window SET end_at = start_at WHERE id = 'planned'"),
    ("plan_version_rises_by_one", "UPDATE plan SET version = version + 2"),
    ("plan_version_rises_by_one", "UPDATE plan SET version = version - 1"),
    ("plan_version_rises_by_one", "UPDATE plan SET horizon_at = 5"),
    ("plan_row_stays", "DELETE FROM plan"),
    ("ck_plan_single_row", "INSERT INTO plan (id, version, horizon_at) VALUES (2, 0, 0)"),
    ("pk_plan", "INSERT INTO plan (id, version, horizon_at) VALUES (1, 0, 0)"),
    ("event_is_final", "UPDATE event SET kind = 'nothing'"),
    ("intent_decided_is_final", "UPDATE intent SET reasons = '[1]' WHERE decided_at IS NOT NULL"),
    ("intent_stays_as_filed", "UPDATE intent SET payload = '{}' WHERE decided_at IS NULL"),
    ("intent_stays_as_filed", "UPDATE intent SET key = 'k' WHERE decided_at IS NULL"),
    ("intent_open_is_kept", "DELETE FROM intent WHERE decided_at IS NULL"),
    ("ck_intent_decided_whole", "UPDATE intent SET decided_at = 1 WHERE decided_at IS NULL"),
    # Who may speak: a name is one person for good, a secret one token, and what was revoked stays so.
    ("pk_account", f"{ACCOUNT_COLUMNS} ('ada', 'admin', 1, FALSE)"),
    ("ck_account_known_role", f"{ACCOUNT_COLUMNS} ('eve', 'policy', 1, FALSE)"),
    ("ck_account_known_role", "UPDATE account SET role = 'owner' WHERE name = 'ada'"),
    ("ck_account_name_of_1_to_32", f"{ACCOUNT_COLUMNS} ('', 'student', 1, FALSE)"),
    ("ck_account_name_of_1_to_32", f"{ACCOUNT_COLUMNS} ('{'a' * 33}', 'student', 1, FALSE)"),
    ("account_last_admin_stays", "UPDATE account SET is_disabled = TRUE WHERE name = 'root'"),
    ("account_last_admin_stays", "UPDATE account SET role = 'student' WHERE name = 'root'"),
    ("account_keeps_its_name", "UPDATE account SET name = 'eve' WHERE name = 'root'"),
    ("account_keeps_its_name", "UPDATE account SET created_at = 11 WHERE name = 'ada'"),
    ("account_is_kept", "DELETE FROM account WHERE name = 'root'"),
    ("uq_token_secret_sha256", f"{TOKEN_COLUMNS} ('ada', 'x', '{'live'.ljust(64, '0')}', 1)"),
    ("ck_token_hash_is_sha256", f"{TOKEN_COLUMNS} ('ada', 'x', 'ns_plain', 1)"),
    ("ck_token_revoked_not_before_issued", "UPDATE token SET revoked_at = 9 WHERE label = 'live'"),
    ("ck_token_used_whole", "UPDATE token SET last_used_at = 9 WHERE label = 'live'"),
    ("token_revoked_is_final", "UPDATE token SET revoked_at = NULL WHERE label = 'revoked'"),
    ("token_revoked_is_final", "UPDATE token SET revoked_at = 21 WHERE label = 'revoked'"),
    ("token_stays_as_issued", "UPDATE token SET owner = 'root' WHERE label = 'live'"),
    ("token_stays_as_issued", "UPDATE token SET label = 'x' WHERE label = 'live'"),
    ("token_stays_as_issued", f"UPDATE token SET secret_sha256 = '{'x' * 64}' WHERE label = 'live'"),
    ("token_stays_as_issued", "UPDATE token SET created_at = 1 WHERE label = 'live'"),
    ("token_stays_as_issued", "UPDATE token SET seq = 9 WHERE label = 'live'"),
    ("token_is_kept", "DELETE FROM token WHERE label = 'revoked'"),
]


@pytest.mark.parametrize(("constraint", "sql"), REFUSED, ids=[f"{name}-{n}" for n, (name, _) in enumerate(REFUSED)])
def test_the_database_refuses_what_breaks_an_invariant(full_store: Store, constraint: str, sql: str) -> None:
    version, before = full_store.plan_version(), full_store.load_plan(0)

    with pytest.raises(BrokenInvariant) as caught:
        run(full_store, sql)

    assert caught.value.facts["constraint"] == constraint
    assert caught.value.retryable is False
    assert (full_store.plan_version(), full_store.load_plan(0)) == (version, before)


ALLOWED = [
    "UPDATE span_gpu SET end_at = 199 WHERE reservation = 'r-2'",
    "UPDATE reservation SET generation = 3 WHERE id = 'r-1'",
    "UPDATE booked_span SET generation = 3 WHERE generation = 2",
    "UPDATE reservation SET start_by_at = start_by_at - 1, end_by_at = end_by_at - 1 WHERE id = 'r-1'",
    "UPDATE reservation SET end_by_at = end_by_at + 60, run_s = run_s + 60 WHERE id = 'r-1'",
    "UPDATE reservation SET start_by_at = 1, end_by_at = 99999, promise_notice = 2 WHERE id = 'r-1'",
    "UPDATE booked_disk SET until_at = until_at + 1 WHERE id = 'made'",
    "UPDATE booked_disk SET until_at = until_at - 1 WHERE id = 'planned'",
    "DELETE FROM booked_disk WHERE id = 'planned'",
    "UPDATE disk_fact SET deleted_at = 10000 WHERE disk = 'made'",
    f"{ASKED_COLUMNS} ('dgx2-a', 'delete_disk', 'made', 10000, 10001, 1, '')",
    f"{ASKED_COLUMNS} ('dgx2-a', 'delete_disk', 'planned', 1, 2, 1, '')",
    "UPDATE plan_window SET state = 'open' WHERE id = 'planned'",
    "UPDATE plan_window SET state = 'released', released_from_at = 12000 WHERE id = 'open'",
    "UPDATE plan_window SET released_from_at = 14999 WHERE id = 'released'",
    "UPDATE plan SET version = version + 1, horizon_at = 7",
    "UPDATE intent SET decided_version = 2, decided_at = 2 WHERE decided_at IS NULL",
    "DELETE FROM intent WHERE decided_at IS NOT NULL",
    f"{ACCOUNT_COLUMNS} ('eve', 'admin', 1, FALSE)",
    "UPDATE account SET is_disabled = TRUE WHERE name = 'ada'",
    "UPDATE account SET role = 'admin' WHERE name = 'ada'",
    f"{TOKEN_COLUMNS} ('ada', 'live', '{'another'.ljust(64, '0')}', 1)",
    "UPDATE token SET revoked_at = 10 WHERE label = 'live'",
    "UPDATE token SET last_used_at = 9, used_machine_ms = 9",
]


@pytest.mark.parametrize("sql", ALLOWED)
def test_the_nearest_thing_that_is_right_is_let_through(full_store: Store, sql: str) -> None:
    assert run(full_store, sql) > 0


def test_a_token_is_somebodys(full_store: Store) -> None:
    with pytest.raises(BrokenInvariant):
        run(full_store, f"{TOKEN_COLUMNS} ('nobody', 'x', '{'x' * 64}', 1)")


def test_one_of_two_admins_may_go_and_the_other_then_stays(full_store: Store) -> None:
    run(full_store, f"{ACCOUNT_COLUMNS} ('eve', 'admin', 1, FALSE)")
    assert run(full_store, "UPDATE account SET is_disabled = TRUE WHERE name = 'root'") == 1
    with pytest.raises(BrokenInvariant) as caught:
        run(full_store, "UPDATE account SET role = 'student' WHERE name = 'eve'")
    assert caught.value.facts["constraint"] == "account_last_admin_stays"
