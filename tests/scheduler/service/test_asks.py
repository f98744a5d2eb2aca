"""What the edge completes of an ask: the queue by the size, and what is taken over from an earlier reservation."""

from dataclasses import replace

import pytest

from scheduler.core.plan import Plan, Queue, Reservation, Rules
from scheduler.core.requests import Ask, AtBoundary, HostId, Request, ReservationId
from scheduler.core.settings import Settings
from scheduler.core.spans import DAY_S, HOUR_S
from scheduler.core.windows import Layout, Window, WindowId
from scheduler.service.asks import Wish, ask_to_go_on, complete, default_queue, run_left_s

DAY = Layout(name="day", sizes=frozenset({1, 2, 4}), queues=frozenset({"interactive", "course"}))
NIGHT = Layout(name="night", sizes=frozenset({4, 16}), queues=frozenset({"hpc"}))
RULES = Rules(
    version=1,
    zone="UTC",
    outside=DAY,
    queues=(Queue(name="hpc"), Queue(name="interactive"), Queue(name="course")),
    images=("ubuntu",),
    default_disk_gib=100,
    retention_s=7 * DAY_S,
    grace_s=300,
    min_useful_s=1800,
    warnings_s=(),
)
WINDOW = Window(
    id=WindowId("night"),
    name="night",
    layout=NIGHT,
    hosts=frozenset({HostId("a")}),
    start_at=20 * HOUR_S,
    end_at=32 * HOUR_S,
    decide_at=18 * HOUR_S,
    only_if_queued=False,
    at_boundary=frozenset({AtBoundary.PARK}),
    warnings_s=(),
    grace_s=300,
    policy_version=1,
)
PLAN = Plan(version=3, rules=RULES, windows={WINDOW.id: WINDOW})
EARLIER = Reservation(
    request=Request(
        id=ReservationId("r-7"),
        owner="ann",
        queue="course",
        gpus=2,
        run_s=3 * HOUR_S,
        submitted_at=0,
        not_before_at=5,
        start_by_at=9,
        at_boundary=AtBoundary.FINISH,
        image="old",
        disk_gib=40,
        ssh_key="ssh-rsa AAAA",
        key="course@1970-01-01T10:00#1",
    ),
    promise=None,
)


@pytest.mark.parametrize(("gpus", "queue"), [(1, "interactive"), (4, "hpc"), (16, "hpc"), (3, "hpc")])
def test_the_queue_is_the_first_of_the_policy_that_admits_the_size(gpus: int, queue: str) -> None:
    assert default_queue(PLAN, gpus) == queue


def test_before_a_policy_there_is_no_queue_to_choose() -> None:
    assert default_queue(Plan(), 1) == ""


def test_what_was_said_is_kept_and_what_was_not_is_left_to_planning() -> None:
    wish = Wish(owner="ann", gpus=1, run_s=60, disk_gib=20, continues=ReservationId("r-7"))
    assert complete(wish, PLAN) == Ask(
        owner="ann", queue="interactive", gpus=1, run_s=60, disk_gib=20, continues=ReservationId("r-7")
    )


def test_like_takes_all_but_time_owner_key_and_disk_contents() -> None:
    assert complete(Wish(owner="ben"), PLAN, like=EARLIER) == Ask(
        owner="ben",
        queue="course",
        gpus=2,
        run_s=3 * HOUR_S,
        at_boundary=AtBoundary.FINISH,
        image="old",
        disk_gib=40,
        ssh_key="ssh-rsa AAAA",
    )


def test_another_size_or_queue_takes_its_own_defaults() -> None:
    larger = complete(Wish(owner="ann", gpus=16), PLAN, like=EARLIER)
    assert isinstance(larger, Ask)
    assert (larger.queue, larger.disk_gib, larger.at_boundary) == ("hpc", None, None)
    moved = complete(Wish(owner="ann", queue="interactive"), PLAN, like=EARLIER)
    assert isinstance(moved, Ask)
    assert (moved.queue, moved.disk_gib, moved.at_boundary) == ("interactive", None, None)


def test_a_kept_disk_has_the_size_that_it_has() -> None:
    ask = complete(Wish(owner="ann", continues=EARLIER.id), PLAN, like=EARLIER)
    assert isinstance(ask, Ask)
    assert ask.disk_gib is None


def test_what_is_missing_is_named() -> None:
    assert complete(Wish(owner="ann"), PLAN) == ("gpus", "run_s")
    assert complete(Wish(owner="ann", gpus=1), PLAN) == ("run_s",)


def test_the_same_wish_is_the_same_ask_however_the_plan_moved_on() -> None:
    wish = Wish(owner="ann", gpus=2, run_s=60)
    assert complete(wish, PLAN) == complete(wish, replace(PLAN, version=9))


def test_going_on_is_the_same_again_with_the_disk() -> None:
    ask = ask_to_go_on(EARLIER, run_s=60)
    assert (ask.continues, ask.disk_gib, ask.gpus, ask.queue, ask.ssh_key) == ("r-7", None, 2, "course", "ssh-rsa AAAA")
    assert (ask.not_before_at, ask.start_by_at) == (None, None)


def test_less_than_a_share_is_taken_over_with_the_size_and_not_without() -> None:
    small = replace(EARLIER, request=replace(EARLIER.request, memory_gib=64, vcpus=8))
    going_on = ask_to_go_on(small, run_s=60)
    assert (going_on.memory_gib, going_on.vcpus) == (64, 8)
    for wish, expected in (
        (Wish(owner="ann"), (64, 8)),
        (Wish(owner="ann", queue="interactive"), (64, 8)),
        (Wish(owner="ann", vcpus=4), (64, 4)),
        (Wish(owner="ann", gpus=1), (None, None)),
        (Wish(owner="ann", gpus=1, memory_gib=3), (3, None)),
    ):
        ask = complete(wish, PLAN, like=small)
        assert isinstance(ask, Ask)
        assert (ask.memory_gib, ask.vcpus) == expected


@pytest.mark.parametrize(
    ("delivered_s", "left_s"), [(0, 3 * HOUR_S), (HOUR_S, 2 * HOUR_S), (3 * HOUR_S - 5, 60), (3 * HOUR_S, 0)]
)
def test_the_time_left_is_what_was_not_delivered_but_never_too_short_to_ask_for(delivered_s: int, left_s: int) -> None:
    assert run_left_s(EARLIER, delivered_s=delivered_s, settings=Settings()) == left_s
