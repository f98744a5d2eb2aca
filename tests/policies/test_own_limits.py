"""Reservations of the policy that its own limits would refuse are warned of, whosever limits those are."""

from collections.abc import Callable

import pytest

from policies.checks_own_limits import check_own_reservations
from policies.format import LoadedPolicy
from scheduler.core.spans import Instant

MONDAY: Instant = 1_772_409_600
"""2026-03-02 00:00 UTC."""
COURSE = (
    '{name: course, cron: "0 10 * * mon,thu", for: 2h, gpus: 2, count: 4, queue: interactive, owner: dl, ahead: 7d}'
)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ("longest: 1h", "runs longer than the limits allow: '2h'; longest is 1h for dl"),
        ("by_hour: [{hours: 09:00-11:00, longest: 1h}]", "longest is 1h for dl"),
        ("by_hour: [{hours: 11:00-18:00, longest: 1h}]", None),
        ("gpus_at_once: 7", "wants more GPUs at once than the limits allow: '8'; gpus_at_once is 7 for dl"),
        ("by_hour: [{hours: 11:00-12:00, days: thu, gpus_at_once: 4}]", "gpus_at_once is 4 for dl"),
        ("by_hour: [{hours: 12:00-18:00, gpus_at_once: 4}]", None),
        ("gpus_at_once: 4, users: {dl: {gpus_at_once: 8}}", None),
        ("groups: {g: {gpus_at_once: 6}}", "gpus_at_once is 6 for group g"),
        # Filed a week ahead two wait at a time, and three where the clock is set forward in between.
        ("waiting: 12", None),
        ("waiting: 8", "has more requests wait than the limits allow: '12'; waiting is 8 for dl"),
        ("open_reservations: 7", "makes more reservations than the limits allow: "),
        ("furthest_ahead: 6d", "is filed further ahead than the limits allow: '7d'; furthest_ahead is 6d for dl"),
        ("gpu_hours_per_week: 32", None),
        ("gpu_hours_per_week: 31", "takes more GPU-hours in a week than the limits allow: '32'"),
        ("far_ahead_gpu_hours: 32", None),
        ("far_ahead_gpu_hours: 31", "holds more GPU-hours for later days than the limits allow: '32'"),
        ("sizes: [1]", "has a size that the limits do not allow: '2'; sizes are 1 for dl"),
        ("queues: [hpc]", "has a queue that the limits do not allow: 'interactive'; queues are hpc for dl"),
        ("images: []", "has an image that the limits do not allow: 'ubuntu'; images are none for dl"),
    ],
)
def test_a_limit_that_refuses_what_the_policy_asks_for_is_named(
    make_policy: Callable[..., LoadedPolicy], limits: str, expected: str | None
) -> None:
    policy = make_policy(more=f"groups: {{g: {{members: [dl, ada]}}}}\nlimits: {{{limits}}}\n", reserve=COURSE)
    said = [problem.message for problem in check_own_reservations(policy, from_at=MONDAY)]
    if expected is None:
        assert said == []
    else:
        assert len(said) == 1, said
        assert said[0].startswith("reserve course ")
        assert expected in said[0]
