"""The verbs of `workers.ports.Guest` on a real libvirt: through the QEMU guest agent."""

import json
from typing import Any
from uuid import UUID

import libvirt
import libvirt_qemu

from workers.drivers.libvirt.connection import Connection
from workers.drivers.libvirt.refusals import is_about_the_connection, is_code
from workers.ports import AgentSilent, NoSuchDomain

ANSWERS_WITHIN_S = 2
"""Guests are warned one after the other: one that hangs must not keep the others waiting."""
WALL = "/usr/bin/wall"


class LibvirtGuest:
    """`workers.ports.Guest` on one host."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def warn(self, uuid: UUID, text: str) -> None:
        # The text is one argument of one program: no shell reads it.
        command = json.dumps({"execute": "guest-exec", "arguments": {"path": WALL, "arg": [text]}})

        def warn(conn: Any) -> None:
            try:
                handle = conn.lookupByUUIDString(str(uuid))
            except libvirt.libvirtError as error:
                if is_code(error, libvirt.VIR_ERR_NO_DOMAIN):
                    raise NoSuchDomain(
                        f"Domain not found: no domain with matching uuid '{uuid}'", domain=str(uuid)
                    ) from error
                raise
            try:
                libvirt_qemu.qemuAgentCommand(handle, command, ANSWERS_WITHIN_S, 0)
            except libvirt.libvirtError as error:
                if is_about_the_connection(error):
                    raise
                words = error.get_error_message()
                raise AgentSilent(
                    f"{words}; is qemu-guest-agent running in the guest, and guest-exec allowed?", domain=str(uuid)
                ) from error

        self._connection.ask(warn, what="warn", subject=str(uuid))
