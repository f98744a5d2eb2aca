"""Actions as driver calls: the asking ones at once, the blocking ones as chains.

An asking verb's failure is an answer like any other, and never stops the next action. Holds no rules and no database.
"""

from typing import assert_never

from scheduler.core.converging.actions import (
    AskShutdown,
    DeleteDisk,
    DestroyVm,
    RemoveVm,
    ResetGpu,
    StartVm,
    WarnGuest,
)
from scheduler.core.converging.asked import ANSWERED
from scheduler.core.converging.asking import ask_key, new_start
from scheduler.core.errors import NightshiftError
from scheduler.core.settings import Settings
from scheduler.core.spans import Instant, utc_text
from scheduler.core.topology import HostProfile
from scheduler.service.ports import Clock
from workers.chains import Steps, Ticket, delete_steps, destroy_steps, spec_of, start_steps
from workers.ports import Drivers

Asking = AskShutdown | RemoveVm | ResetGpu | WarnGuest
Blocking = StartVm | DestroyVm | DeleteDisk


def text_of(error: NightshiftError) -> str:
    """Return an error as an answer for the book of asks; never empty, and never the word for success."""
    return f"{error.code}: {error.message}"


def ask(action: Asking, drivers: Drivers, profile: HostProfile) -> str:
    """Call an asking verb and return the driver's answer."""
    try:
        _call(action, drivers, profile)
    except NightshiftError as error:
        return text_of(error)
    return ANSWERED


def _call(action: Asking, drivers: Drivers, profile: HostProfile) -> None:
    match action:
        case AskShutdown():
            drivers.hypervisor.ask_shutdown(action.uuid, through_agent=action.through_agent)
        case RemoveVm():
            if action.partition is not None:
                drivers.fabric.deactivate(profile.partition(action.partition))
            drivers.hypervisor.undefine(action.uuid)
        case ResetGpu():
            if action.rebind:
                drivers.pci.rebind((action.address,))
            drivers.pci.ask_reset((action.address,))
        case WarnGuest():
            drivers.guest.warn(
                action.uuid, f"This machine is shut down at {utc_text(action.end_at)}. Its disk is kept."
            )
        case _:
            assert_never(action)


def chain(
    action: Blocking,
    drivers: Drivers,
    clock: Clock,
    profile: HostProfile,
    settings: Settings,
    *,
    token: str,
    asked_at: Instant,
) -> tuple[Ticket, Steps]:
    """Return the ticket and the steps of a blocking action; `asked_at` is when it was written down."""
    key = ask_key(action)
    assert key is not None
    verb, subject = key
    match action:
        case StartVm():
            start = new_start(action, asked_at)
            disk = action.vm.disk
            ticket = Ticket(
                verb=verb,
                subject=subject,
                token=token,
                reservation=action.vm.id,
                gpus=action.vm.partition.gpus,
                disk=None if disk is None else disk.id,
                vm=start.uuid,
            )
            until_at = asked_at + profile.bounds.start_s(action.vm.partition.size)
            spec = spec_of(action, start, profile)
            return ticket, start_steps(action, spec, drivers, clock, ticket, profile, until_at)
        case DestroyVm():
            ticket = Ticket(
                verb=verb,
                subject=subject,
                token=token,
                reservation=action.reservation,
                gpus=action.gpus,
                vm=action.uuid,
            )
            return ticket, destroy_steps(action, drivers, timeout_s=profile.bounds.destroy_s)
        case DeleteDisk():
            ticket = Ticket(
                verb=verb, subject=subject, token=token, reservation=action.disk.reservation, disk=action.disk.id
            )
            return ticket, delete_steps(action, drivers, timeout_s=settings.delete_disk_s)
        case _:
            assert_never(action)
