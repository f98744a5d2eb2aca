"""The one root exception, with a stable code. Expected refusals are values (`reasons`), not exceptions.

Holds the root and the failures that every layer may meet; a layer's own failures derive from the root where they arise.
Holds no messages for people about waits and refusals: those are in `reasons`.
"""

from collections.abc import Mapping

FactValue = str | int | float | bool | None


class NightshiftError(Exception):
    """A failure with a stable code, whether trying again can help, and its facts as fields."""

    code: str = "error"
    retryable: bool = False

    def __init__(self, message: str, **facts: FactValue) -> None:
        super().__init__(message)
        self.message = message
        self.facts: Mapping[str, FactValue] = facts

    def __str__(self) -> str:
        return self.message


class StalePlan(NightshiftError):
    """Another plan commit came first; load the newer plan and decide again."""

    code = "plan.stale"
    retryable = True


class LeaseLost(NightshiftError):
    """The lease on a host is no longer ours: begin nothing more."""

    code = "lease.lost"
    retryable = False


class StoreBusy(NightshiftError):
    """The database was locked for longer than the busy timeout; nothing was written."""

    code = "store.busy"
    retryable = True


class BrokenInvariant(NightshiftError):
    """The database refused a row that would break an invariant; nothing was written. Always a defect of ours."""

    code = "invariant.broken"
    retryable = False
