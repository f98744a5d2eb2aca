"""Reservations over HTTP: the promise, the lists, what each phase says, and who may see and do what."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from api.services import MOST_WAITING
from scheduler.core.settings import Settings
from scheduler.core.spans import DAY_S, HOUR_S
from tests.api.bench import HOST, Bench, opened
from workers.drivers.simulated.faults import Fault, FaultKind

NIGHT: dict[str, Any] = {"gpus": 16, "run_s": 6 * HOUR_S}


@pytest.fixture
def bench() -> Iterator[Bench]:
    with opened() as bench:
        yield bench


def test_a_reservation_is_answered_with_its_promise(bench: Bench) -> None:
    answer = bench.send("POST", "/reservations", {"gpus": 2, "run_s": 2 * HOUR_S})
    assert answer.status == 201
    made = answer.json
    assert answer.headers["location"] == f"/api/v1/reservations/{made['id']}"
    assert made["owner"] == "ann"
    assert made["queue"] == "interactive"
    assert made["promise"] == {"start_by_at": "2026-03-02T07:11:00Z", "end_by_at": "2026-03-02T09:11:00Z"}
    assert made["spans"][0]["gpus"] == [0, 1]
    assert made["next"] == "is starting; runs by Mon 2026-03-02 08:11"
    assert bench.get(f"/reservations/{made['id']}") == made


def test_the_queue_follows_from_the_size(bench: Bench) -> None:
    assert bench.reserve(gpus=8)["queue"] == "interactive"
    assert bench.reserve(**NIGHT)["queue"] == "hpc"


def test_a_time_that_is_asked_for_is_both_the_earliest_and_the_latest_start(bench: Bench) -> None:
    made = bench.reserve(at="2026-03-03T10:00:00+01:00")
    assert made["not_before_at"] == made["asked_start_by_at"] == "2026-03-03T09:00:00Z"
    assert made["promise"]["start_by_at"] == "2026-03-03T09:00:00Z"
    assert made["next"] == "starts by Tue 2026-03-03 10:00"


def test_at_with_another_time_is_refused(bench: Bench) -> None:
    asked = {"gpus": 1, "run_s": HOUR_S, "at": "2026-03-03T10:00:00Z", "start_by_at": "2026-03-03T11:00:00Z"}
    answer = bench.send("POST", "/reservations", asked)
    assert (answer.status, answer.code) == (422, "request.invalid")
    assert answer.json["errors"][0]["field"] == "at"
    assert bench.filed == 0


def test_like_takes_what_is_not_said_from_an_earlier_one(bench: Bench) -> None:
    first = bench.reserve(
        gpus=4, run_s=2 * HOUR_S, image="debian", disk_gib=50, at_night="finish", ssh_key="ssh-rsa AAAA a"
    )
    second = bench.send("POST", "/reservations", {"like": first["id"], "run_s": HOUR_S}).json
    same = ("gpus", "queue", "image", "disk_gib", "at_boundary")
    assert {name: second[name] for name in same} == {name: first[name] for name in same}
    assert second["run_s"] == HOUR_S
    # Another size is another queue's business, and its disk too.
    other = bench.send("POST", "/reservations", {"like": first["id"], "gpus": 16}).json
    assert (other["queue"], other["at_boundary"], other["disk_gib"]) == ("hpc", "finish", 100)


def test_less_than_a_share_is_shown_kept_when_it_goes_on_and_refused_out_of_range(bench: Bench) -> None:
    made = bench.reserve(gpus=2, memory_gib=64, vcpus=4)
    assert (made["memory_gib"], made["vcpus"]) == (64, 4)
    whole = bench.reserve(gpus=2)
    assert (whole["memory_gib"], whole["vcpus"]) == (None, None)
    bench.pass_time(900)
    assert bench.send("POST", f"/reservations/{made['id']}/extend", {"by_s": 60}).json["memory_gib"] == 64
    assert bench.send("POST", f"/reservations/{made['id']}/stop").status == 200
    bench.pass_time(HOUR_S)
    gone_on = bench.send("POST", f"/reservations/{made['id']}/start").json
    assert (gone_on["memory_gib"], gone_on["vcpus"], gone_on["continues"]) == (64, 4, made["id"])
    for path in ("/reservations", "/quotes"):
        answer = bench.send("POST", path, {"gpus": 2, "run_s": HOUR_S, "memory_gib": 181, "vcpus": 4})
        reasons = answer.json["reasons"]
        assert reasons[0]["code"] == "request.bad_share"
        assert reasons[0]["facts"] == {
            "field": "memory_gib", "unit": "GiB of memory", "value": 181, "gpus": 2, "least": 1, "most": 180
        }  # fmt: skip
    zero = bench.send("POST", "/reservations", {"gpus": 2, "run_s": HOUR_S, "vcpus": 0})
    assert (zero.status, zero.code) == (422, "request.invalid")


def test_without_size_and_length_there_is_no_ask(bench: Bench) -> None:
    answer = bench.send("POST", "/reservations", {})
    assert (answer.status, answer.code) == (422, "request.invalid")
    assert [error["field"] for error in answer.json["errors"]] == ["gpus", "run_s"]


def test_a_no_has_all_its_reasons_and_is_kept(bench: Bench) -> None:
    answer = bench.send("POST", "/reservations", {"gpus": 3, "run_s": 10 * 365 * DAY_S, "image": "none"})
    assert (answer.status, answer.code) == (422, "request.refused")
    document = answer.json
    codes = [why["code"] for why in document["reasons"]]
    assert codes == ["request.bad_duration", "request.unknown_size", "request.unknown_image", "request.instead"]
    assert document["detail"] == document["reasons"][0]["sentence"]
    kept = bench.get(f"/reservations/{document['reservation']}")
    assert (kept["phase"], kept["outcome"], kept["promise"]) == ("refused", "refused", None)
    assert kept["next"].startswith("was refused: a duration of ")


def test_instants_in_reasons_are_text_in_facts_and_local_in_sentences(bench: Bench) -> None:
    answer = bench.send("POST", "/reservations", {"gpus": 1, "run_s": HOUR_S, "at": "2026-03-01T10:00:00Z"})
    why = answer.json["reasons"][0]
    assert why["facts"] == {"now_at": "2026-03-02T07:00:00Z", "wanted_at": "2026-03-01T10:00:00Z"}
    assert "Sun 2026-03-01 11:00 is in the past (now is Mon 2026-03-02 08:00)" in why["sentence"]


def test_the_limit_of_open_reservations_holds(bench: Bench) -> None:
    for _ in range(20):
        bench.reserve(run_s=HOUR_S)
    answer = bench.send("POST", "/reservations", {"gpus": 1, "run_s": HOUR_S})
    assert answer.json["reasons"][0]["code"] == "limit.reached"


def test_what_is_being_planned_is_answered_with_where_to_look(bench: Bench) -> None:
    bench.wake.is_away = True
    answer = bench.send("POST", "/reservations", {"gpus": 1, "run_s": HOUR_S})
    seq = answer.json["intent"]
    assert answer.status == 202
    assert answer.json == {"intent": seq, "status": "being planned", "reservation": f"r-{seq}"}
    assert answer.headers["location"] == f"/api/v1/intents/{seq}"
    assert bench.get(f"/intents/{seq}") == {"intent": seq, "status": "open", "reservation": f"r-{seq}", "reasons": []}
    assert bench.send("GET", f"/intents/{seq}", user="ben").code == "intent.unknown"
    bench.wake.is_away = False
    bench.home.plan_task.run()
    assert bench.get(f"/intents/{seq}")["status"] == "accepted"
    assert bench.get(f"/reservations/r-{seq}")["phase"] == "starting"


def test_what_is_being_planned_is_known_and_can_be_given_up(bench: Bench) -> None:
    bench.wake.is_away = True
    made = bench.send("POST", "/reservations", {"gpus": 1, "run_s": HOUR_S}).json["reservation"]
    answer = bench.send("GET", f"/reservations/{made}")
    assert (answer.status, answer.code, answer.json["retryable"]) == (404, "reservation.being_planned", True)
    for method, path in (("GET", ""), ("POST", "/cancel")):
        assert bench.send(method, f"/reservations/{made}{path}", user="ben").code == "reservation.unknown"
    assert bench.send("POST", f"/reservations/{made}/cancel").status == 202
    bench.wake.is_away = False
    bench.home.plan_task.run()
    assert bench.get(f"/reservations/{made}")["phase"] == "cancelled"


def test_while_many_wait_for_a_decision_the_next_are_told_at_once_that_it_is_being_planned() -> None:
    with opened(settings=replace(Settings(), decision_wait_machine_s=60.0)) as bench:
        bench.wake.is_away = True
        for _ in range(MOST_WAITING):
            assert bench.services.waiting.acquire(blocking=False)
        assert bench.send("POST", "/reservations", {"gpus": 1, "run_s": HOUR_S}).status == 202
        bench.services.waiting.release()
        bench.wake.is_away = False
        assert bench.send("POST", "/reservations", {"gpus": 1, "run_s": HOUR_S}).status == 201
        assert bench.services.waiting.acquire(blocking=False)


def test_a_guest_that_shut_itself_down_is_told_by_when_to_restart_it(bench: Bench) -> None:
    made = bench.reserve(gpus=2, run_s=3 * HOUR_S)["id"]
    bench.pass_time(600)
    bench.home.racks[HOST].inject(Fault(kind=FaultKind.GUEST_SHUTDOWN, subject=made, at=bench.now + 30))
    bench.pass_time(120)
    bench.home.wake.host(HOST)
    bench.home.look()
    told = bench.get(f"/reservations/{made}")["next"]
    assert told == "its guest shut itself down; restart it by Mon 2026-03-02 08:22, or it ends then"
    assert bench.send("POST", f"/reservations/{made}/restart").json["next"].startswith("is starting again")
    bench.pass_time(300)
    assert bench.get(f"/reservations/{made}")["phase"] == "running"


def test_asked_twice_under_one_key_is_asked_once(bench: Bench) -> None:
    asked, key = {"gpus": 1, "run_s": HOUR_S}, {"Idempotency-Key": "8e03978e-40d5"}
    first = bench.send("POST", "/reservations", asked, headers=key)
    again = bench.send("POST", "/reservations", asked, headers=key)
    assert (first.status, again.status) == (201, 201)
    assert first.json["id"] == again.json["id"]
    assert len(bench.get("/reservations")["reservations"]) == 1
    other = bench.send("POST", "/reservations", {"gpus": 2, "run_s": HOUR_S}, headers=key)
    assert (other.status, other.code) == (409, "key.reused")
    elsewhere = bench.send("POST", f"/reservations/{first.json['id']}/cancel", headers=key)
    assert (elsewhere.status, elsewhere.code) == (409, "key.reused")
    # A key is its user's own.
    assert bench.send("POST", "/reservations", asked, headers=key, user="ben").json["owner"] == "ben"


def test_a_key_does_not_make_a_reservation_look_like_a_policys(bench: Bench) -> None:
    key = {"Idempotency-Key": "course@2026-03-03T10:00#1"}
    made = bench.send("POST", "/reservations", {"gpus": 1, "run_s": HOUR_S}, headers=key).json
    assert made["by_policy"] is None
    assert bench.home.plans.current().reservations[made["id"]].request.key is None


def test_a_repeated_no_is_the_same_no(bench: Bench) -> None:
    key = {"Idempotency-Key": "k"}
    first = bench.send("POST", "/reservations", {"gpus": 3, "run_s": HOUR_S}, headers=key)
    again = bench.send("POST", "/reservations", {"gpus": 3, "run_s": HOUR_S}, headers=key)
    assert first.status == again.status == 422
    assert first.json == again.json


def test_what_a_policy_asks_for_names_its_entry() -> None:
    policy = """
