"""Policies to test with: a small one whose entries a test may choose, and the one that ships."""

from collections.abc import Callable
from importlib.resources import files

import pytest

from policies.format import LoadedPolicy
from policies.loading import load_policy

HEAD = """\
version: 1
zone: {zone}
outside: day
layouts:
  day: {{sizes: [1, 2, 4, 8], queues: [interactive]}}
  night: {{sizes: [16], queues: [hpc]}}
queues:
  interactive:
  hpc: {{at_boundary: finish, scratch: true}}
images: [ubuntu]
"""

MakePolicy = Callable[..., LoadedPolicy]


def policy_text(*, zone: str = "Europe/Berlin", windows: str = "", reserve: str = "", more: str = "") -> str:
    """Write a policy; entries are given as flow mappings, one a line."""
    text = HEAD.format(zone=zone) + more
    for key, entries in (("windows", windows), ("reserve", reserve)):
        lines = [line.strip() for line in entries.splitlines() if line.strip()]
        if lines:
            text += f"{key}:\n" + "".join(f"  - {line}\n" for line in lines)
    return text


@pytest.fixture
def make_text() -> Callable[..., str]:
    return policy_text


@pytest.fixture
def make_policy() -> MakePolicy:
    def make(**parts: str) -> LoadedPolicy:
        policy = load_policy(policy_text(**parts), source="test.yaml")
        assert isinstance(policy, LoadedPolicy), "\n".join(map(str, policy))
        return policy

    return make


@pytest.fixture
def example_text() -> str:
    return (files("policies") / "examples" / "university.yaml").read_text(encoding="utf-8")


@pytest.fixture
def example(example_text: str) -> LoadedPolicy:
    policy = load_policy(example_text, source="university.yaml")
    assert isinstance(policy, LoadedPolicy), "\n".join(map(str, policy))
    return policy
