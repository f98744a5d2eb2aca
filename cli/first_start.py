"""`nightshift init`, and what `up` does before it starts anything: tables, a first admin, hosts and a policy.

Everything here may be done again any number of times, and does then only what is missing. What is decided goes in as
intents, decided by the same plan task as ever.
"""

import fcntl
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from cli.data_directory import make_data_directory
from cli.installation import Installation, Parts, open_parts
from policies.applying import add_to_plan, apply_to_plan, check_text
from scheduler.core.connect import connect_problem
from scheduler.core.errors import NightshiftError
from scheduler.core.intents import Intent
from scheduler.core.reasons import sentence
from scheduler.core.requests import HostId, Role
from scheduler.core.topology import HostProfile
from scheduler.profiles.loading import UnknownProfile
from scheduler.service.plan import PlanTask
from scheduler.service.users import Users
from workers.drivers.simulated.rack import SimulatedRack

ADMIN = "admin"
TOKEN_LABEL = "first start"
AUTHOR = "first-start"
EXAMPLE = "university.yaml"
RACK_SEED = 1
_HOST_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")


class BadRackOption(NightshiftError):
    """`--rack` names no host."""

    code = "rack.bad_option"


class BadHostOption(NightshiftError):
    """`--host` names no host, or one that cannot be had."""

    code = "host.bad_option"


class FirstStartRefused(NightshiftError):
    """What a first start sets up was refused by the plan."""

    code = "first_start.refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class RackSetup:
    """A simulated host to have."""

    host: HostId
    profile: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RealHostSetup:
    """A host to have that is reached over libvirt."""

    host: HostId
    profile: str
    connect: str


DEFAULT_RACK = RackSetup(host=HostId("dgx2-a"), profile="dgx-2")


def parse_rack(text: str) -> RackSetup:
    """Read NAME=PROFILE, or NAME alone for a DGX-2."""
    name, _, profile = text.partition("=")
    if _HOST_NAME.fullmatch(name) is None:
        raise BadRackOption(
            f"--rack {text!r}: a host's name is 1 to 32 of a-z, 0-9 and '-', a letter first; write"
            f" {DEFAULT_RACK.host}={DEFAULT_RACK.profile}"
        )
    return RackSetup(host=HostId(name), profile=profile or DEFAULT_RACK.profile)


def parse_host(text: str) -> RealHostSetup:
    """Read NAME=PROFILE@URI."""
    name, _, rest = text.partition("=")
    profile, _, connect = rest.partition("@")
    if _HOST_NAME.fullmatch(name) is None or not profile or not connect:
        raise BadHostOption(
            f"--host {text!r}: write NAME=PROFILE@URI, as dgx2-a=dgx-2@qemu:///system; a name is 1 to 32 of a-z, 0-9"
            " and '-', a letter first"
        )
    problem = connect_problem(connect)
    if problem:
        raise BadHostOption(f"--host {text!r}: {problem}")
    return RealHostSetup(host=HostId(name), profile=profile, connect=connect)


def init(
    data: Annotated[
        Path | None, typer.Option(help="The data directory.", envvar="NIGHTSHIFT_DATA", show_default=False)
    ] = None,
    rack: Annotated[
        list[str] | None, typer.Option(metavar="NAME=PROFILE", help="Add this simulated host. May be repeated.")
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PROFILE@URI", help="Add this host, reached over libvirt. May be repeated."),
    ] = None,
) -> None:
    """Prepare the database: tables, the first admin with a token, and a first policy. May be run again."""
    racks = tuple(parse_rack(text) for text in rack or ())
    real = tuple(parse_host(text) for text in host or ())
    installation = Installation.found(data)
    os.umask(0o077)
    make_data_directory(installation.data)
    parts = open_parts(installation, is_waking=False)
    try:
        lines = prepare(parts, racks=racks, real=real)
    finally:
        parts.close()
    for line in lines:
        print(line)
    if not lines:
        print("nothing was missing")


def prepare(parts: Parts, *, racks: Sequence[RackSetup], real: Sequence[RealHostSetup] = ()) -> tuple[str, ...]:
    """Set up what is missing, and say in words what that was."""
    with _alone(parts.installation.data / "first-start.lock"):
        parts.store.migrate()
        return (
            *_first_admin(parts),
            *(line for rack in racks for line in _rack(parts, rack)),
            *(line for host in real for line in _real_host(parts, host)),
            *_first_policy(parts),
        )


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until nobody else does a first start in this directory."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _first_admin(parts: Parts) -> tuple[str, ...]:
    """See to it that somebody can get in; a token that is used already is never replaced."""
    users = Users(parts.store, parts.clock)
    admins = [user for user in users.all() if user.role is Role.ADMIN]
    path = parts.installation.admin_token_file
    if any(user.name != ADMIN or user.is_disabled for user in admins):
        return ()
    if not admins:
        users.add(ADMIN, Role.ADMIN, by=AUTHOR)
        path.unlink(missing_ok=True)
    elif path.exists():
        return ()
    live = [token for token in users.tokens(ADMIN) if token.revoked_at is None]
    if any(token.last_used_at is not None or token.label != TOKEN_LABEL for token in live):
        # Whoever took the file away has its token, or made others.
        return ()
    for token in live:
        # Made by a first start that was killed before it wrote the file: nobody knows its secret.
        users.revoke(token.id, by=AUTHOR)
    issued = users.issue_token(ADMIN, label=TOKEN_LABEL, by=AUTHOR)
    _write_secret(path, issued.secret)
    return (f"user {ADMIN} was added; the token is in {path}",)


