"""What Slurm printed, read as recorded; how its site is written down; and what is said where a peer is missing."""

import ast
import sys
from pathlib import Path

import pytest

from benchmarks.peers import (
    accasim,
    accasim_child,
    child,
    cp_sat_child,
    kamelot,
    kamelot_child,
    slurm,
    slurm_site,
    venv,
)
from benchmarks.peers.peer import NotHere, PeerPlan, best
from benchmarks.peers.slurm import Backfill, read_sdiag, read_starts
from benchmarks.peers.slurm_site import Layout, Site
from benchmarks.workload import Batch, make_batch

# Of Slurm 22.05.8: 2 nodes with 16 GPUs, all running, 5 jobs queued.
SDIAG = """\
Main schedule statistics (microseconds):
\tLast cycle:   108
\tMax cycle:    889
\tTotal cycles: 3
\tMean cycle:   362
\tMean depth cycle:  3
\tLast queue length: 5

Backfilling stats
\tTotal backfilled jobs (since last slurm start): 0
\tTotal backfilled jobs (since last stats cycle start): 0
\tTotal backfilled heterogeneous job components: 0
\tTotal cycles: 1
\tLast cycle when: Sat Nov 28 19:07:05 2026 (1795892825)
\tLast cycle: 471
\tMax cycle:  471
\tMean cycle: 471
\tLast depth cycle: 5
\tLast depth cycle (try sched): 4
\tDepth Mean: 5
\tDepth Mean (try depth): 5
\tLast queue length: 5
\tQueue length mean: 5
\tLast table size: 8
\tMean table size: 8

Latency for 1000 calls to gettimeofday(): 23 microseconds
"""
# The same Slurm with 5,000 queued, asked while its first cycle was under way.
SDIAG_MEANWHILE = """\
Backfilling stats (WARNING: data obtained in the middle of backfilling execution.)
\tTotal backfilled jobs (since last slurm start): 0
\tTotal backfilled jobs (since last stats cycle start): 0
\tTotal backfilled heterogeneous job components: 0
\tTotal cycles: 0
\tLast cycle when: Sat Nov 28 19:19:27 2026 (1795893567)
\tLast cycle: 0
\tMax cycle:  0
\tLast depth cycle: 932
\tLast depth cycle (try sched): 932
\tLast queue length: 5000
\tLast table size: 0
"""
# And asked before that.
SDIAG_BEFORE = """\
Backfilling stats
\tTotal cycles: 0
\tLast cycle when: N/A
\tLast cycle: 0
\tMax cycle:  0
\tLast depth cycle: 0
\tLast depth cycle (try sched): 0
"""
# `squeue --noheader --format=%i|%S`: of the first two the backfill knows a start, the third is beyond its window.
SQUEUE = """\
3|2026-11-28T19:36:38
4|2026-11-28T19:37:38
5|N/A
"""


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(accasim, "_is_beside_us", lambda: False)


def test_the_backfills_cycle_is_read_and_not_the_main_schedulers() -> None:
    assert read_sdiag(SDIAG) == Backfill(cycles=1, last_cycle_us=471, depth=5, table=8)


def test_a_cycle_under_way_is_not_taken_for_one_that_has_ended() -> None:
    assert read_sdiag(SDIAG_BEFORE) == Backfill(cycles=0, last_cycle_us=0, depth=0, table=0)
    assert read_sdiag(SDIAG_MEANWHILE) == Backfill(cycles=0, last_cycle_us=0, depth=932, table=0)


def test_sdiag_of_another_kind_is_refused() -> None:
    with pytest.raises(NotHere, match="no backfilling stats"):
        read_sdiag("slurm_load_ctld_conf: error\n")


def test_starts_are_instants_in_utc_or_none() -> None:
    assert read_starts(SQUEUE) == {3: 1_795_894_598, 4: 1_795_894_658, 5: None}
    assert read_starts("") == {}


def test_the_fastest_of_several_runs_counts() -> None:
    slow, fast = (PeerPlan(seconds=seconds, cpu_s=1.0, planned=1, starts=(0,)) for seconds in (2.0, 1.0))
    assert best([slow, fast]) is fast


