"""Why a promise was broken: the causes, as data, and what the facts show of them. Changes nothing.

A cause is told once for as long as it lasts (decision 0011). Whether two of them are one is asked of their codes, hosts
and places, never of their texts: those list the GPUs and the guests, which change while the cause lasts.
"""

from dataclasses import dataclass
from enum import StrEnum

from scheduler.core.facts import GpuState, VmFact
from scheduler.core.plan import BookedSpan, Reservation
from scheduler.core.planner.draft import Draft
from scheduler.core.planner.owed import Vms
from scheduler.core.reasons import Fact, Reason, ReasonCode
from scheduler.core.requests import HostId


class CauseCode(StrEnum):
    """What broke a promise; the value is what machines read, and is kept in the database."""

    HOST_SILENT = "host_silent"
    GPUS_LOST = "gpus_lost"
    STARTS_FAILED = "starts_failed"
    STILL_HELD = "still_held"
    NOT_RESET = "not_reset"
    START_ENDED = "start_ended"
    """What a start on the host came to, as the host told it."""
    HOURS_LOST = "hours_lost"
    NO_PLACE = "no_place"
    OVERRIDDEN = "overridden"
    """An admin's policy, against a promise."""
    NOT_IN_TIME = "not_in_time"
    """The facts show no other cause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One cause: code, host and place say which, the text is for people."""

    code: CauseCode
    text: str
    host: HostId | None = None
    place: str | None = None
    """The partition, or how the start ended: what tells two causes of one code on one host apart."""

    def is_told_by(self, why: Reason) -> bool:
        """Whether a reason of a broken promise names this very cause."""
        if why.fact("cause_code") is None:
            # Written by an earlier version, which kept the text alone.
            return why.fact("cause") == self.text
        told = (why.fact("cause_code"), why.fact("cause_host"), why.fact("cause_place"))
        return told == (self.code.value, self.host, self.place)

    def as_facts(self) -> dict[str, Fact]:
        """Return the facts that a reason carries of it."""
        where = {"cause_host": self.host, "cause_place": self.place}
        known = {name: value for name, value in where.items() if value is not None}
        return {"cause": self.text, "cause_code": self.code.value, **known}


NO_PLACE = Cause(code=CauseCode.NO_PLACE, text="no GPUs are left that could take it")
"""Told when a reservation that ran, or never did, loses its last place."""

HOURS_LOST = Cause(code=CauseCode.HOURS_LOST, text="hours lost to a fault of the host")
"""Told of a guest that ran."""

NOT_IN_TIME = Cause(code=CauseCode.NOT_IN_TIME, text="the hand-over was not done in time")
"""Told when the facts show none."""


def overridden_by(why: str, *, version: int) -> Cause:
    """Return the cause of promises that an admin broke by applying a policy."""
    return Cause(code=CauseCode.OVERRIDDEN, place=_version_text(version), text=f"an admin's override: {why}")


def was_overridden_by(reservation: Reservation, version: int) -> bool:
    """Whether a policy version broke the promise of a reservation, as far as that is remembered."""
    return any(is_override(why) and why.fact("cause_place") == _version_text(version) for why in reservation.reasons)


def _version_text(version: int) -> str:
    return f"policy version {version}"


def is_override(why: Reason) -> bool:
    """Whether a reason says that an admin broke the promise."""
    return why.code is ReasonCode.PROMISE_BROKEN and why.fact("cause_code") == CauseCode.OVERRIDDEN


def override_told(reservation: Reservation) -> Cause | None:
    """Return the latest override that broke a promise of a reservation; None: none ever did."""
    told = next((why for why in reversed(reservation.reasons) if is_override(why)), None)
    if told is None:
        return None
    return Cause(code=CauseCode.OVERRIDDEN, place=str(told.fact("cause_place")), text=str(told.fact("cause")))


def host_is_silent(host: HostId) -> Cause:
    return Cause(code=CauseCode.HOST_SILENT, host=host, text=f"host {host} does not answer")


def starts_failed(span: BookedSpan) -> Cause:
    text = f"starts on {span.host} {span.partition} failed"
    return Cause(code=CauseCode.STARTS_FAILED, host=span.host, place=span.partition, text=text)


def gpus_were_lost(draft: Draft, span: BookedSpan) -> Cause:
    lost = draft.partition_of(span).gpus & draft.facts[span.host].gpus_out_of_plan
    text = f"GPUs of {span.host} were lost: {_listed(lost)}"
    return Cause(code=CauseCode.GPUS_LOST, host=span.host, text=text)


def cause_of_delay(draft: Draft, reservation: Reservation, vms: Vms) -> Cause:
    """Return what keeps the guest of a span that has begun from starting, or kept it until its time was over."""
    begun = [span for span in reservation.spans if span.start_at <= draft.now]
    span = max(begun, key=lambda s: s.end_at, default=None)
    if span is None:
        return _of_last_start(vms) or NOT_IN_TIME
    if span.host in draft.silent_hosts:
        return host_is_silent(span.host)
    if draft.is_lost(span):
        return gpus_were_lost(draft, span)
    return (
        _still_held(draft, reservation, span)
        or _of_last_start([(host, vm) for host, vm in vms if host == span.host])
        or _not_reset(draft, span)
        or NOT_IN_TIME
    )


def _still_held(draft: Draft, reservation: Reservation, span: BookedSpan) -> Cause | None:
    """Say whose guests are still on the GPUs of a span."""
    partition, profile = draft.partition_of(span), draft.hosts[span.host].profile
    facts = draft.facts.get(span.host)
    holders = sorted(
        {
            str(vm.reservation)
            for vm in (facts.vms if facts is not None else ())
            if vm.off_at is None
            and vm.reservation != reservation.id
            and profile.partition(vm.partition).overlaps(partition)
        }
    )
    if not holders:
        return None
    text = f"{partition.id} of {span.host} is still held by {', '.join(holders)}"
    return Cause(code=CauseCode.STILL_HELD, host=span.host, place=partition.id, text=text)


def _of_last_start(vms: Vms) -> Cause | None:
    """Say what the host told of the latest start that came to nothing."""
    latest: tuple[HostId, VmFact] | None = next(((host, vm) for host, vm in reversed(vms) if vm.problem), None)
    if latest is None:
        return None
    host, vm = latest
    return Cause(code=CauseCode.START_ENDED, host=host, place=vm.end.value if vm.end else None, text=vm.problem)


def _not_reset(draft: Draft, span: BookedSpan) -> Cause | None:
    facts = draft.facts.get(span.host)
    dirty = frozenset(gpu.gpu for gpu in (facts.gpus if facts is not None else ()) if gpu.state is GpuState.DIRTY)
    ours = dirty & draft.partition_of(span).gpus
    if not ours:
        return None
    text = f"GPUs of {span.host} were not reset in time: {_listed(ours)}"
    return Cause(code=CauseCode.NOT_RESET, host=span.host, text=text)


def _listed(gpus: frozenset[int]) -> str:
    return ", ".join(str(gpu) for gpu in sorted(gpus))
