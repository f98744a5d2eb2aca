"""The connection to one host's libvirt: opened when needed, watched, opened again, and every call with a time limit.

libvirt's calls block for as long as the host lets them. Each is made in a thread of its own and waited for no longer
than its limit, in machine time; what outlives it goes on and harms nobody, since every verb may be called again.
Holds no verbs. libvirt's own errors become the ports' (`refusals`) here and nowhere else.
"""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as WaitedTooLong
from dataclasses import dataclass, field
from time import monotonic, sleep
from typing import Any, TypeVar

import libvirt

from scheduler.core.requests import HostId
from workers.drivers.libvirt.addresses import is_local, without_questions
from workers.drivers.libvirt.refusals import LOGIN_MEND, REACH_MEND, from_libvirt, is_code, is_unexplained, too_old
from workers.ports import DriverError, HostUnreachable, VerbTimeout

T = TypeVar("T")

_log = logging.getLogger(__name__)

OLDEST = 7_000_000
"""libvirt 7.0: node devices, agent events and everything else that is used here; Debian 11 and Ubuntu 22.04 have it."""
OPEN_WITHIN_S = 8.0
LOOK_WITHIN_S = 8.0
"""Both less than is always left of a worker's lease on the host: that it does not answer is written down under it."""
CALL_WITHIN_S = 15.0
"""For verbs that only ask: on a host that is well they take milliseconds."""
KEEPALIVE_EVERY_S = 5
KEEPALIVES_LOST = 3
"""A remote connection that says nothing for 20 s is closed, and every call on it fails."""
REOPEN_AFTER_S = 1.0
"""A host that did not answer is not asked again before that: each attempt may cost a login."""
REFUSED_FOR_S = 30.0
"""One that refused the login is left alone for longer: many refused logins get a worker locked out."""
ABANDON_AFTER_S = 60.0
LONGEST_ABANDON_S = 3600.0
"""An attempt to open that never ends is given up for another, later each time: its thread is lost."""
EVENT_LOOP_REST_S = 1.0
MOST_CALLS = 64
"""Calls that are not back yet; more of them than a host has GPUs means that it hangs."""
EXPLAINED_WITHIN = 3
"""Attempts. What libvirt said is lost by bad luck, and seldom twice."""


@dataclass(slots=True)
class _Opening:
    """An attempt to open that others wait for too."""

    future: "Future[Any]"
    began_s: float

    @property
    def until_s(self) -> float:
        return self.began_s + OPEN_WITHIN_S


@dataclass(slots=True)
class _State:
    conn: Any = None
    opening: _Opening | None = None
    abandoned: int = 0
    """Attempts to open, one after the other, that never ended."""
    lost: tuple[Any, str] | None = None
    """The connection that was lost last, and why."""
    failed: HostUnreachable | None = None
    ask_again_at_s: float = 0.0
    generation: int = 0
    """How often it was opened: what is remembered of a connection holds for this number only."""
    calls: int = 0
    is_closed: bool = False
    on_open: list[Callable[[Any], None]] = field(default_factory=list)
    on_event: list[tuple[int, Callable[[], None]]] = field(default_factory=list)

    @property
    def closed_because(self) -> str:
        return self.lost[1] if self.lost is not None and self.lost[0] is self.conn else ""


