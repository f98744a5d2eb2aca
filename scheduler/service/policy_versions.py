"""The versions of the policy that were applied, with where their text came from. Reads only."""

from dataclasses import dataclass

from scheduler.core.plan import PolicyNote
from scheduler.core.spans import Instant
from scheduler.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyVersion:
    """One line of the history."""

    version: int
    applied_at: Instant
    author: str
    source: str
    """The name of the file or directory that was applied."""
    note: PolicyNote
    same_text_as: int | None
    """The newest earlier version with the very same text, of those looked at: rolled back to, or applied again."""


def policy_history(store: Store, *, most: int) -> tuple[PolicyVersion, ...]:
    """Return the newest `most` versions, newest first."""
    history: list[PolicyVersion] = []
    version_by_text: dict[tuple[str, str], int] = {}
    for applied in reversed(store.policies()[:most]):
        record = store.policy(applied.version)
        if record is None:
            continue
        text = (record.rules.source, record.text)
        history.append(
            PolicyVersion(
                version=record.version,
                applied_at=record.applied_at,
                author=record.author,
                source=record.rules.source,
                note=record.note,
                same_text_as=version_by_text.get(text),
            )
        )
        version_by_text[text] = record.version
    return tuple(reversed(history))
