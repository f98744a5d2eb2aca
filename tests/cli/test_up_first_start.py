"""What a first start sets up: once, whoever is killed in the middle of it, and nothing that is there already."""

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from cli.first_start import (
    ADMIN,
    DEFAULT_RACK,
    TOKEN_LABEL,
    BadHostOption,
    BadRackOption,
    FirstStartRefused,
    RackSetup,
    RealHostSetup,
    init,
    parse_host,
    parse_rack,
    prepare,
)
from cli.installation import Installation, Parts, open_parts
from policies.applying import apply_to_plan, check_text
from scheduler.core.errors import NightshiftError
from scheduler.core.requests import HostId, Role
from scheduler.core.spans import DAY_S
from scheduler.service.plan import PlanTask
from scheduler.service.users import Users


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Parts]:
    for name in ("NIGHTSHIFT_DATA", "NIGHTSHIFT_DATABASE", "NIGHTSHIFT_REDIS"):
        monkeypatch.delenv(name, raising=False)
    found = open_parts(Installation.found(tmp_path), is_waking=False)
    yield found
    found.close()


def users(parts: Parts) -> Users:
    return Users(parts.store, parts.clock)


def secret(parts: Parts) -> str:
    return parts.installation.admin_token_file.read_text().strip()


def test_a_first_start_says_in_words_what_it_set_up(parts: Parts) -> None:
    lines = prepare(parts, racks=(DEFAULT_RACK,))
    assert [line.split(",")[0].split(";")[0] for line in lines] == [
        "user admin was added",
        "host dgx2-a was added: a simulated dgx-2 with 16 GPUs",
        "policy university.yaml",
    ]
    plan = parts.plans.current()
    assert [host.profile.name for host in plan.hosts.values()] == ["dgx-2"]
    assert plan.rules is not None
    assert plan.rules.version == 1
    assert all(HostId("dgx2-a") in window.hosts for window in plan.windows.values())
    assert plan.horizon_at >= parts.clock.now() + 80 * DAY_S
    assert (parts.installation.racks / "dgx2-a.rack.sqlite").exists()


def test_a_second_start_changes_nothing(parts: Parts) -> None:
    prepare(parts, racks=(DEFAULT_RACK,))
    version, token = parts.plans.current().version, secret(parts)
    assert prepare(parts, racks=(DEFAULT_RACK,)) == ()
    assert parts.plans.current().version == version
    assert secret(parts) == token


def test_the_first_admins_token_works_and_only_its_user_can_read_it(parts: Parts) -> None:
    prepare(parts, racks=())
    found = users(parts).authenticate(secret(parts))
    assert found is not None
    assert (found.name, found.role) == (ADMIN, Role.ADMIN)
    assert parts.installation.admin_token_file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in parts.installation.data.iterdir() if path.name.startswith(".")] == []


def test_a_start_killed_before_it_wrote_the_token_makes_a_new_one(parts: Parts) -> None:
    parts.store.migrate()
    users(parts).add(ADMIN, Role.ADMIN, by="first-start")
    lost = users(parts).issue_token(ADMIN, label=TOKEN_LABEL, by="first-start")
    prepare(parts, racks=())
    assert users(parts).authenticate(lost.secret) is None
    assert users(parts).authenticate(secret(parts)) is not None


def test_a_token_that_was_taken_away_is_not_made_again(parts: Parts) -> None:
    prepare(parts, racks=())
    kept = secret(parts)
    assert users(parts).authenticate(kept) is not None
    parts.installation.admin_token_file.unlink()
    assert prepare(parts, racks=()) == ()
    assert not parts.installation.admin_token_file.exists()
    assert users(parts).authenticate(kept) is not None


def test_a_token_left_by_another_database_is_replaced(parts: Parts) -> None:
    parts.installation.admin_token_file.write_text("ns_of_a_database_that_is_gone\n")
    prepare(parts, racks=())
    assert users(parts).authenticate(secret(parts)) is not None


