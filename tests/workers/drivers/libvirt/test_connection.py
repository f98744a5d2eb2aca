"""The connection to a libvirt: limits, what becomes of hosts that do not answer, and coming back."""

import gc
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any

import pytest

libvirt = pytest.importorskip(
    "libvirt", reason="libvirt-python is not installed: it is built where libvirt's headers are"
)

from scheduler.core.requests import HostId
from scheduler.core.settings import Settings
from workers.drivers.libvirt import connection as module
from workers.drivers.libvirt.connection import Connection
from workers.ports import DriverError, HostUnreachable, NoSuchDomain, VerbTimeout

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


def test_a_refusal_whose_words_were_lost_to_the_garbage_is_asked_for_again(connection: Connection) -> None:
    usual = gc.get_threshold()
    calls: list[int] = []

    def look(allocations: int, conn: Any) -> None:
        calls.append(1)
        if len(calls) == 1:
            cycle: list[Any] = [conn.lookupByName("test")]
            cycle.append(cycle)
            del cycle
            # Python frees the guest while it makes the error, and libvirt forgets with it what it was about to say.
            gc.set_threshold(allocations)
        try:
            conn.lookupByName("none")
        finally:
            gc.set_threshold(*usual)

    lost = 0
    for allocations in range(1, 9):
        calls.clear()
        with pytest.raises(NoSuchDomain, match="Domain not found"):
            connection.ask(partial(look, allocations), what="look")
        lost += len(calls) > 1
    assert lost > 0, "nothing was lost, so nothing is shown"


def test_a_failure_that_libvirt_never_explains_is_told_as_it_is(connection: Connection) -> None:
    calls = 0

    def fail(_conn: Any) -> None:
        nonlocal calls
        calls += 1
        raise libvirt.libvirtError("virDomainCreate() failed")

    with pytest.raises(DriverError, match=r"virDomainCreate\(\) failed") as caught:
        connection.ask(fail, what="start")
    assert type(caught.value) is DriverError
    assert calls == module.EXPLAINED_WITHIN


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


def test_that_a_host_does_not_answer_is_known_while_the_lease_on_it_lasts() -> None:
    settings = Settings()
    least_left_s = settings.lease_machine_s - settings.lease_renew_machine_s
    assert max(module.OPEN_WITHIN_S, module.LOOK_WITHIN_S) < least_left_s


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


def test_a_connection_that_is_closed_lets_go_of_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []
    closed = threading.Event()
    real = libvirt.virConnect.close

    def counted(conn: Any) -> int:
        left.append(real(conn))
        closed.set()
        return left[-1]

    monkeypatch.setattr(libvirt.virConnect, "close", counted)
    connection = Connection(HOST, TEST_DRIVER)
    connection.on_event(libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, lambda: None)
    connection.ask(lambda conn: conn.getHostname(), what="look")
    connection.close()
    assert closed.wait(10)
    # Others may be closed meanwhile, by the threads of earlier tests: none keeps anything.
    assert set(left) == {0}, "libvirt keeps a connection open as long as anybody is to be told of something"


def test_what_happens_on_a_host_is_told_until_the_end(connection: Connection) -> None:
    told = threading.Event()
    connection.on_event(libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, told.set)
    connection.ask(_switch, what="start")
    assert told.wait(10)


