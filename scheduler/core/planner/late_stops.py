"""Stops that outlast a lead: guests that were asked to leave under a policy with a longer grace than any of now.

Leads cover a stop that is asked when a span begins, by the longest grace that anybody may be given now. Whatever
follows a stop that was given more begins later by as much, or its promise would be made too early.
"""

from collections.abc import Iterator

from scheduler.core.facts import HostFacts, Verb
from scheduler.core.spans import Instant
from scheduler.core.topology import HostProfile


def late_stops(facts: HostFacts, profile: HostProfile, now: Instant, *, grace_s: int) -> Iterator[tuple[int, Instant]]:
    """Yield the GPUs of each such guest, as a bit mask, and from when on a lead covers its stop.

    `grace_s`: the longest that anybody may be given now.
    """
    covered_at = {ask.subject: ask.until_at - grace_s for ask in facts.asked if ask.verb is Verb.SHUTDOWN}
    late = {subject: at for subject, at in covered_at.items() if at > now}
    if not late:
        return
    for vm in facts.vms:
        if vm.off_at is None and str(vm.uuid) in late:
            yield profile.partition(vm.partition).mask, late[str(vm.uuid)]
