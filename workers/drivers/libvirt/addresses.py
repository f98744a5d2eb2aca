"""libvirt URIs, PCI addresses and the names that libvirt gives to devices. Pure."""

from urllib.parse import parse_qsl, urlsplit, urlunsplit


def is_local(uri: str) -> bool:
    """Whether a libvirt URI means this very machine: the devices in this machine's sysfs are then the host's.

    A socket that is named may lead anywhere, as one that ssh forwards does.
    """
    parts = urlsplit(uri)
    has_own_socket = any(name == "socket" for name, _ in parse_qsl(parts.query, keep_blank_values=True))
    return not parts.hostname and not has_own_socket and parts.scheme in ("qemu", "qemu+unix")


def without_questions(uri: str) -> str:
    """Return a URI with which ssh asks for no password and no host key at the terminal that it was started from."""
    parts = urlsplit(uri)
    is_by_ssh = parts.scheme.partition("+")[2] == "ssh"
    if not is_by_ssh or any(name == "no_tty" for name, _ in parse_qsl(parts.query, keep_blank_values=True)):
        return uri
    return urlunsplit(parts._replace(query=f"{parts.query}&no_tty=1" if parts.query else "no_tty=1"))


def device_name(address: str) -> str:
    """Return libvirt's name of a PCI device: `0000:34:00.0` is `pci_0000_34_00_0`."""
    return "pci_" + address.replace(":", "_").replace(".", "_")


def address_of(domain: int, bus: int, slot: int, function: int) -> str:
    """Return a PCI address as Linux writes it."""
    return f"{domain:04x}:{bus:02x}:{slot:02x}.{function:x}"
