"""Users and tokens on real databases: who is let in, who is not, and what two at once cannot do."""

import hashlib
import re
import threading
from collections.abc import Callable
from itertools import count

import pytest
from sqlalchemy import event as sqlalchemy_event

from scheduler.core.errors import NightshiftError, StoreBusy
from scheduler.core.replay import VirtualClock
from scheduler.core.requests import Role
from scheduler.core.spans import Instant
from scheduler.service.users import BadLabel, BadName, BadRole, IssuedToken, Users, random_secret
from scheduler.store.accounts import (
    MOST_LIVE_TOKENS,
    LastAdmin,
    TooManyTokens,
    UnknownToken,
    UnknownUser,
    User,
    UserDisabled,
    UserExists,
)
from scheduler.store.store import Store
from tests.databases import OpenStore, TestDatabase

NOW_AT = 1_772_434_800


class HandClock:
    """A clock whose two times are set by hand."""

    def __init__(self) -> None:
        self.now_at: Instant = NOW_AT
        self.now_machine_s = 1000.0

    def now(self) -> Instant:
        return self.now_at

    def machine_s(self) -> float:
        return self.now_machine_s

    def sleep_until(self, instant: Instant) -> None:
        self.now_at = max(self.now_at, instant)


def counted_secrets() -> Callable[[], str]:
    """Return a maker of secrets that are the same in every run."""
    numbers = count(1)
    return lambda: f"ns_{next(numbers):043}"


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def users(store: Store, clock: HandClock) -> Users:
    """Give users with one admin, `root`."""
    users = Users(store, clock, counted_secrets())
    users.add("root", Role.ADMIN, by="set-up")
    return users


def told(store: Store) -> list[tuple[str, str, dict[str, object]]]:
    return [(event.kind, event.actor, dict(event.facts)) for _, event in store.events()]


def test_a_token_lets_its_user_in_until_it_is_revoked(users: Users) -> None:
    ada = users.add("ada", Role.STUDENT, by="root")
    first = users.issue_token("ada", label="laptop", by="root")
    second = users.issue_token("ada", label="cluster", by="ada")
    assert ada == User(name="ada", role=Role.STUDENT, created_at=NOW_AT)
    assert users.authenticate(first.secret) == users.authenticate(second.secret) == ada

    users.revoke(first.id, by="ada")

    assert users.authenticate(first.secret) is None
    assert users.authenticate(second.secret) == ada


@pytest.mark.parametrize(
    "secret",
    ["", "ns_", "ns_" + "A" * 43, "ns_" + "A" * 42, "ns_" + "ä" * 43, "xx_" + "0" * 43, "\0", "\ud800", "0" * 100_000],
)
def test_what_is_no_secret_lets_nobody_in(users: Users, secret: str) -> None:
    users.issue_token("root", label="", by="root")
    assert users.authenticate(secret) is None


def test_neither_the_hash_nor_a_secret_with_something_around_it_lets_anybody_in(users: Users) -> None:
    issued = users.issue_token("root", label="", by="root")
    sha256 = hashlib.sha256(issued.secret.encode()).hexdigest()
    for tried in (sha256, f"ns_{sha256[:43]}", f"{issued.secret}\n", f" {issued.secret}", issued.secret.upper()):
        assert users.authenticate(tried) is None
    assert users.authenticate(issued.secret) is not None


def test_secrets_have_256_random_bits_and_are_stored_nowhere(
    users: Users, store: Store, clock: HandClock, database: TestDatabase
) -> None:
    assert re.fullmatch(r"ns_[A-Za-z0-9_-]{43}", random_secret())
    assert len({random_secret() for _ in range(1000)}) == 1000

    issued = Users(store, clock).issue_token("root", label="laptop", by="root")
    with store._database.reading() as connection:
        rows = [
            str(tuple(row))
            for table in ("token", "account", "event")
            for row in connection.exec_driver_sql(f"SELECT * FROM {table}")
        ]
    assert any(hashlib.sha256(issued.secret.encode()).hexdigest() in row for row in rows)
    assert [row for row in rows if issued.secret[3:] in row] == []
    assert issued.secret not in repr(issued)


