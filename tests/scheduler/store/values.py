"""Plan values for the store's tests: short makers with plain defaults, and strategies for whole valid changes."""

from hypothesis import strategies as st

from scheduler.core.plan import (
    BookedDisk,
    BookedSpan,
    Decided,
    Event,
    Host,
    Limits,
    Outcome,
    PlanChange,
    Queue,
    Reservation,
    Rules,
)
from scheduler.core.reasons import Reason, ReasonCode, reason
from scheduler.core.requests import AtBoundary, DiskId, HostId, Promise, Request, ReservationId
from scheduler.core.spans import FOREVER
from scheduler.core.topology import HostProfile, PartitionId
from scheduler.core.windows import Layout, Window, WindowId, WindowState
from scheduler.profiles.loading import load_profile

DGX2: HostProfile = load_profile("dgx-2")
HOST_A = HostId("dgx2-a")
FIRST_FOUR = PartitionId("4g0-3")
ALL = PartitionId("16g0-15")


def host(host_id: HostId = HOST_A) -> Host:
    return Host(id=host_id, profile=DGX2, storage="local")


def span(start_at: int, end_at: int, partition: PartitionId = FIRST_FOUR, generation: int | None = None) -> BookedSpan:
    return BookedSpan(start_at=start_at, end_at=end_at, host=HOST_A, partition=partition, generation=generation)


def request(name: str = "r-1", run_s: int = 3600) -> Request:
    return Request(
        id=ReservationId(name),
        owner="ada",
        queue="interactive",
        gpus=4,
        run_s=run_s,
        submitted_at=100,
        not_before_at=None,
        start_by_at=None,
        at_boundary=AtBoundary.PARK,
        image="ubuntu",
        disk_gib=100,
    )


def reservation(
    name: str = "r-1",
    *spans: BookedSpan,
    run_s: int = 3600,
    promise: Promise | None = Promise(start_by_at=1000, end_by_at=5000),
    generation: int = 0,
    promise_notice: int = 0,
    is_closed: bool = False,
) -> Reservation:
    return Reservation(
        request=request(name, run_s),
        promise=promise,
        spans=spans,
        generation=generation,
        promise_notice=promise_notice,
        is_closed=is_closed,
        outcome=Outcome.COMPLETED if is_closed else None,
    )


def window(
    name: str = "night@1", state: WindowState = WindowState.PLANNED, released_from_at: int | None = None
) -> Window:
    return Window(
        id=WindowId(name),
        name="night",
        layout=Layout(name="night", sizes=frozenset({16}), queues=frozenset({"hpc"})),
        hosts=frozenset({HOST_A}),
        start_at=10_000,
        end_at=20_000,
        decide_at=9_000,
        only_if_queued=True,
        at_boundary=frozenset({AtBoundary.PARK, AtBoundary.FINISH}),
        warnings_s=(3600, 900),
        grace_s=300,
        policy_version=1,
        state=state,
        released_from_at=released_from_at,
    )


def booked_disk(name: str = "d-1", of: str = "r-1", until_at: int = 10_000) -> BookedDisk:
    return BookedDisk(
        id=DiskId(name),
        reservation=ReservationId(of),
        owner="ada",
        size_gib=100,
        storage="local",
        is_scratch=False,
        from_at=1000,
        until_at=until_at,
    )


# Strategies. PostgreSQL cannot store NUL, nor anybody half a surrogate pair; admission refuses both.

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
instants = st.integers(0, FOREVER)
pairs = st.dictionaries(texts, st.none() | texts | st.integers(), max_size=3).map(lambda d: tuple(sorted(d.items())))
reasons = st.lists(st.builds(Reason, code=st.sampled_from(ReasonCode), facts=pairs), max_size=2).map(tuple)
layouts = st.builds(
    Layout, name=texts, sizes=st.frozensets(st.integers(1, 16), max_size=5), queues=st.frozensets(texts, max_size=3)
)
warnings = st.lists(st.integers(0, 10_000), max_size=3).map(tuple)
queues = st.lists(st.builds(Queue, name=texts, default_disk_gib=st.none() | st.integers(1, 9)), max_size=2).map(tuple)
events = st.builds(
    Event,
    kind=texts,
    at=instants,
    reservation=st.none() | texts.map(ReservationId),
    host=st.none() | texts.map(HostId),
    actor=texts,
    facts=pairs,
    is_notice=st.booleans(),
)


@st.composite
def rules(draw: st.DrawFn, version: int) -> Rules:
    return Rules(
        version=version,
        zone=draw(texts),
        outside=draw(layouts),
        queues=draw(queues),
        images=tuple(draw(st.lists(texts, max_size=3))),
        default_disk_gib=draw(st.integers(1, 1000)),
        retention_s=draw(instants),
        grace_s=draw(instants),
        min_useful_s=draw(instants),
        warnings_s=draw(warnings),
        limits=draw(st.builds(Limits, open_reservations=st.none() | st.integers(0, 9))),
        source=draw(texts),
    )


