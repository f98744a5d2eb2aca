"""The benchmark of policies tries two of them on a trace, on both calendars."""

import argparse
from pathlib import Path

from benchmarks import policies


def test_two_policies_are_tried_on_a_trace_with_both_calendars(tmp_path: Path) -> None:
    trace = tmp_path / "jobs.csv"
    trace.write_text("submit_s,gpus,duration_s,user\n0,8,7200,ada\n61200,4,14400,ben\n61260,16,3600,ben\n")
    parser = argparse.ArgumentParser()
    policies.add_arguments(parser)
    rows = policies.run(parser.parse_args(["--trace", str(trace), "--hosts", "1"]))
    assert [row["what"] for row in rows] == [
        "old and new on 3 requests, 1 days, 1 hosts",
        "old and new on 3 requests, 1 days, 1 hosts, without the compiled calendar",
        "old and new on 3 requests, 1 days, 1 hosts, with the disks of a policy that names none",
    ]
