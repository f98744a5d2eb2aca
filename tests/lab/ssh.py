"""The way into a virtual DGX-2 by SSH: keys, whom they are known to, and an `ssh` that reads nothing of its user's."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.lab.machine import VirtualDgx2

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class SshWay:
    """The SSH server of one virtual DGX-2, and a folder with what its clients have."""

    machine: VirtualDgx2
    folder: Path
    port: int

    @classmethod
    def open(cls, machine: VirtualDgx2, folder: Path) -> "SshWay":
        """Start the server. Nobody knows it yet, and it lets nobody in."""
        (folder / "bin").mkdir(parents=True)
        way = cls(machine=machine, folder=folder, port=machine.start_ssh())
        way._known_hosts.touch()
        real = shutil.which("ssh")
        assert real is not None, "there is no ssh here: apt-get install openssh-client"
        client = folder / "bin" / "ssh"
        client.write_text(
            f'#!/bin/sh\nexec "{real}" -F none -o UserKnownHostsFile="{way._known_hosts}"'
            ' -o GlobalKnownHostsFile=/dev/null -o IdentitiesOnly=yes -o IdentityAgent=none "$@"\n',
            encoding="utf-8",
        )
        client.chmod(0o755)
        return way

    @property
    def path(self) -> str:
        """Return a PATH on which this `ssh` comes first."""
        return f"{self.folder / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"

    @property
    def _known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    def uri(self, key: Path) -> str:
        """Return the URI of the host's libvirt for whoever has a key."""
        return f"qemu+ssh://root@{LOOPBACK}:{self.port}/system?keyfile={key}"

    def make_key(self, name: str) -> Path:
        """Make a key that the host does not know."""
        key = self.folder / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        return key

    def become_known(self) -> None:
        """Let clients know the host by its key."""
        host_key = self.machine.run("cat /etc/ssh/ssh_host_ed25519_key.pub")
        self._known_hosts.write_text(f"[{LOOPBACK}]:{self.port} {host_key}", encoding="ascii")

    def let_in(self, key: Path) -> None:
        """Let the host know a key."""
        public = key.with_suffix(".pub").read_text(encoding="ascii").strip()
        self.machine.run(f"mkdir -p -m 700 ~/.ssh && echo '{public}' >> ~/.ssh/authorized_keys")
