"""Whatever is in a policy file, loading it ends: with a policy, or with problems in one line each.

    NIGHTSHIFT_FUZZ=100000 python -m pytest -s tests/policies/test_loader_fuzz.py

Seeded: one number gives one list of inputs. What is a policy is also checked, shown and made into windows. With `-s`
the slowest input and the growth of memory are printed.
"""

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from cli.policy_calendar import as_json, coming
from policies.bundle import is_bundle
from policies.checks import check_policy, errors_of
from policies.document import MOST_BYTES
from policies.files import Unreadable, read_policy
from policies.format import LoadedPolicy
from policies.loading import load_policy
from policies.windows import windows_between
from scheduler.core.requests import HostId
from scheduler.core.spans import DAY_S, Instant
from tests.policies.policy_texts import EXAMPLES, PIECES, example_policy, mutated

COUNT = int(os.environ.get("NIGHTSHIFT_FUZZ", "500"))
SEED = int(os.environ.get("NIGHTSHIFT_FUZZ_SEED", "1"))
SHARDS = 10
MOST_GROWTH_KIB = 200 * 1024
NOW: Instant = 1_790_000_000
TEXTS = tuple(example_policy(name).text for name in EXAMPLES)


def an_example(chance: Random) -> str:
    return mutated(chance.choice(TEXTS), chance)


def random_bytes(chance: Random) -> str:
    return chance.randbytes(chance.randrange(400)).decode(chance.choice(("latin-1", "utf-16-le")), errors="replace")


def pieces(chance: Random) -> str:
    return "".join(chance.choice(PIECES) for _ in range(chance.randrange(60)))


def bomb(chance: Random) -> str:
    width, levels = chance.randrange(2, 40), chance.randrange(2, 20)
    lines = [f"a0: &a0 [{', '.join('x' * width)}]"]
    for level in range(1, levels):
        shape = chance.choice(("[{}]", "{{b: [{}]}}"))
        aliases = ", ".join([f"*a{level - 1}"] * width)
        lines.append(f"a{level}: &a{level} " + shape.format(aliases))
    return "\n".join(lines) + "\n"


def deep(chance: Random) -> str:
    depth = chance.choice((10, 17, 100, 3000))
    begins, ends = chance.choice((("[", "]"), ("{a: ", "}"), ("- ", ""), ("? ", ""), ("a:\n", "")))
    return begins * depth + "1" + ends * chance.choice((0, depth))


def twice(chance: Random) -> str:
    lines = chance.choice(TEXTS).splitlines(keepends=True)
    start = chance.randrange(len(lines))
    return "".join([*lines, *lines[start : start + chance.randrange(1, 20)]])


def a_value(chance: Random) -> str:
    """Put a strange value in the place of one."""
    text = chance.choice(TEXTS)
    lines = text.splitlines(keepends=True)
    places = [number for number, line in enumerate(lines) if ": " in line]
    number = chance.choice(places)
    key = lines[number].partition(": ")[0]
    value = chance.choice(
        (".nan", ".inf", "-.inf", "9" * 5000, "-9" * 20, "1e999", "0x" + "f" * 400, "0o17", "1_000", "\tx", "!!int 3",
         "!!python/object/apply:os.system [id]", "[]", "{}", "~", "'", '"\\ud800"', "&x [*x]", "*x", "|", ">-",
         "[[[[]]]]", "2026-13-45", "99999999999d", "0s", "mon-sun", '"* * * * *"', "'0 0 31 feb *'", "yes",
         "[2026-12-24..2026-12-01]")
    )  # fmt: skip
    lines[number] = f"{key}: {value}\n"
    return "".join(lines)


def large(chance: Random) -> str:
    unit = chance.choice(("a: 1\n", "- [x, y]\n", "[", "x", "\n", "é", "#\n", "k: {a: [b, c]}\n", "'", "a: &a b\n"))
    size = chance.choice((MOST_BYTES - 10, MOST_BYTES, 10 * 1024 * 1024))
    return unit * (size // len(unit.encode()))


KINDS: tuple[tuple[int, Callable[[Random], str]], ...] = (
    (50, an_example), (12, a_value), (12, random_bytes), (12, pieces), (5, bomb), (5, deep), (4, twice),
)  # fmt: skip
ONE_LARGE_IN = 2_000
"""They take a hundred times as long as the others."""


def survive(text: str) -> bool:
    """Load, and do all that a policy is for; whether it was one."""
    loaded = load_policy(text, source="fuzz.yaml")
    if isinstance(loaded, LoadedPolicy):
        problems = check_policy(loaded, from_at=NOW)
        found = coming(loaded, from_at=NOW, days=3)
        assert as_json(found)
        if not errors_of(problems):
            windows_between(loaded, [HostId("dgx2-a")], from_at=NOW, until_at=NOW + 3 * DAY_S, version=1)
            assert loaded.rules(1).version == 1
    else:
        problems = loaded
        assert problems
    for problem in problems:
        line = str(problem)
        assert line.isprintable(), line
        assert problem.place.line >= 1
        assert problem.place.column >= 1
        assert is_bundle(text) or line.startswith(f"fuzz.yaml:{problem.place.line}:{problem.place.column}: ")
    return isinstance(loaded, LoadedPolicy)


@pytest.mark.parametrize("shard", range(SHARDS))
def test_no_text_makes_loading_raise(shard: int) -> None:
    chance = Random(f"{SEED}/{shard}")
    weights, kinds = zip(*KINDS, strict=True)
    for text in TEXTS:
        assert survive(text)
    began_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    slowest_s, slowest, policies = 0.0, "", 0
    for number in range(COUNT // SHARDS):
        make = large if number % ONE_LARGE_IN == ONE_LARGE_IN - 1 else chance.choices(kinds, weights)[0]
        text = make(chance)
        start_s = time.process_time()
        policies += survive(text)
        took_s = time.process_time() - start_s
        if took_s > slowest_s:
            slowest_s, slowest = took_s, f"{make.__name__} {text[:40]!r}"
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - began_kib
    print(f"\n{COUNT // SHARDS} inputs, {policies} policies, +{grown_kib // 1024} MiB, {slowest_s:.2f} s: {slowest}")
    assert grown_kib < MOST_GROWTH_KIB
    # Else all would break at the first line, and prove little.
    assert policies >= COUNT // SHARDS // 50


@pytest.mark.parametrize("shard", range(2))
def test_no_file_makes_reading_raise(tmp_path: Path, shard: int) -> None:
    chance = Random(f"{SEED}/files/{shard}")
    file = tmp_path / "p.yaml"
    for _ in range(max(20, COUNT // 50)):
        content = chance.choice(TEXTS).encode()
        place = chance.randrange(len(content))
        file.write_bytes(content[:place] + chance.randbytes(chance.randrange(1, 4)) + content[place + 1 :])
        read = read_policy(file)
        if isinstance(read, Unreadable):
            assert read.what.isprintable()
        else:
            survive_any(read.text, read.source)


def survive_any(text: str, source: str) -> None:
    loaded = load_policy(text, source=source)
    if not isinstance(loaded, LoadedPolicy):
        assert all(str(problem).isprintable() for problem in loaded)
