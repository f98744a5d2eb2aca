"""AccaSim with EASY backfilling and best fit, for a list of jobs; runs in an interpreter that has AccaSim.

    python accasim_child.py JOBS.json ANSWER.json

`JOBS.json` holds `{"hosts": 18, "jobs": [[submit_s, gpus, run_s, asked_s], …]}`, the answer is `{"seconds": …,
"cpu_s": …, "starts": […]}`. A host is a node of 16 cores, a job asks for one node with as many of its cores as it
wants GPUs: AccaSim knows no blocks. Must import nothing of ours: there it is not installed.
"""

import collections
import collections.abc
import importlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CORES = 16
BEGINS_AT = 1_000_000
"""Added to every instant: AccaSim takes a clock at 0 for one that is not set."""


def main() -> None:
    """Read the jobs, simulate them and write what came out."""
    jobs_file, answer_file = map(Path, sys.argv[1:])
    asked = json.loads(jobs_file.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="nightshift-accasim-") as folder:
        answer = simulate(Path(folder), asked["hosts"], asked["jobs"])
    answer_file.write_text(json.dumps(answer), encoding="utf-8")


def simulate(folder: Path, hosts: int, jobs: list[list[int]]) -> dict[str, object]:
    """Run the whole list; the clock is around the simulation alone, without imports and the writing of its input."""
    # AccaSim 1.1.3 imports the name from where it was until Python 3.9.
    collections.Mapping = collections.abc.Mapping  # type: ignore[attr-defined]
    simulators = importlib.import_module("accasim.base.simulator_class")
    schedulers = importlib.import_module("accasim.base.scheduler_class")
    allocators = importlib.import_module("accasim.base.allocator_class")
    readers = importlib.import_module("accasim.utils.reader_class")
    workload, system = folder / "jobs.swf", folder / "system.json"
    workload.write_text("".join(_swf(number, job) for number, job in enumerate(jobs)), encoding="utf-8")
    system.write_text(json.dumps({"groups": {"host": {"core": CORES}}, "resources": {"host": hosts}}), encoding="utf-8")

    tweaker = readers.DefaultTweaker(0)
    tweaker.tweak_function = _on_one_node
    simulator = simulators.Simulator(
        str(workload),
        str(system),
        schedulers.EASYBackfilling(allocators.BestFit()),
        tweak_function=tweaker,
        scheduling_output=False,
        statistics_output=False,
        show_statistics=False,
        RESULTS_FOLDER_PATH=str(folder),
        LOG_LEVEL="ERROR",
    )
    # Finished jobs leave the simulator's table, so all are kept as they are made.
    made: dict[str, Any] = {}
    make = simulator.job_factory.factory

    def make_and_keep(**facts: Any) -> Any:
        job = make(**facts)
        made[job.id] = job
        return job

    simulator.job_factory.factory = make_and_keep
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    simulator.start_simulation()
    took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    starts = [made[str(number + 1)].start_time - BEGINS_AT for number in range(len(jobs))]
    return {"seconds": took_s, "cpu_s": cpu_s, "starts": starts}


def _swf(number: int, job: list[int]) -> str:
    """Return a line of the Standard Workload Format: 18 columns, -1 where nothing is known."""
    submit_s, gpus, run_s, asked_s = job
    columns = [number + 1, submit_s + BEGINS_AT, -1, run_s, gpus, -1, -1, gpus, asked_s, -1, 1, 1, 1, 1, 1, 1, -1, -1]
    return " ".join(map(str, columns)) + "\n"


def _on_one_node(job: dict[str, Any]) -> dict[str, Any]:
    """Ask for one node with all the cores: by itself AccaSim takes every processor for a node of its own."""
    cores = job["total_processors"]
    job |= {"core": cores, "requested_nodes": 1, "requested_resources": {"core": cores}, "queue": job["queue_number"]}
    return job


if __name__ == "__main__":
    main()
