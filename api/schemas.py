"""What goes over the wire: requests and answers as models. Holds shapes only; who may see what is decided beside them.

Requests are strict: no field that is not known, no `"3"` for 3, no `true` for 1, texts and numbers within bounds.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.instants import InstantIn, InstantOut

MOST_GPUS = 1024
MOST_S = 10**9
MOST_DISK_GIB = 1 << 30
MOST_MEMORY_GIB = 1 << 20
MOST_VCPUS = 1 << 16
OWNER_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$"
RESERVATION_PATTERN = r"^r-[0-9]{1,18}$"
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class Body(BaseModel):
    """What somebody sends."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Answer(BaseModel):
    """What is answered."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Nothing(Body):
    """A body in which nothing is asked for."""


ReservationIdIn = Annotated[str, Field(pattern=RESERVATION_PATTERN, examples=["r-17"])]
NameIn = Annotated[str, Field(pattern=NAME_PATTERN)]
TextIn = Annotated[str, Field(min_length=1, max_length=64)]
ConnectIn = Annotated[str, Field(min_length=1, max_length=512, examples=["qemu+ssh://root@dgx2-a/system"])]
SecondsIn = Annotated[int, Field(ge=1, le=MOST_S)]


class AskIn(Body):
    """A reservation as somebody asks for it."""

    gpus: Annotated[int, Field(ge=1, le=MOST_GPUS)] | None = None
    run_s: SecondsIn | None = None
    """Hours of running, in seconds; being parked does not use them up."""
    queue: TextIn | None = None
    at: InstantIn | None = None
    """Not before this, and running by it."""
    not_before_at: InstantIn | None = None
    start_by_at: InstantIn | None = None
    at_night: Literal["park", "finish", "keep"] | None = None
    image: TextIn | None = None
    disk_gib: Annotated[int, Field(ge=1, le=MOST_DISK_GIB)] | None = None
    memory_gib: Annotated[int, Field(ge=1, le=MOST_MEMORY_GIB)] | None = None
    """Less than the partition's share; all of it if not given."""
    vcpus: Annotated[int, Field(ge=1, le=MOST_VCPUS)] | None = None
    """Less than the partition's share; all of it if not given."""
    ssh_key: Annotated[str, Field(min_length=1, max_length=16_384)] | None = None
    continues: ReservationIdIn | None = None
    """Take over the kept disk of this earlier reservation."""
    like: ReservationIdIn | None = None
    """Take what is not said here from this reservation."""
    owner: Annotated[str, Field(pattern=OWNER_PATTERN)] | None = None
    """For whom; only an admin may name somebody else."""


class ExtendIn(Body):
    by_s: SecondsIn


class StartIn(Body):
    run_s: SecondsIn | None = None
    """For how long; the time left if not given."""


class HostIn(Body):
    id: NameIn
    profile: NameIn
    storage: NameIn | None = None
    """The label of the storage that its disks are on; the host's own if not given."""
    connect: ConnectIn | None = None
    """The libvirt URI at which it is reached; a simulated rack if not given."""


class ConnectHostIn(Body):
    connect: ConnectIn
    """The libvirt URI at which it is reached from now on."""


class PolicyIn(Body):
    text: Annotated[str, Field(max_length=1024 * 1024)]
    source: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")] = "policy.yaml"
    """The file's name, for `file:line` in messages."""


RemarkIn = Annotated[str, Field(max_length=500, pattern=r"^[^\x00-\x1f\x7f]*$")]
"""One line in somebody's own words."""
ReasonIn = Annotated[str, Field(max_length=500, pattern=r"^[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$")]
"""The same, and not empty."""


class PolicyRemarksIn(Body):
    message: RemarkIn = ""
    """Why it is applied; kept with the version."""
    override: ReasonIn | None = None
    """Why it may break promises; if not given, it may break none."""


class PolicyApplyIn(PolicyIn, PolicyRemarksIn):
    pass


class WatchIn(Body):
    name: Annotated[str, Field(min_length=1, max_length=300, pattern=r"^[^\x00-\x1f\x7f]+$")]
    """The machine and the path of the files."""
    state: Literal["watching", "once", "ended"] = "watching"
    problem: Annotated[str, Field(max_length=4000)] | None = None
    """Why they are not applied; null when they are, or when there is nothing to apply."""


class UserIn(Body):
    name: Annotated[str, Field(min_length=1, max_length=64)]
    role: Literal["student", "admin"] = "student"


class TokenIn(Body):
    label: Annotated[str, Field(max_length=200)] = ""


# Answers.


class ReasonOut(Answer):
    code: str
    sentence: str
    facts: dict[str, str | int | None]


class PromiseOut(Answer):
    start_by_at: InstantOut
    end_by_at: InstantOut


class SpanOut(Answer):
    start_at: InstantOut
    end_at: InstantOut
    host: str
    partition: str
    gpus: list[int]
    is_pinned: bool


class VmOut(Answer):
    host: str
    partition: str
    gpus: list[int]
    generation: int
    uuid: str
    up_at: InstantOut | None
    running_at: InstantOut | None


