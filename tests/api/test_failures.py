"""What is not understood, what is too much, and what fails on our side: each with its own answer, and none in part."""

import asyncio
import json
import logging
from collections.abc import Iterator

import pytest
from starlette.types import Message, Receive, Scope, Send

from api.bodies import MOST_BYTES, BodyLimits
from api.problems import Problem
from scheduler.core.errors import StalePlan, StoreBusy
from scheduler.core.plan import Decided
from scheduler.core.reasons import ReasonCode, reason
from scheduler.core.spans import HOUR_S
from scheduler.store.failures import SchemaTooOld
from tests.api.bench import Bench, CountingDesk, opened

GOOD = {"gpus": 1, "run_s": HOUR_S}


@pytest.fixture
def bench() -> Iterator[Bench]:
    with opened() as bench:
        yield bench


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b'{"gpus":1,"gpus":2,"run_s":3600}', "the key 'gpus' is there twice"),
        (b'{"gpus":NaN,"run_s":3600}', "NaN is no number"),
        (b'{"gpus":Infinity,"run_s":3600}', "Infinity is no number"),
        (b'{"gpus":1e400,"run_s":3600}', "1e400 is too large"),
        (b'{"gpus":' + b"9" * 5000 + b"}", "more than 18 digits"),
        (b'{"image":"\\ud800"}', "half a surrogate pair"),
        (b'{"\\udfff":1}', "half a surrogate pair"),
        (b'{"image":"a\\u0000"}', "NUL"),
        (b'{"image":"a\nb"}', "control character"),
        (b"[" * 60_000, "nested too deeply"),
        (b'{"a":' * 30 + b"1" + b"}" * 30, "nested more than 16 deep"),
        (b"[" + b"1," * 20_000 + b"1]", "more than 10000 values"),
        (b"\xff", "byte 0 is not UTF-8"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b'{"gpus":1', "line 1, column"),
        (b"gpus=1", "line 1, column 1"),
        (b" ", "line 1, column"),
    ],
)
def test_a_body_that_is_not_plain_json_is_refused_before_anything_else(bench: Bench, raw: bytes, said: str) -> None:
    answer = bench.send("POST", "/reservations", raw=raw)
    assert (answer.status, answer.code) == (400, "body.unreadable")
    assert said.lower() in answer.json["detail"].lower()
    assert bench.filed == 0


@pytest.mark.parametrize(
    ("body", "field", "problem"),
    [
        ({**GOOD, "gpus": "1"}, "gpus", "give a whole number"),
        ({**GOOD, "gpus": True}, "gpus", "give a whole number"),
        ({**GOOD, "gpus": 1.0}, "gpus", "give a whole number"),
        ({**GOOD, "gpus": 0}, "gpus", "give at least 1"),
        ({**GOOD, "gpus": 10**17}, "gpus", "give at most 1024"),
        ({**GOOD, "run_s": -1}, "run_s", "give at least 1"),
        ({**GOOD, "image": 3}, "image", "give a text"),
        ({**GOOD, "image": ""}, "image", "it is empty"),
        ({**GOOD, "image": "x" * 65}, "image", "give at most 64 characters"),
        ({**GOOD, "at_night": "PARK"}, "at_night", "use 'park', 'finish' or 'keep'"),
        ({**GOOD, "at": "2026-03-02T09:00:00"}, "at", "write it with its zone and whole seconds"),
        ({**GOOD, "at": "2026-03-02 09:00"}, "at", "write it with its zone and whole seconds"),
        ({**GOOD, "at": 1772434800}, "at", "write it with its zone and whole seconds"),
        ({**GOOD, "at": "2026-03-02T09:00:00.5Z"}, "at", "write it with its zone and whole seconds"),
        ({**GOOD, "at": "2026-02-30T09:00:00Z"}, "at", "there is no such day or time"),
        ({**GOOD, "at": "1900-01-01T00:00:00Z"}, "at", "use a year from 1970 to 9999"),
        ({**GOOD, "owner": "a/b"}, "owner", "it has to be of the form"),
        ({**GOOD, "continues": "d-3"}, "continues", "it has to be of the form"),
        ({**GOOD, "gpu": 2}, "gpu", "there is no such field"),
        ({"run_s": HOUR_S, "like": None}, "gpus", "it is missing"),
        ([GOOD], "body", "give a JSON object"),
        ("x", "body", "give a JSON object"),
    ],
)
def test_a_field_that_is_not_acceptable_is_named(bench: Bench, body: object, field: str, problem: str) -> None:
    answer = bench.send("POST", "/reservations", body)
    assert (answer.status, answer.code) == (422, "request.invalid")
    told = answer.json["errors"][0]
    assert told["field"] == field
    assert problem in told["problem"]
    assert bench.filed == 0


def test_a_whole_second_may_be_written_with_zeros_and_any_zone(bench: Bench) -> None:
    made = bench.reserve(at="2026-03-03T10:00:00.000+01:00")
    assert made["asked_start_by_at"] == "2026-03-03T09:00:00Z"


