"""Build the disk and the kernel of the virtual DGX-2 from Debian packages, once per set of package versions.

Building needs root (debootstrap does); running needs none. Holds no knowledge of the machine that boots the image: that
is `tests.lab.machine`. What the host runs and how it is configured is in the folder `tests/lab/host`.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import platformdirs

CACHE_VARIABLE = "NIGHTSHIFT_LAB_CACHE"
DISK_SIZE_GIB = 48
"""Virtual: the file is sparse. Disks of virtual machines are planned against what the file system says it can hold."""
JOURNAL_SIZE_MIB = 64
BYTES_PER_INODE = 256 * 1024
KEPT_IMAGES = 3
UNFINISHED = "building-"
COMMAND_LIMIT_S = 900.0
SHOWN_LINES = 20

PACKAGES = (
    "busybox-static",
    "dnsmasq-base",
    "ebtables",
    "iproute2",
    "iptables",
    "kmod",
    "libvirt-clients",
    "libvirt-daemon",
    "libvirt-daemon-config-nwfilter",
    "libvirt-daemon-driver-qemu",
    "numactl",
    "openssh-server",
    "pciutils",
    "python3-minimal",
    "qemu-system-x86",
    "qemu-utils",
)
KERNEL_PACKAGE = "linux-image-cloud-amd64"
"""It depends on the kernel itself; NVMe and ext4 are built into it, so that it boots without an initramfs."""

HOST_FILES = Path(__file__).with_name("host")
INSTALLED_FILES = {
    "init": "lab-init",
    "libvirtd.conf": "etc/libvirt/libvirtd.conf",
    "qemu.conf": "etc/libvirt/qemu.conf",
    "storage/nightshift.xml": "etc/libvirt/storage/nightshift.xml",
    "storage/nightshift-images.xml": "etc/libvirt/storage/nightshift-images.xml",
    "network.xml": "etc/libvirt/qemu/networks/nightshift.xml",
    "sshd_config": "etc/ssh/sshd_config",
}
"""From the folder `host` to the root file system."""
AUTOSTARTED_POOLS = ("nightshift", "nightshift-images")
FOLDERS = (
    "etc/libvirt/storage/autostart",
    "etc/libvirt/qemu/networks/autostart",
    "var/cache/libvirt/qemu",
    "var/lib/libvirt/images",
    "var/lib/libvirt/qemu",
    "var/lib/nightshift/disks",
    "var/lib/nightshift/images",
    "var/log/libvirt/qemu",
)
UNUSED = (
    "usr/share/doc",
    "usr/share/locale",
    "usr/share/man",
    "var/cache/apt",
    "var/lib/apt/lists",
    # libvirt asks every emulator that it finds for its abilities when it starts: seconds under emulation.
    "usr/bin/qemu-system-i386",
    # Not a network of ours.
    "etc/libvirt/qemu/networks/default.xml",
)

Progress = Callable[[str], None]


class HostImageError(Exception):
    """The image cannot be built."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostImage:
    """What the virtual DGX-2 boots: files that no run of it changes."""

    key: str
    disk: Path
    """Raw and sparse, one ext4 file system without a partition table."""
    kernel: Path


def default_cache() -> Path:
    """Return the folder of built images: NIGHTSHIFT_LAB_CACHE, else the user's cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen) if chosen else platformdirs.user_cache_path("nightshift-lab")


def build_host_image(cache: Path, *, progress: Progress = lambda _: None) -> HostImage:
    """Return the image for today's package versions and host files, building it unless the cache holds it.

    May be called by several processes at once: one builds, the others wait. Raises HostImageError.
    """
    key = _key()
    image = _image_in(cache / key, key)
    if image is not None:
        return image
    if os.geteuid() != 0:
        raise HostImageError(
            f"{cache} holds no image {key} of the virtual DGX-2 and building one needs root: run "
            f"`sudo python -m tests.lab build` with {CACHE_VARIABLE} set to a folder that all may read"
        )
    cache.mkdir(parents=True, exist_ok=True, mode=0o755)
    with _locked(cache / "lock"):
        image = _image_in(cache / key, key)
        if image is None:
            _forget_unfinished(cache)
            image = _build(cache, key, _Steps(progress))
            _forget_old(cache)
    return image


class _Steps:
    """Report each step with the seconds that it took."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        started_s = time.monotonic()
        yield
        self._progress(f"{name}: {time.monotonic() - started_s:.1f} s")


def _image_in(folder: Path, key: str) -> HostImage | None:
    image = HostImage(key=key, disk=folder / "root.raw", kernel=folder / "vmlinuz")
    return image if image.disk.exists() and image.kernel.exists() else None


def _kernel_package() -> str:
    """Return the package of the kernel that the cloud kernel's meta package stands for."""
    for line in _output("apt-cache", "depends", KERNEL_PACKAGE).splitlines():
        kind, _, name = line.strip().partition(": ")
        if kind == "Depends" and name.startswith("linux-image-"):
            return name
    raise HostImageError(f"apt knows no kernel for {KERNEL_PACKAGE}: run `apt-get update`, or use a Debian machine")


