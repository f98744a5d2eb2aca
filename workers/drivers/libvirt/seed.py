"""The disk from which cloud-init in a guest learns who it is: NoCloud, an ISO with `meta-data` and `user-data`.

The same for all starts of a reservation, so that what a guest does at its first boot is done once; a reservation that
takes over a kept disk has another instance-id, and its key is put in.
"""

import io
import json
import re

import pycdlib

from scheduler.core.requests import ReservationId

LABEL = "cidata"
_ESCAPED = re.compile("[^ -~]")


def seed_iso(*, reservation: ReservationId, host_name: str, ssh_key: str | None) -> bytes:
    """Return the ISO image as bytes."""
    user: dict[str, object] = {"hostname": host_name, "manage_etc_hosts": True}
    if ssh_key:
        user["ssh_authorized_keys"] = [ssh_key]
    files = {
        "meta-data": _yaml({"instance-id": f"nightshift-{reservation}", "local-hostname": host_name}),
        "user-data": "#cloud-config\n" + _yaml(user),
    }
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=LABEL)
    for name, text in files.items():
        content = f"{text}\n".encode()
        iso_name = f"/{name.replace('-', '').upper()};1"
        iso.add_fp(io.BytesIO(content), len(content), iso_name, rr_name=name, joliet_path=f"/{name}")
    out = io.BytesIO()
    iso.write_fp(out)
    iso.close()
    return out.getvalue()


def _yaml(value: object) -> str:
    """Return YAML on one line of ASCII: JSON, which quotes whatever a key or a name may hold, with YAML's escapes.

    JSON's own for what is beyond 16 bits are no characters to YAML, and it takes no control characters as they are.
    """
    text = json.dumps(value, ensure_ascii=False)
    return _ESCAPED.sub(lambda found: _escape(ord(found.group())), text)


def _escape(code: int) -> str:
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
