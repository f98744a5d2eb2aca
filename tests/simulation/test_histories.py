"""Random histories of the whole product: whatever people, policies and fate do, the auditor has nothing to say.

NIGHTSHIFT_HISTORY_DAYS says how many host-days are lived through; a failure names the seed that shows it again.
"""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from tests.databases import PostgresqlCluster
from tests.simulation.histories import scopes, summary, told
from tests.simulation.living import Judged, Scope, live

HOST_DAYS = int(os.environ.get("NIGHTSHIFT_HISTORY_DAYS", "12"))
FIRST_SEED = int(os.environ.get("NIGHTSHIFT_FIRST_SEED", "1"))

SMALL = Scope(seed=77, hosts=2, days=1, has_faults=True, is_checked=False)
"""A short history in which everything happens."""

_DIGEST = f"from tests.simulation.living import Scope, live; print(live({SMALL!r}).digest)"


@pytest.mark.parametrize(
    "scope", list(scopes(host_days=HOST_DAYS, first_seed=FIRST_SEED)), ids=lambda scope: f"seed-{scope.seed}"
)
def test_a_history_has_no_violations(scope: Scope) -> None:
    judged = live(scope)
    assert not judged.problems, told(judged)


def test_a_checked_history_without_faults_breaks_no_promise_at_any_commit() -> None:
    judged = live(Scope(seed=5, hosts=1, days=2, has_faults=False, is_checked=True))
    assert not judged.problems, told(judged)
    assert judged.promises_raised == 0


@pytest.fixture(scope="module")
def small() -> Judged:
    return live(SMALL)


def test_the_same_seed_gives_the_same_bytes_whatever_the_order_of_hashes(small: Judged) -> None:
    assert not small.problems, told(small)
    other = subprocess.run(
        [sys.executable, "-c", _DIGEST],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout.strip() == small.digest


def test_another_seed_gives_another_history(small: Judged) -> None:
    assert live(replace(SMALL, seed=78, hosts=1)).digest != small.digest


def test_the_same_history_is_lived_on_postgresql(small: Judged, postgresql_cluster: PostgresqlCluster) -> None:
    on_postgresql = live(SMALL, store_url=postgresql_cluster.new_database())
    assert not on_postgresql.problems, told(on_postgresql)
    assert on_postgresql.digest == small.digest


def test_a_history_is_full_of_people_and_of_faults(small: Judged) -> None:
    assert small.requests >= 20 * SMALL.host_days
    assert small.refused > 0
    assert len(small.faults) >= 5, summary([small], seconds=1.0)