class Connection:
    """One host's libvirt. Safe to use from several threads."""

    def __init__(self, host: HostId, uri: str) -> None:
        self.host = host
        self.uri = uri
        self.is_local = is_local(uri)
        self._lock = threading.Lock()
        self._state = _State()
        _run_event_loop()

    @property
    def generation(self) -> int:
        """How often the connection was opened; what a host told earlier may be of before its reboot."""
        return self._state.generation

    def on_open(self, call: Callable[[Any], None]) -> None:
        """Have this called with every connection that is opened, before anybody uses it."""
        self._state.on_open.append(call)

    def on_event(self, event: int, call: Callable[[], None]) -> None:
        """Have this called, from a thread of libvirt's, whenever an event of domains happens, until `close`."""
        self._state.on_event.append((event, call))

    def ask(self, call: Callable[[Any], T], *, what: str, subject: str = "", limit_s: float | None = None) -> T:
        """Make a call that only asks. A host that does not answer in time is unreachable."""
        within_s = CALL_WITHIN_S if limit_s is None else limit_s
        try:
            return self.block(call, what=what, subject=subject, limit_s=within_s)
        except VerbTimeout as error:
            raise HostUnreachable(
                f"{self.host} did not answer {what} within {within_s:g} s ({self.uri}); is its libvirtd hanging?"
                " restart libvirtd there, VMs go on",
                host=self.host,
                mend="restart libvirtd on the host; VMs go on",
            ) from error

    def block(self, call: Callable[[Any], T], *, what: str, limit_s: float, subject: str = "") -> T:
        """Make a call that may take up to `limit_s`; raises VerbTimeout after that, and the call goes on."""
        conn = self._opened()

        def named(error: libvirt.libvirtError) -> DriverError:
            return from_libvirt(error, host=self.host, uri=self.uri, what=what, subject=subject)

        with self._lock:
            if self._state.calls >= MOST_CALLS:
                raise HostUnreachable(
                    f"{self.host} has not answered {MOST_CALLS} calls yet; restart libvirtd there, VMs go on",
                    host=self.host,
                    mend="restart libvirtd on the host; VMs go on",
                )
            self._state.calls += 1
        future = _in_a_thread(lambda: _explained(lambda: call(conn)), name=f"libvirt.{what}", done=self._call_is_back)
        try:
            return future.result(limit_s)
        except WaitedTooLong as error:
            if future.done() and future.exception() is error:
                raise
            raise VerbTimeout(
                f"{what} of {subject or self.host} did not end within {limit_s:g} s; it goes on",
                verb=what,
                subject=subject,
                limit_s=limit_s,
            ) from error
        except libvirt.libvirtError as error:
            raise named(error) from error

    def block_apart(self, call: Callable[[Any], T], *, what: str, limit_s: float, subject: str = "") -> T:
        """Make a long call, as `block` does, on a connection of its own that ends with it.

        libvirtd works on five calls of one client at a time: looks, checks and keepalives would wait behind starts.
        """

        def apart(_shared: Any) -> T:
            own = self._open_plain()
            try:
                return call(own)
            finally:
                _close(own)

        return self.block(apart, what=what, limit_s=limit_s, subject=subject)

    def close(self) -> None:
        """Close it for good; calls that are not back fail."""
        with self._lock:
            self._state.is_closed = True
            conn, self._state.conn = self._state.conn, None
        if conn is not None:
            # Closing says good-bye to the host, which may hang.
            _in_a_thread(lambda: _close(conn), name="libvirt.close")

    def _call_is_back(self) -> None:
        with self._lock:
            self._state.calls -= 1

    # Opening.

    def _opened(self) -> Any:
        begun: Future[Any] | None = None
        with self._lock:
            state = self._state
            if state.is_closed:
                raise HostUnreachable(f"the connection to {self.host} was closed", host=self.host)
            if state.conn is not None and not state.closed_because and state.conn.isAlive():
                return state.conn
            opening = state.opening
            if opening is not None and monotonic() - opening.began_s > _abandon_after_s(state.abandoned):
                _log.warning("host.open_abandoned host=%s uri=%s", self.host, self.uri)
                state.abandoned += 1
                opening = None
            if opening is None:
                if state.failed is not None and monotonic() < state.ask_again_at_s:
                    raise _again(state.failed)
                if state.conn is not None:
                    _log.warning("host.connection_lost host=%s reason=%s", self.host, state.closed_because or "dead")
                    conn, state.conn = state.conn, None
                    _in_a_thread(lambda: _close(conn), name="libvirt.close")
                begun = _in_a_thread(lambda: _explained(self._open), name="libvirt.open")
                opening = state.opening = _Opening(begun, monotonic())
        if begun is not None:
            # Not under the lock: one that has ended already is told of at once, in this thread.
            begun.add_done_callback(self._open_is_back)
        try:
            return opening.future.result(max(0.0, opening.until_s - monotonic()))
        except WaitedTooLong as error:
            raise HostUnreachable(
                f"{self.uri} did not answer within {OPEN_WITHIN_S:g} s; {REACH_MEND}", host=self.host, mend=REACH_MEND
            ) from error
        except libvirt.libvirtError as error:
            raise from_libvirt(error, host=self.host, uri=self.uri, what="open") from error

    def _open_plain(self) -> Any:
        # No question is ever asked at a terminal: who cannot log in without one is told so.
        conn = libvirt.openAuth(without_questions(self.uri), [[], _no_answer, None], 0)
        try:
            if not self.is_local:
                _keep_alive(conn)
        except BaseException:
            _close(conn)
            raise
        return conn

    def _open(self) -> Any:
        conn = self._open_plain()
        try:
            if conn.getLibVersion() < OLDEST:
                raise too_old(self.host, conn.getLibVersion(), OLDEST)
            conn.registerCloseCallback(self._is_lost, None)
            for event, told in self._state.on_event:
                conn.domainEventRegisterAny(None, event, self._happened, told)
            for call in self._state.on_open:
                call(conn)
        except BaseException:
            _close(conn)
            raise
        return conn

    def _open_is_back(self, future: "Future[Any]") -> None:
        error = future.exception()
        with self._lock:
            state = self._state
            is_awaited = state.opening is not None and state.opening.future is future
            if is_awaited:
                state.opening = None
            if error is None:
                if state.is_closed or not is_awaited:
                    _in_a_thread(lambda: _close(future.result()), name="libvirt.close")
                    return
                state.conn, state.failed, state.abandoned = future.result(), None, 0
                state.generation += 1
                _log.info("host.connected host=%s uri=%s", self.host, self.uri)
                return
            if isinstance(error, libvirt.libvirtError):
                error = from_libvirt(error, host=self.host, uri=self.uri, what="open")
            if isinstance(error, HostUnreachable) and is_awaited:
                is_refused = error.facts.get("mend") == LOGIN_MEND
                state.failed, state.abandoned = error, 0
                state.ask_again_at_s = monotonic() + (REFUSED_FOR_S if is_refused else REOPEN_AFTER_S)

    def _is_lost(self, conn: Any, reason: int, _opaque: object) -> None:
        # Called by the event loop's thread; nothing of libvirt's may be called from here.
        names = {
            libvirt.VIR_CONNECT_CLOSE_REASON_ERROR: "error",
            libvirt.VIR_CONNECT_CLOSE_REASON_EOF: "the host closed it",
            libvirt.VIR_CONNECT_CLOSE_REASON_KEEPALIVE: "keepalive timeout",
        }
        with self._lock:
            self._state.lost = (conn, names.get(reason, f"reason {reason}"))

    def _happened(self, _conn: Any, *what: Any) -> None:
        # Called by the event loop's thread; the last of what happened is whom to tell.
        if self._state.is_closed:
            return
        try:
            what[-1]()
        except Exception:
            _log.exception("host.event host=%s", self.host)


