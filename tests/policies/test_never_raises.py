"""No text whatsoever makes loading raise, take all memory, or give half a policy."""

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.checks import check_policy
from policies.document import MOST_BYTES
from policies.format import LoadedPolicy
from policies.loading import load_policy
from tests.policies.policy_texts import PIECES, mutated

ROOT = Path(__file__).parents[2]
MUTATIONS = 2_500
BIG = MOST_BYTES
HOSTILE = {
    "too large": "a" * (BIG + 1),
    "too large in bytes": "é" * (BIG // 2 + 1),
    "brackets without end": "[\n" * (BIG // 2),
    "brackets in one line": "[" * BIG,
    "groups without end": "{a:\n" * (BIG // 4),
    "a list without end": "- a: b\n" * (BIG // 8),
    "the same key all over": "a: 1\n" * (BIG // 5),
    "many keys": "".join(f"k{number}: 1\n" for number in range(18_000)),
    "empty lines": "\n" * BIG,
    "one tag": "!" * BIG,
    "one text": "a\n" * (BIG // 2),
    "a quote without end": "'" + "a b\n" * (BIG // 4 - 1),
    "nested keys": "? " * 2000,
    "an alias of itself": "version: &v [*v]\n",
    "a group in itself": "&a {version: *a}\n",
    "a bomb": "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 10)}]\n" for i in range(9)),
}


def load_and_say(text: str) -> bool:
    """Load, and say everything about it; whether it was a policy."""
    loaded = load_policy(text, source="fuzz.yaml")
    if isinstance(loaded, LoadedPolicy):
        return True
    assert loaded
    for problem in loaded:
        line = str(problem)
        assert line.startswith(f"fuzz.yaml:{problem.place.line}:{problem.place.column}: ")
        assert line.isprintable(), line
        assert problem.place.line >= 1
        assert problem.place.column >= 1
    return False


@pytest.mark.parametrize("seed", range(5))
def test_a_mutated_policy_is_a_policy_or_a_list_of_problems(example_text: str, seed: int) -> None:
    random = Random(seed)
    accepted = []
    for _ in range(MUTATIONS // 5):
        text = mutated(example_text, random)
        if load_and_say(text):
            accepted.append(text)
    # Else the mutations would all break at the first line, and prove little.
    assert len(accepted) > 10
    for text in accepted[:10]:
        policy = load_policy(text, source="fuzz.yaml")
        assert isinstance(policy, LoadedPolicy)
        for problem in check_policy(policy, from_at=1_772_409_600):
            assert str(problem)


def test_pieces_of_yaml_in_any_order_are_survived() -> None:
    random = Random(1)
    for _ in range(500):
        load_and_say("".join(random.choice(PIECES) for _ in range(random.randrange(60))))


@given(st.binary(max_size=400))
def test_random_bytes_are_survived(content: bytes) -> None:
    load_and_say(content.decode("latin-1"))
    load_and_say(content.decode("utf-8", errors="surrogateescape"))


@given(st.text(max_size=200))
def test_random_texts_are_survived(text: str) -> None:
    load_and_say(text)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused(name: str) -> None:
    # Without the limits these take minutes, or all memory.
    assert not load_and_say(HOSTILE[name])


MEASURE = """
import resource
from policies.loading import load_policy
from tests.policies.test_never_raises import HOSTILE
load_policy("version: 1", source="p")
for name, text in HOSTILE.items():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    load_policy(text, source="p")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, name)
"""


def test_no_hostile_file_takes_much_memory() -> None:
    ran = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True, cwd=ROOT)
    grown_kib = {name: int(kib) for kib, name in (line.split(" ", 1) for line in ran.stdout.splitlines())}
    assert set(grown_kib) == set(HOSTILE)
    assert sum(grown_kib.values()) < 200 * 1024, grown_kib
