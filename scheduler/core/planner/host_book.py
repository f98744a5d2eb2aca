"""The hosts of a plan, looked up: what there is to ask for, the pools, who is drained.

Made once for a set of hosts, and used until that changes: a fleet has a thousand hosts and a handful of profiles.
"""

from collections.abc import Mapping
from functools import cached_property

from scheduler.core.plan import Host
from scheduler.core.requests import HostId
from scheduler.core.topology import HostProfile


class HostBook:
    """Immutable; what is looked up is worked out at first use."""

    def __init__(self, hosts: Mapping[HostId, Host]) -> None:
        self.hosts = hosts
        """The very mapping that this is of."""
        self._pools_gib: dict[tuple[str, bool], int] = {}
        self._least_gib: dict[bool, int] = {}

    @cached_property
    def by_id(self) -> dict[HostId, Host]:
        """In the order of their ids. Not to be changed."""
        return dict(sorted(self.hosts.items()))

    @cached_property
    def ids(self) -> frozenset[HostId]:
        return frozenset(self.hosts)

    @cached_property
    def drained(self) -> frozenset[HostId]:
        return frozenset(host.id for host in self.hosts.values() if host.is_drained)

    @cached_property
    def profiles(self) -> tuple[HostProfile, ...]:
        """Each once, in the order of the first host that has it."""
        # Hosts of one kind have the very same value: told apart by that, and only then hashed.
        found = {id(host.profile): host.profile for host in self.by_id.values()}
        return tuple(dict.fromkeys(found.values()))

    @cached_property
    def sizes(self) -> frozenset[int]:
        """The GPUs of one VM that some host has a partition for."""
        return frozenset(size for profile in self.profiles for size in profile.sizes)

    @cached_property
    def by_storage(self) -> Mapping[str, tuple[Host, ...]]:
        """The hosts that reach each storage, in the order of their ids; by labels, sorted."""
        found: dict[str, list[Host]] = {}
        for host in self.by_id.values():
            found.setdefault(host.storage, []).append(host)
        return {storage: tuple(found[storage]) for storage in sorted(found)}

    def pool_gib(self, storage: str, *, is_scratch: bool) -> int:
        """Return the size of one part of a storage's pool; hosts that share a storage describe one pool."""
        pool = storage, is_scratch
        if pool not in self._pools_gib:
            hosts = self.by_storage.get(storage)
            profile = hosts[0].profile if hosts else None
            parts = (0, 0) if profile is None else (profile.pool_gib - profile.scratch_gib, profile.scratch_gib)
            self._pools_gib[pool] = parts[is_scratch]
        return self._pools_gib[pool]

    def least_pool_gib(self, *, is_scratch: bool) -> int:
        """Return the size of the smallest of all pools, of that part of them."""
        if is_scratch not in self._least_gib:
            sizes = [self.pool_gib(storage, is_scratch=is_scratch) for storage in self.by_storage]
            self._least_gib[is_scratch] = min(sizes, default=0)
        return self._least_gib[is_scratch]
