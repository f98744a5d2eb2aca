"""What happens on a simulated host by itself: everything that came due up to an instant, in order of instants.

Holds the effects of the passing of time; those of the fault script are in `happenings`. Each is written with the
instant at which it happened, however late it is looked at; so when and how often anybody looks changes nothing.
"""

from collections.abc import Callable

from scheduler.core.facts import DomainState, OffReason
from scheduler.core.spans import Instant
from workers.drivers.simulated import durations, faults, log
from workers.drivers.simulated.happenings import befalls, mend, vanish
from workers.drivers.simulated.state import DiskState, DomainRow, Due, RackState

MOST_AT_ONCE = 1_000_000
"""A rack on which more than this comes due in one step is broken: nothing repeats by itself."""


def advance(state: RackState, now: Instant) -> None:
    """Let everything happen that came due up to `now`, then set the state's instant there; never backwards."""
    for _ in range(MOST_AT_ONCE):
        row = state.connection.execute("SELECT id, at, what, subject FROM due ORDER BY at, id LIMIT 1").fetchone()
        if row is None or row[1] > now:
            break
        number, at, what, subject = row
        state.connection.execute("DELETE FROM due WHERE id = ?", (number,))
        # What was entered for an instant already past happens now: the log never goes back in time.
        state.now = max(at, log.last_at(state.connection))
        _HAPPENS[Due(what)](state, subject)
    else:
        raise RuntimeError(f"rack {state.host}: more than {MOST_AT_ONCE} things came due up to {now}")
    state.now = max(now, log.last_at(state.connection))


def next_due_at(state: RackState) -> Instant | None:
    """Return the next instant at which something changes by itself."""
    (at,) = state.connection.execute("SELECT min(at) FROM due").fetchone()
    return None if at is None else int(at)


# ---- domains


def _started(state: RackState, subject: str) -> None:
    domain = _known(state, subject)
    gpus = len([gpu for gpu in domain.gpus.split(",") if gpu])
    boot_s = durations.boot_s(state.draw("boot", subject), state.profile, gpus=gpus)
    state.set_domain(subject, DomainState.RUNNING)
    state.due(state.now + boot_s, Due.GUEST_UP, subject)
    state.log_domain("vm.running", domain)


def _guest_up(state: RackState, subject: str) -> None:
    state.set_domain(subject, DomainState.RUNNING, is_up=1)
    state.log_domain("guest.up", _known(state, subject))


def _closing(state: RackState, subject: str) -> None:
    state.cancel(subject, Due.GUEST_UP)
    state.set_domain(subject, DomainState.SHUTTING_DOWN)
    close_s = state.draw("close", subject).within(*durations.CLOSE_S)
    state.due(state.now + close_s, Due.OFF, subject)
    state.log_domain("guest.down", _known(state, subject))


def _off(state: RackState, subject: str) -> None:
    state.power_off(_known(state, subject), OffReason.SHUTDOWN)


def _destroyed(state: RackState, subject: str) -> None:
    state.power_off(_known(state, subject), OffReason.DESTROYED)


def _agent_back(state: RackState, subject: str) -> None:
    state.connection.execute("UPDATE domains SET is_silent = 0 WHERE uuid = ?", (subject,))
    state.log_domain("guest.agent_back", _known(state, subject))


def _leaves(state: RackState, subject: str) -> None:
    domain = state.domain(subject)
    if domain is not None:
        vanish(state, domain, "vm.undefined")


def _known(state: RackState, uuid: str) -> DomainRow:
    domain = state.domain(uuid)
    if domain is None:
        raise RuntimeError(f"rack {state.host}: something is due for domain {uuid}, which does not exist")
    return domain


# ---- devices


def _reset(state: RackState, subject: str) -> None:
    state.connection.execute("UPDATE devices SET is_resetting = 0, is_clean = 1 WHERE address = ?", (subject,))
    device = state.device(subject)
    assert device is not None
    state.log_device("device.reset" if device.gpu is None else "gpu.reset", device)


# ---- disks


def _copied(state: RackState, subject: str) -> None:
    state.connection.execute("UPDATE disks SET state = ? WHERE id = ?", (DiskState.READY, subject))
    disk = state.disk(subject)
    assert disk is not None
    state.log("disk.made", disk=subject, size_gib=disk.size_gib)


def _deleted(state: RackState, subject: str) -> None:
    state.connection.execute("DELETE FROM disks WHERE id = ?", (subject,))
    state.log("disk.deleted", disk=subject)


# ---- the host


def _reachable(state: RackState, _: str) -> None:
    state.connection.execute("UPDATE host SET unreachable_until = 0")
    state.log("host.reachable")


# ---- the fault script


def _fault(state: RackState, subject: str) -> None:
    fault = faults.pending(state.connection, int(subject))
    assert fault is not None
    faults.use_up(state.connection, fault.id)
    if not befalls(state, fault):
        state.log("fault.missed", fault=fault.id, kind=fault.kind, subject=fault.subject)


_HAPPENS: dict[Due, Callable[[RackState, str], None]] = {
    Due.STARTED: _started,
    Due.GUEST_UP: _guest_up,
    Due.CLOSING: _closing,
    Due.OFF: _off,
    Due.DESTROYED: _destroyed,
    Due.AGENT_BACK: _agent_back,
    Due.LEAVES: _leaves,
    Due.RESET: _reset,
    Due.DEVICE_BACK: mend,
    Due.COPIED: _copied,
    Due.DELETED: _deleted,
    Due.REACHABLE: _reachable,
    Due.FAULT: _fault,
}
