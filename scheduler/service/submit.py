"""Submit: file what somebody wants, in order, and say what became of it.

Every edge and policy comes in here: an intent is committed first, then the plan task is woken.
"""

from dataclasses import dataclass

from scheduler.core.intents import FiledIntent, Intent
from scheduler.core.plan import Decided
from scheduler.core.requests import Role
from scheduler.service.ports import Clock, Wake
from scheduler.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """Where intents are handed in."""

    store: Store
    clock: Clock
    wake: Wake

    def file(self, intent: Intent, *, author: str, role: Role, key: str | None = None) -> FiledIntent:
        """Commit an intent and wake the plan task. With a key that was filed before, return the earlier one."""
        filed, is_new = self.store.file_intent(intent, at=self.clock.now(), author=author, role=role, key=key)
        if is_new:
            self.wake.plan()
        return filed

    def decision(self, seq: int) -> Decided | None:
        """Return what became of an intent; None while it is not decided, or is unknown."""
        found = self.store.intent(seq)
        return None if found is None else found[1]
