"""Rows in layers: the same as a dict that was copied and changed, and what is different in two of them."""

import pickle
from collections.abc import Mapping
from copy import deepcopy
from random import Random

import pytest

from scheduler.core.layered import LEAST_LAYER, Layered, changed, different

Rows = Mapping[int, str]


def copied_and_changed(rows: Rows, new: Mapping[int, str], gone: list[int]) -> dict[int, str]:
    merged = {**rows, **new}
    for key in gone:
        if key not in new:
            merged.pop(key, None)
    return merged


def assert_alike(rows: Rows, expected: dict[int, str]) -> None:
    assert rows == expected
    assert len(rows) == len(expected)
    assert sorted(rows) == sorted(expected)
    assert dict(rows.items()) == expected
    assert sorted(rows.values()) == sorted(expected.values())
    for key in range(-1, 70):
        assert (key in rows) == (key in expected)
        assert rows.get(key) == expected.get(key)
        assert rows.get(key, "none") == expected.get(key, "none")
        if key in expected:
            assert rows[key] == expected[key]
        else:
            with pytest.raises(KeyError):
                rows[key]


@pytest.mark.parametrize("seed", range(30))
def test_any_changes_one_after_the_other_are_those_of_a_dict(seed: int) -> None:
    draw = Random(seed)
    rows: Rows = {number: f"first {number}" for number in range(draw.choice((0, 3, 60)))}
    expected = dict(rows)
    versions: list[tuple[Rows, dict[int, str]]] = []
    for step in range(60):
        new = {draw.randrange(64): f"{step} {draw.randrange(9)}" for _ in range(draw.choice((0, 1, 1, 2, 5)))}
        gone = [draw.randrange(64) for _ in range(draw.choice((0, 0, 1, 3)))]
        versions.append((rows, expected))
        rows, expected = changed(rows, new, gone), copied_and_changed(expected, new, gone)
        assert_alike(rows, expected)
    for before, was in versions:
        assert before == was, "a version that somebody holds stays as it is"
        assert set(different(before, rows)) == {
            key for key in was.keys() | expected.keys() if was.get(key) is not expected.get(key)
        }


def test_what_is_not_changed_is_the_very_same() -> None:
    rows = {1: "a", 2: "b"}
    assert changed(rows, {}, [3]) is rows
    layered = changed(rows, {3: "c"})
    assert changed(layered, {}, [4]) is layered


def test_a_row_that_is_set_and_taken_out_is_set() -> None:
    assert changed({1: "a"}, {1: "b"}, [1]) == {1: "b"}


def test_keys_come_in_the_order_of_a_dict_that_is_changed() -> None:
    rows = changed(changed({1: "a", 2: "b", 3: "c"}, {4: "d", 2: "B"}), {5: "e"}, [1, 4])
    assert list(rows) == [2, 3, 5]
    assert repr(rows) == "Layered({2: 'B', 3: 'c', 5: 'e'})"


def test_a_copy_of_whatever_kind_is_the_same() -> None:
    rows = changed({1: "a", 2: "b"}, {3: "c"}, [1])
    for other in (pickle.loads(pickle.dumps(rows)), deepcopy(rows)):
        assert other == rows
        assert 1 not in other


def test_a_layer_stays_small() -> None:
    rows: Rows = dict.fromkeys(range(10_000), "")
    kinds = set()
    for number in range(1000):
        rows = changed(rows, {number: "new"})
        kinds.add(type(rows))
        if isinstance(rows, Layered):
            assert len(rows._layer) <= LEAST_LAYER + 100
    assert kinds == {Layered, dict}
