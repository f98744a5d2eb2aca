"""Policies over HTTP: their history, going back to one, and what one would change before it is applied."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from policies.applying import apply_to_plan, check_text
from scheduler.core.reasons import ReasonCode
from scheduler.core.requests import Role
from scheduler.core.spans import HOUR_S, MINUTE_S
from tests.api.bench import POLICY, Bench, opened

LONGER = POLICY.replace("for: 12h", "for: 13h")
SHORTER = POLICY.replace("for: 12h", "for: 11h")
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


# Messages, and overrides.


def test_a_version_keeps_its_author_its_message_and_the_data_that_it_was_made_with(bench: Bench) -> None:
    body = {"text": LONGER, "source": "longer.yaml", "message": "longer nights"}
    applied = bench.send("POST", "/policies", body, user="root").json
    assert (applied["author"], applied["message"], applied["override"]) == ("root", "longer nights", None)
    listed = bench.get("/policies")["policies"]
    assert [(one["message"], one["override"]) for one in listed] == [("longer nights", None), ("", None)]
    assert sorted(listed[0]["made_with"]) == ["holidays", "tzdata"]
    assert bench.get("/policies/2")["message"] == "longer nights"
    back = bench.send("POST", "/policies/1/rollback", {"message": "too long"}, user="root").json
    assert (back["version"], back["message"], back["source"]) == (3, "too long", "bench.yaml")
    for remark in ({"message": "two\nlines"}, {"message": "x" * 501}, {"override": " "}, {"override": ""}):
        assert bench.send("POST", "/policies", {"text": LONGER, **remark}, user="root").code == "request.invalid"


def test_an_override_breaks_promises_and_tells_whose(bench: Bench) -> None:
    made = bench.reserve(gpus=1, run_s=HOUR_S, at="2026-03-03T12:00:00Z", at_night="finish")["id"]
    kept = bench.reserve(gpus=1, run_s=HOUR_S, user="ben")["id"]
    foreseen = bench.send("POST", "/policies/diff", {"text": NOON}, user="root").json
    assert bench.send("POST", "/policies", {"text": NOON}, user="root").code == "request.refused"
    answer = bench.send("POST", "/policies", {"text": NOON, "override": " power work "}, user="root")
    assert (answer.status, answer.json["override"]) == (201, "power work")
    (hit,) = answer.json["overridden"]
    assert (hit["reservation"], hit["owner"], hit["has_place"]) == (made, "ann", True)
    (broken,) = foreseen["broken"]
    assert (broken["reservation"], broken["after"]) == (made, hit["promise"])
    shown = bench.get(f"/reservations/{made}")
    assert shown["promise"] == hit["promise"] != broken["promise"]
    assert "an admin's override: power work" in shown["reasons"][0]["sentence"]
    assert bench.get(f"/reservations/{kept}", user="ben")["reasons"] == []
    events = [event for _, event in bench.home.store.events()]
    (audited,) = [event for event in events if event.kind == "promise.overridden"]
    facts = dict(audited.facts)
    assert (audited.actor, audited.reservation, facts["override"], facts["version"]) == ("root", made, "power work", 2)
    (raised,) = [event for event in events if event.kind == "promise.raised"]
    assert (raised.is_notice, raised.reservation) == (True, made)
    applied = [dict(event.facts) for event in events if event.kind == "policy.applied"][-1]
    assert (applied["override"], applied["promises_broken"]) == ("power work", 1)
    assert bench.get("/policies")["policies"][0]["override"] == "power work"


def test_a_guest_that_finishes_is_warned_and_parked_by_an_override_with_its_disk(bench: Bench) -> None:
    made = bench.reserve(gpus=1, run_s=8 * HOUR_S, at_night="finish")["id"]
    bench.pass_time(HOUR_S)
    assert bench.get(f"/reservations/{made}")["phase"] == "running"
    answer = bench.send("POST", "/policies", {"text": NOON, "override": "power work"}, user="root")
    assert [one["reservation"] for one in answer.json["overridden"]] == [made]
    bench.reserve(gpus=16, queue="hpc", run_s=2 * HOUR_S, user="ben")
    bench.pass_time(2 * HOUR_S)
    # It is eleven; until noon it runs.
    assert bench.get(f"/reservations/{made}")["phase"] == "running"
    bench.pass_time(HOUR_S + 20 * MINUTE_S)
    parked = bench.get(f"/reservations/{made}")
    assert (parked["phase"], parked["disk"] is not None, parked["vm"]) == ("parked", True, None)
    bench.pass_time(48 * HOUR_S)
    assert bench.get(f"/reservations/{made}")["outcome"] == "completed"


def test_an_override_that_breaks_nothing_is_a_policy_like_any_other(bench: Bench) -> None:
    answer = bench.send("POST", "/policies", {"text": LONGER, "override": "to be safe"}, user="root")
    assert (answer.status, answer.json["overridden"]) == (201, [])


def test_nobody_but_an_admin_overrides(bench: Bench) -> None:
    bench.reserve(gpus=1, run_s=HOUR_S, at="2026-03-03T12:00:00Z", at_night="finish")
    body = {"text": NOON, "override": "I want to"}
    assert bench.send("POST", "/policies", body).code == "rights.admin_only"
    checked = check_text(NOON, source="p.yaml", now=bench.now, settings=bench.home.settings)
    assert checked.policy is not None
    intent = apply_to_plan(
        checked.policy, bench.home.plans.current(), now=bench.now, settings=bench.home.settings, override="by the clock"
    )
    filed = bench.desk.file(intent, author="policy", role=Role.POLICY)
    decided = bench.desk.decision(filed.seq)
    assert decided is not None
    assert [why.code for why in decided.reasons] == [ReasonCode.ADMIN_ONLY]


def test_a_rollback_overrides_too(bench: Bench) -> None:
    apply(bench, NOON)
    apply(bench, POLICY)
    made = bench.reserve(gpus=1, run_s=HOUR_S, at="2026-03-03T12:00:00Z", at_night="finish")["id"]
    answer = bench.send("POST", "/policies/2/rollback", {"override": "back to noon"}, user="root")
    assert [one["reservation"] for one in answer.json["overridden"]] == [made]


def test_under_one_key_an_override_is_another_request(bench: Bench) -> None:
    key = {"Idempotency-Key": "p"}
    assert bench.send("POST", "/policies", {"text": LONGER}, user="root", headers=key).status == 201
    again = bench.send("POST", "/policies", {"text": LONGER, "override": "x"}, user="root", headers=key)
    assert again.code == "key.reused"


# Watches.


def test_a_watch_is_kept_and_told_once_for_each_trouble(bench: Bench) -> None:
    body = {"name": "gpu1:/etc/policy.d", "problem": "p.yaml:3:7: no"}
    for _ in range(2):
        assert bench.send("POST", "/policies/watches", body, user="root").json == body
    bench.send("POST", "/policies/watches", {**body, "problem": None}, user="root")
    kinds = [event.kind for _, event in bench.home.store.events() if event.kind.startswith("policy.watch")]
    assert kinds == ["policy.watch_failed", "policy.watch_recovered"]
    for wrong in ({"name": ""}, {"name": "x", "state": "asleep"}, {"name": "x", "problem": "x" * 4001}):
        assert bench.send("POST", "/policies/watches", wrong, user="root").code == "request.invalid"


def test_metrics_are_for_admins_and_in_the_form_of_prometheus(bench: Bench) -> None:
    assert bench.send("GET", "/metrics").code == "rights.admin_only"
    answer = bench.send("GET", "/metrics", user="root")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.body.decode().splitlines()
    assert 'nightshift_check_ok{check="database"} 1' in lines
    assert lines[-1] == "nightshift_policy_version 1"


# Diff.


def test_a_diff_of_what_holds_is_empty(bench: Bench) -> None:
    bench.reserve(gpus=4, run_s=20 * HOUR_S)
    answer = bench.send("POST", "/policies/diff", {"text": "# a comment\n" + POLICY}, user="root").json
    assert (answer["is_empty"], answer["is_refused"], answer["current"]) == (True, False, 1)
    assert answer["windows"] == answer["bookings"] == answer["broken"] == answer["owners_hit"] == []


def test_a_diff_says_what_applying_it_does(bench: Bench) -> None:
    made = bench.reserve(gpus=1, run_s=20 * HOUR_S)["id"]
    bench.pass_time(HOUR_S)
    version = bench.get("/reservations")["plan_version"]
    found = bench.send("POST", "/policies/diff", {"text": SHORTER}, user="root").json
    assert bench.get("/reservations")["plan_version"] == version
    assert (bench.filed, bench.get("/policies")["current"]) == (1, 1)
    first = found["windows"][0]
    assert (first["name"], first["hosts"]) == ("night", ["dgx2-a"])
    assert (first["before_end_at"], first["after_end_at"]) == ("2026-03-03T07:00:00Z", "2026-03-03T06:00:00Z")
    assert (first["start_moves_s"], first["end_moves_s"]) == (0, -HOUR_S)
    (booking,) = found["bookings"]
    assert (booking["reservation"], booking["owner"], booking["start_moves_s"]) == (made, "ann", 0)
    assert booking["end_moves_s"] < 0
    assert found["owners_hit"] == ["ann"]
    apply(bench, SHORTER)
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
