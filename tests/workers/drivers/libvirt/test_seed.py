"""The seed disk, read back as a guest would."""

import io
import json
import re

import pytest

pycdlib = pytest.importorskip("pycdlib", reason="pycdlib is not installed: it is of the extra `host`")

from scheduler.core.requests import ReservationId
from workers.drivers.libvirt.seed import seed_iso

KEY = "ssh-ed25519 AAAAC3Nza alice@laptop"


def content(iso: bytes, name: str) -> str:
    image, out = pycdlib.PyCdlib(), io.BytesIO()
    image.open_fp(io.BytesIO(iso))
    image.get_file_from_iso_fp(out, rr_path=f"/{name}")
    image.close()
    return out.getvalue().decode("ascii")


def user_data(ssh_key: str | None, *, host_name: str = "r-17") -> str:
    return content(seed_iso(reservation=ReservationId("r-17"), host_name=host_name, ssh_key=ssh_key), "user-data")


def values(text: str) -> dict[str, object]:
    """Read YAML as we write it: JSON, but for characters beyond 16 bits."""
    head, _, body = text.partition("\n")
    assert head == "#cloud-config"
    plain = re.sub(r"\\U([0-9a-f]{8})", lambda found: chr(int(found[1], 16)), body)
    read = json.loads(plain)
    assert isinstance(read, dict)
    return read


def test_a_guest_learns_its_name_and_its_key() -> None:
    assert values(user_data(KEY)) == {"hostname": "r-17", "manage_etc_hosts": True, "ssh_authorized_keys": [KEY]}


def test_all_starts_of_a_reservation_have_one_instance_id() -> None:
    iso = seed_iso(reservation=ReservationId("r-17"), host_name="r-17", ssh_key=None)
    expected = {"instance-id": "nightshift-r-17", "local-hostname": "r-17"}
    assert json.loads(content(iso, "meta-data")) == expected


def test_without_a_key_nobodys_is_put_in() -> None:
    assert "ssh_authorized_keys" not in values(user_data(None))


def test_the_disk_has_the_label_that_cloud_init_looks_for() -> None:
    image = pycdlib.PyCdlib()
    image.open_fp(io.BytesIO(seed_iso(reservation=ReservationId("r-17"), host_name="r-17", ssh_key=KEY)))
    assert image.pvd.volume_identifier.decode().strip() == "cidata"
    image.close()


@pytest.mark.parametrize(
    "key",
    [
        'ssh-rsa AAAA "]\nruncmd: ["rm -rf /"]',
        "ssh-rsa AAAA {x: y} # & *anchor !!python/object",
        "ssh-rsa AAAA back\\slash \\ud83d tab\t\x00\x7f\x85\u2028",
        "ssh-rsa AAAA ünïcode 漢字",
        "ssh-rsa AAAA 🚀",
    ],
)
def test_a_key_is_a_key_whatever_is_in_it(key: str) -> None:
    text = user_data(key, host_name=key)
    assert values(text)["ssh_authorized_keys"] == [key]
    assert values(text)["hostname"] == key
    assert text.count("\n") == 2
    assert all(character == "\n" or " " <= character <= "~" for character in text)


def test_a_character_beyond_16_bits_is_one_character_and_no_pair_of_halves() -> None:
    assert "\\U0001f680" in user_data("🚀")
    assert "\\ud83d" not in user_data("🚀")
