"""The students of the demonstration keep all that they are told and nothing else, and stop what they need no more.

The server is a transport in this process that answers as `docs/api.md` says and writes down what it was asked.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from cli.answers import KeptAnswers
from cli.demonstration.students import Notebook, School
from cli.recorded import Arrival
from cli.times import api_text
from scheduler.core.requests import ReservationId
from scheduler.core.spans import HOUR_S, Instant
from workers.drivers.simulated.log import LogLine

NOW = 1_772_442_000
ENOUGH_TURNS = 200


def reservation(number: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"r-{number}",
        "owner": "ada",
        "gpus": 2,
        "run_s": 2 * HOUR_S,
        "submitted_at": api_text(NOW),
        "not_before_at": None,
        "promise": {"start_by_at": api_text(NOW + 900), "end_by_at": api_text(NOW + 10_000)},
        "by_policy": None,
        "ended_at": None,
        "disk": None,
        "reasons": [],
        **changes,
    }


def promise(start_by_at: Instant, end_by_at: Instant) -> dict[str, str]:
    return {"start_by_at": api_text(start_by_at), "end_by_at": api_text(end_by_at)}


def noted(*answers: dict[str, Any]) -> KeptAnswers:
    now = iter(range(NOW, NOW + 1000, 100))
    notebook = Notebook(lambda: next(now))
    for answer in answers:
        notebook.note(answer)
    (kept,) = notebook.kept
    return kept


def test_a_promise_is_kept_as_the_first_answer_had_it_and_saying_it_again_adds_nothing() -> None:
    kept = noted(reservation(), reservation(), reservation())
    (told,) = kept.told
    assert (told.start_by_at, told.end_by_at, told.why) == (NOW + 900, NOW + 10_000, "")
    assert (kept.owner, kept.gpus, kept.run_s, kept.let_go_at) == ("ada", 2, 2 * HOUR_S, None)


def test_an_earlier_promise_in_a_later_answer_is_kept_beside_the_first() -> None:
    kept = noted(reservation(), reservation(promise=promise(NOW + 300, NOW + 9_000)))
    assert [told.start_by_at for told in kept.told] == [NOW + 900, NOW + 300]
    assert kept.start_by_at(up_at=None) == NOW + 300


def test_what_put_a_promise_off_is_kept_with_when_it_was_told() -> None:
    why = {
        "code": "fault.promise_broken",
        "sentence": "the host did not answer",
        "facts": {"told_at": api_text(NOW + 42), "cause": "fault"},
    }
    kept = noted(reservation(), reservation(promise=promise(NOW + 2_000, NOW + 12_000), reasons=[why]))
    assert [(told.why, told.seen_at) for told in kept.told][1] == ("the host did not answer", NOW + 42)
    assert kept.is_told
    assert not kept.is_given_up
    assert kept.start_by_at(up_at=NOW + 1_900) == NOW + 2_000


def test_a_fault_that_leaves_nothing_to_promise_gives_a_reservation_up() -> None:
    why = {"code": "fault.promise_broken", "sentence": "no place is left", "facts": {}}
    assert noted(reservation(), reservation(reasons=[why])).is_given_up


def test_the_end_and_the_retention_are_those_of_the_last_answer() -> None:
    disk = {"id": "disk-1", "size_gib": 100, "kept_until_at": api_text(NOW + 700_000)}
    kept = noted(reservation(), reservation(ended_at=api_text(NOW + 5_000), disk=disk))
    assert (kept.ended_at, kept.kept_until_at) == (NOW + 5_000, NOW + 700_000)


@dataclass
class Server:
    """Answers, and remembers what it was asked."""

    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """(who, method and path, body)"""
    answers: dict[str, Callable[[], httpx.Response]] = field(default_factory=dict)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/api/v1")
        who = request.headers["Authorization"].removeprefix("Bearer ")
        what = f"{request.method} {path}"
        self.asked.append((who, what, request.content.decode()))
        if what in self.answers:
            return self.answers[what]()
        if path == "/users":
            return httpx.Response(201, json={})
        if path.endswith("/tokens"):
            return httpx.Response(201, json={"secret": f"ns_{path.split('/')[2]}"})
        if what == "POST /reservations":
            return httpx.Response(201, json=reservation(owner=who.removeprefix("ns_")))
        if what == "GET /reservations":
            return httpx.Response(200, json={"reservations": []})
        return httpx.Response(200, json=reservation(ended_at=api_text(NOW + 5_000)))

    def did(self, what: str) -> list[tuple[str, str]]:
        return [(who, body) for who, asked, body in self.asked if asked == what]


def arrival(at: Instant, owner: str = "ada", *, needs_s: int = HOUR_S, run_s: int = 2 * HOUR_S) -> Arrival:
    return Arrival(at=at, owner=owner, gpus=2, run_s=run_s, needs_s=needs_s)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def make_school(server: Server) -> Iterator[Callable[..., School]]:
    schools: list[School] = []

    def make(*demand: Arrival) -> School:
        transport = httpx.MockTransport(server)
        school = School("http://127.0.0.1:1", "ns_admin", demand, lambda: NOW, transport=transport)
        schools.append(school)
        school.enrol(lambda: None)
        return school

    yield make
    for school in schools:
        school.close()


def settle(school: School, now: Instant) -> list[str]:
    """Let everything that is due happen and be answered; return what was said to those who got a no."""
    said = []
    for turn in range(ENOUGH_TURNS):
        said += [asked.said for asked in school.act(now, 0.01 * turn) if asked.reservation is None]
        if turn and not school.is_asking:
            return said
        school.finish_requests()
    raise AssertionError("somebody is still asking")


def line(what: str, at: Instant) -> LogLine:
    return LogLine(
        seq=1,
        at=at,
        what=what,
        domain=None,
        name=None,
        reservation=ReservationId("r-1"),
        generation=1,
        gpus=(0, 1),
        partition=None,
        detail=(),
    )


def test_everybody_who_will_ask_gets_an_account_and_a_token_of_their_own(
    server: Server, make_school: Callable[..., School]
) -> None:
    school = make_school(arrival(NOW, "bela"), arrival(NOW, "ada"), arrival(NOW + 1, "ada"))
    assert school.names == ("ada", "bela")
    assert [json.loads(body)["name"] for _, body in server.did("POST /users")] == ["ada", "bela"]
    assert {who for who, _ in server.did("POST /users")} == {"ns_admin"}


def test_nobody_asks_before_their_time_and_each_asks_once_in_their_own_name(
    server: Server, make_school: Callable[..., School]
) -> None:
    school = make_school(arrival(NOW + 50, "bela"), arrival(NOW + 20, "ada"))
    assert school.next_act_at == NOW + 20
    settle(school, NOW + 19)
    assert server.did("POST /reservations") == []
    settle(school, NOW + 20)
    settle(school, NOW + 60)
    settle(school, NOW + 61)
    assert [who for who, _ in server.did("POST /reservations")] == ["ns_ada", "ns_bela"]


def test_who_has_done_their_work_stops_and_wants_nothing_more(
    server: Server, make_school: Callable[..., School]
) -> None:
    school = make_school(arrival(NOW, needs_s=HOUR_S))
    settle(school, NOW)
    school.hear([line("guest.up", NOW + 100)])
    assert school.next_act_at == NOW + 100 + HOUR_S
    settle(school, NOW + 99 + HOUR_S)
    assert server.did("POST /reservations/r-1/stop") == []
    settle(school, NOW + 100 + HOUR_S)
    assert len(server.did("POST /reservations/r-1/stop")) == 1
    (kept,) = school.kept
    assert kept.let_go_at == NOW
    assert kept.ended_at == NOW + 5_000
    assert school.next_act_at is None


def test_work_stands_still_while_its_guest_is_parked(server: Server, make_school: Callable[..., School]) -> None:
    school = make_school(arrival(NOW, needs_s=HOUR_S))
    settle(school, NOW)
    school.hear([line("guest.up", NOW + 100), line("guest.down", NOW + 1_100), line("vm.off", NOW + 1_103)])
    assert school.next_act_at is None
    school.hear([line("guest.up", NOW + 50_000)])
    assert school.next_act_at == NOW + 50_000 + HOUR_S - 1_000


def test_a_guest_that_was_up_before_the_answer_came_is_not_missed(
    server: Server, make_school: Callable[..., School]
) -> None:
    school = make_school(arrival(NOW, needs_s=HOUR_S))
    school.hear([line("guest.up", NOW + 10)])
    settle(school, NOW)
    assert school.next_act_at == NOW + 10 + HOUR_S


def test_who_needs_all_that_they_asked_for_lets_it_run_to_its_end(
    server: Server, make_school: Callable[..., School]
) -> None:
    school = make_school(arrival(NOW, needs_s=HOUR_S, run_s=HOUR_S))
    settle(school, NOW)
    school.hear([line("guest.up", NOW + 10)])
    assert school.next_act_at is None


def test_a_stop_that_comes_after_the_end_lets_nothing_go_and_is_no_trouble(
    server: Server, make_school: Callable[..., School]
) -> None:
    server.answers["POST /reservations/r-1/stop"] = lambda: httpx.Response(
        409, json={"code": "reservation.wrong_phase", "detail": "it is ended"}
    )
    school = make_school(arrival(NOW, needs_s=HOUR_S))
    settle(school, NOW)
    school.hear([line("guest.up", NOW)])
    settle(school, NOW + HOUR_S)
    (kept,) = school.kept
    assert kept.let_go_at is None
    assert school.troubles == []


def test_a_no_is_told_with_its_reason_and_nothing_is_kept(server: Server, make_school: Callable[..., School]) -> None:
    server.answers["POST /reservations"] = lambda: httpx.Response(
        422, json={"code": "request.refused", "reasons": [{"code": "limit.reached", "sentence": "ada has too many"}]}
    )
    school = make_school(arrival(NOW))
    assert settle(school, NOW) == ["ada has too many"]
    assert school.kept == ()
    assert school.troubles == []


def test_an_answer_that_is_still_being_planned_is_read_until_it_promises(
    server: Server, make_school: Callable[..., School]
) -> None:
    server.answers["POST /reservations"] = lambda: httpx.Response(
        202, json={"intent": 1, "status": "being planned", "reservation": "r-1"}
    )
    server.answers["GET /reservations/r-1"] = lambda: httpx.Response(200, json=reservation())
    school = make_school(arrival(NOW))
    settle(school, NOW)
    (kept,) = school.kept
    assert len(kept.told) == 1


def test_the_admin_keeps_what_the_policy_asked_for_and_nothing_of_the_students(
    server: Server, make_school: Callable[..., School]
) -> None:
    both = [reservation(1), reservation(2, by_policy="nightly", owner="climate")]
    server.answers["GET /reservations"] = lambda: httpx.Response(200, json={"reservations": both})
    school = make_school()
    school.read_everything(lambda: None)
    assert [(kept.reservation, kept.by_policy) for kept in school.kept] == [("r-2", "nightly")]