version: 1
zone: Europe/Berlin
layouts:
  day: {sizes: [1, 2], queues: [interactive]}
outside: day
queues:
  interactive: {at_boundary: park}
images: [ubuntu]
reserve:
  - {name: course, cron: "0 10 * * mon", for: 2h, gpus: 2, queue: interactive, owner: dl-course, ahead: 1d}
"""
    with opened(policy=policy) as bench:
        listed = bench.get("/reservations?owner=dl-course", user="root")["reservations"]
        assert [one["by_policy"] for one in listed] == ["course"]


def test_students_have_their_own_only(bench: Bench) -> None:
    mine = bench.reserve()["id"]
    for method, path, body in (
        ("GET", f"/reservations/{mine}", None),
        ("GET", f"/reservations/{mine}/why", None),
        ("POST", f"/reservations/{mine}/cancel", {}),
        ("POST", f"/reservations/{mine}/stop", {}),
        ("POST", f"/reservations/{mine}/restart", {}),
        ("POST", f"/reservations/{mine}/start", {}),
        ("POST", f"/reservations/{mine}/extend", {"by_s": 60}),
        ("POST", "/reservations", {"like": mine}),
        ("POST", "/reservations", {"gpus": 1, "run_s": 60, "continues": mine}),
        ("POST", "/quotes", {"like": mine}),
    ):
        foreign = bench.send(method, path, body, user="ben")
        missing = bench.send(method, path.replace(mine, "r-999"), body and _renamed(body, mine), user="ben")
        assert (foreign.status, foreign.code) == (404, "reservation.unknown"), path
        assert foreign.body.replace(mine.encode(), b"") == missing.body.replace(b"r-999", b""), path
    assert bench.get("/reservations", user="ben")["reservations"] == []
    assert bench.filed == 1
    assert bench.get(f"/reservations/{mine}", user="root")["owner"] == "ann"


def _renamed(body: Mapping[str, object], name: str) -> dict[str, object]:
    return {key: "r-999" if value == name else value for key, value in body.items()}


def test_only_an_admin_reserves_for_somebody_else_or_lists_them(bench: Bench) -> None:
    asked = {"gpus": 1, "run_s": HOUR_S, "owner": "ben"}
    assert bench.send("POST", "/reservations", asked).code == "rights.admin_only"
    assert bench.send("GET", "/reservations?owner=ben").code == "rights.admin_only"
    assert bench.filed == 0
    made = bench.send("POST", "/reservations", asked, user="root").json
    assert made["owner"] == "ben"
    listed = bench.get("/reservations?owner=ben", user="root")["reservations"]
    assert [one["id"] for one in listed] == [made["id"]]
    assert bench.reserve(owner="ann")["owner"] == "ann"


def test_the_list_is_newest_first_and_can_be_narrowed(bench: Bench) -> None:
    ids = [bench.reserve()["id"] for _ in range(3)]
    later = bench.reserve(at="2026-03-05T09:00:00Z")["id"]
    listed = bench.get("/reservations")
    assert [one["id"] for one in listed["reservations"]] == [later, *reversed(ids)]
    assert listed["now"] == "2026-03-02T07:00:00Z"
    assert [one["id"] for one in bench.get("/reservations?phase=promised")["reservations"]] == [later]
    assert [one["id"] for one in bench.get("/reservations?limit=2")["reservations"]] == [later, ids[2]]


def test_what_ended_over_a_day_ago_is_listed_only_when_asked_for(bench: Bench) -> None:
    made = bench.reserve()["id"]
    refused = bench.send("POST", "/reservations", {"gpus": 3, "run_s": HOUR_S}).json["reservation"]
    bench.pass_time(3 * HOUR_S)
    assert {one["id"]: one["phase"] for one in bench.get("/reservations")["reservations"]} == {
        made: "ended",
        refused: "refused",
    }
    # Past retention the disk is gone, the plan forgets it, and the hours are still known.
    bench.pass_time(9 * DAY_S)
    assert bench.get("/reservations")["reservations"] == []
    told = {one["id"]: one for one in bench.get("/reservations?all=true")["reservations"]}
    assert set(told) == {made, refused}
    assert (told[made]["phase"], told[made]["delivered_s"], told[made]["disk"]) == ("ended", HOUR_S, None)
    assert [one["id"] for one in bench.get("/reservations?all=true&phase=refused")["reservations"]] == [refused]


def test_a_night_as_its_people_see_it(bench: Bench) -> None:
    bench.pass_time(10 * HOUR_S)
    tenant = bench.reserve(gpus=2, run_s=5 * HOUR_S)["id"]
    job = bench.reserve(user="ben", **NIGHT)["id"]
    bench.pass_time(HOUR_S)
    seen = bench.get(f"/reservations/{tenant}")
    assert seen["phase"] == "running"
    assert seen["next"] == "runs until Mon 2026-03-02 20:00, then it is parked; resumes by Tue 2026-03-03 08:11"
    assert seen["vm"]["running_at"] == "2026-03-02T17:01:02Z"
    assert seen["delivered_s"] == HOUR_S - 62
    assert bench.get(f"/reservations/{tenant}/why")["reasons"] == []
    bench.pass_time(HOUR_S + 1800)
    seen = bench.get(f"/reservations/{tenant}")
    assert (seen["phase"], seen["vm"]) == ("parked", None)
    assert seen["next"] == "is parked; resumes by Tue 2026-03-03 08:11"
    why = bench.get(f"/reservations/{tenant}/why")
    assert [reason["code"] for reason in why["reasons"]] == ["wait.booked_later", "wait.window_end"]
    assert bench.get(f"/reservations/{job}", user="ben")["phase"] == "running"
    bench.pass_time(14 * HOUR_S)
    seen = bench.get(f"/reservations/{tenant}")
    assert (seen["phase"], seen["delivered_s"]) == ("ended", 5 * HOUR_S)
    assert [span["is_pinned"] for span in seen["spans"]] == [True, True]
    assert seen["reasons"][0]["code"] == "end.hours_delivered"


def test_a_running_one_is_extended_and_stopped_and_started_again_with_its_disk(bench: Bench) -> None:
    made = bench.reserve(gpus=2, run_s=2 * HOUR_S)
    bench.pass_time(1800)
    longer = bench.send("POST", f"/reservations/{made['id']}/extend", {"by_s": HOUR_S})
    assert longer.status == 200
    assert longer.json["run_s"] == 3 * HOUR_S
    stopped = bench.send("POST", f"/reservations/{made['id']}/stop").json
    assert (stopped["phase"], stopped["outcome"]) == ("stopping", "stopped")
    assert "its disk is kept until Mon 2026-03-09" in stopped["next"]
    bench.pass_time(600)
    assert bench.get(f"/reservations/{made['id']}")["next"].startswith("stopped at Mon 2026-03-02 08:30; its disk")
    again = bench.send("POST", f"/reservations/{made['id']}/start")
    assert again.status == 201
    started = again.json
    assert started["run_s"] == 3 * HOUR_S - stopped["delivered_s"]
    assert (started["continues"], started["gpus"]) == (made["id"], 2)
    assert started["disk"]["id"] == made["disk"]["id"]
    assert bench.get(f"/reservations/{made['id']}")["disk"] is None
    once_more = bench.send("POST", f"/reservations/{made['id']}/start")
    assert (once_more.status, once_more.code) == (409, "reservation.wrong_phase")
    assert f"its disk went on with {started['id']}" in once_more.json["detail"]
    assert bench.get(f"/reservations/{made['id']}")["next"].endswith(f"; its disk went on with {started['id']}")


def test_starting_again_under_one_key_starts_once(bench: Bench) -> None:
    made = bench.reserve(gpus=2, run_s=2 * HOUR_S)["id"]
    bench.pass_time(1800)
    bench.send("POST", f"/reservations/{made}/stop")
    key = {"Idempotency-Key": "once"}
    first = bench.send("POST", f"/reservations/{made}/start", headers=key)
    bench.pass_time(30)
    again = bench.send("POST", f"/reservations/{made}/start", headers=key)
    assert (first.status, again.status) == (201, 201)
    assert first.json["id"] == again.json["id"]


def test_what_was_delivered_whole_needs_a_length_to_be_started_again(bench: Bench) -> None:
    made = bench.reserve()["id"]
    bench.pass_time(2 * HOUR_S)
    answer = bench.send("POST", f"/reservations/{made}/start", {})
    assert (answer.status, answer.code) == (409, "reservation.nothing_left")
    assert bench.send("POST", f"/reservations/{made}/start", {"run_s": HOUR_S}).status == 201


@pytest.mark.parametrize(
    ("action", "body", "said"),
    [
        ("stop", {}, "it cannot be stopped now"),
        ("restart", {}, "it cannot be restarted now"),
        ("start", {}, "it cannot be continued now"),
    ],
)
def test_what_a_phase_does_not_allow_is_a_conflict(bench: Bench, action: str, body: object, said: str) -> None:
    # Booked for tomorrow: there is nothing to stop, and nothing to go on with.
    made = bench.reserve(at="2026-03-03T09:00:00Z")["id"]
    answer = bench.send("POST", f"/reservations/{made}/{action}", body)
    assert (answer.status, answer.code) == (409, "reservation.wrong_phase")
    assert said in answer.json["detail"]


def test_a_cancelled_one_is_over(bench: Bench) -> None:
    made = bench.reserve()["id"]
    assert bench.send("POST", f"/reservations/{made}/cancel", {}).json["phase"] == "cancelled"
    again = bench.send("POST", f"/reservations/{made}/cancel")
    assert (again.status, again.json["detail"]) == (
        409,
        f"reservation {made} is cancelled; it cannot be cancelled now",
    )


def test_an_extension_into_somebody_elses_time_names_what_is_there(bench: Bench) -> None:
    mine = bench.reserve(gpus=8, run_s=2 * HOUR_S, at_night="finish")["id"]
    bench.reserve(gpus=8, run_s=2 * HOUR_S, user="ben")
    for number in range(2):
        bench.reserve(gpus=8, run_s=5 * HOUR_S, user="ben", at="2026-03-02T10:00:00Z", at_night="finish")
        assert number < 2
    answer = bench.send("POST", f"/reservations/{mine}/extend", {"by_s": 4 * HOUR_S})
    assert (answer.status, answer.code) == (422, "request.refused")
    assert answer.json["reasons"][0]["code"] == "reservation.no_room_to_extend"
    assert "ben" not in answer.body.decode()


def test_before_a_policy_is_applied_the_answer_says_so() -> None:
    with opened(policy=None) as bench:
        answer = bench.send("POST", "/reservations", {"gpus": 1, "run_s": HOUR_S})
        assert answer.status == 422
        assert answer.json["detail"] == "no policy is applied yet; an admin must apply one first"
        assert bench.get("/reservations/" + answer.json["reservation"])["phase"] == "refused"