def _abandon_after_s(abandoned: int) -> float:
    return max(OPEN_WITHIN_S, min(LONGEST_ABANDON_S, ABANDON_AFTER_S * (1 << min(abandoned, 10))))


def _keep_alive(conn: Any) -> None:
    try:
        conn.setKeepAlive(KEEPALIVE_EVERY_S, KEEPALIVES_LOST)
    except libvirt.libvirtError as error:
        # A driver that runs in this process has nobody to lose.
        if not is_code(error, libvirt.VIR_ERR_NO_SUPPORT):
            raise


def _again(error: HostUnreachable) -> HostUnreachable:
    return HostUnreachable(error.message, **error.facts)


def _no_answer(_credentials: object, _opaque: object) -> int:
    return -1


def _explained(call: Callable[[], T]) -> T:
    """Call it, again where it fails and libvirt's words for that are lost: every verb may be called again."""
    for _ in range(1, EXPLAINED_WITHIN):
        try:
            return call()
        except libvirt.libvirtError as error:
            if not is_unexplained(error):
                raise
            _log.debug("connection.unexplained error=%s", error)
    return call()


def _close(conn: Any) -> None:
    """Close a connection. Whoever is to be told of something keeps it open, so they are let go first."""
    for event in tuple(getattr(conn, "domainEventCallbackID", ())):
        _quietly(conn.domainEventDeregisterAny, event)
    _quietly(conn.unregisterCloseCallback)
    _quietly(conn.close)


def _quietly(call: Callable[..., object], *arguments: object) -> None:
    try:
        call(*arguments)
    except libvirt.libvirtError as error:
        _log.debug("connection.close_failed error=%s", error)


def _in_a_thread(call: Callable[[], T], *, name: str, done: Callable[[], None] | None = None) -> "Future[T]":
    """Call it in a daemon thread: one that never comes back must not keep the process from ending."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            result = call()
        except BaseException as error:
            if done is not None:
                done()
            future.set_exception(error)
        else:
            if done is not None:
                done()
            future.set_result(result)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


_loop_lock = threading.Lock()
_loop: threading.Thread | None = None


def _run_event_loop() -> None:
    """Run libvirt's event loop in this process, once: without it there are neither keepalives nor events."""
    global _loop
    with _loop_lock:
        if _loop is not None:
            return
        libvirt.registerErrorHandler(lambda _context, _error: None, None)
        libvirt.virEventRegisterDefaultImpl()
        _loop = threading.Thread(target=_loop_for_ever, name="libvirt.events", daemon=True)
        _loop.start()


def _loop_for_ever() -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError:
            _log.exception("libvirt.event_loop")
            sleep(EVENT_LOOP_REST_S)
