"""Kamelot's scheduling loop over a batch; runs in an interpreter that has what a checkout of OAR 3 imports.

    python kamelot_child.py ASKED.json ANSWER.json

`ASKED.json` holds `{"checkout": …, "hosts": 64, "occupied": [[host, until_s], …], "requests": [[gpus, run_s], …]}`; the
answer is `{"seconds": …, "cpu_s": …, "starts": [… or null]}`, or `{"missing": "what the checkout lacks"}`. The GPUs of
the first host are resources 1 to 16, and so on; a request asks for one block of its size in the hierarchy. Must import
nothing of ours.
"""

import importlib
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

GPUS = 16
SIZES = (1, 2, 4, 8, 16)


class _Lacks(Exception):
    """The checkout has another API."""


def main() -> None:
    """Read the batch, plan it and write what came out."""
    asked_file, answer_file = map(Path, sys.argv[1:])
    asked = json.loads(asked_file.read_text(encoding="utf-8"))
    sys.path.insert(0, asked["checkout"])
    try:
        answer = plan(asked["hosts"], asked["occupied"], asked["requests"])
    except _Lacks as lacks:
        answer = {"missing": str(lacks)}
    answer_file.write_text(json.dumps(answer), encoding="utf-8")


def plan(hosts: int, occupied: list[list[int]], requests: list[list[int]]) -> dict[str, object]:
    """Call the loop once; the clock is around it alone."""
    # It logs a line for every job, which is no part of planning.
    logging.disable(logging.CRITICAL)
    _configure()
    schedule = _name("oar.kao.scheduling", "schedule_id_jobs_ct")
    take = _name("oar.kao.scheduling", "set_slots_with_prev_scheduled_jobs")
    slot_set = _name("oar.kao.slot", "SlotSet")
    job_of = _name("oar.lib.job_handling", "JobPseudo")
    proc_set = _name("procset", "ProcSet")

    gpus_in_all = hosts * GPUS
    hierarchy = {
        f"b{size}": [proc_set((first, first + size - 1)) for first in range(1, gpus_in_all + 1, size)] for size in SIZES
    }
    slots = {"default": slot_set((proc_set((1, gpus_in_all)), 0))}
    running = [
        job_of(
            id=-1 - host,
            start_time=0,
            walltime=until_s,
            res_set=proc_set((host * GPUS + 1, host * GPUS + GPUS)),
            types={},
            ts=False,
            ph=0,
        )
        for host, until_s in occupied
    ]
    take(slots, running, 0)
    jobs = {
        number: job_of(
            id=number,
            types={},
            deps=[],
            # Equal requests have equal keys: the loop then goes on where the last of them was placed.
            key_cache={1: f"{gpus}/{run_s}"},
            mld_res_rqts=[(1, run_s, [([(f"b{gpus}", 1)], proc_set((1, gpus_in_all)))])],
            ts=False,
            ph=0,
        )
        for number, (gpus, run_s) in enumerate(requests)
    }
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    schedule(slots, jobs, hierarchy, list(jobs), 0)
    took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    starts = [int(job.start_time) for job in jobs.values()]
    return {"seconds": took_s, "cpu_s": cpu_s, "starts": [start if start >= 0 else None for start in starts]}


def _configure() -> None:
    """Load the defaults, where the checkout does not do so when it is imported, as older ones do."""
    try:
        found = importlib.import_module("oar.lib.globals")
    except ModuleNotFoundError as missing:
        if missing.name != "oar.lib.globals":
            raise _Lacks(str(missing)) from missing
        return
    if hasattr(found, "init_config"):
        found.init_config()["LOG_FILE"] = ":stderr:"


def _name(module: str, name: str) -> Any:
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as missing:
        raise _Lacks(f"{module}.{name}: {missing}") from missing


if __name__ == "__main__":
    main()