class DiskOut(Answer):
    id: str
    size_gib: int
    kept_until_at: InstantOut


class ReservationOut(Answer):
    id: str
    owner: str
    queue: str
    gpus: int
    run_s: int
    phase: str
    submitted_at: InstantOut
    not_before_at: InstantOut | None
    asked_start_by_at: InstantOut | None
    at_boundary: str
    image: str
    disk_gib: int
    memory_gib: int | None
    """What was asked for; null: the partition's whole share."""
    vcpus: int | None
    """What was asked for; null: the partition's whole share."""
    continues: str | None
    by_policy: str | None
    """The policy's entry that asked for it."""
    promise: PromiseOut | None
    spans: list[SpanOut]
    delivered_s: int
    vm: VmOut | None
    disk: DiskOut | None
    outcome: str | None
    ended_at: InstantOut | None
    reasons: list[ReasonOut]
    next: str
    plan_version: int


class ReservationsOut(Answer):
    reservations: list[ReservationOut]
    plan_version: int
    now: InstantOut


class WantedOut(Answer):
    """A request, and how long its guests ran."""

    id: str
    owner: str
    queue: str
    gpus: int
    run_s: int
    submitted_at: InstantOut
    not_before_at: InstantOut | None
    asked_start_by_at: InstantOut | None
    disk_gib: int
    by_policy: str | None
    """The policy's entry that asked for it."""
    outcome: str | None
    """Null: it is not over."""
    ran_s: int


class DemandOut(Answer):
    requests: list[WantedOut]
    next: str | None
    """Ask for what came after this one; null: there is no more."""
    now: InstantOut


class WaitOut(Answer):
    """From submission, or from the instant that it was not to start before: what was told, and what came of it."""

    told_s: int
    likely_s: int
    waited_s: int | None
    """Null while no guest of it has run."""


class WhyOut(Answer):
    id: str
    phase: str
    promise: PromiseOut | None
    reasons: list[ReasonOut]
    wait: WaitOut | None
    """Null where nothing was promised."""
    plan_version: int
    now: InstantOut


class IntentOut(Answer):
    intent: int
    status: Literal["open", "accepted", "refused"]
    reservation: str | None
    reasons: list[ReasonOut]


class BeingPlannedOut(Answer):
    intent: int
    status: Literal["being planned"]
    reservation: str | None


class AlternativeOut(Answer):
    """Something that can be had instead, or sooner; `ask` can be posted to /reservations as it stands."""

    change: str
    """What is changed: fewer_gpus, more_gpus, later, parked, split, shorter, smaller_disk, fresh_disk, nearest."""
    ask: dict[str, str | int]
    gpu_hours: float
    promise: PromiseOut


class QuoteOut(Answer):
    promise: PromiseOut | None
    likely_start_at: InstantOut | None
    gpu_hours: float | None
    """What it would cost; none where nothing is promised."""
    spans: list[SpanOut]
    reasons: list[ReasonOut]
    alternatives: list[AlternativeOut]
    plan_version: int


class FreeSizeOut(Answer):
    gpus: int
    queue: str
    free_now: int
    promise: PromiseOut | None
    likely_start_at: InstantOut | None
    reasons: list[ReasonOut]


class FreeOut(Answer):
    now: InstantOut
    plan_version: int
    sizes: list[FreeSizeOut]


class CalendarHostOut(Answer):
    id: str
    profile: str
    gpus: int
    is_drained: bool
    gpus_out: list[int]


class CalendarWindowOut(Answer):
    id: str
    name: str
    layout: str
    hosts: list[str]
    start_at: InstantOut
    end_at: InstantOut
    state: str
    released_from_at: InstantOut | None


class CalendarBookingOut(Answer):
    host: str
    partition: str
    gpus: list[int]
    start_at: InstantOut
    end_at: InstantOut
    is_mine: bool
    reservation: str | None
    owner: str | None
    queue: str
    phase: str


class CalendarOut(Answer):
    now: InstantOut
    zone: str
    from_at: InstantOut
    until_at: InstantOut
    plan_version: int
    hosts: list[CalendarHostOut]
    windows: list[CalendarWindowOut]
    bookings: list[CalendarBookingOut]


class HostWindowOut(Answer):
    name: str
    layout: str
    until_at: InstantOut


class GpuProblemOut(Answer):
    gpu: int
    state: str
    since_at: InstantOut
    problem: str


class HostVmOut(Answer):
    reservation: str | None
    owner: str | None
    partition: str
    gpus: list[int]
    phase: str | None
    generation: int
    running_at: InstantOut | None


class ForeignOut(Answer):
    uuid: str
    name: str
    gpus: list[int]


class HostTroubleOut(Answer):
    code: str
    kind: Literal["wrong", "unverified"]
    problem: str
    mend: str
    """What to do, in one line."""


