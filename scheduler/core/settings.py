"""Every number of the product that is a default or a fixed limit, declared once.

Policy files may override what is marked so. Durations are seconds of product time unless the name says machine.
"""

from dataclasses import dataclass

from scheduler.core.spans import DAY_S, HOUR_S, MINUTE_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The product's numbers; an instance is handed to whoever needs one."""

    tick_machine_s: float = 1.0
    lease_machine_s: float = 15.0
    lease_renew_machine_s: float = 5.0
    decision_wait_machine_s: float = 2.0
    horizon_s: int = 90 * DAY_S
    retention_s: int = 7 * DAY_S
    """How long disks are kept after the end; policy value."""
    grace_s: int = 5 * MINUTE_S
    """How long a guest may take to shut down before it is destroyed; policy value."""
    min_useful_s: int = 30 * MINUTE_S
    """No span is shorter than its leads plus this; policy value."""
    self_shutdown_ends_after_s: int = 10 * MINUTE_S
    crash_restarts: int = 3
    start_attempts: int = 3
    """Failed starts on one partition before the booking is placed elsewhere."""
    reset_attempts: int = 2
    """Resets asked before a rebind; after as many more the GPU is quarantined."""
    destroy_attempts: int = 3
    delete_disk_s: int = HOUR_S
    """The bound of wiping and deleting one disk."""
    finding_is_new_after_s: int = 2 * HOUR_S
    """What was told and comes back within this time is not told again; longer than any wait between two attempts."""
    retry_after_s: int = 30
    """Shortest time between two attempts at the same thing."""
    longest_run_s: int = 30 * DAY_S
    """The longest `--for` that is ever accepted; a policy may set a lower one."""
    shortest_run_s: int = MINUTE_S
    leave_silent_host_after_s: int = 5 * MINUTE_S
    """How long a host may not answer before what is about to start on it is placed elsewhere."""
    worth_a_swap_s: int = HOUR_S
    """The rest of an open window is released only if the gift is at least this long."""
    policy_files_ahead_s: int = 7 * DAY_S
    """How far ahead the reservations of a policy are filed."""
