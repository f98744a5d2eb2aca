"""What drivers answered, as facts and events: of asking verbs at once, of chains when they have ended.

Pure. Must not hold driver calls, nor the writing of what is returned here (`converge`).
"""

from scheduler.core.converging.asked import ANSWERED, answered, asked_of
from scheduler.core.converging.asking import quarantined
from scheduler.core.errors import LeaseLost, NightshiftError
from scheduler.core.facts import HostFacts, Verb
from scheduler.core.plan import Event, event
from scheduler.core.requests import ReservationId
from scheduler.core.spans import Instant
from workers.chains import Ticket
from workers.verbs import text_of

Outcome = tuple[Ticket, Exception | None]
"""A chain that ended, and what it failed with."""

REFUSED = "driver.refused"
"""The event of an answer that is a failure."""


def with_outcomes(facts: HostFacts, outcomes: tuple[Outcome, ...], now: Instant) -> tuple[HostFacts, tuple[Event, ...]]:
    """Return the facts with the outcomes of chains that ended, and what is to be told of them."""
    events: list[Event] = []
    for ticket, failure in outcomes:
        if isinstance(failure, LeaseLost):
            # Not an answer: the rest of it is up to who held the lease then.
            continue
        if ticket.unverified:
            checks = "; ".join(ticket.unverified)
            events.append(event("gpu.unverified", now, reservation=ticket.reservation, host=facts.host, checks=checks))
        for gpu, problem in sorted(ticket.unfit_gpus.items()):
            facts, told = quarantined(facts, gpu, problem, now)
            events.extend(told)
        answer = _answer_of(failure)
        facts, refusal = with_answer(facts, ticket.verb, ticket.subject, answer, now, reservation=ticket.reservation)
        events.extend(refusal)
    return facts, tuple(events)


def with_answer(
    facts: HostFacts,
    verb: Verb,
    subject: str,
    detail: str,
    now: Instant,
    *,
    reservation: ReservationId | None = None,
) -> tuple[HostFacts, tuple[Event, ...]]:
    """Return the facts with a driver's answer in the book, and the event of a failure."""
    before = asked_of(facts, verb, subject)
    is_refusal = before is not None and detail not in (ANSWERED, before.detail)
    if reservation is None:
        reservation = next((vm.reservation for vm in facts.vms if str(vm.uuid) == subject), None)
    told = event(
        REFUSED,
        now,
        reservation=reservation,
        host=facts.host,
        verb=verb.value,
        subject=subject,
        problem=detail,
    )
    return answered(facts, verb, subject, detail), (told,) if is_refusal else ()


def raise_defects(outcomes: tuple[Outcome, ...]) -> None:
    """Raise what is no failure of a driver's: it is a defect of ours."""
    for _, failure in outcomes:
        if failure is not None and not isinstance(failure, NightshiftError):
            raise failure


def _answer_of(failure: Exception | None) -> str:
    """Return what a chain's end is written down as."""
    if failure is None:
        return ANSWERED
    return text_of(failure) if isinstance(failure, NightshiftError) else f"defect: {failure!r}"
