"""The facts of all hosts as one process last saw them: read again only for hosts whose revision has moved on.

A converge in the same process hands in what it has just recorded, so that planning does not read it back.
"""

from collections.abc import Mapping
from threading import Lock

from scheduler.core.facts import HostFacts
from scheduler.core.requests import HostId
from scheduler.store.store import Store


class FactsCache:
    """Safe to use from several threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = Lock()
        self._known: dict[HostId, tuple[int, HostFacts]] = {}

    def current(self) -> tuple[Mapping[HostId, HostFacts], Mapping[HostId, int]]:
        """Return the facts of every host that was ever looked at, with their revisions."""
        for host, revision in sorted(self._store.facts_revisions().items()):
            with self._lock:
                known = self._known.get(host)
            if known is None or known[0] < revision:
                self.put(host, self._store.load_facts(host), revision)
        with self._lock:
            return (
                {host: facts for host, (_, facts) in self._known.items()},
                {host: revision for host, (revision, _) in self._known.items()},
            )

    def put(self, host: HostId, facts: HostFacts, revision: int) -> None:
        """Keep facts that were recorded, or read, at a revision; older ones do not replace newer ones."""
        with self._lock:
            known = self._known.get(host)
            if known is None or known[0] < revision:
                self._known[host] = (revision, facts)
