"""What becomes of a request when the server is away, slow, busy, strange, or says no."""

import httpx
import pytest

from cli.output import EXIT_FAILED, EXIT_NO, EXIT_USAGE
from tests.cli.command_line import CommandLine
from tests.cli.fake_server import TOKEN, URL, FakeServer, problem, reason, reservation

RESERVE = ("reserve", "--gpus", "2", "--for", "3h")


def test_a_server_that_is_away_is_tried_three_times_and_then_named_in_one_line(
    nightshift: CommandLine, server: FakeServer
) -> None:
    server.first = [httpx.ConnectError("[Errno 111] Connection refused") for _ in range(3)]
    ran = nightshift("ls")
    assert ran.code == EXIT_FAILED
    assert ran.one_line == (
        f"nightshift: cannot reach {URL} (connection refused); is `nightshift up` running? or set NIGHTSHIFT_SERVER"
    )
    assert (len(server.asked), server.slept_s) == (3, [0.3, 1.0])


def test_a_real_closed_port_says_the_same(nightshift: CommandLine) -> None:
    nightshift.transport = None
    ran = nightshift("ls", "--server", "http://127.0.0.1:9")
    assert ran.code == EXIT_FAILED
    assert "cannot reach http://127.0.0.1:9 (connection refused)" in ran.one_line


def test_a_request_that_is_made_again_keeps_its_key(nightshift: CommandLine, server: FakeServer) -> None:
    server.first = [httpx.ReadError("reset"), problem(503, "store.busy", "the database is busy; try again")]
    ran = nightshift(*RESERVE)
    assert ran.code == 0, ran.err
    posts = [asked for asked in server.asked if asked.method == "POST"]
    assert [asked.headers["Idempotency-Key"] for asked in posts] == ["key-1"] * 3


def test_two_reservations_have_two_keys(nightshift: CommandLine, server: FakeServer) -> None:
    assert nightshift(*RESERVE).code == nightshift(*RESERVE).code == 0
    keys = [asked.headers["Idempotency-Key"] for asked in server.asked if asked.method == "POST"]
    assert keys == ["key-1", "key-2"]


def test_a_token_is_not_made_twice_because_an_answer_was_lost(nightshift: CommandLine, server: FakeServer) -> None:
    server.first = [httpx.ReadError("reset")]
    assert nightshift("user", "token", "ada").code == EXIT_FAILED
    assert len(server.asked) == 1
    server.first = [httpx.ConnectError("refused")]
    assert nightshift("user", "token", "ada").code == 0


def test_a_busy_server_is_asked_again_when_it_says_so_and_within_reason(
    nightshift: CommandLine, server: FakeServer
) -> None:
    busy = problem(503, "store.busy", "the database is busy; try again")
    busy.headers["Retry-After"] = "2"
    patient = problem(503, "store.busy", "the database is busy; try again")
    patient.headers["Retry-After"] = "86400"
    server.first = [busy, patient]
    assert nightshift("ls").code == 0
    assert server.slept_s == [2.0, 3.0]
    server.first = [problem(503, "store.busy", "the database is busy; try again") for _ in range(3)]
    ran = nightshift("ls")
    assert (ran.code, ran.one_line) == (EXIT_FAILED, "nightshift: the database is busy; try again")


def test_a_server_that_does_not_answer_in_time_is_not_waited_for_again(
    nightshift: CommandLine, server: FakeServer
) -> None:
    server.first = [httpx.ReadTimeout("slow")]
    ran = nightshift("ls")
    assert (ran.code, len(server.asked)) == (EXIT_FAILED, 1)
    assert "did not answer within 15 s" in ran.one_line


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="<html>hello</html>"),
        httpx.Response(200, json=["a", "list"]),
        httpx.Response(404, text="not found"),
        httpx.Response(502, text="bad gateway"),
        httpx.Response(200, text="[" * 100_000),
        httpx.Response(302, headers={"Location": "https://sso.uni.edu"}),
    ],
    ids=["html", "a list", "a plain 404", "a gateway", "deep", "a redirect"],
)
def test_what_is_not_nightshift_on_that_port_is_said_in_one_line(
    nightshift: CommandLine, server: FakeServer, answer: httpx.Response
) -> None:
    server.first = [answer]
    ran = nightshift("ls")
    assert ran.code == EXIT_FAILED
    assert URL in ran.one_line
    assert "NIGHTSHIFT_SERVER" in ran.one_line


