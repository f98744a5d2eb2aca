"""Quotes, what is free, the calendar and the hosts: what people look at, and whose names they see there."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from api.app import create_app
from scheduler.core.facts import HostFacts, HostTrouble, TroubleKind
from scheduler.core.requests import HostId
from scheduler.core.spans import HOUR_S
from scheduler.store.leases import host_lease
from tests.api.asgi import Connection
from tests.api.bench import HOST, Bench, opened
from workers.drivers.simulated.faults import Fault, FaultKind


@pytest.fixture
def bench() -> Iterator[Bench]:
    with opened() as bench:
        yield bench


def test_a_quote_is_what_would_be_promised_and_books_nothing(bench: Bench) -> None:
    asked: dict[str, Any] = {"gpus": 4, "run_s": 2 * HOUR_S}
    told = bench.send("POST", "/quotes", asked).json
    assert bench.get("/reservations")["reservations"] == []
    assert bench.filed == 0
    made = bench.reserve(**asked)
    assert told["promise"] == made["promise"]
    assert told["spans"] == made["spans"]
    assert told["likely_start_at"] == "2026-03-02T07:04:00Z"
    assert told["plan_version"] < made["plan_version"]


def test_a_quote_for_what_cannot_be_had_has_the_reasons(bench: Bench) -> None:
    answer = bench.send("POST", "/quotes", {"gpus": 16, "run_s": 20 * HOUR_S})
    assert answer.status == 200
    assert answer.json["promise"] is None
    assert [why["code"] for why in answer.json["reasons"]] == ["request.never_fits"]


def test_free_counts_partitions_and_promises_each_size(bench: Bench) -> None:
    bench.reserve(gpus=8)
    told = bench.get("/free?run_s=7200")
    assert [(size["gpus"], size["queue"], size["free_now"]) for size in told["sizes"]] == [
        (1, "interactive", 8),
        (2, "interactive", 4),
        (4, "interactive", 2),
        (8, "interactive", 1),
        (16, "hpc", 0),
    ]
    assert told["sizes"][4]["promise"]["start_by_at"] == "2026-03-02T19:15:00Z"


def test_a_host_was_seen_when_it_was_looked_at_and_not_when_something_changed(bench: Bench) -> None:
    bench.pass_time(HOUR_S)
    changed = bench.get(f"/hosts/{HOST}")["seen_at"]
    assert changed == "2026-03-02T07:00:00Z"
    bench.home.store.beat("host", HOST, bench.home.clock.machine_s() - 7)
    for shown in (bench.get(f"/hosts/{HOST}"), bench.get("/hosts")["hosts"][0]):
        assert shown["seen_at"] == "2026-03-02T07:59:53Z"


def test_nothing_small_is_free_while_the_night_has_the_host(bench: Bench) -> None:
    bench.pass_time(10 * HOUR_S)
    bench.reserve(gpus=16, run_s=4 * HOUR_S)
    bench.pass_time(3 * HOUR_S)
    assert [size["free_now"] for size in bench.get("/free")["sizes"]] == [0, 0, 0, 0, 0]
    window = bench.get(f"/hosts/{HOST}")["window"]
    assert window == {"name": "night", "layout": "night", "until_at": "2026-03-03T07:00:00Z"}
    assert bench.get(f"/hosts/{HOST}")["layout"] == "night"


def test_outside_of_windows_a_host_has_the_layout_of_the_policy(bench: Bench) -> None:
    for shown in (bench.get(f"/hosts/{HOST}"), bench.get("/hosts")["hosts"][0]):
        assert (shown["layout"], shown["window"]) == ("day", None)


def test_before_a_policy_is_applied_nothing_is_free_and_everything_answers() -> None:
    with opened(policy=None) as bench:
        told = bench.get("/free")
        assert {size["free_now"] for size in told["sizes"]} == {0}
        assert told["sizes"][0]["reasons"][0]["code"] == "policy.invalid"
        assert bench.get("/calendar")["windows"] == []
        assert bench.get(f"/hosts/{HOST}")["layout"] is None
        assert bench.get("/me")["zone"] == "UTC"
        assert bench.get("/policies") == {"current": None, "policies": []}


def test_the_calendar_shows_two_days_from_two_hours_ago(bench: Bench) -> None:
    bench.reserve(gpus=2)
    shown = bench.get("/calendar")
    assert (shown["from_at"], shown["until_at"]) == ("2026-03-02T05:00:00Z", "2026-03-04T05:00:00Z")
    assert shown["zone"] == "Europe/Berlin"
    assert shown["hosts"] == [{"id": HOST, "profile": "dgx-2", "gpus": 16, "is_drained": False, "gpus_out": []}]
    assert [(window["name"], window["start_at"], window["hosts"]) for window in shown["windows"]] == [
        ("night", "2026-03-02T19:00:00Z", [HOST]),
        ("night", "2026-03-03T19:00:00Z", [HOST]),
    ]
    assert [booking["gpus"] for booking in shown["bookings"]] == [[0, 1]]


def test_the_calendar_keeps_the_past_that_is_asked_for(bench: Bench) -> None:
    made = bench.reserve(gpus=2)["id"]
    bench.pass_time(10 * 24 * HOUR_S)
    assert bench.get("/calendar")["bookings"] == []
    shown = bench.get("/calendar?from_at=2026-03-02T00:00:00Z&until_at=2026-03-04T00:00:00Z")
    assert [booking["reservation"] for booking in shown["bookings"]] == [made]
    assert [window["state"] for window in shown["windows"]] == ["released", "released"]
    assert shown["windows"][0]["released_from_at"] == "2026-03-02T19:00:00Z"


@pytest.mark.parametrize(
    "query",
    [
        "from_at=2026-03-02T00:00:00Z&until_at=2026-03-02T00:00:00Z",
        "from_at=2026-03-02T00:00:00Z&until_at=2026-03-16T00:00:01Z",
        "from_at=2026-03-02T00:00:00Z&until_at=2026-03-01T00:00:00Z",
        "from_at=2026-03-02",
        "from_at=1772434800",
    ],
)
def test_a_stretch_that_cannot_be_shown_is_refused(bench: Bench, query: str) -> None:
    answer = bench.send("GET", f"/calendar?{query}")
    assert (answer.status, answer.code) == (422, "request.invalid")


def test_the_end_of_time_can_be_looked_at(bench: Bench) -> None:
    assert bench.get("/calendar?from_at=9999-12-31T23:00:00Z")["until_at"] == "9999-12-31T23:59:59Z"


def test_students_see_that_others_are_there_and_not_who(bench: Bench) -> None:
    mine, theirs = bench.reserve(gpus=2)["id"], bench.reserve(gpus=4, user="ben")["id"]
    bench.pass_time(600)
    for path in ("/calendar", "/hosts", f"/hosts/{HOST}", "/free", f"/reservations/{mine}/why", "/reservations"):
        assert b"ben" not in bench.send("GET", path).body, path
    seen = {tuple(booking["gpus"]): booking for booking in bench.get("/calendar")["bookings"]}
    assert (seen[0, 1]["is_mine"], seen[0, 1]["reservation"], seen[0, 1]["owner"]) == (True, mine, "ann")
    other = seen[4, 5, 6, 7]
    assert (other["is_mine"], other["reservation"], other["owner"]) == (False, None, None)
    assert (other["queue"], other["phase"]) == ("interactive", "running")
    vms = bench.get(f"/hosts/{HOST}")["vms"]
    assert [(vm["reservation"], vm["owner"], vm["phase"]) for vm in vms] == [
        (mine, "ann", "running"),
        (None, None, "running"),
    ]
    admins = bench.get("/calendar", user="root")["bookings"]
    assert {booking["reservation"] for booking in admins} == {mine, theirs}
    assert not any(booking["is_mine"] for booking in admins)
    assert [vm["owner"] for vm in bench.get(f"/hosts/{HOST}", user="root")["vms"]] == ["ann", "ben"]


def test_a_host_shows_what_runs_what_is_free_and_what_is_broken(bench: Bench) -> None:
    bench.reserve(gpus=4)
    bench.pass_time(600)
    host = bench.get(f"/hosts/{HOST}")
    assert (host["gpus"], host["gpus_running"], host["gpus_free"], host["gpu_problems"]) == (16, 4, 12, [])
    rack = bench.home.racks[HOST]
    rack.inject(Fault(kind=FaultKind.GPU_DIES, subject=rack.profile.gpu(9).address, at=bench.now))
    bench.home.wake.host(HOST)
    bench.pass_time(600)
    host = bench.get(f"/hosts/{HOST}")
    assert [(gpu["gpu"], gpu["state"]) for gpu in host["gpu_problems"]] == [(9, "quarantined")]
    assert host["gpus_free"] == 11
    assert bench.get("/calendar")["hosts"][0]["gpus_out"] == [9]
    assert bench.get("/free")["sizes"][0]["free_now"] == 11


def test_a_host_that_does_not_answer_says_since_when(bench: Bench) -> None:
    rack = bench.home.racks[HOST]
    rack.inject(Fault(kind=FaultKind.UNREACHABLE, at=bench.now, until_at=bench.now + HOUR_S))
    bench.home.wake.host(HOST)
    bench.pass_time(300)
    host = bench.get(f"/hosts/{HOST}")
    assert host["unreachable_since_at"] == "2026-03-02T07:00:00Z"
    assert host["problem"]
    assert bench.get("/free")["sizes"][0]["free_now"] == 0


def test_a_drained_host_names_what_cannot_leave(bench: Bench) -> None:
    running = bench.reserve(gpus=2)["id"]
    coming = bench.reserve(gpus=2, at="2026-03-04T09:00:00Z")["id"]
    bench.pass_time(600)
    drained = bench.send("POST", f"/hosts/{HOST}/drain", {}, user="root")
    assert drained.status == 200
    assert (drained.json["is_drained"], drained.json["stuck"]) == (True, [coming])
    assert bench.get(f"/hosts/{HOST}")["stuck"] == []
    assert bench.get(f"/reservations/{running}")["phase"] == "running"
    assert bench.send("POST", "/reservations", {"gpus": 1, "run_s": HOUR_S}).status == 422
    back = bench.send("POST", f"/hosts/{HOST}/undrain", user="root").json
    assert (back["is_drained"], back["stuck"]) == (False, [])


def test_a_new_host_has_its_windows_at_once(bench: Bench) -> None:
    answer = bench.send("POST", "/hosts", {"id": "dgx2-b", "profile": "dgx-2"}, user="root")
    assert answer.status == 201
    assert answer.headers["location"] == "/api/v1/hosts/dgx2-b"
    assert (answer.json["storage"], answer.json["gpus_free"]) == ("dgx2-b", 16)
    windows = bench.home.plans.current().windows.values()
    nights = {host: {w.start_at for w in windows if host in w.hosts} for host in (HOST, HostId("dgx2-b"))}
    assert nights[HostId("dgx2-b")] == nights[HOST]
    assert len(nights[HOST]) == 90
    again = bench.send("POST", "/hosts", {"id": "dgx2-b", "profile": "dgx-2"}, user="root")
    assert (again.status, again.code) == (409, "host.exists")


def test_a_host_is_added_once_under_one_key(bench: Bench) -> None:
    body, key = {"id": "dgx2-b", "profile": "dgx-2"}, {"Idempotency-Key": "h"}
    first = bench.send("POST", "/hosts", body, user="root", headers=key)
    bench.pass_time(60)
    again = bench.send("POST", "/hosts", body, user="root", headers=key)
    assert (first.status, again.status) == (201, 201)
    other = bench.send("POST", "/hosts", {**body, "id": "dgx2-c"}, user="root", headers=key)
    assert other.code == "key.reused"


def test_an_unknown_kind_of_host_is_refused_with_the_known_ones(bench: Bench) -> None:
    answer = bench.send("POST", "/hosts", {"id": "x", "profile": "dgx-9"}, user="root")
    assert answer.status == 422
    assert "dgx-2" in answer.json["detail"]
    path = bench.send("POST", "/hosts", {"id": "x", "profile": "/etc/x.toml"}, user="root")
    assert (path.status, path.code) == (422, "request.invalid")


def test_where_a_host_is_reached_and_what_troubles_it_is_for_admins(bench: Bench) -> None:
    uri = "qemu+ssh://root@dgx2-b/system"
    added = bench.send("POST", "/hosts", {"id": "dgx2-b", "profile": "dgx-2", "connect": uri}, user="root")
    assert (added.status, added.json["connect"], added.json["troubles"]) == (201, uri, [])
    store, host = bench.home.store, HostId("dgx2-b")
    troubles = (
        HostTrouble(code="check.x", kind=TroubleKind.UNVERIFIED, problem="x is not seen", mend="run it there"),
        HostTrouble(code="host.no_iommu", kind=TroubleKind.WRONG, problem="it has no IOMMU", mend="switch it on"),
    )
    store.acquire_lease(host_lease(host), "t", now_machine_s=0, ttl_s=10)
    found = HostFacts(host=host, seen_at=bench.now, troubles=troubles)
    store.record_facts(host, "t", HostFacts(host=host), found, now_machine_s=0)
    shown = bench.get("/hosts/dgx2-b", user="root")
    assert shown["troubles"] == [
        {"code": "check.x", "kind": "unverified", "problem": "x is not seen", "mend": "run it there"},
        {"code": "host.no_iommu", "kind": "wrong", "problem": "it has no IOMMU", "mend": "switch it on"},
    ]
    assert [one["connect"] for one in bench.get("/hosts", user="root")["hosts"]] == ["", uri]
    checks = {check["name"]: check for check in bench.get("/doctor", user="root")["checks"]}
    assert checks["host:dgx2-b:host.no_iommu"]["remedy"] == "switch it on"
    assert checks["host:dgx2-b:check.x"]["ok"] is True
    for one in (bench.get("/hosts/dgx2-b"), bench.get("/hosts")["hosts"][1]):
        assert (one["connect"], one["troubles"]) == (None, [])


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("qemu+tcp://dgx2-b/system", "use qemu+tls or qemu+ssh"),
        ("qemu+ssh://root:hunter2@dgx2-b/system", "it holds a password"),
        ("dgx2-b", "write it like"),
    ],
)
def test_a_uri_that_is_not_taken_is_refused_before_it_is_kept_or_repeated(bench: Bench, uri: str, said: str) -> None:
    for path, body in (
        ("/hosts", {"id": "dgx2-b", "profile": "dgx-2", "connect": uri}),
        (f"/hosts/{HOST}/connect", {"connect": uri}),
    ):
        answer = bench.send("POST", path, body, user="root")
        assert (answer.status, answer.code) == (422, "request.invalid")
        assert answer.json["errors"][0]["field"] == "connect"
        assert said in answer.json["detail"]
        assert "hunter2" not in str(answer.json)
    assert bench.filed == 0


def test_a_real_host_is_refused_where_time_is_scaled(bench: Bench) -> None:
    bench.connection.close()
    bench.connection = Connection(create_app(replace(bench.services, speed=lambda: 60.0)))
    for path, body in (
        ("/hosts", {"id": "dgx2-b", "profile": "dgx-2", "connect": "qemu:///system"}),
        (f"/hosts/{HOST}/connect", {"connect": "qemu:///system"}),
    ):
        answer = bench.send("POST", path, body, user="root")
        assert (answer.status, answer.code) == (422, "request.invalid")
        assert "start it without --speed" in answer.json["detail"]
    assert bench.filed == 0


def test_a_host_is_reached_elsewhere_from_now_on_unless_something_is_on_it(bench: Bench) -> None:
    bench.send("POST", "/hosts", {"id": "dgx2-b", "profile": "dgx-2", "connect": "qemu:///system"}, user="root")
    uri = "qemu+tls://dgx2-b/system"
    moved = bench.send("POST", "/hosts/dgx2-b/connect", {"connect": uri}, user="root")
    assert (moved.status, moved.json["connect"]) == (200, uri)
    running = bench.reserve(gpus=1)["id"]
    bench.pass_time(600)
    refused = bench.send("POST", f"/hosts/{HOST}/connect", {"connect": uri}, user="root")
    assert (refused.status, refused.code) == (409, "host.in_use")
    assert running in refused.json["detail"]


def test_one_key_for_two_addresses_of_a_host_is_used_twice(bench: Bench) -> None:
    body, key = {"id": "dgx2-b", "profile": "dgx-2", "connect": "qemu:///system"}, {"Idempotency-Key": "h"}
    assert bench.send("POST", "/hosts", body, user="root", headers=key).status == 201
    assert bench.send("POST", "/hosts", body, user="root", headers=key).status == 201
    other = bench.send("POST", "/hosts", {**body, "connect": "qemu+tls://x/system"}, user="root", headers=key)
    assert other.code == "key.reused"


def test_only_admins_change_hosts_and_unknown_hosts_are_not_there(bench: Bench) -> None:
    for path, body in (
        ("/hosts", {"id": "x", "profile": "dgx-2"}),
        (f"/hosts/{HOST}/connect", {"connect": "qemu:///system"}),
        (f"/hosts/{HOST}/drain", {}),
        (f"/hosts/{HOST}/undrain", {}),
    ):
        answer = bench.send("POST", path, body)
        assert (answer.status, answer.code) == (403, "rights.admin_only")
    assert bench.filed == 0
    for method, path in (("GET", "/hosts/none"), ("POST", "/hosts/none/drain"), ("POST", "/hosts/none/undrain")):
        answer = bench.send(method, path, user="root")
        assert (answer.status, answer.code) == (404, "host.unknown")
        assert HOST in answer.json["detail"]
    assert bench.filed == 0
