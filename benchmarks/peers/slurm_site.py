"""A Slurm of its own in a directory: munged, slurmctld and one slurmd for every node, all on this machine, as root.

No systemd, no database, no cgroups, no configuration of the system is read or written. Two ways to say what a host is:

*A* takes a host for one node with 16 GPUs, which is how people run Slurm. *B* takes every GPU for a node, with switches
over 2, 4, 8 and 16 of them, so that a backfill plans GPUs and not hosts. A GPU is a device node like /dev/null.

Daemons are children of this process; what they left behind is found by the environment that only they have. Its ports
are fixed: one site at a time. Must not know what is measured.
"""

import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from benchmarks.peers.peer import GPUS, NotHere

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge", "slurm-wlm-basic-plugins")
"""Of Debian 12; measured with 22.05.8."""
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "scontrol", "sdiag", "sinfo", "squeue")
MOST_NODES = 256
"""Each is a process here."""
UP_WITHIN_S = 120.0
_DOWN_WITHIN_S = 20.0
_NULL_DEVICE = (1, 3)
_PORT = 21_000
_NODE_PORT = 21_100


class Layout(StrEnum):
    """What is a node."""

    A = "A"
    B = "B"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A Slurm that is up."""

    directory: Path
    hosts: int
    layout: Layout
    daemon_by_name: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    """In the order of their start; `slurmd` with its node."""

    @property
    def environment(self) -> dict[str, str]:
        path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
        return {"PATH": path, "HOME": "/", "TZ": "UTC", "LC_ALL": "C", "SLURM_CONF": str(self.directory / "slurm.conf")}

    def cpu_s(self, program: str) -> float:
        """Return the processor time of a daemon since its start."""
        daemon = self.daemon_by_name[program]
        # After the name, which may hold anything: utime and stime are fields 14 and 15 of proc(5).
        fields = Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def call(self, *words: str) -> str:
        """Run one of Slurm's commands and return what it printed."""
        done = self._run(words, None)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise NotHere(f"{words[0]} ended with {done.returncode}: {said[-1] if said else 'it said nothing'}")
        return done.stdout

    def tell(self, program: str, lines: Iterable[str]) -> str:
        """Give lines to one of Slurm's commands; return what it printed, of those too that it refused."""
        return self._run((program,), "".join(f"{line}\n" for line in lines)).stdout

    def _run(self, words: Sequence[str], stdin: str | None) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            words, input=stdin, capture_output=True, text=True, check=False, env=self.environment, cwd=self.directory
        )

    def nodes_of(self, host: int) -> tuple[str, ...]:
        """Return the names of the nodes that a host is made of."""
        match self.layout:
            case Layout.A:
                return (f"dgx{host}",)
            case Layout.B:
                return tuple(f"gpu{host * GPUS + gpu}" for gpu in range(GPUS))

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(node for host in range(self.hosts) for node in self.nodes_of(host))

    def ask(self, gpus: int) -> tuple[str, ...]:
        """Return the options that ask for so many GPUs."""
        match self.layout:
            case Layout.A:
                return ("--nodes=1", "--ntasks=1", f"--gres=gpu:{gpus}")
            case Layout.B:
                return (f"--nodes={gpus}",)


def check(hosts: int, layout: Layout) -> None:
    """Say what is missing for such a site, if anything is."""
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
    missing = [program for program in PROGRAMS if shutil.which(program, path=path) is None]
    if missing:
        raise NotHere(
            f"Slurm is not here ({', '.join(missing)} not found): apt-get install {' '.join(PACKAGES)}, "
            "or add --install, as root"
        )
    if os.geteuid() != 0:
        raise NotHere("Slurm's daemons, with GPUs that are made up, need root: run this benchmark as root")
    nodes = hosts * (1 if layout is Layout.A else GPUS)
    if nodes > MOST_NODES:
        raise NotHere(f"{hosts} hosts are {nodes} nodes in configuration {layout}, more than {MOST_NODES} processes")


