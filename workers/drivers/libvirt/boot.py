"""Which boot of a host this is, asked of its own kernel, also over a remote connection.

libvirt tells no boot id. Its storage driver reads files, though, and the kernel's boot id is one: a pool that is made
for a moment, and stored nowhere, shows it. A host that does not allow that is looked at all the same; that it was
booted anew is then not noticed by itself.
"""

from time import sleep
from typing import Any
from uuid import uuid4
from xml.etree import ElementTree

import libvirt

_FOLDER = "/proc/sys/kernel/random"
_FILE = "boot_id"
_NAME = "nightshift-boot-"
_TRIES = 5
_TRY_AGAIN_S = 0.2
_LONGEST = 64


def read_boot_id(conn: Any) -> str:
    """Return the boot id of the host behind a connection. Raises libvirtError."""
    for attempt in range(1, _TRIES + 1):
        try:
            pool = _pool(conn)
            try:
                return _content(conn, pool.storageVolLookupByName(_FILE))
            finally:
                _let_go(pool)
        except libvirt.libvirtError:
            # Another worker reads it this very moment, and has just made or removed the pool.
            if attempt == _TRIES:
                raise
            sleep(_TRY_AGAIN_S)
    raise AssertionError("the last attempt returns or raises")


def _pool(conn: Any) -> Any:
    """Make the pool. There is only one on a folder: one that a killed worker left there is taken over."""
    try:
        return conn.storagePoolCreateXML(_pool_xml(), 0)
    except libvirt.libvirtError:
        left = next((pool for pool in conn.listAllStoragePools(0) if pool.name().startswith(_NAME)), None)
        if left is None:
            raise
        return left


def _let_go(pool: Any) -> None:
    try:
        pool.destroy()
    except libvirt.libvirtError:
        # Another worker took it over, and was faster.
        return


def _content(conn: Any, volume: Any) -> str:
    stream = conn.newStream(0)
    volume.download(stream, 0, 0, 0)
    content = b""
    while len(content) < _LONGEST and (chunk := stream.recv(_LONGEST)):
        content += chunk
    stream.finish()
    return content.decode("ascii").strip()


def _pool_xml() -> str:
    root = ElementTree.Element("pool", type="dir")
    ElementTree.SubElement(root, "name").text = f"{_NAME}{uuid4().hex[:12]}"
    target = ElementTree.SubElement(root, "target")
    ElementTree.SubElement(target, "path").text = _FOLDER
    return ElementTree.tostring(root, encoding="unicode")
