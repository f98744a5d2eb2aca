"""The benchmark of fleets: the same load on each host, every promise kept, and figures that are those of the run."""

import argparse
from typing import Any

import pytest

from benchmarks import fleet


def arguments(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    fleet.add_arguments(parser)
    return parser.parse_args(given)


def test_each_fleet_is_measured_and_compared_with_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    figures: Any = fleet.run(arguments("--hosts", "1,3"))
    one, three = figures["fleets"]
    assert (one["hosts"], one["requests"]) == (1, 24 + 1)
    assert (three["hosts"], three["requests"]) == (3, 3 * 24 + 1)
    for cost in (one, three):
        assert cost["promises_kept"] == cost["requests"]
        assert cost["steps"] > cost["requests"]
        assert 0 < cost["p50_us"] <= cost["p99_us"] <= cost["longest_ms"] * 1000
    assert three["ratio"] == pytest.approx(three["mean_us"] / one["mean_us"], rel=0.01)
    assert "hosts" in capsys.readouterr().out


@pytest.mark.parametrize("hosts", ["", "0", "10,", "ten", "10001", "-1"])
def test_what_are_no_fleets_is_refused(hosts: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments("--hosts", hosts)
    assert "as 10,100,1000" in capsys.readouterr().err