def test_who_fails_to_listen_is_told_of_and_listened_to_the_next_time(
    connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    told = threading.Semaphore(0)

    def fails() -> None:
        told.release()
        raise RuntimeError("the database is away")

    connection.on_event(libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, fails)
    connection.ask(_switch, what="start")
    assert told.acquire(timeout=10)
    connection.ask(_switch, what="start")
    assert told.acquire(timeout=10)
    assert "the database is away" in caplog.text


def test_a_connection_that_was_lost_is_opened_anew(connection: Connection) -> None:
    first = connection.ask(lambda conn: conn, what="look")
    connection._is_lost(first, libvirt.VIR_CONNECT_CLOSE_REASON_EOF, None)
    assert connection.ask(lambda conn: conn, what="look") is not first
    assert connection.generation == 2


def test_the_late_news_of_an_earlier_connection_ends_no_later_one(connection: Connection) -> None:
    first = connection.ask(lambda conn: conn, what="look")
    connection._is_lost(first, libvirt.VIR_CONNECT_CLOSE_REASON_EOF, None)
    second = connection.ask(lambda conn: conn, what="look")
    connection._is_lost(first, libvirt.VIR_CONNECT_CLOSE_REASON_EOF, None)
    assert connection.ask(lambda conn: conn, what="look") is second


def test_an_attempt_to_open_that_never_ends_is_given_up_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OPEN_WITHIN_S", 0.05)
    monkeypatch.setattr(module, "ABANDON_AFTER_S", 0.05)
    monkeypatch.setattr(module, "REOPEN_AFTER_S", 0.0)
    is_over = threading.Event()
    attempts: list[str] = []
    real = libvirt.openAuth

    def hangs_once(uri: str, *rest: Any) -> Any:
        attempts.append(uri)
        if len(attempts) == 1:
            is_over.wait(10)
        return real(uri, *rest)

    monkeypatch.setattr(libvirt, "openAuth", hangs_once)
    connection = Connection(HOST, TEST_DRIVER)
    with pytest.raises(HostUnreachable, match="did not answer"):
        connection.ask(lambda conn: conn.getHostname(), what="look")
    time.sleep(0.1)
    monkeypatch.setattr(module, "OPEN_WITHIN_S", 10.0)
    monkeypatch.setattr(module, "_abandon_after_s", lambda _abandoned: 0.05)
    current = connection.ask(lambda conn: conn, what="look")
    is_over.set()
    time.sleep(0.1)
    assert connection.ask(lambda conn: conn, what="look") is current
    assert connection.generation == 1
    connection.close()


def test_attempts_that_never_end_are_made_ever_more_rarely() -> None:
    waits = [module._abandon_after_s(abandoned) for abandoned in range(12)]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (module.ABANDON_AFTER_S, module.LONGEST_ABANDON_S)


def test_a_login_that_was_refused_is_not_tried_again_every_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REOPEN_AFTER_S", 0.0)
    attempts: list[str] = []

    def refused(uri: str, *_rest: Any) -> Any:
        attempts.append(uri)
        error = libvirt.libvirtError("x")
        words = "Cannot recv data: Permission denied (publickey).: Connection reset by peer"
        error.err = (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_RPC, words, 2, words, None, None, -1, -1)
        raise error

    monkeypatch.setattr(libvirt, "openAuth", refused)
    connection = Connection(HOST, "qemu+ssh://dgx2-a/system")
    for _ in range(3):
        with pytest.raises(HostUnreachable, match="SSH key or TLS certificate"):
            connection.ask(lambda conn: conn.getHostname(), what="look")
    assert attempts == ["qemu+ssh://dgx2-a/system?no_tty=1"]
    connection.close()


def test_a_call_that_ends_at_the_very_limit_is_a_call_past_its_limit(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    class EndsLate(Future[int]):
        def result(self, timeout: float | None = None) -> int:
            self.set_result(1)
            raise TimeoutError

    connection.ask(lambda conn: conn.isAlive(), what="look")
    monkeypatch.setattr(module, "_in_a_thread", lambda *_, **__: EndsLate())
    with pytest.raises(VerbTimeout):
        connection.block(lambda _: 1, what="start", limit_s=1)
    monkeypatch.undo()


def _switch(conn: Any) -> None:
    """Switch the test driver's one domain on or off: all connections of a process see the same."""
    domain = conn.lookupByName("test")
    if domain.isActive():
        domain.destroy()
    else:
        domain.create()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_a_long_call_has_a_connection_of_its_own_that_ends_with_it(connection: Connection) -> None:
    shared = connection.ask(lambda conn: conn, what="look")
    own = connection.block_apart(lambda conn: conn, what="start", limit_s=5)
    assert own is not shared
    with pytest.raises(libvirt.libvirtError):
        own.isAlive()
    assert connection.ask(lambda conn: conn, what="look") is shared


def test_what_fails_on_a_connection_of_its_own_is_the_ports_error_too(connection: Connection) -> None:
    with pytest.raises(NoSuchDomain, match="Domain not found"):
        connection.block_apart(lambda conn: conn.lookupByName("none"), what="start", limit_s=5)
