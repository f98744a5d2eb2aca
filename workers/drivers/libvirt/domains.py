"""The domains of a host that are on, as they describe themselves at this moment."""

from collections.abc import Iterator
from typing import Any

import libvirt

from workers.drivers.libvirt.reading import DescribedDomain, read_domain
from workers.drivers.libvirt.refusals import is_code


def active_domains(conn: Any) -> Iterator[DescribedDomain]:
    """Return every domain that is on; one that goes while it is read is not any more."""
    for domain in conn.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
        try:
            xml = domain.XMLDesc(0)
        except libvirt.libvirtError as error:
            if not is_code(error, libvirt.VIR_ERR_NO_DOMAIN):
                raise
            continue
        yield read_domain(xml)
