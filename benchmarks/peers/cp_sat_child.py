"""OR-Tools CP-SAT on one host: the order and the blocks of requests that wait least; runs where OR-Tools is.

    python cp_sat_child.py CASES.json ANSWER.json

`CASES.json` holds `{"seconds": 60, "workers": 1, "cases": [{"gpus": 16, "busy": [[gpus, until], …], "requests":
[[gpus, run, start_by], …], "starts": […]}, …]}` in steps of any length; `start_by` is null where nothing was promised,
`starts` are of a plan to begin with, if there is one, and what is busy has the first blocks. The answer is `{"cases":
[{"seconds": …, "weight": …, "bound": …, "starts": […]}, …]}`; `weight` is the sum of GPUs times starts, null where none
was found. Must import nothing of ours: there it is not installed.
"""

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Read the cases, solve them one after the other and write what came out."""
    asked_file, answer_file = map(Path, sys.argv[1:])
    asked = json.loads(asked_file.read_text(encoding="utf-8"))
    answers = [solve(case, asked["seconds"], asked["workers"]) for case in asked["cases"]]
    answer_file.write_text(json.dumps({"cases": answers}), encoding="utf-8")


def solve(case: dict[str, Any], seconds: float, workers: int) -> dict[str, object]:
    """Return the plan of the least weight that was found in the time, and what none can be below."""
    cp_model = importlib.import_module("ortools.sat.python.cp_model")
    model = cp_model.CpModel()
    horizon = max([until for _, until in case["busy"]], default=0) + sum(run for _, run, _ in case["requests"])
    times, blocks, starts, sizes = [], [], [], []
    first = 0
    for gpus, until in case["busy"]:
        times.append(model.NewFixedSizeIntervalVar(0, until, ""))
        blocks.append(model.NewFixedSizeIntervalVar(first, gpus, ""))
        sizes.append(gpus)
        first += gpus
    for gpus, run, start_by in case["requests"]:
        start = model.NewIntVar(0, horizon if start_by is None else start_by, "")
        block = model.NewIntVar(0, case["gpus"] // gpus - 1, "")
        times.append(model.NewFixedSizeIntervalVar(start, run, ""))
        blocks.append(model.NewFixedSizeIntervalVar(gpus * block, gpus, ""))
        starts.append(start)
        sizes.append(gpus)
    for start, begun in zip(starts, case["starts"], strict=False):
        model.AddHint(start, begun)
    model.AddNoOverlap2D(times, blocks)
    # Says nothing new, but is what a bound comes from.
    model.AddCumulative(times, sizes, case["gpus"])
    model.Minimize(sum(gpus * start for (gpus, _, _), start in zip(case["requests"], starts, strict=True)))
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = seconds
    solver.parameters.num_workers = workers
    solver.parameters.random_seed = 1
    began_s = time.perf_counter()
    status = solver.Solve(model)
    is_found = status in (cp_model.OPTIMAL, cp_model.FEASIBLE)
    return {
        "seconds": time.perf_counter() - began_s,
        "weight": round(solver.ObjectiveValue()) if is_found else None,
        "bound": solver.BestObjectiveBound(),
        "starts": [solver.Value(start) for start in starts] if is_found else [],
    }


if __name__ == "__main__":
    main()
