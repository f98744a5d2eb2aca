"""What fires once by the clock on the side of policies: windows up to the horizon, and a policy's own reservations.

Everything is filed as an intent under a unique key, so that ten tickers do what one does. Holds no timer: whoever has
one calls `Ticker.tick`, every second if it likes. Decides nothing about windows and reservations; the plan does.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from policies.data_versions import data_versions
from policies.filings import due_filings, next_filing_at
from policies.format import LoadedPolicy
from policies.windows import windows_between
from scheduler.core.intents import ApplyPolicy, FiledIntent, Intent, Materialise
from scheduler.core.plan import PolicyNote
from scheduler.core.requests import HostId, Role
from scheduler.core.settings import Settings
from scheduler.core.spans import DAY_S, Instant
from scheduler.core.windows import Window

_AUTHOR = "policy"


class FileIntent(Protocol):
    """Writes an intent, or finds the one that is filed under the same key already; true if it was written now."""

    def __call__(
        self, intent: Intent, *, at: Instant, author: str, role: Role, key: str
    ) -> tuple[FiledIntent, bool]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Filed:
    """What a tick filed."""

    key: str
    intent: FiledIntent
    is_new: bool
    """False: another ticker had filed it before."""
    is_caught_up: bool = False
    """A reservation whose time had begun before it was filed; worth a line in the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Basis:
    """What a tick depends on besides the time."""

    policy: LoadedPolicy
    policy_version: int
    horizon_at: Instant
    hosts: frozenset[HostId]


def apply_intent(
    policy: LoadedPolicy,
    hosts: Iterable[HostId],
    *,
    now: Instant,
    version: int,
    settings: Settings,
    message: str = "",
    override: str = "",
) -> ApplyPolicy:
    """Return the intent that applies a policy: its rules, and its windows up to the horizon that can still be decided.

    Only for a policy in which `checks.check_policy` finds no error. `message` is kept with it. `override`: why an admin
    lets it break promises; empty: it may break none.
    """
    hosts = frozenset(hosts)
    horizon_at = now + settings.horizon_s
    windows = windows_between(policy, hosts, from_at=now, until_at=horizon_at, version=version)
    return ApplyPolicy(
        rules=policy.rules(version),
        windows=_decidable(windows, now),
        hosts=hosts,
        horizon_at=horizon_at,
        text=policy.text,
        note=PolicyNote(message=message, override=override, made_with=data_versions()),
    )


class Ticker:
    """Files what is due. Remembers until when nothing is, so that most ticks cost a comparison."""

    def __init__(self, file_intent: FileIntent, settings: Settings) -> None:
        self._file_intent = file_intent
        self._settings = settings
        self._basis: _Basis | None = None
        self._quiet_until: Instant = 0
        self._ticked_at: Instant = 0
        self._filed_keys: frozenset[str] = frozenset()
        """Keys of reservations that are due and were filed: they stay due until their time is over."""

    @property
    def quiet_until(self) -> Instant:
        """Nothing is due before this instant, as long as policy and plan stay as they were at the last tick."""
        return self._quiet_until

    def tick(
        self,
        now: Instant,
        *,
        policy: LoadedPolicy,
        policy_version: int,
        horizon_at: Instant,
        hosts: frozenset[HostId],
    ) -> tuple[Filed, ...]:
        """File what is due at `now` by this policy, which is the applied one, and return it.

        `policy_version` and `horizon_at` are the plan's. May be called any number of times, by any number of tickers;
        if filing fails, the next call files the rest.
        """
        if not hosts:
            # A reservation filed now would be refused for want of a host, and its key be used up.
            return ()
        basis = self._basis
        if now < self._ticked_at:
            # Time was put back: what was computed to be quiet holds no more.
            basis = None
        self._ticked_at = now
        if (
            basis is not None
            and now < self._quiet_until
            and basis.policy is policy
            and (basis.policy_version, basis.horizon_at, basis.hosts) == (policy_version, horizon_at, hosts)
        ):
            return ()
        filed = (
            *self._file_windows(now, policy, policy_version, horizon_at, hosts),
            *self._file_reservations(now, policy, horizon_at),
        )
        self._basis = _Basis(policy=policy, policy_version=policy_version, horizon_at=horizon_at, hosts=hosts)
        self._quiet_until = self._next_due_at(now, policy, horizon_at)
        return filed

    def _file_windows(
        self, now: Instant, policy: LoadedPolicy, version: int, horizon_at: Instant, hosts: frozenset[HostId]
    ) -> tuple[Filed, ...]:
        """Move the horizon on once it is more than a day short."""
        wanted_at = now + self._settings.horizon_s
        if horizon_at >= wanted_at - DAY_S:
            return ()
        # Whole days, so that tickers a second apart file the same intent under the same key.
        new_horizon_at = wanted_at // DAY_S * DAY_S
        key = f"materialise@{version}@{new_horizon_at}"
        windows = windows_between(policy, hosts, from_at=horizon_at, until_at=new_horizon_at, version=version)
        intent = Materialise(
            policy_version=version, windows=_decidable(windows, now), hosts=hosts, horizon_at=new_horizon_at
        )
        filed, is_new = self._file_intent(intent, at=now, author=_AUTHOR, role=Role.POLICY, key=key)
        return (Filed(key=key, intent=filed, is_new=is_new),)

    def _file_reservations(self, now: Instant, policy: LoadedPolicy, horizon_at: Instant) -> tuple[Filed, ...]:
        filed = []
        due = due_filings(policy, now=now, until_at=horizon_at)
        for filing in due:
            if filing.key in self._filed_keys:
                continue
            intent, is_new = self._file_intent(
                filing.submit, at=now, author=filing.author, role=Role.POLICY, key=filing.key
            )
            self._filed_keys |= {filing.key}
            filed.append(Filed(key=filing.key, intent=intent, is_new=is_new, is_caught_up=filing.is_caught_up))
        self._filed_keys &= {filing.key for filing in due}
        return tuple(filed)

    def _next_due_at(self, now: Instant, policy: LoadedPolicy, horizon_at: Instant) -> Instant:
        next_windows_at = horizon_at - self._settings.horizon_s + DAY_S + 1
        next_reservation_at = next_filing_at(policy, now=now, until_at=horizon_at)
        due_at = [at for at in (next_windows_at, next_reservation_at) if at is not None and at > now]
        # A day without anything due is looked at again all the same.
        return min([*due_at, now + DAY_S])


def _decidable(windows: tuple[Window, ...], now: Instant) -> tuple[Window, ...]:
    """Leave out windows that should have been decided already: their guests could not be warned in time."""
    return tuple(window for window in windows if window.decide_at >= now)
