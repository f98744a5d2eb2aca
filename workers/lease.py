"""The lease on a host as its worker holds it: taken with a new token, renewed in time, never trusted past its end.

All in machine time. A token is never used again after a break: chains begun under it must not go on as if nobody else
had been at work in between.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

from scheduler.core.errors import NightshiftError
from scheduler.core.settings import Settings
from scheduler.service.ports import Clock
from scheduler.store.leases import LeaseClaim
from scheduler.store.store import Store

_log = logging.getLogger(__name__)

KEPT_MACHINE_S = 90.0
"""So long a lease is kept beside calls that hang: more than their own limits come to, and not for ever."""


class Lease:
    """One worker's hold on one name."""

    def __init__(self, name: str, store: Store, clock: Clock, settings: Settings, new_token: Callable[[], str]) -> None:
        self._name = name
        self._store = store
        self._clock = clock
        self._settings = settings
        self._new_token = new_token
        self._token: str | None = None
        self._renewed_machine_s = 0.0

    @property
    def token(self) -> str:
        """The token it is held with; empty, which nobody ever holds, when it is not."""
        return self._token or ""

    def hold(self) -> bool | None:
        """Take or renew the lease; None when another holds it, True when it was taken anew, False when it was kept."""
        now_s = self._clock.machine_s()
        held_s = now_s - self._renewed_machine_s
        is_unbroken = self._token is not None and held_s < self._settings.lease_machine_s
        # A machine's clock may be put back: then nobody knows how long it was held, and it is renewed.
        if is_unbroken and (self._is_fresh() or self._take(self.token, now_s)):
            return False
        token = self._new_token()
        self._token = token if self._take(token, now_s) else None
        return None if self._token is None else True

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Renew it in time beside the block, for as long as the block lasts and no longer than a limit.

        For calls to a host, which may take longer than a lease. One that was lost is not taken anew.
        """
        if not self._is_fresh():
            # Here and not beside: the thread that follows has nothing to do while calls are quick.
            self._renew(self.token)
        is_over = Event()
        renewing = Thread(target=self._renew_until, args=(is_over, self.token), name="lease", daemon=True)
        renewing.start()
        try:
            yield
        finally:
            is_over.set()
            renewing.join()

    def _renew_until(self, is_over: Event, token: str) -> None:
        every_s = self._settings.lease_renew_machine_s
        held_s = self._clock.machine_s() - self._renewed_machine_s
        wait_s, left_s = every_s - held_s if 0 <= held_s < every_s else every_s, KEPT_MACHINE_S
        while left_s > 0 and not is_over.wait(wait_s):
            if not self._renew(token):
                return
            wait_s, left_s = every_s, left_s - every_s

    def _is_fresh(self) -> bool:
        return 0 <= self._clock.machine_s() - self._renewed_machine_s < self._settings.lease_renew_machine_s

    def _renew(self, token: str) -> bool:
        """Renew it if it is held; False when it is not. A database that does not answer may do so before its end."""
        now_s = self._clock.machine_s()
        try:
            return self._store.holds_lease(self._name, token, now_s) and self._take(token, now_s)
        except NightshiftError as error:
            _log.warning("lease.not_renewed name=%s error=%s", self._name, error.message)
            return True

    def _take(self, token: str, now_s: float) -> bool:
        ttl_s = self._settings.lease_machine_s
        if not self._store.acquire_lease(self._name, token, now_machine_s=now_s, ttl_s=ttl_s):
            return False
        self._renewed_machine_s = now_s
        return True

    @property
    def claim(self) -> LeaseClaim:
        """What a commit that needs it is handed."""
        return LeaseClaim(name=self._name, token=self.token, now_machine_s=self._clock.machine_s())

    def is_held(self) -> bool:
        """Whether the database says that it is held with our token now."""
        return self.is_held_by(self.token)

    def is_held_by(self, token: str) -> bool:
        return token != "" and self._store.holds_lease(self._name, token, self._clock.machine_s())

    def forget(self) -> None:
        """Take it for lost; the next hold takes it anew."""
        self._token = None

    def release(self) -> None:
        """Give it up."""
        if self._token is not None:
            self._store.release_lease(self._name, self._token)