class HostOut(Answer):
    id: str
    profile: str
    storage: str
    connect: str | None
    """The libvirt URI at which it is reached, empty for a simulated rack. For admins."""
    is_drained: bool
    gpus: int
    gpus_running: int
    gpus_free: int
    layout: str | None
    """The layout that holds now: the window's, or the policy's outside of windows; null before a policy is applied."""
    window: HostWindowOut | None
    seen_at: InstantOut | None
    unreachable_since_at: InstantOut | None
    problem: str
    troubles: list[HostTroubleOut]
    """What is wrong with the host itself, and what cannot be checked from where its worker runs. For admins."""
    gpu_problems: list[GpuProblemOut]
    vms: list[HostVmOut]
    foreign: list[ForeignOut]
    stuck: list[str]
    """What is booked on a drained host, because no other place keeps its promise. For admins."""


class HostsOut(Answer):
    hosts: list[HostOut]
    plan_version: int
    now: InstantOut


class PolicyOut(Answer):
    version: int
    applied_at: InstantOut
    author: str
    is_current: bool
    source: str
    """The name of the file or directory that was applied."""
    message: str
    """Why it was applied, in its author's words; may be empty."""
    override: str | None
    """Why it was let break promises; null: it was not."""
    made_with: dict[str, str]
    """The versions of the data that its windows were made with: `tzdata`, `holidays`. Empty if that is not known."""


class PolicyWithTextOut(PolicyOut):
    text: str


class PolicyProblemOut(Answer):
    file: str
    """The policy's source; of a policy of several files `source/name`."""
    line: int
    column: int
    severity: Literal["error", "warning"]
    message: str


class PolicyCheckedOut(Answer):
    ok: bool
    problems: list[PolicyProblemOut]


class OverriddenOut(Answer):
    reservation: str
    owner: str
    promise: PromiseOut | None
    """What was promised instead."""
    has_place: bool
    """False: no place is left for it before the horizon; its record and its disk are kept."""


class PolicyAppliedOut(PolicyOut):
    problems: list[PolicyProblemOut]
    """Warnings: it was applied, and will perhaps not do what its author wants."""
    overridden: list[OverriddenOut]
    """Whose promise it broke by `override`; each of them was told."""


class UserOut(Answer):
    name: str
    role: str
    created_at: InstantOut
    is_disabled: bool


class UsersOut(Answer):
    users: list[UserOut]


class TokenOut(Answer):
    id: str
    label: str
    created_at: InstantOut
    last_used_at: InstantOut | None
    revoked_at: InstantOut | None


class TokensOut(Answer):
    tokens: list[TokenOut]


class IssuedTokenOut(Answer):
    id: str
    label: str
    created_at: InstantOut
    secret: str
    """Shown this once."""


class MeOut(Answer):
    name: str
    role: str
    zone: str
    now: InstantOut
    speed: float
    version: str


class StatusOut(Answer):
    ok: bool
    version: str


class CheckOut(Answer):
    name: str
    ok: bool
    detail: str
    remedy: str


class DoctorOut(Answer):
    checks: list[CheckOut]


class WatchOut(Answer):
    name: str
    problem: str | None


class PolicyVersionOut(PolicyOut):
    same_text_as: int | None
    """The newest earlier version with the very same text, of those in this answer."""


class PoliciesOut(Answer):
    current: int | None
    policies: list[PolicyVersionOut]


class WindowChangeOut(Answer):
    name: str
    hosts: list[str]
    before_start_at: InstantOut | None
    """Null: the window would appear."""
    before_end_at: InstantOut | None
    after_start_at: InstantOut | None
    """Null: the window would vanish."""
    after_end_at: InstantOut | None
    start_moves_s: int | None
    """How much later; negative is earlier."""
    end_moves_s: int | None
    differs: list[str]
    """What else would be different, by the words of the policy file."""


class BookingSpanOut(Answer):
    start_at: InstantOut
    end_at: InstantOut
    host: str


class BookingChangeOut(Answer):
    reservation: str
    owner: str
    gpus: int
    promise: PromiseOut | None
    before: list[BookingSpanOut]
    """What is left of its booking now."""
    after: list[BookingSpanOut]
    start_moves_s: int
    """How much later; negative is earlier."""
    end_moves_s: int


class BrokenPromiseOut(Answer):
    reservation: str
    owner: str
    reason: ReasonOut
    promise: PromiseOut | None
    after: PromiseOut | None
    """What would be promised instead if an admin overrides it; null: no place would be left before the horizon."""


class PolicyDiffOut(Answer):
    current: int | None
    plan_version: int
    now: InstantOut
    until_at: InstantOut
    """Windows that start from here on are not compared."""
    is_empty: bool
    """Nothing would change."""
    is_refused: bool
    """It would not be applied: it breaks promises, or `reasons`."""
    rules: list[str]
    """What of the other rules would be different, by the words of the policy file."""
    windows: list[WindowChangeOut]
    bookings: list[BookingChangeOut]
    broken: list[BrokenPromiseOut]
    is_broken_complete: bool
    reasons: list[ReasonOut]
    """Why it would be refused in any case; nothing else is known then."""
    owners_hit: list[str]
    """Whose booking would move, or whose promise would break."""
    problems: list[PolicyProblemOut]
    """Warnings."""
