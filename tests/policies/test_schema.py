"""The JSON Schema that ships is the one that is generated, and never refuses what the loader takes."""

import json
from collections.abc import Callable
from importlib.resources import files
from random import Random
from typing import Any

import fastjsonschema
import pytest
from typer.testing import CliRunner

from cli.policy import app
from policies.bundle import unpack
from policies.document import Entries, Items, Kind, Node, Scalar, read_document
from policies.format import LoadedPolicy
from policies.loading import load_policy
from policies.schema import policy_schema, schema_text
from tests.policies.policy_texts import EXAMPLES, example_policy, mutated

Validate = Callable[[object], object]


@pytest.fixture(scope="module")
def validate() -> Validate:
    compiled: Validate = fastjsonschema.compile(policy_schema())
    return compiled


def plain(node: Node) -> Any:
    """Return what an editor sees of a policy."""
    match node:
        case Entries():
            return {key.text: plain(value) for key, value in node.entries}
        case Items():
            return [plain(item) for item in node.items]
        case Scalar(kind=Kind.TRUTH):
            return node.text.lower() == "true"
        case Scalar(kind=Kind.WHOLE):
            return int(node.text, 0) if not node.text.lstrip("+-0").startswith("_") else node.text
        case Scalar(kind=Kind.FRACTION):
            return 0.5
        case Scalar(kind=Kind.NOTHING):
            return None
        case Scalar():
            return node.text


def parts_of(text: str) -> list[Any]:
    nodes = [read_document(part.text, source=part.name) for part in unpack(text, source="p") if not part.is_calendar]
    return [plain(node) for node in nodes if not isinstance(node, tuple)]


def test_the_schema_that_ships_is_fresh() -> None:
    shipped = (files("policies") / "policy.schema.json").read_text(encoding="utf-8")
    assert shipped == schema_text(), "run: nightshift policy schema > policies/policy.schema.json"


def test_the_command_prints_it() -> None:
    result = CliRunner().invoke(app, ["schema"])
    assert result.exit_code == 0
    assert json.loads(result.output) == policy_schema()


@pytest.mark.parametrize("name", EXAMPLES)
def test_it_takes_every_example(validate: Validate, name: str) -> None:
    for part in parts_of(example_policy(name).text):
        validate(part)


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_the_loader_takes_it_takes(validate: Validate, name: str) -> None:
    random = Random(name)
    text, taken = example_policy(name).text, 0
    for _ in range(300):
        changed = mutated(text, random)
        if isinstance(load_policy(changed, source="p"), LoadedPolicy):
            taken += 1
            for part in parts_of(changed):
                validate(part)
    assert taken > 10


@pytest.mark.parametrize(
    "wrong",
    [
        {"version": 2},
        {"version": 1, "windos": []},
        {"version": 1, "windows": [{"nmae": "night"}]},
        {"version": 1, "windows": [{"for": 12}]},
        {"version": 1, "windows": [{"for": "half a day"}]},
        {"version": 1, "windows": [{"opens": "0 20 * *"}]},
        {"version": 1, "windows": [{"at_boundary": ["sleep"]}]},
        {"version": 1, "queues": {"interactive": {"order": "random"}}},
        {"version": 1, "limits": {"groups": {"g": {"each": {"gpus": 1}}}}},
        {"version": 1, "limits": {"gpus_at_once": "8"}},
        {"version": 1, "layouts": {"a b": {"sizes": [1], "queues": []}}},
        {"version": 1, "maintenance": [{"from": "tomorrow"}]},
        {},
    ],
    ids=str,
)
def test_it_refuses_what_the_loader_refuses(validate: Validate, wrong: object) -> None:
    with pytest.raises(fastjsonschema.JsonSchemaException):
        validate(wrong)