def _write_secret(path: Path, secret: str) -> None:
    """Write a file that only this user can read, whole or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w", encoding="ascii") as file:
        file.write(f"{secret}\n")
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def _lasting(parts: Parts, wanted: str, refused: Callable[[str], NightshiftError]) -> HostProfile:
    """Return a profile that its own name leads back to: the plan keeps no more of it than that."""
    profile = parts.profiles(wanted)
    try:
        found = parts.profiles(profile.name)
    except UnknownProfile:
        found = None
    if found != profile:
        whose = "there is none of that name" if found is None else "another profile has that name"
        raise refused(
            f"this profile calls itself {profile.name!r}, and {whose} beside the shipped ones; put the file there as"
            ' mine.toml with name = "mine" in it, and write mine. Where that is says docs/tuning.md'
        )
    return profile


def _rack(parts: Parts, rack: RackSetup) -> tuple[str, ...]:
    """See to it that a simulated host is there and in the plan."""
    said = f"--rack {rack.host}={rack.profile}"
    profile = _lasting(parts, rack.profile, lambda problem: BadRackOption(f"{said}: {problem}"))
    known = parts.plans.current().hosts.get(rack.host)
    if known is not None and known.profile.name != profile.name:
        raise BadRackOption(
            f"--rack {rack.host}={rack.profile}: this host is a {known.profile.name} already; give the new one"
            " another name"
        )
    # The worker takes up every rack that has a file, so the file comes first. To open one changes nothing.
    SimulatedRack(parts.installation.racks, rack.host, profile, parts.clock, seed=RACK_SEED).close()
    if known is not None:
        return ()
    _add(parts, rack.host, profile=profile.name)
    return (f"host {rack.host} was added: a simulated {profile.name} with {len(profile.gpus)} GPUs",)


def _real_host(parts: Parts, wanted: RealHostSetup) -> tuple[str, ...]:
    """See to it that a host which is reached over libvirt is in the plan."""
    said = f"--host {wanted.host}={wanted.profile}@{wanted.connect}"
    profile = _lasting(parts, wanted.profile, lambda problem: BadHostOption(f"{said}: {problem}"))
    known = parts.plans.current().hosts.get(wanted.host)
    if known is None:
        _add(parts, wanted.host, profile=profile.name, connect=wanted.connect)
        return (f"host {wanted.host} was added: a {profile.name}, reached by {wanted.connect}",)
    if (known.profile.name, known.connect) != (profile.name, wanted.connect):
        raise BadHostOption(
            f"--host {wanted.host}={wanted.profile}@{wanted.connect}: this host is a {known.profile.name} already,"
            f" {f'reached by {known.connect}' if known.connect else 'and simulated'}; give the new one another name"
        )
    return ()


def _add(parts: Parts, host: HostId, *, profile: str, connect: str = "") -> None:
    plan = parts.plans.current()
    applied = None if plan.rules is None else parts.store.policy(plan.rules.version)
    _decide(
        parts,
        add_to_plan(
            host,
            profile=profile,
            storage=host,
            connect=connect,
            plan=plan,
            applied_text=None if applied is None else applied.text,
            now=parts.clock.now(),
            settings=parts.settings,
        ),
    )


def _first_policy(parts: Parts) -> tuple[str, ...]:
    """Apply the shipped example if no policy was ever applied."""
    plan = parts.plans.current()
    if plan.rules is not None:
        return ()
    text = (files("policies") / "examples" / EXAMPLE).read_text(encoding="utf-8")
    now = parts.clock.now()
    checked = check_text(text, source=EXAMPLE, now=now, settings=parts.settings)
    if checked.policy is None:
        raise FirstStartRefused(f"the example policy {EXAMPLE} does not pass its check: {checked.problems[0]}")
    _decide(parts, apply_to_plan(checked.policy, plan, now=now, settings=parts.settings))
    return (
        f"policy {EXAMPLE}, the shipped example, was applied as version 1; write your own and apply it:"
        " nightshift policy apply FILE",
    )


def _decide(parts: Parts, intent: Intent) -> None:
    """File an intent and decide it here: at a first start nobody else runs who would."""
    filed = parts.desk.file(intent, author=AUTHOR, role=Role.ADMIN)
    task = PlanTask(
        store=parts.store,
        clock=parts.clock,
        wake=parts.wake,
        plans=parts.plans,
        known_facts=parts.known_facts,
        settings=parts.settings,
        profiles=parts.profiles,
    )
    task.run()
    decided = parts.desk.decision(filed.seq)
    if decided is None:
        raise FirstStartRefused(f"a first {intent.kind} was filed as number {filed.seq} and not decided; start again")
    if not decided.is_accepted:
        said = "; ".join(sentence(why) for why in decided.reasons)
        raise FirstStartRefused(f"a first {intent.kind} was refused: {said}")
