"""Which time is whose: stretches against a slow look at every minute."""

from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.requests import AtBoundary, HostId
from scheduler.core.windows import Layout, Stretches, Window, WindowId, WindowState, stretches

DAY = Layout(name="day", sizes=frozenset({1, 2, 4, 8}), queues=frozenset({"interactive"}))
NIGHT = Layout(name="night", sizes=frozenset({16}), queues=frozenset({"hpc"}))
UNTIL = 400
PARK = frozenset({AtBoundary.PARK, AtBoundary.FINISH})


def window(start_at: int, end_at: int, released_from_at: int | None, *, keeps: bool) -> Window:
    state = WindowState.OPEN if released_from_at is None else WindowState.RELEASED
    return Window(
        id=WindowId(f"w@{start_at}"),
        name="w",
        layout=NIGHT,
        hosts=frozenset({HostId("a")}),
        start_at=start_at,
        end_at=end_at,
        decide_at=start_at,
        only_if_queued=True,
        at_boundary=PARK | ({AtBoundary.KEEP} if keeps else frozenset()),
        warnings_s=(),
        grace_s=1,
        policy_version=1,
        state=state,
        released_from_at=released_from_at,
    )


@st.composite
def nights(draw: st.DrawFn) -> tuple[Window, ...]:
    """Disjoint windows, some touching, some released in whole or for their rest."""
    edges = sorted(draw(st.sets(st.integers(0, UNTIL + 50), max_size=8)))
    made = []
    for start_at, end_at in zip(edges[::2], edges[1::2], strict=False):
        released = draw(st.one_of(st.none(), st.integers(start_at, end_at)))
        made.append(window(start_at, end_at, released, keeps=draw(st.booleans())))
    return tuple(made)


def is_theirs(
    windows: tuple[Window, ...], instant: int, gpus: int, queue: str, at_boundary: AtBoundary, *, with_gifts: bool
) -> bool:
    """The slow answer for one instant."""
    inside = next((w for w in windows if w.start_at <= instant < w.end_at), None)
    outside = DAY.admits(gpus=gpus, queue=queue)
    if inside is None:
        return outside
    if inside.state is WindowState.RELEASED and instant >= (inside.released_from_at or 0):
        return outside and with_gifts
    if inside.layout.admits(gpus=gpus, queue=queue):
        return True
    return outside and at_boundary is AtBoundary.KEEP and AtBoundary.KEEP in inside.at_boundary


@given(
    windows=nights(),
    asked=st.sampled_from([(1, "interactive"), (16, "hpc"), (3, "interactive"), (16, "interactive")]),
    at_boundary=st.sampled_from(AtBoundary),
    with_gifts=st.booleans(),
    from_at=st.integers(0, UNTIL - 1),
)
def test_stretches_hold_exactly_the_minutes_that_are_theirs(
    windows: tuple[Window, ...], asked: tuple[int, str], at_boundary: AtBoundary, with_gifts: bool, from_at: int
) -> None:
    gpus, queue = asked
    found = list(
        stretches(
            windows,
            outside=DAY,
            gpus=gpus,
            queue=queue,
            at_boundary=at_boundary,
            from_at=from_at,
            until_at=UNTIL,
            with_gifts=with_gifts,
        )
    )
    inside = {minute for s in found for minute in range(s.start_at, s.end_at)}
    theirs = {
        minute
        for minute in range(from_at, UNTIL)
        if is_theirs(windows, minute, gpus, queue, at_boundary, with_gifts=with_gifts)
    }
    assert inside == theirs
    for one, other in pairwise(found):
        assert one.end_at < other.start_at, "stretches that touch would be one"
    for stretch in found:
        assert (stretch.closed_by is None) == (stretch.end_at == UNTIL)


def test_what_closes_a_stretch_is_the_window_at_its_edge() -> None:
    night = window(100, 200, None, keeps=False)

    def closing(gpus: int, queue: str) -> list[Window | None]:
        found = stretches(
            (night,),
            outside=DAY,
            gpus=gpus,
            queue=queue,
            at_boundary=AtBoundary.PARK,
            from_at=0,
            until_at=UNTIL,
            with_gifts=True,
        )
        return [s.closed_by for s in found]

    assert closing(1, "interactive") == [night, None]
    assert closing(16, "hpc") == [night]


def test_a_released_window_is_closed_for_as_long_as_it_was_open() -> None:
    night = window(100, 200, None, keeps=False)
    assert night.closed_span == night.span
    rest = replace(night, state=WindowState.RELEASED, released_from_at=150)
    assert rest.closed_span is not None
    assert (rest.closed_span.start_at, rest.closed_span.end_at, rest.gift_from_at) == (100, 150, 150)
    whole = replace(night, state=WindowState.RELEASED, released_from_at=100)
    assert whole.closed_span is None


def worked_out_lazily(*windows: Window) -> Stretches:
    """The stretches of whoever may run by day, up to UNTIL."""
    coming = stretches(
        windows,
        outside=DAY,
        gpus=1,
        queue="interactive",
        at_boundary=AtBoundary.PARK,
        from_at=0,
        until_at=UNTIL,
        with_gifts=True,
    )
    return Stretches(coming)


def test_stretches_can_be_gone_through_again_and_again() -> None:
    lazy = worked_out_lazily(window(100, 200, None, keeps=False))
    assert next(iter(lazy)).end_at == 100
    assert [s.end_at for s in lazy] == [s.end_at for s in lazy] == [100, UNTIL]


def test_the_first_stretch_that_is_not_over_is_found_however_far_was_looked() -> None:
    windows = tuple(window(start, start + 10, None, keeps=False) for start in range(20, 200, 40))
    known, looked = list(worked_out_lazily(*windows)), worked_out_lazily(*windows)
    for instant in [0, 19, 20, 25, 150, 30, UNTIL - 1, UNTIL, UNTIL + 5, 70]:
        expected = next((stretch for stretch in known if stretch.end_at > instant), None)
        assert looked.not_over_at(instant) == expected
        assert worked_out_lazily(*windows).not_over_at(instant) == expected
    looked.advance(115)
    assert looked.not_over_at(0) == replace(known[3], start_at=115)
