"""The lease on a host as its worker holds it: taken with a new token, renewed in time, never trusted past its end.

All in machine time. A token is never used again after a break: chains begun under it must not go on as if nobody else
had been at work in between.
"""

from collections.abc import Callable

from scheduler.core.settings import Settings
from scheduler.service.ports import Clock
from scheduler.store.leases import LeaseClaim
from scheduler.store.store import Store


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
        is_fresh = 0 <= held_s < self._settings.lease_renew_machine_s
        if is_unbroken and (is_fresh or self._take(self.token, now_s)):
            return False
        token = self._new_token()
        self._token = token if self._take(token, now_s) else None
        return None if self._token is None else True

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
