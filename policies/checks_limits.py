"""What is wrong with limits: nobody can meet them, they hold for nobody, or the policy itself would break them."""

from itertools import pairwise

from policies.checks_own_limits import check_own_reservations
from policies.format import LoadedPolicy
from policies.problems import Place, Problem, warning
from policies.units import duration_text
from scheduler.core.plan import LimitRule, Limits
from scheduler.core.planner.admission import SMALLEST_DISK_GIB
from scheduler.core.rules import LimitScope
from scheduler.core.spans import HOUR_S, Instant


def check_limits(policy: LoadedPolicy, *, from_at: Instant) -> list[Problem]:
    """Return warnings about limits."""
    problems = _not_to_be_met(policy, policy.limits, "limits", policy.place_of("limits"))
    for rule in policy.limit_rules:
        problems += _not_to_be_met(policy, rule.limits, _who(rule), _place(policy, rule))
    own = check_own_reservations(policy, from_at=from_at)
    return [*problems, *_for_nobody(policy, from_at), *_over_each_other(policy), *own]


def _not_to_be_met(policy: LoadedPolicy, limits: Limits, who: str, place: Place) -> list[Problem]:
    """Warn of limits under which nothing can be reserved."""
    sizes = {
        size
        for layout in policy.layouts
        for size in layout.sizes
        if limits.queues is None or layout.queues & limits.queues
        if limits.sizes is None or size in limits.sizes
    }
    smallest = min(sizes, default=0)
    least_gpu_s = smallest * policy.min_useful_s
    found: list[tuple[bool, str, str | None, str]] = [
        (
            not sizes and bool(policy.layouts),
            "allow no size in any of their queues",
            None,
            "allow a size that a layout gives to a queue",
        ),
        (limits.images == frozenset(), "allow no image", None, "name at least one, or remove the line"),
        (
            limits.gpus_at_once is not None and limits.gpus_at_once < smallest,
            "allow fewer GPUs at once than the smallest VM has",
            str(limits.gpus_at_once),
            f"use at least {smallest}",
        ),
        (
            limits.longest_run_s is not None and limits.longest_run_s < policy.min_useful_s,
            "allow only reservations shorter than the minimum useful length",
            duration_text(limits.longest_run_s or 0),
            f"use at least {duration_text(policy.min_useful_s)}",
        ),
        (
            limits.gpu_h_per_week is not None and limits.gpu_h_per_week * HOUR_S < least_gpu_s,
            "allow fewer GPU-hours in a week than the smallest reservation takes",
            str(limits.gpu_h_per_week),
            f"use at least {-(-least_gpu_s // HOUR_S)}",
        ),
        (limits.waiting == 0, "allow no waiting request: each waits before it starts", "0", "use at least 1"),
        (
            limits.disk_gib is not None and limits.disk_gib < SMALLEST_DISK_GIB,
            "allow only disks that are smaller than any",
            f"{limits.disk_gib}GiB",
            f"use at least {SMALLEST_DISK_GIB}GiB",
        ),
    ]
    return [
        warning(place, f"{who} nobody can meet: they {what}", value, instead)
        for is_so, what, value, instead in found
        if is_so
    ]


def _for_nobody(policy: LoadedPolicy, from_at: Instant) -> list[Problem]:
    """Warn of rules that never matter."""
    problems = []
    limited = {rule.name for rule in policy.limit_rules if rule.scope in (LimitScope.GROUP, LimitScope.EACH_OF_GROUP)}
    for group in policy.groups:
        place = policy.place_of(f"group {group.name}")
        if not group.members:
            problems.append(warning(place, f"group {group.name} has no members", None, "add members, or remove it"))
        if group.name not in limited:
            what = f"group {group.name} is named in no limits"
            problems.append(warning(place, what, None, "add it to the groups of limits, or remove it"))
    together = {
        rule.name: rule.limits.gpus_at_once
        for rule in policy.limit_rules
        if rule.scope is LimitScope.GROUP and rule.span is None and not rule.hours
    }
    past: dict[str, LimitRule] = {}
    for rule in policy.limit_rules:
        most = together.get(rule.name)
        each = rule.limits.gpus_at_once
        if rule.scope is LimitScope.EACH_OF_GROUP and rule.span is None and most is not None and (each or 0) > most:
            what = f"{_who(rule)} allow one member more GPUs at once than the group has together"
            problems.append(warning(_place(policy, rule), what, str(each), f"use at most {most}"))
        if rule.span is not None and rule.span.end_at <= from_at:
            past.setdefault(rule.source, rule)
    problems += [
        warning(_place(policy, rule), f"{_who(rule)} are past", None, "remove the override") for rule in past.values()
    ]
    return problems


def _over_each_other(policy: LoadedPolicy) -> list[Problem]:
    """Warn of dated overrides of the same people that hold at one time."""
    problems = []
    dated = [rule for rule in policy.limit_rules if rule.span is not None and not rule.hours]
    dated.sort(key=lambda rule: (rule.scope, rule.name, rule.span.start_at if rule.span is not None else 0))
    for one, other in pairwise(dated):
        if (one.scope, one.name) != (other.scope, other.name) or one.span is None or other.span is None:
            continue
        if one.span.overlaps(other.span):
            first = _place(policy, one)
            place = _place(policy, other)
            what = f"{_who(other)} overlap those of {place.told_of(first)} in time"
            problems.append(
                warning(place, what, None, "give them different dates; where both hold, the later one does")
            )
    return problems


def _who(rule: LimitRule) -> str:
    who = {
        LimitScope.EACH: "limits",
        LimitScope.GROUP: f"limits of group {rule.name}",
        LimitScope.EACH_OF_GROUP: f"limits of each of group {rule.name}",
        LimitScope.USER: f"limits of user {rule.name}",
    }[rule.scope]
    return who + (" by hour" if rule.hours else "") + (" in an override" if rule.span is not None else "")


def _place(policy: LoadedPolicy, rule: LimitRule) -> Place:
    file, _, line = rule.source.rpartition(":")
    return Place(file=file or policy.source, line=int(line) if line.isdigit() else 1, column=1)
