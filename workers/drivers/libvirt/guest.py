"""The verbs of `workers.ports.Guest` on a real libvirt: through the QEMU guest agent."""

import base64
import json
from typing import Any
from uuid import UUID

import libvirt
import libvirt_qemu

from workers.drivers.libvirt.connection import Connection
from workers.drivers.libvirt.guest_sight import read_devices
from workers.drivers.libvirt.refusals import is_about_the_connection, is_code
from workers.ports import AgentSilent, NoSuchDomain

ANSWERS_WITHIN_S = 2
"""Guests are warned one after the other: one that hangs must not keep the others waiting."""
WALL = "/usr/bin/wall"
DEVICES = "/proc/bus/pci/devices"
"""Where Linux lists all PCI devices: no program is run for it."""
MOST_BYTES = 1 << 16


class LibvirtGuest:
    """`workers.ports.Guest` on one host."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def warn(self, uuid: UUID, text: str) -> None:
        # The text is one argument of one program: no shell reads it.
        command = json.dumps({"execute": "guest-exec", "arguments": {"path": WALL, "arg": [text]}})

        self._connection.ask(
            lambda conn: _ask_agent(_domain(conn, uuid), command, "guest-exec"), what="warn", subject=str(uuid)
        )

    def devices_seen(self, uuid: UUID) -> tuple[str, ...]:
        """Return the vendor:product of every PCI device that a guest sees. Raises AgentSilent, NoSuchDomain."""

        def see(conn: Any) -> tuple[str, ...]:
            handle = _domain(conn, uuid)
            file = _said(handle, "guest-file-open", path=DEVICES)
            try:
                read = _said(handle, "guest-file-read", handle=file, count=MOST_BYTES)
            finally:
                _said(handle, "guest-file-close", handle=file)
            try:
                return read_devices(base64.b64decode(read["buf-b64"]).decode("ascii"))
            except (KeyError, TypeError, ValueError) as error:
                raise AgentSilent(f"the agent's answer is no list of devices: {error!r}", domain=str(uuid)) from error

        return self._connection.block_apart(see, what="see", subject=str(uuid), limit_s=3 * ANSWERS_WITHIN_S + 4)


def _domain(conn: Any, uuid: UUID) -> Any:
    try:
        return conn.lookupByUUIDString(str(uuid))
    except libvirt.libvirtError as error:
        if is_code(error, libvirt.VIR_ERR_NO_DOMAIN):
            raise NoSuchDomain(f"Domain not found: no domain with matching uuid '{uuid}'", domain=str(uuid)) from error
        raise


def _said(guest: Any, command: str, **arguments: Any) -> Any:
    """Return what the agent of a guest answers to a command."""
    answer = _ask_agent(guest, json.dumps({"execute": command, "arguments": arguments}), command)
    try:
        return json.loads(answer)["return"]
    except (KeyError, TypeError, ValueError) as error:
        raise AgentSilent(f"the agent's answer to {command} is none: {error!r}", domain=guest.UUIDString()) from error


def _ask_agent(guest: Any, request: str, command: str) -> str:
    try:
        return str(libvirt_qemu.qemuAgentCommand(guest, request, ANSWERS_WITHIN_S, 0))
    except libvirt.libvirtError as error:
        if is_about_the_connection(error):
            raise
        raise AgentSilent(
            f"{error.get_error_message()}; is qemu-guest-agent running in the guest, and {command} allowed?",
            domain=guest.UUIDString(),
        ) from error
