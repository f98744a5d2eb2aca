"""Kamelot, the scheduler of OAR 3: conservative backfilling in Python that knows aligned blocks as a hierarchy.

It is on no package index: the name `oar` there is another program. Its checkout is the user's to bring; what it imports
is installed into a venv of its own.
"""

import os
from pathlib import Path
from typing import cast

from benchmarks.peers import child, kamelot_child, venv
from benchmarks.peers.peer import NotHere, PeerPlan
from benchmarks.workload import Batch

CHECKOUT = "NIGHTSHIFT_OAR3"
"""The variable that names a checkout of oar-team/oar3."""
MODULES = ("oar/kao/scheduling.py", "oar/kao/slot.py", "oar/lib/job_handling.py")
PACKAGES = (
    "ClusterShell",
    "SQLAlchemy",
    "SQLAlchemy-Utils",
    "alembic",
    "bcrypt",
    "click",
    "escapism",
    "fastapi",
    "httpx",
    "passlib",
    "procset",
    "psutil",
    "psycopg2-binary",
    "python-jose",
    "pyyaml",
    "pyzmq",
    "requests",
    "rich",
    "simplejson",
    "simpy",
    "tabulate",
    "toml",
)
"""What its modules import; no database is needed."""


def plan(batch: Batch, *, checkout: Path | None) -> PeerPlan:
    """Plan a batch by one call of Kamelot's scheduling loop, its cache on."""
    if batch.reservations:
        raise NotHere("Kamelot is measured without advance reservations: run it with --reservations 0")
    home = find(checkout)
    python = venv.find("kamelot")
    if python is None:
        raise NotHere(f"Kamelot's libraries are not here ({', '.join(PACKAGES)}): add --install, which makes a venv")
    asked = {
        "checkout": str(home),
        "hosts": batch.hosts,
        "occupied": batch.occupied,
        "requests": batch.requests,
    }
    answer = child.ask("Kamelot", python, kamelot_child.__file__, asked)
    missing = answer.get("missing")
    if missing is not None:
        raise NotHere(f"the checkout {home} lacks what is called here ({missing}): take oar-team/oar3 at c332316")
    starts = cast("list[int | None]", answer["starts"])
    return PeerPlan(
        seconds=cast("float", answer["seconds"]),
        cpu_s=cast("float", answer["cpu_s"]),
        planned=len(starts),
        starts=tuple(starts),
    )


def install() -> None:
    """Make the venv with what a checkout imports. May be called twice."""
    venv.make("kamelot", PACKAGES)


def find(checkout: Path | None) -> Path:
    """Return the checkout that was named, or that the environment names."""
    named = checkout or (Path(os.environ[CHECKOUT]) if os.environ.get(CHECKOUT) else None)
    if named is None:
        raise NotHere(f"Kamelot is not here: clone oar-team/oar3 (c332316) and name it by --kamelot or {CHECKOUT}")
    absent = [module for module in MODULES if not (named / module).is_file()]
    if absent:
        raise NotHere(
            f"{named} is no checkout of oar-team/oar3, {', '.join(absent)} is not in it: name one by --kamelot"
        )
    return named.resolve()
