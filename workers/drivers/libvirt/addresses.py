"""libvirt URIs, PCI addresses and the names that libvirt gives to devices. Pure."""

from urllib.parse import urlsplit


def is_local(uri: str) -> bool:
    """Whether a libvirt URI means this very machine: the devices in this machine's sysfs are then the host's."""
    parts = urlsplit(uri)
    return not parts.hostname and parts.scheme in ("qemu", "qemu+unix")


def device_name(address: str) -> str:
    """Return libvirt's name of a PCI device: `0000:34:00.0` is `pci_0000_34_00_0`."""
    return "pci_" + address.replace(":", "_").replace(".", "_")


def address_of(domain: int, bus: int, slot: int, function: int) -> str:
    """Return a PCI address as Linux writes it."""
    return f"{domain:04x}:{bus:02x}:{slot:02x}.{function:x}"