def install() -> None:
    """Install Slurm from Debian's packages, as root. May be called twice; services that Debian starts are not used."""
    if os.geteuid() != 0:
        raise NotHere("Slurm is installed as root: run this with --install as root, or install " + " ".join(PACKAGES))
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update"], ["install", "--yes", "--no-install-recommends", *PACKAGES]):
        done = subprocess.run(["apt-get", *words], check=False, env=environment, stdout=subprocess.DEVNULL)
        if done.returncode:
            raise NotHere(f"apt-get {words[0]} ended with {done.returncode}: install {' '.join(PACKAGES)} by hand")


@contextmanager
def up(hosts: int, layout: Layout) -> Iterator[Site]:
    """Set up a site, hand it out once all of its nodes are idle, and take it down with all that ran on it."""
    check(hosts, layout)
    directory = Path(tempfile.mkdtemp(prefix="nightshift-slurm-"))
    # munged refuses a socket below a directory that others may not enter.
    directory.chmod(0o755)
    site = Site(directory=directory, hosts=hosts, layout=layout)
    try:
        _write(site)
        _start(site)
        _wait_for_nodes(site)
        yield site
    finally:
        _stop(site)
        shutil.rmtree(directory, ignore_errors=True)


def configuration(site: Site, *, host_name: str) -> str:
    """Return slurm.conf."""
    backfill = {
        "bf_continue": "",
        "bf_interval": "30",
        "bf_max_job_test": "60000",
        "bf_max_time": "3600",
        "bf_resolution": "60",
        # Minutes: 14 days; 30 days where there are reservations, the most that is taken.
        "bf_window": "20160" if site.layout is Layout.A else "43200",
    }
    at = site.directory
    lines = {
        "ClusterName": "nightshift",
        "SlurmctldHost": f"{host_name}(127.0.0.1)",
        "SlurmctldPort": str(_PORT),
        "SlurmUser": "root",
        "SlurmdUser": "root",
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={at}/munge/socket",
        "SlurmctldPidFile": f"{at}/slurmctld.pid",
        "SlurmctldLogFile": f"{at}/slurmctld.log",
        "SlurmdPidFile": f"{at}/slurmd.%n.pid",
        "SlurmdLogFile": f"{at}/slurmd.%n.log",
        "SlurmdSpoolDir": f"{at}/spool.%n",
        "StateSaveLocation": f"{at}/state",
        "SlurmdParameters": "config_overrides",
        "SlurmdTimeout": "3600",
        "MessageTimeout": "100",
        "ReturnToService": "2",
        "MaxJobCount": "200000",
        "MpiDefault": "none",
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "SwitchType": "switch/none",
        "JobAcctGatherType": "jobacct_gather/none",
        "AccountingStorageType": "accounting_storage/none",
        "PriorityType": "priority/basic",
        "SchedulerType": "sched/backfill",
        "SchedulerParameters": ",".join(f"{key}={value}" if value else key for key, value in backfill.items()),
        **_LAYOUT_LINES[site.layout],
    }
    cpus, extra = ("16", " Gres=gpu:16") if site.layout is Layout.A else ("1", "")
    nodes = [
        f"NodeName={node} NodeHostname={host_name} NodeAddr=127.0.0.1 Port={_NODE_PORT + number} CPUs={cpus} "
        f"RealMemory=1000{extra} State=UNKNOWN"
        for number, node in enumerate(site.nodes)
    ]
    partition = "PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO"
    return "\n".join([*(f"{key}={value}" for key, value in lines.items()), *nodes, partition]) + "\n"


_LAYOUT_LINES = {
    Layout.A: {"SelectType": "select/cons_tres", "SelectTypeParameters": "CR_Core", "GresTypes": "gpu"},
    Layout.B: {"SelectType": "select/linear", "TopologyPlugin": "topology/tree"},
}


def topology(site: Site) -> str:
    """Return topology.conf of layout B: a binary tree over the GPUs of each host, and one switch over all hosts."""
    lines = []
    for host in range(site.hosts):
        nodes = site.nodes_of(host)
        for size in (2, 4, 8, 16):
            for begin in range(0, GPUS, size):
                below = (
                    f"Nodes={nodes[begin]},{nodes[begin + 1]}"
                    if size == 2
                    else f"Switches=h{host}s{size // 2}n{begin},h{host}s{size // 2}n{begin + size // 2}"
                )
                lines.append(f"SwitchName=h{host}s{size}n{begin} {below}")
    lines.append("SwitchName=top Switches=" + ",".join(f"h{host}s16n0" for host in range(site.hosts)))
    return "\n".join(lines) + "\n"


