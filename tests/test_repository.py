"""What holds for the repository as a whole: locks, dependencies, what ships, what the light client needs.

Tests of the product's behaviour do not belong here.
"""

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests import unexpected_skips

ROOT = Path(__file__).parent.parent
PACKAGES = ("scheduler", "policies", "workers", "api", "cli")
LOCKS = ("client", "server", "dev")
# Libraries of servers and hosts: a student's machine has none of them.
SERVER_LIBRARIES = (
    "alembic",
    "apscheduler",
    "celery",
    "fastapi",
    "kombu",
    "libvirt",
    "psycopg",
    "redis",
    "sqlalchemy",
    "sqlmodel",
    "starlette",
    "uvicorn",
)
# Places on the machines of those who write Nightshift. Written in pieces, or this file would be its own finding.
PRIVATE_PLACES = re.compile(
    "|".join(("/wo" + r"rk/\w", "/ro" + "ot/", r"/ho" + r"me/[a-z]", "/Us" + "ers/", r"\.py" + "env/"))
)
HOST_NAME = re.compile(r"https?:|--(?:extra-)?index-url|--find-links|file:|@ |\b[a-z0-9-]+\.(?:org|com|io|net|local)\b")
NOT_OURS = {".git", ".venv", "build", "dist", "reports", "data"}


def repository_files() -> list[Path]:
    """List what a clone would have: by git where there is a repository, else all but caches and set-ups."""
    if (ROOT / ".git").exists():
        command = [
            "git",
            "-c",
            f"safe.directory={ROOT}",
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ]
        listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        found = (ROOT / name for name in listed.split("\0") if name)
    else:
        found = (
            path
            for path in ROOT.rglob("*")
            if not (set(path.relative_to(ROOT).parts) & NOT_OURS)
            and not any(part.endswith(("_cache", "__pycache__")) for part in path.parts)
        )
    return sorted(path for path in found if path.is_file())


def pyproject() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def direct_requirements() -> dict[str, list[Requirement]]:
    """Read pyproject's own requirements by the name of their extra; "client" is what everybody gets."""
    project = pyproject()["project"]
    assert isinstance(project, dict)
    by_extra = {"client": project["dependencies"], **project["optional-dependencies"]}
    return {
        extra: [requirement for text in texts if (requirement := Requirement(text)).name != "nightshift"]
        for extra, texts in by_extra.items()
    }


