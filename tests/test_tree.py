"""Parameters in any nesting: taken apart and put together again."""

import dataclasses
import functools
from collections import OrderedDict, defaultdict
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pararnn_solvers as prs
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


class Attributes(dict):
    """A dictionary whose keys are attributes, as many packages have one."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.__dict__ = self


class Named(dict):
    """A dictionary with a constructor of its own."""

    def __init__(self, name, **values):
        super().__init__(values)
        self.name = name


def test_dictionaries_of_any_kind_are_rebuilt():
    counts = defaultdict(list, a=1.0, b=2.0)
    leaves, rebuild = flatten(counts)
    rebuilt = rebuild([3.0, 4.0])
    assert rebuilt == {"a": 3.0, "b": 4.0}
    assert rebuilt.default_factory is list
    assert counts == {"a": 1.0, "b": 2.0}

    rebuilt = flatten(Named("gru", w=1.0))[1]([2.0])
    assert type(rebuilt) is Named
    assert (rebuilt, rebuilt.name) == ({"w": 2.0}, "gru")

    tree = Attributes(w=1.0)
    rebuilt = flatten(tree)[1]([2.0])
    assert type(rebuilt) is Attributes
    assert (rebuilt.w, rebuilt["w"], tree.w) == (2.0, 2.0, 1.0)


def test_a_named_tuple_with_a_constructor_of_its_own():
    class Strict(Pair):
        def __new__(cls, a):
            return super().__new__(cls, float(a), 2 * float(a))

    rebuilt = flatten(Strict(1.0))[1]([None, "b"])
    assert type(rebuilt) is Strict
    assert rebuilt == (None, "b")


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("slots", [False, True])
def test_a_dataclass_is_rebuilt_without_running_its_constructor(frozen, slots):
    @dataclasses.dataclass(frozen=frozen, slots=slots)
    class Strict:
        w: float
        scale: dataclasses.InitVar[float]
        label: str = "gru"
        doubled: float = dataclasses.field(init=False, default=0.0)

        def __post_init__(self, scale):
            object.__setattr__(self, "w", scale * float(self.w))
            object.__setattr__(self, "doubled", 2 * self.w)

    tree = Strict("3.0", 1.0)
    leaves, rebuild = flatten(tree)
    assert leaves == [3.0, "gru", 6.0]
    assert paths(tree) == ["theta.w", "theta.label", "theta.doubled"]
    assert rebuild(leaves) == tree
    rebuilt = rebuild([np.ones(2), None, None])
    assert type(rebuilt) is Strict
    assert (rebuilt.label, rebuilt.doubled) == (None, None)
    np.testing.assert_array_equal(rebuilt.w, [1, 1])
    assert tree.w == 3.0


def test_what_a_dataclass_computes_from_its_fields_is_computed_anew():
    @dataclasses.dataclass
    class Cached:
        w: float

        @functools.cached_property
        def squared(self):
            return self.w**2

    tree = Cached(3.0)
    assert tree.squared == 9.0
    assert flatten(tree)[1]([4.0]).squared == 16.0


def test_a_dataclass_that_converts_has_gradients():
    @dataclasses.dataclass(frozen=True)
    class Weights:
        w: np.ndarray
        bias: float
        label: str = "tanh"

        def __post_init__(self):
            if not isinstance(self.w, np.ndarray) or self.label is None:
                raise TypeError("w is no array")
            object.__setattr__(self, "bias", float(self.bias))

    def step(h, x, p):
        return np.tanh(p.w * h + x) + p.bias

    x, theta = np.linspace(-1, 1, 5)[:, None], Weights(np.full(1, 0.5), 0.1)
    solution = prs.solve(prs.Recurrence(step, block_size=1), x, np.zeros(1), theta)
    found = prs.gradients(solution, np.ones_like(solution.h)).theta

    def total(w, bias):
        return prs.rollout(step, x, np.zeros(1), Weights(w, bias)).sum()

    e = 1e-5
    by_w = (total(theta.w + e, 0.1) - total(theta.w - e, 0.1)) / (2 * e)
    by_bias = (total(theta.w, 0.1 + e) - total(theta.w, 0.1 - e)) / (2 * e)
    assert type(found) is Weights
    np.testing.assert_allclose([found.w[0], found.bias], [by_w, by_bias], rtol=1e-8)
    assert found.label is None


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