def test_where_somebody_else_is_admin_no_other_one_is_made(parts: Parts) -> None:
    parts.store.migrate()
    users(parts).add("ada", Role.ADMIN, by="test")
    prepare(parts, racks=())
    assert [user.name for user in users(parts).all()] == ["ada"]
    assert not parts.installation.admin_token_file.exists()


def test_a_policy_that_was_applied_is_left(parts: Parts) -> None:
    prepare(parts, racks=(DEFAULT_RACK,))
    plan = parts.plans.current()
    record = parts.store.policy(1)
    assert record is not None
    text = record.text.replace("retention: 7d", "retention: 8d")
    checked = check_text(text, source="ours.yaml", now=parts.clock.now(), settings=parts.settings)
    assert checked.policy is not None
    applied = apply_to_plan(checked.policy, plan, now=parts.clock.now(), settings=parts.settings)
    parts.desk.file(applied, author="ada", role=Role.ADMIN)
    PlanTask(
        store=parts.store,
        clock=parts.clock,
        wake=parts.wake,
        plans=parts.plans,
        known_facts=parts.known_facts,
        settings=parts.settings,
        profiles=parts.profiles,
    ).run()
    assert prepare(parts, racks=(DEFAULT_RACK,)) == ()
    rules = parts.plans.current().rules
    assert rules is not None
    assert (rules.version, rules.source) == (2, "ours.yaml")


def test_a_host_that_comes_later_gets_the_windows_of_the_applied_policy(parts: Parts) -> None:
    prepare(parts, racks=(DEFAULT_RACK,))
    (line,) = prepare(parts, racks=(RackSetup(host=HostId("dgx2-b"), profile="dgx-2"),))
    assert line.startswith("host dgx2-b was added")
    windows = parts.plans.current().windows.values()
    nights = {window.span for window in windows if HostId("dgx2-a") in window.hosts}
    assert len(nights) > 80
    assert {window.span for window in windows if HostId("dgx2-b") in window.hosts} == nights


def test_a_rack_of_a_kind_that_nobody_knows_is_refused(parts: Parts) -> None:
    prepare(parts, racks=(DEFAULT_RACK,))
    with pytest.raises(NightshiftError, match="dgx-9"):
        prepare(parts, racks=(RackSetup(host=DEFAULT_RACK.host, profile="dgx-9"),))


def test_a_refusal_of_the_plan_is_told_with_its_reasons(parts: Parts) -> None:
    parts.store.migrate()
    long = RackSetup(host=HostId("x" * 65), profile="dgx-2")
    with pytest.raises(FirstStartRefused, match=r"add_host was refused: .*x{10}.*is not a name"):
        prepare(parts, racks=(long,))


@pytest.mark.parametrize(
    ("text", "host", "profile"), [("dgx2-b=dgx-2", "dgx2-b", "dgx-2"), ("big", "big", "dgx-2"), ("a=b=c", "a", "b=c")]
)
def test_a_rack_is_named_with_its_kind(text: str, host: str, profile: str) -> None:
    assert parse_rack(text) == RackSetup(host=HostId(host), profile=profile)


@pytest.mark.parametrize("text", ["", "=dgx-2", "../up=dgx-2", "A=dgx-2", "a/b", "a b", "x" * 33, "ü=dgx-2"])
def test_what_is_no_name_of_a_host_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadRackOption, match="write dgx2-a=dgx-2"):
        parse_rack(text)