def test_a_host_is_one_node_in_a_and_sixteen_under_a_tree_of_switches_in_b(tmp_path: Path) -> None:
    natural = Site(directory=tmp_path, hosts=2, layout=Layout.A)
    fair = Site(directory=tmp_path, hosts=2, layout=Layout.B)
    assert natural.nodes == ("dgx0", "dgx1")
    assert len(fair.nodes) == 32
    assert natural.ask(4) == ("--nodes=1", "--ntasks=1", "--gres=gpu:4")
    assert fair.ask(4) == ("--nodes=4",)
    lines = slurm_site.topology(fair).splitlines()
    assert len(lines) == 2 * (8 + 4 + 2 + 1) + 1
    assert "SwitchName=h1s2n14 Nodes=gpu30,gpu31" in lines
    assert "SwitchName=h0s16n0 Switches=h0s8n0,h0s8n8" in lines
    assert lines[-1] == "SwitchName=top Switches=h0s16n0,h1s16n0"
    written = slurm_site.configuration(natural, host_name="here").splitlines()
    assert "SelectType=select/cons_tres" in written
    assert [line.split()[0] for line in written if line.startswith("NodeName=")] == ["NodeName=dgx0", "NodeName=dgx1"]


def test_slurm_that_is_not_here_names_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda program, path: None)
    with pytest.raises(NotHere, match=r"slurmctld.* not found.*apt-get install slurmctld slurmd slurm-client munge"):
        slurm.plan(make_batch(hosts=1, requests=1))


def test_slurm_needs_root_and_takes_no_more_nodes_than_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda program, path: program)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(NotHere, match="need root"):
        slurm_site.check(1, Layout.A)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    slurm_site.check(64, Layout.A)
    with pytest.raises(NotHere, match="1024 nodes in configuration B, more than 256"):
        slurm_site.check(64, Layout.B)


def test_slurm_books_no_parts_of_hosts_ahead() -> None:
    with pytest.raises(NotHere, match="take --slurm-layout B"):
        slurm.plan(make_batch(hosts=2, requests=1, reservations=1), layout=Layout.A)


@pytest.mark.usefixtures("nothing_installed")
def test_accasim_that_is_not_here_says_how_to_install_it() -> None:
    with pytest.raises(NotHere, match=r"pip install accasim==1\.1\.3, or add --install"):
        accasim.plan(make_batch(hosts=1, requests=1))


def test_accasim_is_not_asked_for_what_it_cannot_do() -> None:
    with pytest.raises(NotHere, match="knows no advance reservations"):
        accasim.plan(make_batch(hosts=1, requests=1, reservations=1))
    with pytest.raises(NotHere, match="17 GPUs fits on no host"):
        accasim.plan(Batch(hosts=1, occupied=(), requests=((17, 60),), reservations=()))


@pytest.mark.usefixtures("nothing_installed")
def test_half_a_venv_is_none(tmp_path: Path) -> None:
    python = tmp_path / "nightshift" / "benchmarks" / "accasim" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert venv.find("accasim") is None
    (python.parent.parent / "packages.txt").touch()
    assert venv.find("accasim") == python


@pytest.mark.usefixtures("nothing_installed")
def test_a_checkout_of_kamelot_is_looked_at_before_it_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(kamelot.CHECKOUT, raising=False)
    batch = make_batch(hosts=1, requests=1)
    with pytest.raises(NotHere, match=r"clone oar-team/oar3 .* NIGHTSHIFT_OAR3"):
        kamelot.plan(batch, checkout=None)
    with pytest.raises(NotHere, match=r"no checkout of oar-team/oar3, oar/kao/scheduling\.py"):
        kamelot.plan(batch, checkout=tmp_path)
    for module in kamelot.MODULES:
        (tmp_path / module).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / module).touch()
    monkeypatch.setenv(kamelot.CHECKOUT, str(tmp_path))
    assert kamelot.find(None) == tmp_path.resolve()
    with pytest.raises(NotHere, match=r"libraries are not here \(.*procset.*add --install"):
        kamelot.plan(batch, checkout=None)
    # Its modules are there and empty: the API is another one.
    monkeypatch.setattr(venv, "find", lambda peer: Path(sys.executable))
    with pytest.raises(NotHere, match=r"lacks what is called here \(oar\.kao\.scheduling\.schedule_id_jobs_ct"):
        kamelot.plan(batch, checkout=None)


def test_what_fails_in_another_interpreter_is_told_in_one_line(tmp_path: Path) -> None:
    script = tmp_path / "child.py"
    script.write_text("import sys\nsys.exit('numpy is broken')\n")
    with pytest.raises(NotHere, match=r"AccaSim failed in .*: numpy is broken"):
        child.ask("AccaSim", Path(sys.executable), str(script), {})


@pytest.mark.parametrize("script", [accasim_child.__file__, cp_sat_child.__file__, kamelot_child.__file__])
def test_what_runs_elsewhere_imports_nothing_of_ours(script: str) -> None:
    source = Path(script).read_text(encoding="utf-8")
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module).partition(".")[0])
    assert found <= set(sys.stdlib_module_names)
