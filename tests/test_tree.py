"""Parameters in any nesting: taken apart and put together again."""

import dataclasses
from collections import OrderedDict
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pararnn_solvers.tree import flatten, is_differentiable, paths


class Pair(NamedTuple):
    a: object
    b: object


@dataclasses.dataclass(frozen=True)
class Record:
    w: object
    b: object = None


def trees():
    leaves = st.none() | st.floats(-1, 1) | st.integers() | st.text(max_size=3)
    keys = st.text("abc", min_size=1, max_size=2)
    return st.recursive(
        leaves,
        lambda children: st.one_of(
            st.lists(children, max_size=3),
            st.lists(children, max_size=3).map(tuple),
            st.dictionaries(keys, children, max_size=3),
            st.builds(Pair, children, children),
            st.builds(Record, children, children),
        ),
        max_leaves=8,
    )


@given(trees())
def test_flattening_and_rebuilding_gives_the_same_tree(tree):
    leaves, rebuild = flatten(tree)
    rebuilt = rebuild(leaves)
    assert rebuilt == tree
    assert type(rebuilt) is type(tree)
    assert len(paths(tree)) == len(leaves)


@given(trees())
def test_paths_are_the_python_that_reaches_each_leaf(tree):
    for path, leaf in zip(paths(tree), flatten(tree)[0], strict=True):
        assert eval(path, {"theta": tree}) is leaf


def test_leaves_can_be_exchanged():
    tree = {"a": (1.0, None), "b": Pair([2.0], Record(3.0))}
    leaves, rebuild = flatten(tree)
    assert leaves == [1.0, 2.0, 3.0]
    assert rebuild(["x", "y", "z"]) == {"a": ("x", None), "b": Pair(["y"], Record("z"))}


def test_arrays_are_leaves_and_kept_as_they_are():
    array = np.arange(3.0)
    leaves, rebuild = flatten([array])
    assert leaves[0] is array
    assert rebuild(leaves)[0] is array


def test_types_of_containers_are_kept():
    tree = OrderedDict(b=1.0, a=2.0)
    leaves, rebuild = flatten(tree)
    assert leaves == [1.0, 2.0]
    assert type(rebuild(leaves)) is OrderedDict


def test_names_of_parameters():
    tree = {"w": Pair(1.0, [Record(2.0, 3.0)])}
    assert paths(tree) == ["theta['w'].a", "theta['w'].b[0].w", "theta['w'].b[0].b"]
    assert paths(1.0) == ["theta"]
    assert paths(None) == []


@pytest.mark.parametrize(
    ("leaf", "expected"),
    [
        (1.0, True),
        (np.float32(1), True),
        (np.zeros(3), True),
        (np.zeros(3, np.float32), True),
        (1, False),
        (True, False),
        ("text", False),
        (None, False),
        (np.zeros(3, int), False),
        (np.zeros(3, complex), False),
    ],
)
def test_real_numbers_are_differentiable(leaf, expected):
    assert is_differentiable(leaf) is expected