def test_init_is_the_same_as_a_command(parts: Parts, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(init)
    first = CliRunner().invoke(app, ["--data", str(tmp_path), "--rack", "dgx2-a=dgx-2"])
    assert first.exit_code == 0, first.output
    assert "user admin was added" in first.output
    assert "host dgx2-a was added" in first.output
    second = CliRunner().invoke(app, ["--data", str(tmp_path), "--rack", "dgx2-a=dgx-2"])
    assert second.output.strip() == "nothing was missing"


REAL = RealHostSetup(host=HostId("dgx2-r"), profile="dgx-2", connect="qemu:///system")


def test_a_real_host_is_added_with_the_way_to_reach_it_and_no_rack_is_made_for_it(parts: Parts) -> None:
    lines = prepare(parts, racks=(), real=(REAL,))
    assert "host dgx2-r was added: a dgx-2, reached by qemu:///system" in lines
    assert parts.plans.current().hosts[REAL.host].connect == "qemu:///system"
    assert not list(parts.installation.racks.glob("*"))
    assert prepare(parts, racks=(), real=(REAL,)) == ()


@pytest.mark.parametrize(
    "other",
    [
        RealHostSetup(host=REAL.host, profile="dgx-2", connect="qemu+tls://dgx2-r/system"),
        RealHostSetup(host=REAL.host, profile="dgx-2-lab", connect=REAL.connect),
    ],
)
def test_a_real_host_that_is_there_already_is_not_made_another_one(parts: Parts, other: RealHostSetup) -> None:
    prepare(parts, racks=(), real=(REAL,))
    with pytest.raises(BadHostOption, match="this host is a dgx-2 already, reached by qemu:///system"):
        prepare(parts, racks=(), real=(other,))


@pytest.mark.parametrize("name", ["dgx-2", "mine"])
def test_a_profile_file_that_its_name_does_not_lead_back_to_is_refused(parts: Parts, tmp_path: Path, name: str) -> None:
    # The shipped profile of the same name was taken instead, without a word.
    shipped = (files("scheduler.profiles") / "dgx-2.toml").read_text(encoding="utf-8")
    changed = shipped.replace('name = "dgx-2"', f'name = "{name}"', 1).replace(
        "pool_gib = 28000", "pool_gib = 27000", 1
    )
    file = tmp_path / "own.toml"
    file.write_text(changed, encoding="utf-8")
    with pytest.raises(BadHostOption, match=f"calls itself '{name}'.*put the file there as mine.toml"):
        prepare(parts, racks=(), real=(RealHostSetup(host=REAL.host, profile=str(file), connect=REAL.connect),))
    with pytest.raises(BadRackOption, match="--rack dgx2-a="):
        prepare(parts, racks=(RackSetup(host=HostId("dgx2-a"), profile=str(file)),))
    assert dict(parts.plans.current().hosts) == {}
    assert not list(parts.installation.racks.glob("*"))


def test_a_copy_of_a_shipped_profile_is_that_profile(parts: Parts, tmp_path: Path) -> None:
    file = tmp_path / "dgx-2.toml"
    file.write_text((files("scheduler.profiles") / "dgx-2.toml").read_text(encoding="utf-8"), encoding="utf-8")
    assert "host dgx2-r was added: a dgx-2, reached by qemu:///system" in prepare(
        parts, racks=(), real=(RealHostSetup(host=REAL.host, profile=str(file), connect=REAL.connect),)
    )


def test_a_rack_is_not_made_a_real_host(parts: Parts) -> None:
    prepare(parts, racks=(DEFAULT_RACK,))
    with pytest.raises(BadHostOption, match="and simulated; give the new one another name"):
        prepare(parts, racks=(), real=(RealHostSetup(host=DEFAULT_RACK.host, profile="dgx-2", connect=REAL.connect),))


def test_a_host_is_named_with_its_kind_and_its_uri() -> None:
    assert parse_host("dgx2-r=dgx-2@qemu+ssh://root@dgx2-r/system") == RealHostSetup(
        host=HostId("dgx2-r"), profile="dgx-2", connect="qemu+ssh://root@dgx2-r/system"
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("dgx2-r", "write NAME=PROFILE@URI"),
        ("dgx2-r=dgx-2", "write NAME=PROFILE@URI"),
        ("=dgx-2@qemu:///system", "write NAME=PROFILE@URI"),
        ("DGX=dgx-2@qemu:///system", "a name is 1 to 32"),
        ("dgx2-r=dgx-2@qemu+tcp://dgx2-r/system", "qemu\\+tls"),
        ("dgx2-r=dgx-2@http://dgx2-r/", "--host"),
    ],
)
def test_a_host_that_is_not_named_so_is_refused_with_what_to_write(text: str, says: str) -> None:
    with pytest.raises(BadHostOption, match=says):
        parse_host(text)
