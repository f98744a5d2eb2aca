"""The calendar against plain sets of minutes."""

from random import Random

import pytest

from scheduler.core.errors import BrokenInvariant
from scheduler.core.planner.calendar import HostCalendar
from scheduler.core.requests import HostId
from tests.property.worlds import dgx2

HOST = HostId("a")


def test_a_second_booking_of_a_gpu_cannot_be_entered() -> None:
    calendar, profile = HostCalendar(HOST, dgx2()), dgx2()
    calendar.add(profile.partitions_of_size(8)[0], 100, 200)
    with pytest.raises(BrokenInvariant):
        calendar.add(profile.partitions_of_size(1)[7], 199, 300)
    calendar.add(profile.partitions_of_size(1)[7], 200, 300)
    calendar.add(profile.partitions_of_size(1)[8], 100, 200)


def test_a_booking_that_is_not_there_cannot_be_taken_out() -> None:
    calendar, profile = HostCalendar(HOST, dgx2()), dgx2()
    partition = profile.partitions_of_size(2)[0]
    calendar.add(partition, 100, 200)
    for start_at, end_at in ((100, 199), (101, 200), (200, 300)):
        with pytest.raises(BrokenInvariant):
            calendar.remove(partition, start_at, end_at)
    calendar.remove(partition, 100, 200)
    assert calendar.busy_mask(150) == 0


@pytest.mark.parametrize("seed", range(20))
def test_every_answer_agrees_with_sets_of_instants(seed: int) -> None:
    random, profile = Random(seed), dgx2()
    calendar = HostCalendar(HOST, profile)
    held: list[tuple[int, int, int]] = []
    for _ in range(60):
        partition = random.choice(profile.partitions)
        start_at = random.randint(0, 90)
        end_at = start_at + random.randint(1, 20)
        overlapping = [h for h in held if partition.mask & 1 << h[0] and h[1] < end_at and start_at < h[2]]
        if overlapping:
            conflict = calendar.conflict(partition, start_at, end_at)
            assert conflict is not None
            assert start_at < conflict <= max(h[2] for h in overlapping)
            length = end_at - start_at
            for at in range(start_at, conflict):
                assert any(partition.mask & 1 << g and s < at + length and at < e for g, s, e in held)
        else:
            assert calendar.conflict(partition, start_at, end_at) is None
            calendar.add(partition, start_at, end_at)
            held += [(gpu, start_at, end_at) for gpu in partition.gpus]
        at = random.randint(0, 110)
        assert calendar.busy_mask(at) == sum(1 << g for g, s, e in held if s <= at < e)
        nexts = [max(s, at) for g, s, e in held if partition.mask & 1 << g and e > at]
        assert calendar.free_until(partition, at) == min(nexts, default=None)
