"""Rows that are being changed: disks, looked up by pool and by size."""

from dataclasses import replace

from scheduler.core.plan import BookedDisk
from scheduler.core.planner.rows import DiskRows
from scheduler.core.requests import DiskId, ReservationId

SMALL = BookedDisk(
    id=DiskId("d-1"),
    reservation=ReservationId("r-1"),
    owner="ada",
    size_gib=10,
    storage="s",
    is_scratch=False,
    from_at=0,
    until_at=100,
)
LARGE = replace(SMALL, id=DiskId("d-2"), size_gib=400)


def test_the_largest_disk_is_known_as_disks_come_grow_and_go() -> None:
    rows = DiskRows({})
    assert rows.largest_gib() == 0
    rows[SMALL.id] = SMALL
    mark = rows.mark()
    rows[LARGE.id] = LARGE
    assert rows.largest_gib() == 400
    rows[LARGE.id] = replace(LARGE, size_gib=20)
    assert rows.largest_gib() == 20
    rows[SMALL.id] = replace(SMALL, size_gib=20)
    del rows[LARGE.id]
    assert rows.largest_gib() == 20
    rows.undo(mark)
    assert rows.largest_gib() == 10


def test_a_disk_is_over_until_it_is_gone_or_kept_longer() -> None:
    rows = DiskRows({SMALL.id: SMALL, LARGE.id: LARGE})
    assert rows.over(99) == []
    assert rows.over(100) == [SMALL.id, LARGE.id]
    rows[SMALL.id] = replace(SMALL, until_at=200)
    assert rows.over(150) == [LARGE.id]
    del rows[LARGE.id]
    assert rows.over(150) == []
    assert rows.over(200) == [SMALL.id]


def test_how_much_is_booked_when_follows_what_is_written_and_undone() -> None:
    rows = DiskRows({SMALL.id: SMALL, LARGE.id: LARGE})
    assert rows.levels("s", is_scratch=False).peak(0, 100) == rows.booked_gib("s", is_scratch=False) == 410
    mark = rows.mark()
    rows[LARGE.id] = replace(LARGE, storage="t", from_at=50)
    assert rows.levels("s", is_scratch=False).peak(0, 100) == 10
    assert rows.levels("t", is_scratch=False).first_over(0, 0) == 50
    assert rows.most_booked_gib(is_scratch=False) == 400
    assert rows.most_booked_gib(is_scratch=True) == 0
    del rows[SMALL.id]
    assert rows.levels("s", is_scratch=False).peak(0, 100) == 0
    rows.undo(mark)
    assert rows.levels("s", is_scratch=False).peak(0, 100) == 410
    assert rows.levels("t", is_scratch=False).peak(0, 100) == 0
