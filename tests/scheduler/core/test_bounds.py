"""Bounds are what promises are made of."""

import pytest

from scheduler.core.bounds import Estimates, lead_s, percentile, stop_bound_s
from tests.property.worlds import dgx2


def test_a_lead_covers_the_longest_stop_and_the_start() -> None:
    assert stop_bound_s(dgx2(), grace_s=300) == 300 + 60 + 120
    assert lead_s(dgx2(), gpus=16, grace_s=300) == 15 * 60


def test_an_estimate_is_never_later_than_its_bound() -> None:
    estimates = Estimates(start_p95_s={1: 60, 16: 9999})
    assert estimates.likely_start_s(dgx2(), 1) == 60
    assert estimates.likely_start_s(dgx2(), 2) == 180
    assert estimates.likely_start_s(dgx2(), 16) == 420


@pytest.mark.parametrize(
    ("values", "expected"), [([], None), ([7], 7), (range(1, 101), 95), (range(1, 21), 19), ([3, 1, 2], 3)]
)
def test_the_95th_percentile_is_the_least_value_that_95_in_100_do_not_exceed(
    values: list[int], expected: int | None
) -> None:
    assert percentile(values, 0.95) == expected