def test_a_disabled_user_is_not_let_in_and_an_enabled_one_is_again(users: Users, store: Store) -> None:
    users.add("ada", Role.STUDENT, by="root")
    kept, revoked = (users.issue_token("ada", label=label, by="root") for label in ("kept", "revoked"))
    users.revoke(revoked.id, by="root")

    assert users.disable("ada", by="root").is_disabled
    assert users.authenticate(kept.secret) is None
    with pytest.raises(UserDisabled, match="enable ada first"):
        users.issue_token("ada", label="", by="root")

    assert not users.enable("ada", by="root").is_disabled
    assert users.authenticate(kept.secret) is not None
    assert users.authenticate(revoked.secret) is None
    assert [kind for kind, _, _ in told(store)][-2:] == ["user.disabled", "user.enabled"]


def test_every_change_is_in_the_record_with_who_made_it(users: Users, store: Store) -> None:
    users.add("ada", Role.STUDENT, by="root")
    issued = users.issue_token("ada", label="laptop", by="ada")
    users.revoke(issued.id, by="root")
    users.disable("ada", by="root")
    assert told(store) == [
        ("user.added", "set-up", {"role": "admin", "user": "root"}),
        ("user.added", "root", {"role": "student", "user": "ada"}),
        ("token.issued", "ada", {"label": "laptop", "token": issued.id, "user": "ada"}),
        ("token.revoked", "root", {"token": issued.id, "user": "ada"}),
        ("user.disabled", "root", {"user": "ada"}),
    ]


def test_what_is_so_already_is_not_done_and_not_told_again(users: Users, store: Store, clock: HandClock) -> None:
    users.add("ada", Role.STUDENT, by="root")
    issued = users.issue_token("ada", label="", by="root")
    first = users.revoke(issued.id, by="root")
    users.disable("ada", by="root")
    before = told(store)

    clock.now_at += 100
    assert users.revoke(issued.id, by="ada") == first
    assert users.disable("ada", by="root").is_disabled
    assert users.enable("root", by="root") == users.user("root")
    assert told(store) == before


def test_the_last_admin_cannot_be_disabled_and_one_of_two_can(users: Users, store: Store) -> None:
    users.add("ada", Role.STUDENT, by="root")
    with pytest.raises(LastAdmin, match="add or enable another admin first"):
        users.disable("root", by="root")
    assert users.user("root").is_disabled is False

    users.add("grace", Role.ADMIN, by="root")
    users.disable("root", by="grace")
    with pytest.raises(LastAdmin):
        users.disable("grace", by="grace")
    users.enable("root", by="grace")
    assert users.disable("grace", by="root").is_disabled