def _write(site: Site) -> None:
    at = site.directory
    (at / "munge").mkdir(mode=0o755)
    (at / "state").mkdir(mode=0o700)
    for node in site.nodes:
        (at / f"spool.{node}").mkdir(mode=0o755)
    key = at / "munge" / "key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    host_name = socket.gethostname().partition(".")[0]
    (at / "slurm.conf").write_text(configuration(site, host_name=host_name), encoding="utf-8")
    if site.layout is Layout.A:
        for gpu in range(GPUS):
            os.mknod(at / f"nvidia{gpu}", stat.S_IFCHR | 0o666, os.makedev(*_NULL_DEVICE))
        (at / "gres.conf").write_text(f"Name=gpu File={at}/nvidia[0-{GPUS - 1}]\n", encoding="utf-8")
    else:
        (at / "topology.conf").write_text(topology(site), encoding="utf-8")


def _start(site: Site) -> None:
    munge = site.directory / "munge"
    files = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    _launch(site, "munged", "--foreground", *(f"--{option}={munge / name}" for option, name in files.items()))
    _wait_for(site, lambda: (munge / "socket").exists(), "munged's socket")
    _launch(site, "slurmctld", "-D")
    for node in site.nodes:
        _launch(site, "slurmd", "-D", "-N", node)


def _launch(site: Site, *words: str) -> None:
    with (site.directory / f"{words[0]}.out").open("ab") as out:
        daemon = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=site.environment,
            cwd=site.directory,
            start_new_session=True,
        )
    site.daemon_by_name[" ".join(word for word in words if not word.startswith("-"))] = daemon


def _wait_for_nodes(site: Site) -> None:
    def are_idle() -> bool:
        try:
            states = site.call("sinfo", "--noheader", "--Node", "--format=%T").split()
        except NotHere:
            return False
        return len(states) == len(site.nodes) and set(states) == {"idle"}

    _wait_for(site, are_idle, f"{len(site.nodes)} idle nodes")


def _wait_for(site: Site, is_so: Callable[[], bool], what: str) -> None:
    until_s = time.monotonic() + UP_WITHIN_S
    while not is_so():
        gone = next((daemon for daemon in site.daemon_by_name.values() if daemon.poll() is not None), None)
        if gone is not None or time.monotonic() > until_s:
            said = _last_words(site.directory)
            cause = f"{gone.args!r} has ended" if gone is not None else f"none within {UP_WITHIN_S:.0f} s"
            raise NotHere(f"Slurm did not come up, no {what}: {cause}; {said}")
        time.sleep(0.2)


def _last_words(directory: Path) -> str:
    logs = [directory / "munge" / "log", *sorted(directory.glob("*.out")), directory / "slurmctld.log"]
    lines = [line for log in logs if log.exists() for line in log.read_text(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if "error" in line.lower()), lines[-1] if lines else "no log")


def _stop(site: Site) -> None:
    """End the jobs, the daemons in the order opposite to their start, and whatever they left behind."""
    until_s = time.monotonic() + _DOWN_WITHIN_S
    try:
        site.call("scancel", "--user=root", "--state=RUNNING")
        while site.call("squeue", "--noheader", "--states=RUNNING,COMPLETING", "--format=%i"):
            if time.monotonic() > until_s:
                break
            time.sleep(0.5)
    except NotHere:
        # It may have failed before it was up.
        pass
    for daemon in reversed(site.daemon_by_name.values()):
        daemon.terminate()
    for daemon in site.daemon_by_name.values():
        try:
            daemon.wait(_DOWN_WITHIN_S)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
    for pid in _left_behind(site):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _left_behind(site: Site) -> Sequence[int]:
    """Return the processes that know of this site's configuration, as only its daemons' children do."""
    mark = f"SLURM_CONF={site.environment['SLURM_CONF']}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found
