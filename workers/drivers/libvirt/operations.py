"""Which blocking operations of this process are under way on which domain: others wait for their observed end."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from workers.ports import DomainBusy


class Operations:
    """Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_domain: dict[UUID, list[str]] = {}

    def busy(self) -> frozenset[UUID]:
        """Return the domains with an operation that has not ended."""
        with self._lock:
            return frozenset(self._by_domain)

    def need_idle(self, uuid: UUID) -> None:
        """Raise DomainBusy while an operation on a domain has not ended."""
        with self._lock:
            running = self._by_domain.get(uuid)
        if running:
            raise DomainBusy(
                f"Requested operation is not valid: {running[0]} of domain {uuid} has not ended", domain=str(uuid)
            )

    @contextmanager
    def under_way(self, uuid: UUID, name: str) -> Iterator[None]:
        """Show a domain as busy; entered by the thread that makes the call, so it lasts as long as the call does."""
        with self._lock:
            self._by_domain.setdefault(uuid, []).append(name)
        try:
            yield
        finally:
            with self._lock:
                running = self._by_domain[uuid]
                running.remove(name)
                if not running:
                    del self._by_domain[uuid]
