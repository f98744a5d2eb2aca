"""The verbs of images and disks, and of what is inside of a guest, on a simulated host."""

from uuid import UUID

from scheduler.core.requests import DiskId
from scheduler.core.spans import Instant
from workers.drivers.simulated import durations, words
from workers.drivers.simulated.calls import Call, Calls
from workers.drivers.simulated.faults import RackVerb
from workers.drivers.simulated.state import DiskState, Due, RackState


class SimulatedImages:
    """`workers.ports.Images` on a rack."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def create_disk(self, disk: DiskId, *, image: str, size_gib: int, timeout_s: int, must_exist: bool = False) -> None:
        def check(state: RackState) -> None:
            made = state.disk(disk)
            if made is None or made.state != DiskState.READY:
                raise words.copy_failed(disk)

        self._calls.block(
            RackVerb.CREATE_DISK,
            (disk, image),
            lambda call: _create(call, disk, image, size_gib, must_exist=must_exist),
            timeout_s=timeout_s,
            check=check,
        )

    def delete_disk(self, disk: DiskId, *, timeout_s: int) -> None:
        def check(state: RackState) -> None:
            if state.disk(disk) is not None:
                raise words.not_deleted(disk)

        self._calls.block(
            RackVerb.DELETE_DISK, (disk,), lambda call: _delete(call, disk), timeout_s=timeout_s, check=check
        )


class SimulatedGuest:
    """`workers.ports.Guest` on a rack."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def warn(self, uuid: UUID, text: str) -> None:
        subject = str(uuid)
        self._calls.ask(RackVerb.WARN, (subject,), lambda call: _warn(call, subject, text))


def _create(call: Call, disk: DiskId, image: str, size_gib: int, *, must_exist: bool) -> Instant | None:
    state = call.state
    old = state.disk(disk)
    match None if old is None else DiskState(old.state):
        case DiskState.READY:
            return None
        case DiskState.COPYING:
            return state.due_at(Due.COPIED, disk)
        case DiskState.DELETING:
            raise words.disk_locked(disk, "delete")
        case None | DiskState.PARTIAL:
            if must_exist:
                raise words.no_disk(disk)
    if state.connection.execute("SELECT 1 FROM images WHERE name = ?", (image,)).fetchone() is None:
        raise words.no_image(image, disk)
    (used,) = state.connection.execute("SELECT coalesce(sum(size_gib), 0) FROM disks WHERE id != ?", (disk,)).fetchone()
    if used + size_gib > state.profile.pool_gib:
        raise words.pool_full(disk, size_gib, state.profile.pool_gib - used)
    state.connection.execute(
        "INSERT OR REPLACE INTO disks (id, size_gib, state) VALUES (?, ?, ?)",
        (disk, size_gib, DiskState.PARTIAL if call.is_half else DiskState.COPYING),
    )
    state.log("disk.copying", disk=disk, image=image, size_gib=size_gib)
    if call.is_half:
        state.log("disk.cut_off", disk=disk)
        raise words.copy_failed(disk)
    done_at = call.ends_at(durations.copy_s(state.draw("copy", disk), state.profile, size_gib=size_gib))
    state.due(done_at, Due.COPIED, disk)
    return done_at


def _delete(call: Call, disk: DiskId) -> Instant | None:
    state = call.state
    old = state.disk(disk)
    if old is None:
        return None
    if old.held_by is not None:
        raise words.disk_locked(disk, old.held_by)
    if old.state == DiskState.COPYING:
        raise words.disk_locked(disk, "copy")
    if old.state == DiskState.DELETING:
        return state.due_at(Due.DELETED, disk)
    state.connection.execute(
        "UPDATE disks SET state = ? WHERE id = ?", (DiskState.PARTIAL if call.is_half else DiskState.DELETING, disk)
    )
    state.log("disk.deleting", disk=disk)
    if call.is_half:
        state.log("disk.cut_off", disk=disk)
        raise words.not_deleted(disk)
    done_at = call.ends_at(state.draw("delete", disk).within(*durations.DELETE_S))
    state.due(done_at, Due.DELETED, disk)
    return done_at


def _warn(call: Call, uuid: str, text: str) -> None:
    domain = call.state.domain(uuid)
    if domain is None:
        raise words.no_domain(uuid)
    if domain.is_silent or not domain.is_up:
        raise words.agent_silent(uuid)
    call.state.log_domain("guest.warned", domain, text=text)
    if call.is_half:
        raise words.agent_silent(uuid)
