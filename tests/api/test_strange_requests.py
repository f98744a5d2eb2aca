"""Thousands of requests that nobody should send: each is answered in its own kind, and none leaves half a change.

`NIGHTSHIFT_FUZZ` says how many; `NIGHTSHIFT_FUZZ_SEED` where they begin.
"""

import os
import random
from collections import Counter

from scheduler.core.reasons import ReasonCode
from tests.api.bench import Bench, opened
from tests.api.strange import USERS, Strange, draw_request
from tests.databases import TestDatabase

REQUESTS = int(os.environ.get("NIGHTSHIFT_FUZZ") or 1000)
SEED = int(os.environ.get("NIGHTSHIFT_FUZZ_SEED") or 1)
PASS_TIME_EVERY = 100
NOES_OF_PLANNING = {code.value for code in ReasonCode} | {"request.refused", "policy.stale", "key.reused"}
"""What is answered to an intent that was filed; any other problem has filed nothing."""


def mend(bench: Bench, request: Strange) -> None:
    """Give back what a request took away by right: the next ones need a token of somebody who is not disabled."""
    for name in USERS:
        bench.users.enable(name, by="test")
        if bench.users.authenticate(bench.secrets[name]) is None:
            bench.secrets[name] = bench.users.issue_token(name, label="again", by="test").secret
    if "/tokens" in request.path:
        kept = {bench.users.authenticate(secret) for secret in bench.secrets.values()}
        assert len(kept) == len(USERS)
        for name in USERS:
            for token in bench.users.tokens(name)[:-20]:
                if token.revoked_at is None and token.label != "test" and token.label != "again":
                    bench.users.revoke(token.id, by="test")


def check_answer(bench: Bench, request: Strange, filed_before: int) -> tuple[int, str]:
    answer = bench.send(
        request.method,
        request.path,
        user=request.user,
        raw=request.raw,
        headers=dict(request.headers),
        parts=request.parts,
    )
    assert answer.status < 500, (request, answer.body)
    assert bench.home.store.open_intents() == (), request
    if answer.status >= 400:
        document = answer.json
        assert answer.kind == "application/problem+json", (request, answer)
        assert document["type"] == f"urn:nightshift:problem:{document['code']}"
        assert document["status"] == answer.status
        assert document["detail"], (request, document)
        assert "\n" not in document["detail"], (request, document)
        assert "Traceback" not in document["detail"], (request, document)
        if document["code"] not in NOES_OF_PLANNING:
            assert bench.filed == filed_before, (request, document)
        return answer.status, document["code"]
    if answer.status == 201 and "/reservations/" in answer.headers.get("location", ""):
        assert answer.json["promise"] is not None, (request, answer.body)
        assert bench.home.plans.current().reservations[answer.json["id"]].request.gpus == answer.json["gpus"]
    return answer.status, ""


def send_strange_requests(bench: Bench, draw: random.Random, requests: int) -> Counter[tuple[int, str]]:
    seen: Counter[tuple[int, str]] = Counter()
    for number in range(requests):
        request = draw_request(draw)
        outcome = check_answer(bench, request, bench.filed)
        seen[outcome] += 1
        if request.path.startswith(("/users", "/tokens")) or outcome[0] == 401:
            mend(bench, request)
        if number % PASS_TIME_EVERY == 0:
            bench.pass_time(draw.randrange(1800))
    assert bench.home.store.load_plan(now=bench.now) == bench.home.plans.current()
    assert bench.send("GET", "/reservations?all=true&limit=1000", user="root").status == 200
    return seen


def test_strange_requests_are_answered_in_kind_and_leave_nothing_half_written() -> None:
    with opened() as bench:
        seen = send_strange_requests(bench, random.Random(SEED), REQUESTS)
    print(f"{REQUESTS} requests from seed {SEED}: {dict(sorted(seen.items()))}")
    # Enough of them got far enough in to mean something.
    statuses = {status for status, _ in seen}
    assert {200, 201, 400, 401, 403, 404, 405, 409, 413, 415, 422} <= statuses or REQUESTS < 1000, seen


def test_every_database_answers_them_alike(database: TestDatabase) -> None:
    with opened() as memory, opened(store_url=database.url) as bench:
        assert send_strange_requests(bench, random.Random(SEED + 1), 150) == send_strange_requests(
            memory, random.Random(SEED + 1), 150
        )


def test_a_seed_draws_the_same_requests_again() -> None:
    first, again = random.Random(7), random.Random(7)
    assert [draw_request(first) for _ in range(50)] == [draw_request(again) for _ in range(50)]
