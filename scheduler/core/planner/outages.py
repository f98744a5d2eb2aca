"""What is missing from the hosts now, as reasons: hosts that do not answer or are drained, GPUs out of the plan.

Whoever finds no place for something says this with it: a no because of a fault names the fault.
"""

from collections.abc import Iterable, Mapping

from scheduler.core.facts import GpuFact, GpuState, HostFacts
from scheduler.core.plan import Host
from scheduler.core.reasons import Reason, ReasonCode, reason
from scheduler.core.requests import HostId


def outages(hosts: Iterable[Host], facts: Mapping[HostId, HostFacts]) -> tuple[Reason, ...]:
    """Return a reason for each outage, in order of hosts and GPUs; empty when nothing is missing."""
    found = []
    for host in sorted(hosts, key=lambda host: host.id):
        if host.is_drained:
            found.append(reason(ReasonCode.HOST_DRAINED, host=host.id))
        seen = facts.get(host.id)
        if seen is None:
            continue
        if seen.unreachable_since_at is not None:
            since_at = seen.unreachable_since_at
            found.append(reason(ReasonCode.HOST_UNREACHABLE, host=host.id, since_at=since_at, problem=seen.problem))
        lost = (gpu for gpu in seen.gpus if gpu.gpu in seen.gpus_out_of_plan)
        for gpu in sorted(lost, key=lambda gpu: gpu.gpu):
            found.append(lost_gpu(host.id, gpu))
    return tuple(found)


def lost_gpu(host: HostId, gpu: GpuFact) -> Reason:
    """Say why a GPU is out of the plan."""
    match gpu.state:
        case GpuState.FOREIGN:
            domain = gpu.problem.removeprefix("held by ") or "a domain"
            return reason(ReasonCode.GPU_HELD_BY_FOREIGN, host=host, gpu=gpu.gpu, domain=domain)
        case GpuState.UNCLEAR:
            return reason(ReasonCode.UNKNOWN_STATE, host=host, subject=f"GPU {gpu.gpu}", problem=gpu.problem)
        case _:
            return reason(
                ReasonCode.GPU_QUARANTINED, host=host, gpu=gpu.gpu, since_at=gpu.since_at, problem=gpu.problem
            )