def _key() -> str:
    """Return a name for all that goes into the image: release, versions of packages, our files and this module."""
    digest = hashlib.sha256()
    digest.update(_codename().encode())
    for line in _output("apt-cache", "madison", *PACKAGES, KERNEL_PACKAGE).splitlines():
        package, version, _ = (part.strip() for part in line.split("|", 2))
        digest.update(f"{package}={version}\n".encode())
    for path in (Path(__file__), *sorted(path for path in HOST_FILES.rglob("*") if path.is_file())):
        digest.update(f"{path.name}\n".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _codename() -> str:
    for line in Path("/etc/os-release").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition("=")
        if name == "VERSION_CODENAME":
            return value.strip('"')
    raise HostImageError("/etc/os-release has no VERSION_CODENAME: the virtual DGX-2 is built on Debian only")


def _mirror(codename: str) -> str:
    """Return the mirror that this machine's apt takes the release from."""
    sites = _output(
        "apt-get", "indextargets", "--format", "$(REPO_URI)",
        "Created-By: Packages", f"Codename: {codename}", "Component: main",
    ).split()  # fmt: skip
    if not sites:
        raise HostImageError(f"this machine's apt has no packages of {codename}: run `apt-get update`")
    return sites[0]


def _build(cache: Path, key: str, steps: _Steps) -> HostImage:
    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=cache) as text:
        work = Path(text)
        root, image = work / "root", work / "image"
        image.mkdir()
        with steps.step("packages"):
            codename, included = _codename(), f"--include={','.join(PACKAGES)}"
            # It mounts proc and sys inside the root; in a namespace of its own these end with it, however it ends.
            _run("unshare", "--mount", "debootstrap", "--variant=minbase", included, codename, root, _mirror(codename))
        with steps.step("kernel"):
            _install_kernel(work, root, image / "vmlinuz")
        with steps.step("configuration"):
            _configure(root)
        with steps.step("disk"):
            _make_disk(root, image / "root.raw")
        for path in image.iterdir():
            path.chmod(0o644)
        image.chmod(0o755)
        shutil.rmtree(cache / key, ignore_errors=True)
        image.rename(cache / key)
    built = _image_in(cache / key, key)
    assert built is not None
    return built


def _install_kernel(work: Path, root: Path, kernel: Path) -> None:
    """Unpack the kernel and its modules; the package's scripts would want a boot loader."""
    download, unpacked = work / "download", work / "kernel"
    download.mkdir()
    _run("apt-get", "download", "-o", "APT::Sandbox::User=root", _kernel_package(), folder=download)
    (archive,) = download.glob("*.deb")
    _run("dpkg", "-x", archive, unpacked)
    (image,) = (unpacked / "boot").glob("vmlinuz-*")
    (modules,) = (unpacked / "lib/modules").iterdir()
    shutil.copy(image, kernel)
    shutil.copytree(modules, root / "lib/modules" / modules.name, symlinks=True)
    _run("chroot", root, "depmod", modules.name)


def _configure(root: Path) -> None:
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for source, target in INSTALLED_FILES.items():
        shutil.copy(HOST_FILES / source, root / target)
    for pool in AUTOSTARTED_POOLS:
        (root / f"etc/libvirt/storage/autostart/{pool}.xml").symlink_to(f"../{pool}.xml")
    (root / "etc/hostname").write_text("dgx2\n", encoding="utf-8")
    (root / "etc/hosts").write_text("127.0.0.1 localhost dgx2\n", encoding="utf-8")
    # libvirtd does not start without them; the package that creates them wants systemd.
    for group in ("kvm", "libvirt", "libvirt-qemu"):
        _run("chroot", root, "groupadd", "--system", "--force", group)
    _run("chroot", root, "useradd", "--system", "--gid", "kvm", "--shell", "/usr/sbin/nologin", "libvirt-qemu")
    for name in UNUSED:
        path = root / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _make_disk(root: Path, disk: Path) -> None:
    """Write the file system without mounting it; few inodes, since their tables are written while the host runs."""
    with disk.open("wb") as file:
        file.truncate(DISK_SIZE_GIB * 1024**3)
    _run(
        "mkfs.ext4", "-q", "-F", "-L", "dgx2", "-m", "0", "-i", BYTES_PER_INODE, "-J", f"size={JOURNAL_SIZE_MIB}",
        "-E", "lazy_itable_init=1,lazy_journal_init=1", "-d", root, disk,
    )  # fmt: skip


def _forget_unfinished(cache: Path) -> None:
    """Delete what builds that were killed have left; the lock says that nobody builds now."""
    for folder in cache.glob(f"{UNFINISHED}*"):
        shutil.rmtree(folder)


def _forget_old(cache: Path) -> None:
    """Keep the newest few images: each is hundreds of megabytes, and other checkouts may share the cache."""
    images = [disk.parent for disk in cache.glob("*/root.raw")]
    for folder in sorted(images, key=lambda path: path.stat().st_mtime, reverse=True)[KEPT_IMAGES:]:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(*command: str | Path | int, folder: Path | None = None) -> None:
    """Run a command of the build; its failure carries the end of what it printed."""
    _completed([str(part) for part in command], folder)


def _output(*command: str) -> str:
    return _completed(command, None)


def _completed(command: Sequence[str], folder: Path | None) -> str:
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False,
            encoding="utf-8", errors="replace", timeout=COMMAND_LIMIT_S,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise HostImageError(f"{command[0]} is not installed on this machine") from error
    except subprocess.TimeoutExpired as error:
        raise HostImageError(f"{command[0]} took more than {COMMAND_LIMIT_S:.0f} s") from error
    if done.returncode != 0:
        shown = "\n".join((done.stdout + done.stderr).splitlines()[-SHOWN_LINES:])
        raise HostImageError(f"`{' '.join(command)}` ended with status {done.returncode}:\n{shown}")
    return done.stdout