def pins(lock: str) -> dict[str, Version]:
    lines = (ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8").splitlines()
    found = (re.match(r"([A-Za-z0-9._-]+)==([^\s;\\]+)", line) for line in lines)
    return {canonicalize_name(match[1]): Version(match[2]) for match in found if match}


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_names_no_host_and_no_path(lock: str) -> None:
    lines = (ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if HOST_NAME.search(line) or "://" in line or " /" in line] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_hashes(lock: str) -> None:
    text = (ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8")
    entries = re.split(r"\n(?=[A-Za-z0-9])", text.split("\n", 2)[2])
    assert entries
    assert [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize(
    ("lock", "extras"), [("client", ["client"]), ("server", ["client", "server"]), ("dev", ["client", "server", "dev"])]
)
def test_lock_satisfies_pyproject(lock: str, extras: list[str]) -> None:
    pinned = pins(lock)
    by_extra = direct_requirements()
    unmet = [
        f"{requirement} against {pinned.get(canonicalize_name(requirement.name))}"
        for extra in extras
        for requirement in by_extra[extra]
        if canonicalize_name(requirement.name) not in pinned
        or pinned[canonicalize_name(requirement.name)] not in requirement.specifier
    ]
    assert unmet == [], "run make lock"


def test_locks_agree_on_every_version() -> None:
    dev = pins("dev")
    for lock in ("client", "server"):
        pinned = pins(lock)
        assert pinned
        assert {name: version for name, version in pinned.items() if dev.get(name) != version} == {}


def test_light_client_pins_no_server_library() -> None:
    assert set(pins("client")) & set(SERVER_LIBRARIES) == set()


def test_every_direct_dependency_has_its_reason() -> None:
    text = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    explained = {canonicalize_name(name) for name in re.findall(r"^\| `([^`\[]+)", text, flags=re.MULTILINE)}
    declared = {canonicalize_name(r.name) for requirements in direct_requirements().values() for r in requirements}
    assert declared - explained == set()
    assert explained - declared - {"nightshift"} == set()


def test_light_client_asks_for_nothing_that_it_does_not_import() -> None:
    imported = set()
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Import(names=names):
                    imported |= {alias.name.split(".")[0] for alias in names}
                case ast.ImportFrom(module=str(module)):
                    imported.add(module.split(".")[0])
                case _:
                    pass
    # zoneinfo reads tzdata; nobody imports it by name.
    asked_for = {requirement.name.split(".")[0] for requirement in direct_requirements()["client"]} - {"tzdata"}
    assert asked_for - imported == set()


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "docs" / "decisions"
    pages = {path.name for path in folder.glob("[0-9]*.md")}
    linked = set(re.findall(r"\]\(([0-9][^)]*\.md)\)", (folder / "README.md").read_text(encoding="utf-8")))
    assert linked == pages


def test_documents_link_to_what_exists() -> None:
    broken = [
        f"{path.relative_to(ROOT)}: {target}"
        for path in repository_files()
        if path.suffix == ".md"
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8"))
        if not re.match(r"[a-z]+:", target) and not (path.parent / target).exists()
    ]
    assert broken == []


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    files = repository_files()
    assert ROOT / "pyproject.toml" in files
    findings = []
    for path in files:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        findings += [f"{path.relative_to(ROOT)}: {match[0]}" for match in PRIVATE_PLACES.finditer(text)]
    assert findings == []


def test_package_init_files_hold_one_docstring_and_nothing_else() -> None:
    inits = [path for package in PACKAGES for path in (ROOT / package).rglob("__init__.py")]
    assert len(inits) >= len(PACKAGES)
    for path in inits:
        body = ast.parse(path.read_text(encoding="utf-8")).body
        assert len(body) == 1, path
        assert isinstance(body[0], ast.Expr), path
        assert isinstance(body[0].value, ast.Constant), path


def test_every_folder_with_modules_is_a_package() -> None:
    folders = {path.parent for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    # Alembic loads migrations by file, not by import.
    folders = {folder for folder in folders if "migrations" not in folder.parts}
    assert [str(folder.relative_to(ROOT)) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def clock_readings(tree: ast.AST) -> list[int]:
    """Find calls that an import contract cannot see: the clock by way of datetime, files and output by built-ins."""
    lines = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        match node.func:
            case ast.Attribute(attr="now" | "utcnow" | "today", value=ast.Name(id="datetime" | "date")):
                lines.append(node.lineno)
            case ast.Attribute(attr="now" | "utcnow" | "today", value=ast.Attribute(attr="datetime" | "date")):
                lines.append(node.lineno)
            case ast.Name(id="open" | "print" | "input" | "exec" | "eval" | "__import__"):
                lines.append(node.lineno)
            case ast.Attribute(attr="uuid1" | "uuid4") | ast.Name(id="uuid1" | "uuid4"):
                lines.append(node.lineno)
            case _:
                pass
    return lines


def test_core_reads_no_clock_opens_no_file_and_draws_no_ids() -> None:
    modules = list((ROOT / "scheduler" / "core").rglob("*.py"))
    assert modules
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in modules
        for line in clock_readings(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert found == []


@pytest.mark.parametrize(
    "source", ["datetime.now(UTC)", "datetime.date.today()", "open('x')", "uuid4()", "uuid.uuid4()"]
)
def test_the_search_for_hidden_inputs_finds_them(source: str) -> None:
    assert clock_readings(ast.parse(source)) == [1]


def test_wheel_carries_the_packages_with_their_data_and_nothing_else(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("nightshift-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {
        str(path.relative_to(ROOT)) for path in repository_files() if path.relative_to(ROOT).parts[0] in PACKAGES
    }
    assert shipped == expected


BLOCK_SERVER_LIBRARIES = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {SERVER_LIBRARIES!r}:
            raise ModuleNotFoundError(f"{{name}} is not part of the light client", name=name)
sys.meta_path.insert(0, Absent())
"""


def run_light(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in a Python that has no server library."""
    return subprocess.run(
        [sys.executable, "-c", BLOCK_SERVER_LIBRARIES + code, *arguments],
        cwd=ROOT,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_light_client_in_these_tests_has_no_server_library() -> None:
    outcome = run_light("import sqlmodel")
    assert outcome.returncode == 1
    assert "sqlmodel is not part of the light client" in outcome.stderr


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("--version",), ("policy", "check", "policies/examples/university.yaml")],
    ids=" ".join,
)
def test_the_command_runs_without_server_libraries(arguments: tuple[str, ...]) -> None:
    outcome = run_light("import sys\nsys.argv[0] = 'nightshift'\nfrom cli.main import main\nmain()", *arguments)
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.strip()


SKIPS_IN_A_TEST = "import pytest\ndef test_it(): pytest.skip('no such thing here')\n"
SKIPS_A_MODULE = "import pytest\npytest.skip('no such thing here', allow_module_level=True)\n"
SKIPS_NOTHING = "def test_it(): pass\n"


@pytest.mark.parametrize(
    ("in_ci", "processes", "source", "status"),
    [
        pytest.param("1", "0", SKIPS_IN_A_TEST, 1, id="a test"),
        pytest.param("1", "2", SKIPS_IN_A_TEST, 1, id="a test, side by side"),
        pytest.param("1", "0", SKIPS_A_MODULE, 1, id="a module"),
        pytest.param("1", "2", SKIPS_A_MODULE, 1, id="a module, side by side"),
        pytest.param("1", "0", SKIPS_NOTHING, 0, id="nothing"),
        pytest.param("", "0", SKIPS_IN_A_TEST, 0, id="a test outside CI"),
    ],
)
def test_an_unlisted_skip_fails_a_run_in_ci(
    tmp_path: Path, in_ci: str, processes: str, source: str, status: int
) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_skipping.py").write_text(source)
    (tmp_path / "test_running.py").write_text("def test_runs(): pass\n")
    own_environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    outcome = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.unexpected_skips", "-n", processes, str(tmp_path)],
        cwd=ROOT,
        env={**own_environment, "NIGHTSHIFT_CI": in_ci},
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == status, outcome.stdout + outcome.stderr
    assert ("UNEXPECTED SKIP" in outcome.stdout) == bool(status)


def test_a_listed_skip_is_allowed(tmp_path: Path) -> None:
    listed = tmp_path / "allowed-skips.txt"
    listed.write_text("# why\nno such thing here\n\n")
    assert unexpected_skips.read_allowed(listed) == {"no such thing here"}