def test_a_private_key_is_refused_and_goes_nowhere(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    key = "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----"
    with caplog.at_level(logging.DEBUG):
        answer = bench.send("POST", "/reservations", {**GOOD, "ssh_key": key})
        long = bench.send("POST", "/reservations", {**GOOD, "ssh_key": key * 400})
    assert (answer.status, answer.code) == (422, "request.invalid")
    assert "send the line in the .pub file beside it" in answer.json["detail"]
    assert "c2VjcmV0" not in answer.body.decode() + long.body.decode() + caplog.text
    assert bench.filed == 0


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/json; charset=utf-16"],
)
def test_a_body_of_another_kind_is_refused(bench: Bench, kind: str) -> None:
    answer = bench.send("POST", "/reservations", GOOD, headers={"Content-Type": kind})
    assert (answer.status, answer.code) == (415, "body.not_json")
    packed = bench.send("POST", "/reservations", GOOD, headers={"Content-Encoding": "gzip"})
    assert (packed.status, packed.code) == (415, "body.not_json")


def test_too_large_a_body_is_refused_while_it_comes_in(bench: Bench) -> None:
    large = json.dumps({**GOOD, "image": "x" * MOST_BYTES}).encode()
    for headers in ({}, {"Content-Length": str(len(large))}, {"Content-Length": "9" * 30}):
        answer = bench.send("POST", "/reservations", raw=large, parts=20, headers=headers)
        assert (answer.status, answer.code) == (413, "body.too_large")
        assert answer.headers["connection"] == "close"
    assert bench.filed == 0


def test_a_body_may_come_in_parts(bench: Bench) -> None:
    assert bench.send("POST", "/reservations", GOOD, parts=7).status == 201


def test_a_body_that_does_not_come_in_is_not_waited_for() -> None:
    sent: list[Message] = []

    async def never() -> Message:
        await asyncio.sleep(3600)
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    async def nobody(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError

    scope: Scope = {"type": "http", "method": "POST", "path": "/api/v1/reservations", "headers": []}
    with pytest.raises(Problem) as raised:
        asyncio.run(BodyLimits(nobody, longest_s=0.01)(scope, never, send))
    assert (raised.value.status, raised.value.code) == (408, "body.too_slow")
    assert raised.value.headers == {"Connection": "close"}
    assert sent == []


def test_query_parameters_that_mean_nothing_are_refused(bench: Bench) -> None:
    for path in ("/reservations?onwer=ann", "/me?x=1", "/calendar?limit=3", "/hosts?=1"):
        answer = bench.send("GET", path)
        assert (answer.status, answer.code) == (422, "request.invalid"), path
    twice = bench.send("GET", "/reservations?limit=1&limit=2")
    assert "it is there twice" in twice.json["detail"]


def test_what_is_not_there_and_what_cannot_be_done_are_problems_too(bench: Bench) -> None:
    for path in ("/nope", "/reservations/", "/reservations/r-1/x", "/docs"):
        assert bench.send("GET", path).code == "path.unknown"
    answer = bench.send("DELETE", "/reservations")
    assert (answer.status, answer.code) == (405, "method.not_allowed")
    assert answer.headers["allow"] == "GET, POST"
    assert bench.connection.send("GET", "/").code == "path.unknown"


def test_a_busy_database_is_told_with_when_to_try_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: object, **__: object) -> object:
        raise StoreBusy("the database was busy for more than 5 s; try again")

    monkeypatch.setattr(bench.home.store, "file_intent", busy)
    answer = bench.send("POST", "/reservations", GOOD)
    assert (answer.status, answer.code) == (503, "store.busy")
    assert answer.headers["retry-after"] == "1"
    assert answer.json["retryable"] is True
    monkeypatch.setattr(bench.home.store, "plan_version", busy)
    assert bench.send("GET", "/status", user=None).status == 503
    assert bench.send("GET", "/calendar").status == 503


def test_what_is_ours_to_retry_does_not_leak_as_a_defect(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(*_: object, **__: object) -> object:
        raise StalePlan("the plan moved on")

    monkeypatch.setattr(bench.home.store, "file_intent", stale)
    assert bench.send("POST", "/reservations", GOOD).status == 503


def test_a_database_that_is_not_migrated_is_no_fault_of_the_request(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_old(*_: object, **__: object) -> object:
        raise SchemaTooOld("the database is not migrated to this version; migrate it first")

    monkeypatch.setattr(bench.home.store, "plan_version", too_old)
    answer = bench.send("GET", "/status", user=None)
    assert (answer.status, answer.code, answer.json["retryable"]) == (500, "store.schema_too_old", False)


def test_a_defect_is_answered_with_a_number_that_is_in_the_log(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def defect(*_: object, **__: object) -> object:
        raise ZeroDivisionError("secret particulars")

    monkeypatch.setattr(bench.home.store, "reservations", defect)
    with caplog.at_level(logging.ERROR, logger="api"):
        answer = bench.send("GET", "/reservations")
    assert (answer.status, answer.code) == (500, "defect")
    assert "particulars" not in answer.body.decode().replace("with all particulars", "")
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage() == f"defect id={answer.json['id']}"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)


def test_a_defect_in_planning_is_a_refusal_of_ours(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    made = bench.reserve()["id"]
    why = reason(ReasonCode.DEFECT, problem="KeyError in a cancel")
    monkeypatch.setattr(CountingDesk, "decision", lambda _, seq: Decided(seq=seq, reasons=(why,)))
    answer = bench.send("POST", f"/reservations/{made}/cancel")
    assert (answer.status, answer.code) == (500, "defect")
    assert "nothing was changed" in answer.json["detail"]
