"""What ships for running Nightshift as services: docker-compose.yml, the Dockerfile, the systemd units.

Held to the project and to what their own tools say of them. That the services run is tests/e2e/test_services.py.
"""

import configparser
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from ruamel.yaml import YAML

from tests.compose import COMPOSE_FILE, ROOT, Document, MissingVariable, read_document, read_services
from tests.running import required_program

PASSWORD = "p@ss: /w%rd"
VARIABLES = {"POSTGRES_PASSWORD": PASSWORD}
OURS = ("init", "api", "ticker", "worker")
UNITS = tuple(sorted((ROOT / "systemd").glob("*.service")))
PACKAGES = ("scheduler", "policies", "workers", "api", "cli")
MOST_EXPOSURE = 20
"""Of 100, where 0 is a service that can do nothing."""


# docker-compose.yml


def compose_config(tmp_path: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Let Compose read the file with these variables and no others."""
    program = required_program("docker-compose", "compose", "docker-compose")
    empty = tmp_path / "none.env"
    empty.touch()
    return subprocess.run(
        [program, "--file", str(COMPOSE_FILE), "--env-file", str(empty), "config"],
        cwd=tmp_path,
        env={"PATH": os.environ.get("PATH", ""), "HOME": str(tmp_path), "LC_ALL": "C.UTF-8", **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_compose_accepts_the_file_and_reads_it_as_our_tests_do(tmp_path: Path) -> None:
    outcome = compose_config(tmp_path, VARIABLES)
    assert (outcome.returncode, outcome.stderr) == (0, "")
    theirs: Document = YAML(typ="safe").load(outcome.stdout)["services"]
    ours = read_services(VARIABLES)
    assert set(theirs) == set(ours)
    for name, service in ours.items():
        assert tuple(theirs[name]["command"]) == service.command
        assert theirs[name].get("environment", {}) == service.environment
        assert tuple(theirs[name].get("healthcheck", {}).get("test", ())[1:]) == service.health


def test_compose_without_a_password_says_what_to_set(tmp_path: Path) -> None:
    outcome = compose_config(tmp_path, {})
    assert outcome.returncode != 0
    assert "set POSTGRES_PASSWORD in .env, see compose.env.example" in outcome.stderr
    assert "POSTGRES_PASSWORD=\n" in (ROOT / "compose.env.example").read_text(encoding="utf-8")
    with pytest.raises(MissingVariable, match="set POSTGRES_PASSWORD"):
        read_document({})


def test_no_password_is_in_the_file() -> None:
    text = COMPOSE_FILE.read_text(encoding="utf-8")
    secrets = re.findall(r"^\s*(\w*(?:PASSWORD|SECRET|TOKEN)\w*): *(.*)$", text, flags=re.MULTILINE)
    assert secrets
    assert [name for name, value in secrets if not value.startswith("${POSTGRES_PASSWORD:?")] == []
    assert re.findall(r"://[^/\s@]*:[^/\s@]*@", text) == []


def test_every_service_is_closed_in() -> None:
    for name, service in read_document(VARIABLES)["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        user, group = service["user"].split(":")
        assert int(user) > 0, name
        assert int(group) > 0, name
        assert not service.get("privileged"), name
        assert "docker.sock" not in str(service.get("volumes")), name


def test_only_the_api_is_published_and_on_loopback_alone() -> None:
    document = read_document(VARIABLES)
    published = {name: service["ports"] for name, service in document["services"].items() if "ports" in service}
    assert published == {"api": ["127.0.0.1:8470:8470"]}
    assert document["networks"]["inside"]["internal"] is True
    outside = [name for name, service in document["services"].items() if service["networks"] != ["inside"]]
    assert outside == ["api"]


def test_parts_start_when_what_they_need_is_there() -> None:
    services = read_document(VARIABLES)["services"]
    for name in OURS:
        for needed, how in services[name]["depends_on"].items():
            if how["condition"] == "service_healthy":
                assert services[needed]["healthcheck"]["test"], (name, needed)
        assert services[name]["depends_on"]["postgres"] == {"condition": "service_healthy"}
        if name != "init":
            assert services[name]["depends_on"]["init"] == {"condition": "service_completed_successfully"}
            assert services[name]["restart"] == "unless-stopped"
    # A one-shot that is started again when it has done its work would never be done.
    assert services["init"]["restart"] == "on-failure"


def test_every_lasting_service_tells_whether_it_is_well() -> None:
    services = read_services(VARIABLES)
    assert {name for name, service in services.items() if not service.health} == {"init"}


def test_what_must_survive_is_in_volumes_and_redis_has_none() -> None:
    document = read_document(VARIABLES)
    services = document["services"]
    assert services["postgres"]["volumes"] == ["postgres:/var/lib/postgresql/data"]
    assert [services[name]["volumes"] for name in OURS] == [["data:/var/lib/nightshift"]] * len(OURS)
    assert set(document["volumes"]) == {"data", "postgres"}
    assert "volumes" not in services["redis"]


def test_redis_never_evicts_a_message() -> None:
    command = read_services(VARIABLES)["redis"].command
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"


def test_images_of_others_name_a_major_version_and_ours_this_version() -> None:
    services = read_document(VARIABLES)["services"]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert {services[name]["image"] for name in OURS} == {f"nightshift:{version}"}
    for name in set(services) - set(OURS):
        assert re.fullmatch(r"[a-z]+:\d+(\.\d+)*-[a-z]+", services[name]["image"]), services[name]["image"]
    assert int(services["postgres"]["image"].split(":")[1].split("-")[0]) >= 15


# The image


def dockerfile() -> list[list[str]]:
    """Return the instructions of the Dockerfile as words, continued lines joined, comments left out."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    return [line.split() for line in lines.replace("\\\n", " ").splitlines() if line.strip()]


def stages() -> list[list[list[str]]]:
    """Return the instructions of each stage, its FROM first."""
    found: list[list[list[str]]] = []
    for words in dockerfile():
        if words[0] == "FROM":
            found.append([])
        found[-1].append(words)
    return found


def instructions(stage: list[list[str]], name: str) -> list[list[str]]:
    return [words[1:] for words in stage if words[0] == name]


def test_image_is_built_in_one_stage_and_runs_in_another_on_the_same_python() -> None:
    build, final = stages()
    assert build[0] == ["FROM", "python:3.11-slim-bookworm", "AS", "build"]
    assert final[0] == ["FROM", "python:3.11-slim-bookworm"]
    assert instructions(final, "COPY") == [["--from=build", "/opt/nightshift", "/opt/nightshift"]]


def test_image_fetches_nothing_but_locked_packages() -> None:
    assert not any(words[0] == "ADD" for words in dockerfile())
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert not re.search(r"https?://|\b(curl|wget|apt-get|git)\b", text)
    installs = [
        part
        for words in dockerfile()
        if words[0] == "RUN"
        for part in " ".join(words[1:]).split("&&")
        if re.search(r"pip\b.* (install|wheel) ", part)
    ]
    assert len(installs) == 4
    for install in installs:
        is_locked = "--require-hashes" in install and "--only-binary :all:" in install
        is_offline = "--no-index" in install and "--no-deps" in install
        assert is_locked or is_offline, install


def test_image_runs_as_an_ordinary_user_whom_compose_names_too() -> None:
    final = stages()[-1]
    assert instructions(final, "USER") == [["10001:10001"]]
    names = [words[0] for words in final]
    assert names.index("USER") > max(index for index, name in enumerate(names) if name in ("RUN", "COPY"))
    assert {service["user"] for name, service in read_document(VARIABLES)["services"].items() if name in OURS} == {
        "10001:10001"
    }
    assert instructions(final, "ENTRYPOINT") == [['["nightshift"]']]


def test_image_and_compose_mean_the_same_data_directory() -> None:
    (env,) = instructions(stages()[-1], "ENV")
    directory = dict(word.split("=", 1) for word in env)["NIGHTSHIFT_DATA"]
    for name in OURS:
        assert read_services(VARIABLES)[name].environment["NIGHTSHIFT_DATA"] == directory


def test_build_gets_what_the_image_copies_and_no_more() -> None:
    copied = {source for stage in stages()[:-1] for words in instructions(stage, "COPY") for source in words[:-1]}
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert lines[1] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == copied
    assert set(PACKAGES) < copied
    assert [source for source in copied if not (ROOT / source).exists()] == []


def test_what_builds_the_wheel_is_locked_at_the_versions_of_development() -> None:
    def pins(lock: str) -> dict[str, Version]:
        text = (ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8")
        found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", text, flags=re.MULTILINE)
        return {canonicalize_name(name): Version(version) for name, version in found}

    text = (ROOT / "requirements" / "build.txt").read_text(encoding="utf-8")
    assert "://" not in text
    entries = re.split(r"\n(?=[A-Za-z0-9])", text)[1:]
    assert entries
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []
    build, dev = pins("build"), pins("dev")
    assert {name: version for name, version in build.items() if dev.get(name) != version} == {}
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    for requirement in map(Requirement, wanted):
        assert build[canonicalize_name(requirement.name)] in requirement.specifier


# The units of systemd


def unit(path: Path) -> dict[str, list[tuple[str, str]]]:
    """Read a unit's sections; a key may be there several times."""
    sections: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            name = line.strip("[]")
            sections[name] = []
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            sections[name].append((key, value))
    return sections


def arguments_of(path: Path) -> list[str]:
    (command,) = [value for key, value in unit(path)["Service"] if key == "ExecStart"]
    program, *arguments = shlex.split(command)
    assert program == "/opt/nightshift/bin/nightshift"
    return arguments


def test_a_unit_is_there_for_each_part_and_for_all_of_them() -> None:
    assert {path.name for path in UNITS} == {f"nightshift-{part}.service" for part in (*OURS, "up", "policy")}
    for path in UNITS:
        assert path.name == f"nightshift-{arguments_of(path)[0]}.service"


@lru_cache
def options_of(command: str) -> frozenset[str]:
    """Return the options that a command says it has."""
    outcome = subprocess.run(
        [sys.executable, "-m", "cli.main", command, "--help"],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert outcome.returncode == 0, outcome.stderr
    return frozenset(re.findall(r"--[a-z][a-z-]*", outcome.stdout))


def unknown_options(arguments: Sequence[str]) -> list[str]:
    """Return what a command line gives its command that this does not have."""
    return [word for word in arguments[1:] if word.startswith("--") and word not in options_of(arguments[0])]


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_units_call_commands_that_exist_with_options_that_they_have(path: Path) -> None:
    assert "--help" in options_of(arguments_of(path)[0])
    assert unknown_options(arguments_of(path)) == []


@pytest.mark.parametrize("name", OURS)
def test_compose_calls_commands_that_exist_with_options_that_they_have(name: str) -> None:
    command = read_services(VARIABLES)[name].command
    assert command[0] == name
    assert "--help" in options_of(name)
    assert unknown_options(command) == []


def test_the_search_for_unknown_options_finds_them() -> None:
    assert unknown_options(["init", "--no-such-option"]) == ["--no-such-option"]


def test_all_units_are_hardened_alike() -> None:
    texts = {path.read_text(encoding="utf-8").split("# All state is in")[1].split("[Install]")[0] for path in UNITS}
    assert len(texts) == 1
    for key in ("User", "StateDirectory", "StateDirectoryMode", "Environment"):
        assert len({value for path in UNITS for found, value in unit(path)["Service"] if found == key}) == 1


def test_up_and_the_single_parts_exclude_each_other() -> None:
    values = dict(unit(ROOT / "systemd" / "nightshift-up.service")["Unit"])
    assert set(values["Conflicts"].split()) == {f"nightshift-{part}.service" for part in OURS}


def test_units_are_stopped_no_sooner_than_compose_would() -> None:
    services = read_services(VARIABLES)
    for path in UNITS:
        stop_s = int(dict(unit(path)["Service"])["TimeoutStopSec"])
        part = arguments_of(path)[0]
        assert stop_s >= (services[part].stop_within_s if part in services else 10)


def test_systemd_finds_nothing_to_say_of_the_units(tmp_path: Path) -> None:
    analyze = required_program("systemd-analyze", "systemd", "systemd")
    for path in UNITS:
        # Of the program it wants to know only whether it is there.
        text = path.read_text(encoding="utf-8").replace("/opt/nightshift/bin/nightshift", sys.executable)
        (tmp_path / path.name).write_text(text, encoding="utf-8")
    verified = subprocess.run(
        [analyze, "verify", *(str(tmp_path / path.name) for path in UNITS)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    # It ends with 0 for a key that it does not know, too.
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")
    for path in UNITS:
        rated = subprocess.run(
            [analyze, "security", "--offline=true", f"--threshold={MOST_EXPOSURE}", str(tmp_path / path.name)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert rated.returncode == 0, rated.stdout.splitlines()[-1]


def test_the_example_environment_is_one_that_systemd_reads() -> None:
    text = (ROOT / "systemd" / "nightshift.env.example").read_text(encoding="utf-8")
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(f"[environment]\n{text}")
    assert set(parser["environment"]) == {"NIGHTSHIFT_DATABASE", "NIGHTSHIFT_REDIS"}
