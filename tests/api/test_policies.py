"""Policies over HTTP: checked, applied whole or not at all, listed."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from scheduler.core.spans import HOUR_S
from tests.api.bench import POLICY, Bench, opened

LONGER = POLICY.replace("for: 12h", "for: 13h")
WARNED = POLICY + "  - {name: gone, layout: night, opens: '0 20 29 feb *', for: 12h, hosts: ['dgx2-*']}\n"
WRONG = POLICY.replace("zone: Europe/Berlin", "zone: Europe/Berln").replace("images:", "image:")


@pytest.fixture
def bench() -> Iterator[Bench]:
    with opened() as bench:
        yield bench


def test_a_policy_is_applied_with_its_windows(bench: Bench) -> None:
    answer = bench.send("POST", "/policies", {"text": LONGER, "source": "longer.yaml"}, user="root")
    assert answer.status == 201
    assert answer.headers["location"] == "/api/v1/policies/2"
    assert (answer.json["version"], answer.json["is_current"], answer.json["problems"]) == (2, True, [])
    assert answer.json["author"] == "root"
    listed = bench.get("/policies")
    assert listed["current"] == 2
    assert [(one["version"], one["is_current"]) for one in listed["policies"]] == [(2, True), (1, False)]
    assert bench.get("/policies/2")["text"] == LONGER
    assert bench.get("/policies/1")["is_current"] is False
    assert bench.get("/calendar")["windows"][0]["end_at"] == "2026-03-03T08:00:00Z"
    assert bench.home.plans.current().rules is not None
    assert (
        bench.home.plans.current()
        .windows[next(iter(bench.home.plans.current().windows))]
        .source.startswith("longer.yaml:")
    )


def test_a_policy_with_errors_is_refused_with_all_of_them_by_line(bench: Bench) -> None:
    for path, status in (("/policies", 422), ("/policies/check", 200)):
        answer = bench.send("POST", path, {"text": WRONG, "source": "p.yaml"}, user="root")
        assert answer.status == status
        problems = answer.json["problems"]
        assert [(one["line"], one["severity"]) for one in problems] == [(3, "error"), (11, "error")]
        assert "did you mean Europe/Berlin?" in problems[0]["message"]
    refused = bench.send("POST", "/policies", {"text": WRONG, "source": "p.yaml"}, user="root")
    assert refused.code == "policy.invalid"
    assert refused.json["detail"].startswith("p.yaml:")
    assert bench.get("/policies")["current"] == 1
    assert bench.filed == 0


def test_a_check_applies_nothing(bench: Bench) -> None:
    answer = bench.send("POST", "/policies/check", {"text": LONGER}, user="root")
    assert answer.json == {"ok": True, "problems": []}
    assert bench.get("/policies")["current"] == 1


def test_warnings_are_told_and_do_not_keep_a_policy_from_being_applied(bench: Bench) -> None:
    checked = bench.send("POST", "/policies/check", {"text": WARNED}, user="root").json
    assert (checked["ok"], [one["severity"] for one in checked["problems"]]) == (True, ["warning"])
    applied = bench.send("POST", "/policies", {"text": WARNED}, user="root")
    assert applied.status == 201
    assert applied.json["problems"] == checked["problems"]


def test_a_policy_that_breaks_a_promise_is_refused_and_says_whose(bench: Bench) -> None:
    made = bench.reserve(gpus=1, run_s=HOUR_S, at="2026-03-03T12:00:00Z", at_night="finish")["id"]
    noon = POLICY.replace('opens: "0 20 * * *"', 'opens: "0 12 * * *"')
    answer = bench.send("POST", "/policies", {"text": noon}, user="root")
    assert (answer.status, answer.code) == (422, "request.refused")
    assert answer.json["reasons"][0]["code"] == "policy.breaks_promise"
    assert made in answer.json["detail"]
    assert bench.get("/policies")["current"] == 1


def test_a_policy_is_applied_once_under_one_key(bench: Bench) -> None:
    key = {"Idempotency-Key": "p"}
    first = bench.send("POST", "/policies", {"text": LONGER}, user="root", headers=key)
    bench.pass_time(60)
    again = bench.send("POST", "/policies", {"text": LONGER}, user="root", headers=key)
    assert first.json["version"] == again.json["version"] == 2
    assert bench.get("/policies")["current"] == 2
    assert bench.send("POST", "/policies", {"text": POLICY}, user="root", headers=key).code == "key.reused"


def test_a_host_that_came_meanwhile_has_windows_all_the_same(bench: Bench) -> None:
    # The windows are made of a plan that has moved on when the intent is decided.
    stale = bench.home.plans.current()
    bench.send("POST", "/hosts", {"id": "dgx2-b", "profile": "dgx-2"}, user="root")
    fresh = bench.services.plans.current
    answers = iter((stale, stale))
    bench.services.plans.current = lambda: next(answers, None) or fresh()  # type: ignore[method-assign]
    answer = bench.send("POST", "/policies", {"text": LONGER}, user="root")
    assert answer.status == 201
    covered = {host for window in fresh().windows.values() for host in window.hosts}
    assert covered == {"dgx2-a", "dgx2-b"}


def test_students_read_policies_and_do_not_apply_them(bench: Bench) -> None:
    assert bench.get("/policies/1")["text"] == POLICY
    for path in ("/policies", "/policies/check"):
        assert bench.send("POST", path, {"text": LONGER}).code == "rights.admin_only"
    for version in ("0", "7", "x", "-1", "1.0", "9" * 40):
        assert bench.send("GET", f"/policies/{version}").code == "policy.unknown"


def test_a_policy_may_be_as_large_as_a_policy_may_be(bench: Bench) -> None:
    padded = LONGER + "# a comment\n" * 40_000
    assert len(padded) > 400_000
    assert bench.send("POST", "/policies", {"text": padded}, user="root", parts=9).status == 201
    assert bench.send("POST", "/policies", {"text": "x" * (1024 * 1024 + 1)}, user="root").status == 422
    assert bench.send("POST", "/policies", {"text": "x" * (1200 * 1024)}, user="root").code == "body.too_large"


def test_a_host_is_not_added_under_a_policy_that_cannot_be_read(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    record = bench.home.store.policy(1)
    assert record is not None
    monkeypatch.setattr(bench.home.store, "policy", lambda _: replace(record, text="version: 99"))
    answer = bench.send("POST", "/hosts", {"id": "dgx2-b", "profile": "dgx-2"}, user="root")
    assert (answer.status, answer.code) == (409, "policy.unreadable")
    assert bench.filed == 0
