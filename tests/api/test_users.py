"""Users and tokens over HTTP: who may make, list and revoke what; and that a token that is gone opens nothing."""

import logging
from collections.abc import Iterator

import pytest

from tests.api.bench import Bench, opened

ADMIN = "root"


@pytest.fixture
def bench() -> Iterator[Bench]:
    with opened() as bench:
        yield bench


def test_an_admin_adds_a_user_whose_token_works(bench: Bench) -> None:
    added = bench.send("POST", "/users", {"name": "carl", "role": "student"}, user="root")
    assert added.status == 201
    assert added.json == {"name": "carl", "role": "student", "created_at": "2026-03-02T07:00:00Z", "is_disabled": False}
    issued = bench.send("POST", "/users/carl/tokens", {"label": "laptop"}, user="root")
    assert issued.status == 201
    assert issued.headers["cache-control"] == "no-store"
    bench.secrets["carl"] = issued.json["secret"]
    assert bench.get("/me", user="carl")["name"] == "carl"
    assert [one["name"] for one in bench.get("/users", user="root")["users"]] == ["ann", "ben", "carl", "root"]
    again = bench.send("POST", "/users", {"name": "carl"}, user="root")
    assert (again.status, again.code) == (409, "user.exists")


def test_secrets_are_told_once(bench: Bench) -> None:
    bench.send("POST", "/users/ann/tokens", {"label": "second"})
    listed = bench.get("/users/ann/tokens")["tokens"]
    assert [token["label"] for token in listed] == ["test", "second"]
    assert not any("secret" in token for token in listed)


def test_a_revoked_token_and_a_disabled_user_are_unknown(bench: Bench) -> None:
    token = bench.get("/users/ben/tokens", user="root")["tokens"][0]["id"]
    assert bench.send("DELETE", f"/tokens/{token}", user="root").status == 204
    answer = bench.send("GET", "/me", user="ben")
    assert (answer.status, answer.code) == (401, "token.unknown")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert bench.send("POST", "/users/ann/disable", user="root").json["is_disabled"] is True
    assert bench.send("GET", "/me", user="ann").body == answer.body
    assert bench.send("POST", "/users/ann/enable", user="root").json["is_disabled"] is False
    assert bench.get("/me")["name"] == "ann"


def test_everybody_has_tokens_of_their_own_and_nobody_elses(bench: Bench) -> None:
    assert bench.send("POST", "/users/ann/tokens", {}).status == 201
    assert bench.get("/users/ann")["role"] == "student"
    theirs = bench.get("/users/ben/tokens", user="root")["tokens"][0]["id"]
    for method, path, body in (
        ("GET", "/users", None),
        ("POST", "/users", {"name": "carl"}),
        ("GET", "/users/ben", None),
        ("GET", "/users/nobody", None),
        ("GET", "/users/ben/tokens", None),
        ("POST", "/users/ben/tokens", {}),
        ("POST", "/users/ben/disable", {}),
        ("POST", "/users/ann/enable", {}),
        ("GET", "/doctor", None),
    ):
        answer = bench.send(method, path, body)
        assert (answer.status, answer.code) == (403, "rights.admin_only"), path
    foreign = bench.send("DELETE", f"/tokens/{theirs}")
    assert (foreign.status, foreign.code) == (404, "token.unknown")
    assert bench.get("/me", user="ben")["name"] == "ben"
    own = bench.get("/users/ann/tokens")["tokens"][-1]["id"]
    assert bench.send("DELETE", f"/tokens/{own}").status == 204


def test_the_last_admin_stays(bench: Bench) -> None:
    answer = bench.send("POST", f"/users/{ADMIN}/disable", user=ADMIN)
    assert (answer.status, answer.code) == (409, "user.last_admin")
    assert bench.get("/me", user="root")["role"] == "admin"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"name": "Ann"}, "user.bad_name"),
        ({"name": "plan"}, "user.bad_name"),
        ({"name": "carl", "role": "policy"}, "request.invalid"),
        ({"name": "carl", "role": "manager"}, "request.invalid"),
        ({"name": ""}, "request.invalid"),
        ({}, "request.invalid"),
    ],
)
def test_a_user_that_cannot_be_is_refused(bench: Bench, body: object, code: str) -> None:
    answer = bench.send("POST", "/users", body, user="root")
    assert (answer.status, answer.code) == (422, code)


def test_an_unknown_user_is_not_there_for_admins(bench: Bench) -> None:
    for method, path in (("GET", "/users/nobody"), ("POST", "/users/nobody/disable"), ("GET", "/users/%00/tokens")):
        assert bench.send(method, path, user="root").code == "user.unknown"


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "token.missing"),
        ("", "token.missing"),
        ("Bearer", "token.unknown"),
        ("Bearer ns_" + "A" * 43, "token.unknown"),
        ("Bearer ns_" + "é" * 43, "token.unknown"),
        ("Bearer " + "A" * 5000, "token.unknown"),
        ("Basic YW5uOng=", "token.unknown"),
        ("ns_" + "A" * 43, "token.unknown"),
    ],
)
def test_without_a_token_that_is_known_nothing_is_told(bench: Bench, header: str | None, code: str) -> None:
    headers = {} if header is None else {"Authorization": header}
    for path in ("/me", "/reservations", "/hosts", "/calendar", "/policies"):
        answer = bench.send("GET", path, user=None, headers=headers)
        assert (answer.status, answer.code) == (401, code)
    assert bench.send("GET", "/status", user=None).json["ok"] is True


def test_the_scheme_is_read_in_any_case(bench: Bench) -> None:
    headers = {"Authorization": f"bearer {bench.secrets['ann']}"}
    assert bench.send("GET", "/me", user=None, headers=headers).status == 200


def test_the_log_has_one_line_for_each_request_and_no_secret(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="api"):
        bench.send("GET", "/reservations?all=true")
        bench.send("GET", "/a b\n%0Ac", user=None)
        issued = bench.send("POST", "/users/ann/tokens", {}).json["secret"]
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0].startswith("request method=GET path=/api/v1/reservations status=200 ms=")
    assert lines[0].endswith(" user=ann")
    assert "status=404" in lines[1]
    assert lines[1].endswith(" user=-")
    assert len(lines) == 3
    told = "\n".join(lines)
    assert "all=true" not in told
    assert not any(secret in told for secret in (issued, *bench.secrets.values()))
    assert all("\n" not in line for line in lines)


def test_the_doctor_names_every_part(bench: Bench) -> None:
    checks = bench.get("/doctor", user="root")["checks"]
    assert [check["name"] for check in checks] == [
        "database",
        "redis",
        "ticker",
        "worker",
        "planning",
        "host:dgx2-a",
        "policy",
        "clock",
    ]
    assert checks[0]["ok"] is True
    assert (checks[2]["ok"], bool(checks[2]["remedy"])) == (False, True)