def test_an_answer_without_what_belongs_in_it_is_one_line_too(nightshift: CommandLine, server: FakeServer) -> None:
    server.answers["GET /reservations"] = lambda request: httpx.Response(200, json={"other": 1})
    ran = nightshift("ls")
    assert ran.code == EXIT_FAILED
    assert "another version" in ran.one_line


def test_an_unknown_token_says_what_to_do(nightshift: CommandLine) -> None:
    ran = nightshift("ls", "--token", "ns_wrong")
    assert ran.code == EXIT_USAGE
    assert "this token is not known; ask your admin" in ran.one_line
    assert "ns_wrong" not in ran.err


def test_without_a_token_nothing_is_sent(nightshift: CommandLine, server: FakeServer) -> None:
    environ = {name: value for name, value in nightshift.environ.items() if name != "NIGHTSHIFT_TOKEN"}
    ran = nightshift("ls", environ=environ)
    assert (ran.code, server.asked) == (EXIT_USAGE, [])
    assert f"no token for {URL}; ask your admin for one and run `nightshift login`" in ran.one_line


@pytest.mark.parametrize("token", ["ns_ü", "ns_ x", "ns_a\nb", "ns_\x00"])
def test_a_token_that_no_header_can_hold_is_refused_without_showing_it(nightshift: CommandLine, token: str) -> None:
    ran = nightshift("ls", "--token", token)
    assert ran.code == EXIT_USAGE
    assert "copy it again" in ran.one_line
    assert token not in ran.err


def test_the_token_goes_in_the_header_and_nowhere_else(nightshift: CommandLine, server: FakeServer) -> None:
    nightshift(*RESERVE)
    for asked in server.asked:
        assert asked.headers["Authorization"] == f"Bearer {TOKEN}"
        assert TOKEN not in str(asked.url) + asked.content.decode()


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [
        (400, "body.unreadable", EXIT_USAGE),
        (401, "token.unknown", EXIT_USAGE),
        (403, "rights.admin_only", EXIT_NO),
        (404, "reservation.unknown", EXIT_NO),
        (409, "reservation.wrong_phase", EXIT_NO),
        (413, "body.too_large", EXIT_USAGE),
        (422, "request.refused", EXIT_NO),
        (422, "request.invalid", EXIT_USAGE),
        (500, "defect", EXIT_FAILED),
    ],
)
def test_each_problem_has_its_exit_code_and_one_line(
    nightshift: CommandLine, server: FakeServer, status: int, code: str, exit_code: int
) -> None:
    server.answers["GET /reservations/r-17"] = lambda request: problem(status, code, "it is so;\n do that")
    ran = nightshift("show", "r-17")
    assert (ran.code, ran.one_line, ran.out) == (exit_code, "nightshift: it is so; do that", "")


def test_a_refusal_says_every_reason_and_for_machines_the_whole_problem(
    nightshift: CommandLine, server: FakeServer
) -> None:
    reasons = [
        reason("request.not_at_that_time", "no start by Mon 2026-11-23 10:00 can be promised for 7200 s", gpus=2),
        reason("limit.reached", "ada would hold 21 of at most 20 (open_reservations)", limit=20),
    ]
    server.answers["POST /reservations"] = lambda request: problem(
        422, "request.refused", "no start by Mon 2026-11-23 10:00 can be promised", reasons=reasons
    )
    ran = nightshift(*RESERVE, "--json")
    assert ran.code == EXIT_NO
    said = "no start by Mon 2026-11-23 10:00 can be promised for 2h; ada would hold 21 of at most 20"
    assert said in ran.one_line
    assert '"code": "limit.reached"' in ran.out


def test_wrong_fields_are_named_with_their_values(nightshift: CommandLine, server: FakeServer) -> None:
    errors = [{"field": "image", "problem": "use at most 64 characters", "value": "xxxx…"}]
    server.answers["POST /reservations"] = lambda request: problem(422, "request.invalid", "wrong", errors=errors)
    ran = nightshift(*RESERVE, "--image", "x")
    assert ran.code == EXIT_USAGE
    assert ran.one_line == "nightshift: image 'xxxx…': use at most 64 characters"


