"""Policies over HTTP: their history, going back to one, and what one would change before it is applied."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from scheduler.core.spans import HOUR_S
from tests.api.bench import POLICY, Bench, opened

LONGER = POLICY.replace("for: 12h", "for: 13h")
LATER = POLICY.replace('opens: "0 20 * * *", for: 12h', 'opens: "0 21 * * *", for: 11h')
NOON = POLICY.replace('opens: "0 20 * * *"', 'opens: "0 12 * * *"')
WRONG = POLICY.replace("zone: Europe/Berlin", "zone: Europe/Berln")


@pytest.fixture
def bench() -> Iterator[Bench]:
    with opened() as bench:
        yield bench


def apply(bench: Bench, text: str, source: str = "p.yaml") -> None:
    assert bench.send("POST", "/policies", {"text": text, "source": source}, user="root").status == 201


# History.


def test_the_history_names_authors_files_and_versions_of_the_same_text(bench: Bench) -> None:
    apply(bench, LONGER, "longer.yaml")
    apply(bench, LATER, "later.yaml")
    apply(bench, LONGER, "longer.yaml")
    answer = bench.get("/policies")
    assert answer["current"] == 4
    assert [
        (one["version"], one["author"], one["source"], one["same_text_as"], one["is_current"])
        for one in answer["policies"]
    ] == [
        (4, "root", "longer.yaml", 2, True),
        (3, "root", "later.yaml", None, False),
        (2, "root", "longer.yaml", None, False),
        (1, "admin", "bench.yaml", None, False),
    ]
    assert [one["version"] for one in bench.get("/policies?limit=2")["policies"]] == [4, 3]
    assert bench.send("GET", "/policies?limit=0").code == "request.invalid"


def test_there_is_no_history_before_a_first_policy() -> None:
    with opened(policy=None) as bench:
        assert bench.get("/policies") == {"current": None, "policies": []}


# Rolling back.


def test_a_rollback_applies_an_earlier_text_as_a_new_version(bench: Bench) -> None:
    apply(bench, LONGER, "longer.yaml")
    answer = bench.send("POST", "/policies/1/rollback", user="root")
    assert (answer.status, answer.json["version"], answer.json["author"]) == (201, 3, "root")
    assert answer.headers["location"] == "/api/v1/policies/3"
    assert bench.get("/policies/3")["text"] == POLICY
    assert bench.get("/policies")["policies"][0]["source"] == "bench.yaml"
    assert bench.get("/calendar")["windows"][0]["end_at"] == "2026-03-03T07:00:00Z"


def test_a_rollback_that_would_break_a_promise_is_refused_and_says_whose(bench: Bench) -> None:
    apply(bench, NOON)
    apply(bench, POLICY)
    made = bench.reserve(gpus=1, run_s=HOUR_S, at="2026-03-03T12:00:00Z", at_night="finish")["id"]
    answer = bench.send("POST", "/policies/2/rollback", user="root")
    assert (answer.status, answer.code) == (422, "request.refused")
    assert answer.json["reasons"][0]["code"] == "policy.breaks_promise"
    assert made in answer.json["detail"]
    assert bench.get("/policies")["current"] == 3


def test_a_rollback_to_what_has_errors_today_is_refused_by_line(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    apply(bench, LONGER)
    record = bench.home.store.policy(1)
    assert record is not None
    monkeypatch.setattr(bench.home.store, "policy", lambda _: replace(record, text=WRONG))
    answer = bench.send("POST", "/policies/1/rollback", user="root")
    assert (answer.status, answer.code) == (422, "policy.invalid")
    assert [(one["file"], one["line"]) for one in answer.json["problems"]] == [("bench.yaml", 3)]
    assert bench.get("/policies")["current"] == 2


def test_a_rollback_is_done_once_under_one_key(bench: Bench) -> None:
    apply(bench, LONGER)
    key = {"Idempotency-Key": "back"}
    first = bench.send("POST", "/policies/1/rollback", user="root", headers=key)
    bench.pass_time(60)
    again = bench.send("POST", "/policies/1/rollback", user="root", headers=key)
    assert first.json["version"] == again.json["version"] == 3
    assert bench.send("POST", "/policies/2/rollback", user="root", headers=key).code == "key.reused"


def test_nobody_rolls_back_to_what_holds_or_never_was(bench: Bench) -> None:
    holds = bench.send("POST", "/policies/1/rollback", user="root")
    assert (holds.status, holds.code) == (409, "policy.is_current")
    for version in ("0", "7", "x", "-1"):
        assert bench.send("POST", f"/policies/{version}/rollback", user="root").code == "policy.unknown"
    assert bench.send("POST", "/policies/1/rollback").code == "rights.admin_only"
    assert bench.filed == 0


# Diff.


def test_a_diff_of_what_holds_is_empty(bench: Bench) -> None:
    bench.reserve(gpus=4, run_s=20 * HOUR_S)
    answer = bench.send("POST", "/policies/diff", {"text": "# a comment\n" + POLICY}, user="root").json
    assert (answer["is_empty"], answer["is_refused"], answer["current"]) == (True, False, 1)
    assert answer["windows"] == answer["bookings"] == answer["broken"] == answer["owners_hit"] == []


def test_a_diff_says_what_applying_it_does(bench: Bench) -> None:
    made = bench.reserve(gpus=1, run_s=20 * HOUR_S)["id"]
    version = bench.get("/reservations")["plan_version"]
    found = bench.send("POST", "/policies/diff", {"text": LATER}, user="root").json
    assert bench.get("/reservations")["plan_version"] == version
    assert (bench.filed, bench.get("/policies")["current"]) == (1, 1)
    first = found["windows"][0]
    assert (first["name"], first["hosts"]) == ("night", ["dgx2-a"])
    assert (first["before_start_at"], first["after_start_at"]) == ("2026-03-02T19:00:00Z", "2026-03-02T20:00:00Z")
    assert (first["start_moves_s"], first["end_moves_s"]) == (HOUR_S, 0)
    (booking,) = found["bookings"]
    assert (booking["reservation"], booking["owner"], booking["start_moves_s"]) == (made, "ann", 0)
    assert booking["end_moves_s"] < 0
    assert found["owners_hit"] == ["ann"]
    apply(bench, LATER)
    spans = bench.get(f"/reservations/{made}")["spans"]
    assert [{key: span[key] for key in ("start_at", "end_at", "host")} for span in spans] == booking["after"]


def test_a_diff_names_the_promises_that_would_break(bench: Bench) -> None:
    made = bench.reserve(gpus=1, run_s=HOUR_S, at="2026-03-03T12:00:00Z", at_night="finish")["id"]
    answer = bench.send("POST", "/policies/diff", {"text": NOON}, user="root")
    assert (answer.status, answer.json["is_refused"], answer.json["is_broken_complete"]) == (200, True, True)
    (broken,) = answer.json["broken"]
    assert (broken["reservation"], broken["owner"]) == (made, "ann")
    assert broken["reason"]["code"] == "policy.breaks_promise"
    assert made in broken["reason"]["sentence"]
    assert answer.json["owners_hit"] == ["ann"]


def test_a_running_guest_that_the_policy_would_cut_is_named_and_left_alone(bench: Bench) -> None:
    cut = bench.reserve(gpus=1, run_s=8 * HOUR_S, at_night="finish")["id"]
    parked = bench.reserve(gpus=2, run_s=8 * HOUR_S, user="ben")["id"]
    bench.pass_time(HOUR_S)
    assert bench.get(f"/reservations/{cut}")["phase"] == "running"
    answer = bench.send("POST", "/policies/diff", {"text": NOON}, user="root").json
    assert answer["broken"][0]["reservation"] == cut
    assert parked in {one["reservation"] for one in (*answer["broken"], *answer["bookings"])}
    assert answer["owners_hit"] == ["ann", "ben"]
    bench.pass_time(HOUR_S)
    assert bench.get(f"/reservations/{cut}")["phase"] == "running"


def test_a_diff_of_a_first_policy_names_its_windows() -> None:
    with opened(policy=None) as bench:
        answer = bench.send("POST", "/policies/diff", {"text": POLICY}, user="root").json
        assert (answer["current"], answer["is_empty"]) == (None, False)
        assert {one["before_start_at"] for one in answer["windows"]} == {None}


def test_a_diff_of_a_policy_with_errors_names_them_by_line(bench: Bench) -> None:
    answer = bench.send("POST", "/policies/diff", {"text": WRONG, "source": "p.yaml"}, user="root")
    assert (answer.status, answer.code) == (422, "policy.invalid")
    assert [(one["file"], one["line"]) for one in answer.json["problems"]] == [("p.yaml", 3)]
    assert bench.send("POST", "/policies/diff", {"text": POLICY}).code == "rights.admin_only"


def test_a_diff_takes_a_policy_as_large_as_one_may_be(bench: Bench) -> None:
    padded = LONGER + "# a comment\n" * 40_000
    assert bench.send("POST", "/policies/diff", {"text": padded}, user="root", parts=9).status == 200
