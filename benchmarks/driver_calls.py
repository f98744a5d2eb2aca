"""When a worker called its drivers: ports that write down every call, and the chains of starts read from that.

A start is known by its `DomainSpec`, which names what each of its steps was called with. Holds no measuring of its own.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from threading import Lock
from time import monotonic
from typing import Any, cast

from scheduler.core.requests import ReservationId
from workers.ports import DomainSpec, Drivers, Fabric, Hypervisor, Images, Pci

STEPS = ("disk", "bind", "check", "activate", "define", "create")
"""Of a start, in order; `check` is the look at the devices that are handed over."""
WOKEN = "woken"
"""Noted beside the calls: the plan was committed, and told the worker to look."""


class NotCalled(AssertionError):
    """What should have been called was not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a verb, in monotonic seconds; a failed one too."""

    verb: str
    arguments: tuple[object, ...]
    began_s: float
    ended_s: float

    @property
    def took_s(self) -> float:
        return self.ended_s - self.began_s


@dataclass(slots=True)
class Calls:
    """What was called, in the order in which it ended. Safe to use from several threads."""

    _calls: list[Call] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock)

    def add(self, call: Call) -> None:
        with self._lock:
            self._calls.append(call)

    def note(self, what: str) -> None:
        """Write down that something happened now."""
        now_s = monotonic()
        self.add(Call(verb=what, arguments=(), began_s=now_s, ended_s=now_s))

    def since(self, began_s: float) -> tuple[Call, ...]:
        """Return the calls that began since then."""
        with self._lock:
            return tuple(call for call in self._calls if call.began_s >= began_s)


def timed(drivers: Drivers, calls: Calls) -> Drivers:
    """Return the same drivers, which write down when they are called; the guest's agent aside."""
    return replace(
        drivers,
        hypervisor=cast("Hypervisor", _Timed(drivers.hypervisor, calls)),
        pci=cast("Pci", _Timed(drivers.pci, calls)),
        fabric=cast("Fabric", _Timed(drivers.fabric, calls)),
        images=cast("Images", _Timed(drivers.images, calls)),
    )


class _Timed:
    """Any port."""

    def __init__(self, port: object, calls: Calls) -> None:
        self._port = port
        self._calls = calls

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        call = getattr(self._port, verb)

        def called(*arguments: object, **named: object) -> object:
            began_s = monotonic()
            try:
                return call(*arguments, **named)
            finally:
                self._calls.add(Call(verb=verb, arguments=arguments, began_s=began_s, ended_s=monotonic()))

        return called


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """The steps of one start, as they were called."""

    spec: DomainSpec
    began_s: float
    """Its first step was called."""
    created_s: float
    """Its last step returned: the VM is on, its guest boots."""
    step_s: Mapping[str, float]
    """How long each of `STEPS` took."""

    @property
    def between_s(self) -> float:
        """What passed from the end of one step to the beginning of the next."""
        return self.created_s - self.began_s - sum(self.step_s.values())


def last_specs(calls: Iterable[Call]) -> tuple[DomainSpec, ...]:
    """Return what was defined, of each reservation the last: a start that failed is made again."""
    found: dict[ReservationId, DomainSpec] = {}
    for call in calls:
        if call.verb == "define" and isinstance(call.arguments[0], DomainSpec):
            found[call.arguments[0].reservation] = call.arguments[0]
    return tuple(found.values())


def chain_of(calls: Iterable[Call], spec: DomainSpec) -> Chain:
    """Return the chain that started a domain. Raises NotCalled when the calls do not hold all of it."""
    made = list(calls)
    start = _last(made, "start", spec.uuid)
    define = _last(made, "define", spec, before_s=start.began_s)
    activate = _last(made, "activate", spec.partition, before_s=define.began_s)
    disk = _last(made, "create_disk", spec.disk, before_s=activate.began_s)
    bind = _last(made, "bind", spec.devices, before_s=disk.began_s)
    return Chain(
        spec=spec,
        began_s=bind.began_s,
        created_s=start.ended_s,
        step_s={
            "disk": disk.took_s,
            "bind": bind.took_s,
            # Looks are not only made by chains; this one lies between two calls that are.
            "check": activate.began_s - disk.ended_s,
            "activate": activate.took_s,
            "define": define.took_s,
            "create": start.took_s,
        },
    )


def first(calls: Iterable[Call], verb: str) -> Call:
    """Return the first call of a verb. Raises NotCalled."""
    found = min((call for call in calls if call.verb == verb), key=lambda call: call.began_s, default=None)
    if found is None:
        raise NotCalled(f"{verb} was not called")
    return found


def _last(calls: Iterable[Call], verb: str, argument: object, *, before_s: float = inf) -> Call:
    found = [call for call in calls if call.verb == verb and call.arguments[:1] == (argument,)]
    in_time = [call for call in found if call.began_s <= before_s]
    if not in_time:
        raise NotCalled(f"{verb} of {argument} was not called in time for a start")
    return max(in_time, key=lambda call: call.began_s)
