"""Why the answer is no, why something waits, what a fault did: as data, with one sentence for each.

A reason has a code that never changes its meaning, and facts. The sentence is made from the facts in one place, so
the command line, the API and the events say the same. Holds no decisions.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from scheduler.core.spans import Instant, utc_text

Fact: TypeAlias = str | int | None


class ReasonCode(StrEnum):
    """The closed list of reasons; the value is what machines read."""

    # The request itself.
    UNKNOWN_SIZE = "request.unknown_size"
    BAD_DURATION = "request.bad_duration"
    IN_THE_PAST = "request.in_the_past"
    BEYOND_HORIZON = "request.beyond_horizon"
    END_BEFORE_START = "request.end_before_start"
    UNKNOWN_QUEUE = "request.unknown_queue"
    UNKNOWN_IMAGE = "request.unknown_image"
    BAD_DISK = "request.bad_disk"
    BAD_SHARE = "request.bad_share"
    BAD_TEXT = "request.bad_text"
    BOUNDARY_NOT_ALLOWED = "request.boundary_not_allowed"
    NEVER_FITS = "request.never_fits"
    NOT_AT_THAT_TIME = "request.not_at_that_time"
    INSTEAD = "request.instead"
    # Limits and rights.
    LIMIT = "limit.reached"
    LIMIT_CHOICE = "limit.not_allowed"
    NOT_YOURS = "rights.not_yours"
    ADMIN_ONLY = "rights.admin_only"
    # The thing that was named.
    UNKNOWN_RESERVATION = "reservation.unknown"
    WRONG_PHASE = "reservation.wrong_phase"
    DISK_NOT_KEPT = "reservation.disk_not_kept"
    NO_ROOM_TO_EXTEND = "reservation.no_room_to_extend"
    UNKNOWN_HOST = "host.unknown"
    UNKNOWN_GPU = "host.unknown_gpu"
    HOST_EXISTS = "host.exists"
    UNKNOWN_PROFILE = "host.unknown_profile"
    BAD_CONNECT = "host.bad_connect"
    HOST_IN_USE = "host.in_use"
    # Policies.
    POLICY_INVALID = "policy.invalid"
    POLICY_BREAKS_PROMISE = "policy.breaks_promise"
    POLICY_STALE = "policy.stale"
    POLICY_MISSES_HOSTS = "policy.misses_hosts"
    # Ours.
    DEFECT = "defect"
    # Waiting.
    WAITS_FOR_TIME = "wait.booked_later"
    WAITS_FOR_TURN = "wait.turn"
    SOONER_WITH = "wait.sooner_with"
    SOONER_IN_PIECES = "wait.sooner_in_pieces"
    WAITS_FOR_WINDOW = "wait.window"
    WAITS_FOR_WINDOW_END = "wait.window_end"
    HELD_BY = "wait.held_by"
    WAITS_FOR_HAND_OVER = "wait.hand_over"
    WAITS_FOR_GROUP = "wait.iommu_group"
    WAITS_FOR_GPUS = "wait.gpus"
    WAITS_FOR_DISK = "wait.disk"
    WAITS_FOR_OWNER = "wait.owner"
    # Faults.
    HOST_UNREACHABLE = "fault.host_unreachable"
    HOST_DRAINED = "host.drained"
    GPU_QUARANTINED = "fault.gpu_quarantined"
    GPU_HELD_BY_FOREIGN = "fault.gpu_held_by_foreign"
    START_FAILED = "fault.start_failed"
    DRIVER_REFUSED = "fault.driver_refused"
    UNKNOWN_STATE = "fault.unknown_state"
    AGENT_SILENT = "fault.agent_silent"
    CRASHED_TOO_OFTEN = "fault.crashed_too_often"
    PROMISE_BROKEN = "fault.promise_broken"
    BOUND_EXCEEDED = "fault.bound_exceeded"
    # Ends.
    SHUT_ITSELF_DOWN = "end.shut_itself_down"
    HOURS_DELIVERED = "end.hours_delivered"
    STOPPED_BY_OWNER = "end.stopped"
    CANCELLED = "end.cancelled"


_SENTENCES: dict[ReasonCode, str] = {
    ReasonCode.UNKNOWN_SIZE: "{gpus} GPUs cannot be given to one VM here; ask for one of {sizes}",
    ReasonCode.BAD_DURATION: "a duration of {run_s} s is out of range; ask for {shortest_s} s to {longest_s} s",
    ReasonCode.IN_THE_PAST: "{wanted_at} is in the past (now is {now_at}); give a later time",
    ReasonCode.BEYOND_HORIZON: "{wanted_at} is past the planning horizon; the last bookable instant is {horizon_at}",
    ReasonCode.END_BEFORE_START: "the start {start_at} is after the latest start {end_at}; swap or widen them",
    ReasonCode.UNKNOWN_QUEUE: "queue {queue!r} is not in the policy; known queues: {queues}",
    ReasonCode.UNKNOWN_IMAGE: "image {image!r} is not in the policy; known images: {images}",
    ReasonCode.BAD_DISK: (
        "a disk of {disk_gib} GiB is out of range for {gpus} GPUs; ask for {least_gib} to {most_gib} GiB"
    ),
    ReasonCode.BAD_SHARE: "{value} {unit} cannot be had with {gpus} GPUs; ask for {least} to {most}",
    ReasonCode.BAD_TEXT: "{field} {value!r} is not acceptable: {problem}",
    ReasonCode.BOUNDARY_NOT_ALLOWED: (
        "window {window} does not allow {at_boundary!r} at its boundaries; it allows {allowed}"
    ),
    ReasonCode.NEVER_FITS: "{gpus} GPUs for {run_s} s in queue {queue!r} fit nowhere before {horizon_at}; {remedy}",
    ReasonCode.NOT_AT_THAT_TIME: "no start by {wanted_at} can be promised; the earliest promise is {earliest_at}",
    ReasonCode.INSTEAD: "instead: {gpus} GPUs for {hours}, running by {start_by_at}, done by {end_by_at}",
    ReasonCode.LIMIT: "{owner} would hold {would_be} of at most {limit} ({name}); {remedy}",
    ReasonCode.LIMIT_CHOICE: "{owner} may not have {what} {value} by the policy; allowed: {allowed}",
    ReasonCode.NOT_YOURS: "reservation {reservation} belongs to someone else",
    ReasonCode.ADMIN_ONLY: "only an admin may {what}",
    ReasonCode.UNKNOWN_RESERVATION: "there is no reservation {reservation}",
    ReasonCode.WRONG_PHASE: "reservation {reservation} is {phase}; it cannot be {what} now",
    ReasonCode.DISK_NOT_KEPT: "the disk of reservation {reservation} is not kept any more; make a new reservation",
    ReasonCode.NO_ROOM_TO_EXTEND: "{reservation} cannot have {by_s} s more: {blocker} is booked there from {from_at}",
    ReasonCode.UNKNOWN_HOST: "there is no host {host}; known hosts: {hosts}",
    ReasonCode.UNKNOWN_GPU: "host {host} has no GPU {gpu}",
    ReasonCode.HOST_EXISTS: "host {host} is there already; drain it or name another",
    ReasonCode.UNKNOWN_PROFILE: "host {host} cannot be of kind {profile!r}: {problem}",
    ReasonCode.BAD_CONNECT: "host {host} cannot be reached by this URI: {problem}",
    ReasonCode.HOST_IN_USE: (
        "{reservation} has a VM or a disk on {host}, and the new URI leads to another machine; wait until that is gone"
    ),
    ReasonCode.POLICY_INVALID: "{problem}",
    ReasonCode.POLICY_MISSES_HOSTS: "these windows were made before host {hosts} was there; make them anew",
    ReasonCode.DEFECT: "a defect of Nightshift keeps this from being decided ({problem}); nothing was changed",
    ReasonCode.POLICY_BREAKS_PROMISE: "the policy would break the promise of {reservation} ({owner}): {problem}",
    ReasonCode.POLICY_STALE: "these windows are of policy version {seen}; version {current} is applied",
    ReasonCode.WAITS_FOR_TIME: "booked on {host} {partition} from {start_at}",
    ReasonCode.WAITS_FOR_TURN: (
        "it starts before that when its GPUs come free; {ahead} others that wait are tried first ({order})"
    ),
    ReasonCode.SOONER_WITH: "with {gpus} GPUs for {hours} it would run by {start_by_at}",
    ReasonCode.SOONER_IN_PIECES: "with a deadline it would run by {start_by_at}, and go on on other GPUs once parked",
    ReasonCode.WAITS_FOR_WINDOW: "waits for window {window} to open at {start_at}",
    ReasonCode.WAITS_FOR_WINDOW_END: "waits for window {window} to end at {end_at}",
    ReasonCode.HELD_BY: "{holder} has {partition} of {host} until {until_at}",
    ReasonCode.WAITS_FOR_HAND_OVER: "waits for GPUs {gpus} on {host}: {holder} is still stopping there",
    ReasonCode.WAITS_FOR_GROUP: (
        "waits for GPUs {gpus} on {host}: {holder} holds another device of the IOMMU group of {device}"
    ),
    ReasonCode.WAITS_FOR_GPUS: "waits for GPUs {gpus} on {host}: {problem}",
    ReasonCode.WAITS_FOR_DISK: "the disk pool of {storage} has room for {disk_gib} GiB only from {until_at}",
    ReasonCode.WAITS_FOR_OWNER: "the guest shut itself down; its owner may restart it until {until_at}, then it ends",
    ReasonCode.HOST_UNREACHABLE: "host {host} does not answer since {since_at}: {problem}",
    ReasonCode.HOST_DRAINED: "host {host} is drained; nothing new starts there",
    ReasonCode.GPU_QUARANTINED: "GPU {gpu} of {host} is quarantined since {since_at}: {problem}",
    ReasonCode.GPU_HELD_BY_FOREIGN: "GPU {gpu} of {host} is held by {domain}, which Nightshift did not make",
    ReasonCode.START_FAILED: "the start on {host} {partition} failed {times} times: {problem}",
    ReasonCode.DRIVER_REFUSED: "{host} refused {verb} of {subject}: {problem}",
    ReasonCode.UNKNOWN_STATE: (
        "{subject} on {host} is in a state that is not understood ({problem}); it is left as it is"
    ),
    ReasonCode.AGENT_SILENT: "the guest agent of {reservation} does not answer; the VM is left as it is",
    ReasonCode.CRASHED_TOO_OFTEN: "the guest crashed {times} times; it is not started again, its disk is kept",
    ReasonCode.PROMISE_BROKEN: (
        "the promise of {reservation} could not be kept because of {cause}: start {start_by_at}, end {end_by_at}"
    ),
    ReasonCode.BOUND_EXCEEDED: "{what} took {took_s} s, over its bound of {bound_s} s",
    ReasonCode.SHUT_ITSELF_DOWN: "the guest shut itself down and its owner did not restart it within {grace_s} s",
    ReasonCode.HOURS_DELIVERED: "all {run_s} s asked for were delivered",
    ReasonCode.STOPPED_BY_OWNER: "stopped by {by}",
    ReasonCode.CANCELLED: "cancelled by {by}",
}


_ONE_COUNTED = re.compile(r"\b1 GPUs\b")
_ONE_LISTED = re.compile(r"\bGPUs (\d+)(?= on\b)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One rule, reservation, limit or fault that stands in the way; facts are sorted by name."""

    code: ReasonCode
    facts: tuple[tuple[str, Fact], ...] = ()

    def fact(self, name: str) -> Fact:
        """Return one fact; None when the reason does not carry it."""
        return next((value for key, value in self.facts if key == name), None)


def reason(code: ReasonCode, **facts: Fact) -> Reason:
    """Make a reason from keyword facts."""
    return Reason(code=code, facts=tuple(sorted(facts.items())))


def sentence(why: Reason, show_instant: Callable[[Instant], str] = utc_text) -> str:
    """Say a reason in one sentence; facts named `*_at` are shown with `show_instant`."""
    shown: dict[str, Fact] = {}
    for name, value in why.facts:
        shown[name] = show_instant(value) if name.endswith("_at") and isinstance(value, int) else value
    return _in_number(_SENTENCES[why.code].format_map(_Unsaid(shown)))


def _in_number(text: str) -> str:
    """Say "1 GPU" and "GPU 3 on": a sentence is written for many."""
    return _ONE_LISTED.sub(r"GPU \1", _ONE_COUNTED.sub("1 GPU", text))


class _Unsaid(dict[str, Fact]):
    """A missing fact is shown as `?` rather than raised: an explanation must never fail."""

    def __missing__(self, key: str) -> Fact:
        return "?"