def test_two_admins_who_disable_each_other_at_once_leave_one(open_store: OpenStore, database: TestDatabase) -> None:
    shared = open_store()
    clock = HandClock()
    sides = [Users(open_store() if database.is_shared else shared, clock) for _ in range(2)]
    names = ("ada", "grace")
    for name in names:
        sides[0].add(name, Role.ADMIN, by="set-up")
    for _ in range(10):
        start = threading.Barrier(2)
        refused: list[str] = []

        def disable(users: Users, name: str, start: threading.Barrier = start, refused: list[str] = refused) -> None:
            start.wait(30)
            try:
                users.disable(name, by="them")
            except LastAdmin:
                refused.append(name)

        threads = [threading.Thread(target=disable, args=each) for each in zip(sides, names, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert [user.name for user in sides[0].all() if not user.is_disabled] == refused
        assert len(refused) == 1
        for name in names:
            sides[0].enable(name, by="them")


def test_who_enables_and_who_disables_one_user_at_once_do_not_wait_for_each_other(
    open_store: OpenStore, database: TestDatabase
) -> None:
    shared = open_store()
    sides = [Users(open_store() if database.is_shared else shared, HandClock()) for _ in range(4)]
    sides[0].add("root", Role.ADMIN, by="set-up")
    sides[0].add("ada", Role.STUDENT, by="root")
    together = threading.Barrier(len(sides))
    failed: list[NightshiftError] = []

    def change(number: int) -> None:
        for turn in range(15):
            together.wait(30)
            try:
                (sides[number].disable if (number + turn) % 2 else sides[number].enable)("ada", by="root")
            except NightshiftError as error:
                failed.append(error)

    threads = [threading.Thread(target=change, args=(number,)) for number in range(len(sides))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed


def test_of_many_who_add_one_name_at_once_one_does(open_store: OpenStore, database: TestDatabase) -> None:
    shared = open_store()
    sides = [Users(open_store() if database.is_shared else shared, HandClock()) for _ in range(4)]
    start = threading.Barrier(4)
    said: list[str] = []

    def add(users: Users) -> None:
        start.wait(30)
        try:
            users.add("ada", Role.STUDENT, by="root")
            said.append("added")
        except UserExists:
            said.append("exists")

    threads = [threading.Thread(target=add, args=[each]) for each in sides]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(said) == ["added", "exists", "exists", "exists"]
    assert [kind for kind, _, _ in told(shared)] == ["user.added"]


@pytest.mark.parametrize("name", ["a", "ada", "ada.lovelace-2_x", "a" * 32, "z9"])
def test_plain_names_are_taken_once(users: Users, name: str) -> None:
    assert users.add(name, Role.STUDENT, by="root").name == name
    assert users.user(name).role is Role.STUDENT
    with pytest.raises(UserExists, match="already"):
        users.add(name, Role.ADMIN, by="root")
    assert users.user(name).role is Role.STUDENT


@pytest.mark.parametrize(
    "name", ["", "Ada", "1ada", ".ada", "ada lovelace", "ada\n", "äda", "a" * 33, "ada\0", "\ud800", "plan", "policy"]
)
def test_other_names_are_refused_with_what_to_write(users: Users, name: str) -> None:
    with pytest.raises(BadName, match="a letter first"):
        users.add(name, Role.STUDENT, by="root")
    assert [user.name for user in users.all()] == ["root"]


def test_nobody_is_added_as_a_policy(users: Users) -> None:
    with pytest.raises(BadRole):
        users.add("ada", Role.POLICY, by="root")


@pytest.mark.parametrize("name", ["nobody", "", "\0", "\ud800", "x" * 10_000])
def test_a_user_who_is_not_there_is_said_to_be_unknown(users: Users, name: str) -> None:
    for ask in (
        lambda: users.user(name),
        lambda: users.disable(name, by="root"),
        lambda: users.enable(name, by="root"),
        lambda: users.tokens(name),
        lambda: users.issue_token(name, label="", by="root"),
    ):
        with pytest.raises(UnknownUser, match="list the users"):
            ask()


@pytest.mark.parametrize("token_id", ["t-99", "t-0", "t--1", "1", "", "t-" + "9" * 30, "t-٣", "\0"])
def test_a_token_that_is_not_there_is_said_to_be_unknown(users: Users, token_id: str) -> None:
    assert users.token(token_id) is None
    with pytest.raises(UnknownToken):
        users.revoke(token_id, by="root")


@pytest.mark.parametrize("label", ["x" * 65, "two\nlines", "\0", "\ud800"])
def test_a_label_is_one_short_plain_line(users: Users, label: str) -> None:
    with pytest.raises(BadLabel):
        users.issue_token("root", label=label, by="root")
    assert users.tokens("root") == ()


def test_tokens_are_listed_oldest_first_with_owner_and_when_they_were_revoked(users: Users, clock: HandClock) -> None:
    issued: list[IssuedToken] = []
    for label in ("one", "two"):
        clock.now_at += 10
        issued.append(users.issue_token("root", label=label, by="root"))
    clock.now_at += 10
    users.revoke(issued[0].id, by="root")
    listed = users.tokens("root")
    assert [(info.id, info.owner, info.label, info.created_at, info.revoked_at) for info in listed] == [
        (issued[0].id, "root", "one", NOW_AT + 10, NOW_AT + 30),
        (issued[1].id, "root", "two", NOW_AT + 20, None),
    ]
    assert users.token(issued[1].id) == listed[1]


def test_a_token_revoked_by_a_clock_that_is_behind_is_revoked_as_it_was_issued(users: Users, clock: HandClock) -> None:
    issued = users.issue_token("root", label="", by="root")
    clock.now_at -= 5
    assert users.revoke(issued.id, by="root").revoked_at == issued.created_at
    assert users.authenticate(issued.secret) is None


def test_a_user_has_so_many_live_tokens_and_revoking_makes_room(users: Users) -> None:
    issued = [users.issue_token("root", label=str(number), by="root") for number in range(MOST_LIVE_TOKENS)]
    with pytest.raises(TooManyTokens, match="revoke one"):
        users.issue_token("root", label="one more", by="root")
    users.revoke(issued[0].id, by="root")
    assert users.issue_token("root", label="one more", by="root").label == "one more"


def test_the_last_use_is_written_at_most_once_a_minute_of_machine_time(open_store: OpenStore, clock: HandClock) -> None:
    commits: list[str] = []
    store = open_store(on_commit=commits.append)
    users = Users(store, clock, counted_secrets())
    users.add("root", Role.ADMIN, by="set-up")
    issued = users.issue_token("root", label="", by="root")
    assert users.tokens("root")[0].last_used_at is None
    commits.clear()

    # An hour of product time in each machine second: it is machine time that counts.
    for _ in range(60):
        assert users.authenticate(issued.secret) is not None
        clock.now_machine_s += 1
        clock.now_at += 3600
    assert commits == ["account:before", "account:after"]
    assert users.tokens("root")[0].last_used_at == NOW_AT

    users.authenticate(issued.secret)
    assert users.tokens("root")[0].last_used_at == NOW_AT + 60 * 3600
    assert len(commits) == 4


def test_two_that_serve_one_token_write_its_use_once(open_store: OpenStore, database: TestDatabase) -> None:
    clock = HandClock()
    first = open_store()
    second = open_store() if database.is_shared else first
    users = Users(first, clock)
    users.add("root", Role.ADMIN, by="set-up")
    issued = users.issue_token("root", label="", by="root")
    bearers = [
        store.accounts.bearer(hashlib.sha256(issued.secret.encode()).hexdigest(), now_machine_s=1000)
        for store in (first, second)
    ]
    for number, (store, bearer) in enumerate(zip((first, second), bearers, strict=True)):
        assert bearer is not None
        assert bearer.is_use_to_note
        store.accounts.note_use(bearer, at=NOW_AT + number, now_machine_s=1000 + number)
    assert users.tokens("root")[0].last_used_at == NOW_AT


def test_a_clock_that_was_put_back_does_not_stop_uses_from_being_noted(users: Users, clock: HandClock) -> None:
    issued = users.issue_token("root", label="", by="root")
    clock.now_machine_s = 1e9
    users.authenticate(issued.secret)
    clock.now_machine_s, clock.now_at = 1000.0, NOW_AT + 7
    users.authenticate(issued.secret)
    assert users.tokens("root")[0].last_used_at == NOW_AT + 7


def test_a_database_too_busy_to_note_a_use_lets_its_user_in_and_is_not_asked_again_for_a_minute(
    open_store: OpenStore, clock: HandClock
) -> None:
    tried: list[str] = []
    is_busy = False

    def on_commit(point: str) -> None:
        if is_busy and point == "account:before":
            tried.append(point)
            raise StoreBusy("the database was busy")

    users = Users(open_store(on_commit=on_commit), clock)
    users.add("root", Role.ADMIN, by="set-up")
    issued = users.issue_token("root", label="", by="root")

    is_busy = True
    for _ in range(5):
        assert users.authenticate(issued.secret) is not None
        clock.now_machine_s += 10
    assert len(tried) == 1
    is_busy = False
    clock.now_machine_s += 10
    users.authenticate(issued.secret)
    assert users.tokens("root")[0].last_used_at == NOW_AT


def test_a_virtual_clock_serves_as_well(store: Store) -> None:
    users = Users(store, VirtualClock(NOW_AT))
    users.add("ada", Role.STUDENT, by="set-up")
    assert users.authenticate(users.issue_token("ada", label="", by="ada").secret) == users.user("ada")


def test_knowing_a_token_again_is_one_read(open_store: OpenStore, clock: HandClock) -> None:
    store = open_store()
    users = Users(store, clock)
    users.add("root", Role.ADMIN, by="set-up")
    issued = users.issue_token("root", label="", by="root")
    users.authenticate(issued.secret)
    statements: list[str] = []

    def listener(*arguments: object) -> None:
        statements.append(str(arguments[2]))

    sqlalchemy_event.listen(store._database.engine, "before_cursor_execute", listener)
    assert users.authenticate(issued.secret) is not None
    assert users.authenticate(random_secret()) is None
    sqlalchemy_event.remove(store._database.engine, "before_cursor_execute", listener)
    assert [statement.split()[0] for statement in statements] == ["SELECT", "SELECT"]
