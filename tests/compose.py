"""docker-compose.yml as data: its services with merges and variables resolved, as the engine would read them.

Runs nothing and knows nothing of what a service does. That it reads the file as Compose itself does is tested in
tests/test_deployment.py.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
COMPOSE_FILE = ROOT / "docker-compose.yml"

_VARIABLE = re.compile(r"\$\{(?P<name>[A-Z_]+)(?::(?P<kind>[-?])(?P<text>[^}]*))?\}")
_DURATION = re.compile(r"(\d+)s")

Document: TypeAlias = dict[str, Any]


class MissingVariable(Exception):
    """A variable that the file insists on is not set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What one service of the file runs."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    health: tuple[str, ...]
    """The command that tells whether it is well; empty where there is none."""
    stop_within_s: int
    """It is killed when it has not ended this long after SIGTERM."""

    def rewritten(self, rewrite: Callable[[str], str]) -> "Service":
        """Return it with every word of its command, environment and health check rewritten."""
        return Service(
            name=self.name,
            command=tuple(rewrite(word) for word in self.command),
            environment={name: rewrite(value) for name, value in self.environment.items()},
            health=tuple(rewrite(word) for word in self.health),
            stop_within_s=self.stop_within_s,
        )


def read_document(variables: Mapping[str, str]) -> Document:
    """Read the file; raises MissingVariable."""
    with COMPOSE_FILE.open(encoding="utf-8") as file:
        read = _resolved(YAML(typ="safe").load(file), variables)
    assert isinstance(read, dict)
    return read


def read_services(variables: Mapping[str, str]) -> dict[str, Service]:
    """Read the services of the file by name; raises MissingVariable."""
    return {
        name: Service(
            name=name,
            command=tuple(block["command"]),
            environment=block.get("environment", {}),
            health=_health(block.get("healthcheck", {}).get("test", ())),
            stop_within_s=_seconds(block.get("stop_grace_period", "10s")),
        )
        for name, block in read_document(variables)["services"].items()
    }


def _resolved(value: Any, variables: Mapping[str, str]) -> Any:
    match value:
        case dict():
            return {key: _resolved(inner, variables) for key, inner in value.items()}
        case list():
            return [_resolved(inner, variables) for inner in value]
        case str():
            return _VARIABLE.sub(lambda match: _variable(match, variables), value)
        case _:
            return value


def _variable(match: re.Match[str], variables: Mapping[str, str]) -> str:
    value = variables.get(match["name"], "")
    if value or match["kind"] is None:
        return value
    if match["kind"] == "?":
        raise MissingVariable(match["text"])
    return match["text"]


def _health(test: Sequence[str]) -> tuple[str, ...]:
    assert not test or test[0] == "CMD", "a health check is a command, not a line for a shell"
    return tuple(test[1:])


def _seconds(text: str) -> int:
    match = _DURATION.fullmatch(text)
    assert match is not None, text
    return int(match[1])
