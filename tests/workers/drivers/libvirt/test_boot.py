"""Which boot a host is in, read through a pool that is made for a moment."""

from typing import Any

import pytest

libvirt = pytest.importorskip(
    "libvirt", reason="libvirt-python is not installed: it is built where libvirt's headers are"
)

from workers.drivers.libvirt import boot as module
from workers.drivers.libvirt.boot import read_boot_id

BOOT_ID = "2f6bff0c-96f5-4f1c-8b6e-5d7a3f3d4b11"


def refusal(code: int, words: str) -> Any:
    error = libvirt.libvirtError(words)
    error.err = (code, libvirt.VIR_FROM_STORAGE, words, 2, words, None, None, -1, -1)
    return error


class FakePool:
    def __init__(self, host: "FakeHost", name: str) -> None:
        self._host, self._name = host, name

    def name(self) -> str:
        return self._name

    def storageVolLookupByName(self, name: str) -> "FakePool":  # noqa: N802
        if self not in self._host.pools:
            raise refusal(libvirt.VIR_ERR_NO_STORAGE_POOL, "Storage pool not found")
        assert name == "boot_id"
        return self

    def download(self, _stream: Any, _offset: int, _length: int, _flags: int) -> None:
        return

    def destroy(self) -> None:
        if self not in self._host.pools:
            raise refusal(libvirt.VIR_ERR_NO_STORAGE_POOL, "Storage pool not found")
        self._host.pools.remove(self)


class FakeStream:
    def __init__(self) -> None:
        self._left = [f"{BOOT_ID}\n".encode(), b""]

    def recv(self, _most: int) -> bytes:
        return self._left.pop(0)

    def finish(self) -> None:
        return


class FakeHost:
    """A host on which there is one pool to a folder, as libvirt has it."""

    def __init__(self) -> None:
        self.pools: list[FakePool] = []
        self.refusals: list[Any] = []

    def storagePoolCreateXML(self, xml: str, _flags: int) -> FakePool:  # noqa: N802
        if self.refusals:
            raise self.refusals.pop()
        if self.pools:
            raise refusal(
                libvirt.VIR_ERR_OPERATION_FAILED, f"Storage source conflict with pool: {self.pools[0].name()}"
            )
        self.pools.append(FakePool(self, xml.partition("<name>")[2].partition("</name>")[0]))
        return self.pools[0]

    def listAllStoragePools(self, _flags: int) -> list[FakePool]:  # noqa: N802
        return list(self.pools)

    def newStream(self, _flags: int) -> FakeStream:  # noqa: N802
        return FakeStream()


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "sleep", lambda _seconds: None)


def test_the_boot_id_is_read_and_nothing_is_left() -> None:
    host = FakeHost()
    assert read_boot_id(host) == BOOT_ID
    assert host.pools == []


def test_a_pool_that_a_killed_worker_left_is_used_and_cleared_away() -> None:
    host = FakeHost()
    host.pools.append(FakePool(host, "nightshift-boot-0123456789ab"))
    assert read_boot_id(host) == BOOT_ID
    assert host.pools == []


def test_a_pool_of_somebody_else_on_the_folder_is_not_touched() -> None:
    host = FakeHost()
    host.pools.append(FakePool(host, "by-hand"))
    with pytest.raises(libvirt.libvirtError, match="conflict with pool: by-hand"):
        read_boot_id(host)
    assert [pool.name() for pool in host.pools] == ["by-hand"]


def test_another_worker_that_reads_it_at_the_same_moment_is_waited_for() -> None:
    host = FakeHost()
    host.refusals = [refusal(libvirt.VIR_ERR_OPERATION_FAILED, "Storage source conflict") for _ in range(4)]
    assert read_boot_id(host) == BOOT_ID
