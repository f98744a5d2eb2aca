"""The connection to a libvirt: limits, what becomes of hosts that do not answer, and coming back."""

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

libvirt = pytest.importorskip(
    "libvirt", reason="libvirt-python is not installed: it is built where libvirt's headers are"
)

from scheduler.core.requests import HostId
from workers.drivers.libvirt import connection as module
from workers.drivers.libvirt.connection import Connection
from workers.ports import HostUnreachable, NoSuchDomain, VerbTimeout

HOST = HostId("dgx2-a")
TEST_DRIVER = "test:///default"
"""libvirt's own: in this process, without a daemon."""


@pytest.fixture
def connection() -> Iterator[Connection]:
    connection = Connection(HOST, TEST_DRIVER)
    yield connection
    connection.close()


def test_a_call_is_made_on_a_connection_that_is_opened_once(connection: Connection) -> None:
    assert connection.generation == 0
    names = [connection.ask(lambda conn: conn.getHostname(), what="look") for _ in range(3)]
    assert len(set(names)) == 1
    assert connection.generation == 1


def test_what_libvirt_refuses_is_the_ports_error(connection: Connection) -> None:
    with pytest.raises(NoSuchDomain, match="Domain not found"):
        connection.ask(lambda conn: conn.lookupByName("none"), what="look")


def test_a_call_past_its_limit_times_out_and_the_next_one_is_answered(connection: Connection) -> None:
    is_over = threading.Event()
    with pytest.raises(VerbTimeout, match=r"start of r-1 did not end within 0\.1 s; it goes on"):
        connection.block(lambda _: is_over.wait(5), what="start", subject="r-1", limit_s=0.1)
    assert connection.ask(lambda conn: conn.isAlive(), what="look") == 1
    is_over.set()


def test_a_question_that_is_not_answered_in_time_means_a_host_that_is_not_reached(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CALL_WITHIN_S", 0.1)
    is_over = threading.Event()
    with pytest.raises(HostUnreachable, match="restart libvirtd there"):
        connection.ask(lambda _: is_over.wait(5), what="look")
    is_over.set()


def test_a_host_that_hangs_takes_only_so_many_threads(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_CALLS", 2)
    is_over = threading.Event()
    for _ in range(2):
        with pytest.raises(VerbTimeout):
            connection.block(lambda _: is_over.wait(5), what="look", limit_s=0.05)
    with pytest.raises(HostUnreachable, match="has not answered 2 calls"):
        connection.block(lambda _: None, what="look", limit_s=1)
    is_over.set()


def test_a_host_that_refuses_the_connection_is_not_reached() -> None:
    connection = Connection(HOST, f"qemu+tcp://127.0.0.1:{_free_port()}/system")
    with pytest.raises(HostUnreachable, match="Connection refused") as caught:
        connection.ask(lambda conn: conn.getHostname(), what="look")
    assert "is libvirtd running there" in str(caught.value.facts["mend"])
    connection.close()


def test_a_host_that_accepts_and_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OPEN_WITHIN_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connection = Connection(HOST, f"qemu+tcp://127.0.0.1:{silent.getsockname()[1]}/system")
        began_s = time.monotonic()
        with pytest.raises(HostUnreachable, match=r"did not answer within 0\.5 s"):
            connection.ask(lambda conn: conn.getHostname(), what="look")
        assert time.monotonic() - began_s < 5
        connection.close()


def test_a_host_that_failed_is_not_asked_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REOPEN_AFTER_S", 60.0)
    port = _free_port()
    connection = Connection(HOST, f"qemu+tcp://127.0.0.1:{port}/system")
    opened: list[str] = []
    real = libvirt.openAuth

    def counted(uri: str, *rest: Any) -> Any:
        opened.append(uri)
        return real(uri, *rest)

    monkeypatch.setattr(libvirt, "openAuth", counted)
    for _ in range(3):
        with pytest.raises(HostUnreachable, match="Connection refused"):
            connection.ask(lambda conn: conn.getHostname(), what="look")
    assert len(opened) == 1
    connection.close()


def test_a_libvirt_that_is_too_old_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OLDEST", 99_000_000)
    connection = Connection(HOST, TEST_DRIVER)
    with pytest.raises(HostUnreachable, match=r"is too old; install libvirt 99\.0\.0 or newer there"):
        connection.ask(lambda conn: conn.getHostname(), what="look")
    connection.close()


def test_a_closed_connection_says_so() -> None:
    connection = Connection(HOST, TEST_DRIVER)
    connection.ask(lambda conn: conn.getHostname(), what="look")
    connection.close()
    with pytest.raises(HostUnreachable, match="was closed"):
        connection.ask(lambda conn: conn.getHostname(), what="look")


def test_whoever_listens_is_told_of_every_connection(connection: Connection) -> None:
    told: list[Any] = []
    connection.on_open(told.append)
    connection.ask(lambda conn: conn.getHostname(), what="look")
    connection.ask(lambda conn: conn.getHostname(), what="look")
    assert len(told) == 1


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