def test_a_proxy_for_the_outside_is_not_used_for_this_machine(
    nightshift: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:3128")
    nightshift.transport = None
    assert (
        "cannot reach http://127.0.0.1:9 (connection refused)" in nightshift("ls", "--server", "127.0.0.1:9").one_line
    )


def test_a_decision_that_takes_longer_is_waited_for(nightshift: CommandLine, server: FakeServer) -> None:
    server.answers["POST /reservations"] = lambda request: httpx.Response(
        202, json={"intent": 17, "status": "being planned", "reservation": "r-17"}
    )
    looks = iter(("open", "open", "accepted"))
    server.answers["GET /intents/17"] = lambda request: httpx.Response(
        200, json={"intent": 17, "status": next(looks), "reservation": "r-17", "reasons": []}
    )
    ran = nightshift(*RESERVE)
    assert ran.code == 0, ran.err
    assert ran.out.startswith("r-17: 2 GPUs for 14 h. Running by Mon 09:12")
    assert server.slept_s == [1.0, 1.0]


def test_a_decision_that_comes_late_may_be_a_no(nightshift: CommandLine, server: FakeServer) -> None:
    server.answers["POST /reservations"] = lambda request: httpx.Response(202, json={"intent": 17, "status": "x"})
    said = reason("limit.reached", "ada would hold 21 of at most 20 (open_reservations); cancel one")
    server.answers["GET /intents/17"] = lambda request: httpx.Response(
        200, json={"intent": 17, "status": "refused", "reservation": None, "reasons": [said]}
    )
    ran = nightshift(*RESERVE)
    assert (ran.code, ran.one_line) == (EXIT_NO, f"nightshift: {said['sentence']}")


def test_a_decision_that_does_not_come_is_not_waited_for_forever(nightshift: CommandLine, server: FakeServer) -> None:
    server.answers["POST /reservations"] = lambda request: httpx.Response(
        202, json={"intent": 17, "status": "being planned", "reservation": "r-17"}
    )
    server.answers["GET /intents/17"] = lambda request: httpx.Response(200, json={"intent": 17, "status": "open"})
    ran = nightshift(*RESERVE)
    assert (ran.code, ran.out) == (0, "r-17 is still being planned; see `nightshift show r-17`\n")
    assert sum(server.slept_s) <= 30


def test_waiting_follows_the_phases_until_the_guest_runs(nightshift: CommandLine, server: FakeServer) -> None:
    phases = iter(("promised", "promised", "starting", "running"))
    server.answers["GET /reservations/r-17"] = lambda request: httpx.Response(200, json=reservation(phase=next(phases)))
    ran = nightshift(*RESERVE, "--wait")
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()[3:]
    assert lines == [
        "r-17 promised, runs by Mon 09:12: r-3 has 2g0-1 of dgx2-a until Mon 09:11",
        "r-17 starting, runs by Mon 09:12: r-3 has 2g0-1 of dgx2-a until Mon 09:11",
        "r-17 runs.",
    ]


def test_waiting_ends_with_a_no_when_it_will_never_run(nightshift: CommandLine, server: FakeServer) -> None:
    why = reason("end.cancelled", "cancelled by root")
    server.answers["GET /reservations/r-17"] = lambda request: httpx.Response(
        200, json=reservation(phase="cancelled", reasons=[why])
    )
    ran = nightshift(*RESERVE, "--wait")
    assert ran.code == EXIT_NO
    assert ran.one_line == "nightshift: r-17 will not run: it is cancelled (cancelled by root)"


def test_an_interrupted_wait_leaves_the_reservation_and_says_so(nightshift: CommandLine, server: FakeServer) -> None:
    def interrupted(request: httpx.Request) -> httpx.Response:
        raise KeyboardInterrupt

    server.answers["GET /reservations/r-17"] = interrupted
    ran = nightshift(*RESERVE, "--wait")
    assert ran.code == 130
    assert "r-17 stays reserved; see `nightshift show r-17`, give it up with `nightshift cancel r-17`" in ran.one_line
