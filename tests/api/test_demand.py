"""What was asked for, and how long it ran, page by page."""

from collections.abc import Iterator

import pytest

from scheduler.core.spans import HOUR_S
from tests.api.bench import Bench, opened

ALL = "/demand?since=2026-01-01T00:00:00Z"


@pytest.fixture
def bench() -> Iterator[Bench]:
    with opened() as bench:
        yield bench


def test_it_lists_what_was_asked_for_with_what_it_ran(bench: Bench) -> None:
    made = [bench.reserve(gpus=gpus, run_s=2 * HOUR_S)["id"] for gpus in (4, 2)]
    bench.send("POST", "/reservations", {"gpus": 3, "run_s": HOUR_S})
    bench.home.agenda.run_until(bench.now + HOUR_S)
    found = bench.get(ALL, user="root")
    first, second, refused = found["requests"]
    assert [first["id"], second["id"]] == made
    assert (first["owner"], first["queue"], first["gpus"], first["run_s"]) == ("ann", "interactive", 4, 2 * HOUR_S)
    assert (first["outcome"], first["by_policy"], first["disk_gib"]) == (None, None, 100)
    assert 45 * 60 < first["ran_s"] < HOUR_S
    assert (refused["gpus"], refused["outcome"], refused["ran_s"]) == (3, "refused", 0)
    assert found["next"] is None


def test_pages_follow_each_other_without_gap_or_twice(bench: Bench) -> None:
    made = [bench.reserve(gpus=1, run_s=HOUR_S)["id"] for _ in range(5)]
    seen: list[str] = []
    pages = 0
    after: str | None = ""
    while after is not None:
        page = bench.get(f"{ALL}&limit=2{after and '&after='}{after}", user="root")
        seen += [one["id"] for one in page["requests"]]
        pages, after = pages + 1, page["next"]
    assert (seen, pages) == (sorted(made), 3)


def test_it_begins_where_it_is_asked_to(bench: Bench) -> None:
    bench.reserve(gpus=1, run_s=HOUR_S)
    assert bench.get("/demand?since=2026-03-03T00:00:00Z", user="root")["requests"] == []
    assert bench.get(f"{ALL}&after=r-999", user="root")["requests"] == []


def test_only_admins_see_it(bench: Bench) -> None:
    assert bench.send("GET", ALL).status == 403
    assert bench.send("GET", "/demand", user="root").status == 422
