"""No text whatsoever makes loading raise, take long, or give half a policy."""

import time
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.checks import check_policy
from policies.document import MOST_BYTES
from policies.format import LoadedPolicy
from policies.loading import load_policy

MUTATIONS = 2_500
# What has a meaning in YAML, and what other parsers stumbled over.
PIECES = (
    *"[]{}:-|>?'\"\t\n@`#,=~\0\x07é\ud800\ufeff\u2028\U0001f319",
    *("  ", "&a ", "*a", "!!", "!x ", "<<: ", "---\n", "...\n", "%YAML 1.1\n", '"\\U99999999"', '"\\x"'),
    *("null", ".nan", "-1", "9" * 30, "1.5", "0x10", "true", "2026-01-01", "12h", "999999d", "mon-8", "* * * * *"),
)
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


def mutated(text: str, random: Random) -> str:
    for _ in range(random.randrange(1, 6)):
        place = random.randrange(len(text))
        match random.randrange(4):
            case 0:
                text = text[:place] + random.choice(PIECES) + text[place:]
            case 1:
                text = text[:place] + text[place + random.randrange(40) :]
            case 2:
                other = random.randrange(len(text))
                text = text[:other] + text[place : place + random.randrange(80)] + text[other:]
            case _:
                text = text[:place] + random.choice(PIECES) + text[place + 1 :]
    return text


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
def test_a_hostile_file_is_refused_within_seconds(name: str) -> None:
    started_s = time.process_time()
    assert not load_and_say(HOSTILE[name])
    # Without the limits these take minutes, or all memory; the bound leaves room for a slow machine.
    assert time.process_time() - started_s < 30