@st.composite
def windows(draw: st.DrawFn, name: str) -> Window:
    start_at = draw(st.integers(0, FOREVER - 1))
    state = draw(st.sampled_from(WindowState))
    return Window(
        id=WindowId(name),
        name=draw(texts),
        layout=draw(layouts),
        hosts=draw(st.frozensets(texts.map(HostId), max_size=3)),
        start_at=start_at,
        end_at=draw(st.integers(start_at + 1, FOREVER)),
        decide_at=draw(instants),
        only_if_queued=draw(st.booleans()),
        at_boundary=draw(st.frozensets(st.sampled_from(AtBoundary))),
        warnings_s=draw(warnings),
        grace_s=draw(st.integers(0, 9999)),
        policy_version=draw(st.integers(0, 9999)),
        source=draw(texts),
        state=state,
        released_from_at=draw(instants) if state is WindowState.RELEASED else None,
    )


@st.composite
def reservations(draw: st.DrawFn, name: str, hosts: tuple[HostId, ...], from_at: int) -> Reservation:
    """Draw a reservation whose spans lie in `[from_at, from_at + 1000)`."""
    edges = sorted(draw(st.lists(st.integers(0, 999), min_size=0, max_size=8, unique=True)))
    spans = tuple(
        BookedSpan(
            start_at=from_at + start_at,
            end_at=from_at + end_at,
            host=draw(st.sampled_from(hosts)),
            partition=draw(st.sampled_from(DGX2.partitions)).id,
            generation=draw(st.none() | st.integers(1, 9)),
        )
        for start_at, end_at in zip(edges[::2], edges[1::2], strict=False)
    )
    start_by_at = draw(st.integers(0, FOREVER - 1))
    promises = st.builds(Promise, start_by_at=st.just(start_by_at), end_by_at=st.integers(start_by_at, FOREVER))
    is_closed = draw(st.booleans())
    return Reservation(
        request=Request(
            id=ReservationId(name),
            owner=draw(texts),
            queue=draw(texts),
            gpus=draw(st.integers(1, 16)),
            run_s=draw(st.integers(1, FOREVER)),
            submitted_at=draw(instants),
            not_before_at=draw(st.none() | instants),
            start_by_at=draw(st.none() | instants),
            at_boundary=draw(st.sampled_from(AtBoundary)),
            image=draw(texts),
            disk_gib=draw(st.integers(0, 1 << 40)),
            memory_gib=draw(st.none() | st.integers(1, 1 << 40)),
            vcpus=draw(st.none() | st.integers(1, 1 << 40)),
            ssh_key=draw(st.none() | texts),
            continues=draw(st.none() | texts.map(ReservationId)),
            key=draw(st.sampled_from((None, f"key of {name}"))),
        ),
        promise=draw(st.none() | promises),
        spans=spans,
        generation=draw(st.integers(0, 99)),
        restart_after=draw(st.integers(0, 99)),
        disk=draw(st.none() | texts.map(DiskId)),
        outcome=draw(st.sampled_from(Outcome)) if is_closed else draw(st.none() | st.sampled_from(Outcome)),
        ended_at=draw(st.none() | instants),
        is_closed=is_closed,
        promise_notice=draw(st.integers(0, 9)),
        reasons=draw(reasons),
    )


@st.composite
def changes(draw: st.DrawFn, version: int) -> PlanChange:
    """Draw a change that can follow version `version`: its names and its stretch of time are its own."""
    hosts = tuple(
        Host(
            id=HostId(f"host {version} {number} {draw(texts)}"),
            profile=DGX2,
            storage=draw(texts),
            connect=draw(texts),
            is_drained=draw(st.booleans()),
            mended=tuple(draw(st.lists(st.tuples(st.integers(0, 15), instants), max_size=2))),
        )
        for number in range(draw(st.integers(1, 2)))
    )
    host_ids = tuple(each.id for each in hosts)
    booked = tuple(
        draw(reservations(f"r-{version}-{number}", host_ids, (version * 4 + number) * 1000))
        for number in range(draw(st.integers(0, 3)))
    )
    disks = tuple(
        BookedDisk(
            id=DiskId(f"disk of {each.id}"),
            reservation=each.id,
            owner=draw(texts),
            size_gib=draw(st.integers(1, 1 << 40)),
            storage=draw(texts),
            is_scratch=draw(st.booleans()),
            from_at=5,
            until_at=draw(st.integers(5, FOREVER)),
        )
        for each in booked
    )
    return PlanChange(
        hosts=hosts,
        reservations=booked,
        disks=disks,
        windows=tuple(draw(windows(f"w {version} {number}")) for number in range(draw(st.integers(0, 2)))),
        rules=draw(st.none() | rules(version + 1)),
        policy_text=draw(st.none() | texts),
        horizon_at=draw(st.none() | instants),
        events=tuple(draw(st.lists(events, max_size=3))),
    )


def refused(seq: int) -> Decided:
    return Decided(seq=seq, reasons=(reason(ReasonCode.UNKNOWN_HOST, host="x", hosts="a, b"),))
