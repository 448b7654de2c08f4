"""Two equal signatures must mean two equal traces; where that cannot be told, there is none."""

import math
from functools import partial
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest

from pararnn_solvers.autodiff.trace.references import Unknown, signature
from pararnn_solvers.functions import sigmoid

SCALE = 2.0
TABLE = np.ones(3)
H, X = np.ones(4), np.ones(4)
COUNT = 0


class Theta(NamedTuple):
    a: object
    power: int = 2

    def doubled(self):
        return 2 * self.a


class Products(NamedTuple):
    h: object
    x: object


class Scaled(NamedTuple):
    h: object
    x: object = TABLE


def of(step, h=H, x=X, theta=0.5, k=1):
    return signature(step, h, x, theta, k)


def helper(h):
    return SCALE * h


def plain(h, x, a):
    return np.tanh(a * h) + sigmoid(x)


def by_global(h, x, a):
    return SCALE * np.tanh(h)


def by_helper(h, x, a):
    return helper(h) + x


def with_closure(value):
    def step(h, x, a):
        return value * h

    return step


def with_default(value):
    def step(h, x, a, scale=value):
        return scale * h

    return step


def reads_array(h, x, a):
    return h * TABLE[0]


def counts(h, x, a):
    global COUNT
    COUNT += 1
    return h * COUNT


def imports(h, x, a):
    import math

    return h * math.pi


def prints(h, x, a):
    print(h)
    return h


def draws(h, x, a):
    return h + np.random.normal()


def asks_for_types(h, x, a):
    return h if isinstance(a, float) else x


def catches(h, x, a):
    try:
        return h * float(a)
    except TypeError:
        return h


def by_field(h, x, theta):
    return h * theta.a


def by_inner(h, x, a):
    return (lambda v: SCALE * v)(h)


def by_inner_that_prints(h, x, a):
    return (lambda v: print(v) or v)(h)


def by_module_function(h, x, a):
    return h * math.sqrt(2.0)


def with_attribute(h, x, a):
    return h


with_attribute.scale = 2.0


def asks_for_double(theta, h):
    return theta.doubled() * h


def helper_asks(theta):
    def step(h, x, a):
        return asks_for_double(theta, h)

    return step


def calls_method(h, x, theta):
    return h * theta.doubled()


def test_equal_calls_have_equal_signatures_that_can_be_keys():
    known = (plain, by_global, by_helper, by_inner, by_module_function)
    for step in (*known, with_closure(2.0), with_default(2.0)):
        assert of(step) == of(step)
        assert {of(step): 1}[of(step)] == 1
    assert of(with_closure(2.0)) == of(with_closure(2.0))
    assert of(by_field, theta=Theta(0.5)) == of(by_field, theta=Theta(0.25))


def test_leading_axes_do_not_matter():
    assert of(plain, h=np.ones((3, 4)), x=np.ones((3, 4))) == of(plain, h=np.ones((5, 4)))
    assert of(plain, h=np.ones((4, 3))) != of(plain, h=np.ones((4, 2)))
    assert of(plain, x=np.ones((4, 3))) != of(plain, x=np.ones((4, 2)))


@pytest.mark.parametrize(
    "other",
    [
        {"h": np.ones(4, np.float32)},
        {"h": np.ones(8)},
        {"x": None},
        {"x": np.ones(8)},
        {"theta": np.float64(0.5)},
        {"theta": np.ones(4)},
        {"theta": [0.5]},
        {"theta": (0.5,)},
        {"theta": {"a": 0.5}},
        {"theta": Theta(0.5)},
        {"theta": (0.5, 1)},
        {"theta": [(0.5,)]},
        {"theta": [[0.5]]},
        {"k": 2},
    ],
    ids=str,
)
def test_other_arguments_have_another_signature(other):
    assert of(plain) != of(plain, **other)


def test_values_of_floats_do_not_matter_and_those_of_other_leaves_do():
    assert of(plain, theta=0.5) == of(plain, theta=0.25)
    assert of(plain, theta=np.ones(4)) == of(plain, theta=np.zeros(4))
    assert of(plain, theta=Theta(0.5, 2)) != of(plain, theta=Theta(0.5, 3))
    assert of(plain, theta=(0.5, 1)) != of(plain, theta=(0.5, True))
    assert of(plain, theta=np.arange(3)) != of(plain, theta=np.arange(3)[::-1])
    assert of(plain, theta=[(0.5,)]) != of(plain, theta=[[0.5]])


@pytest.mark.parametrize("value", [1, True, -0.0, 0.0, "a", (1, 2.0), np.float32(1), None])
def test_closures_and_defaults_are_told_apart_by_value_and_type(value):
    others = [1, True, 1.0, -0.0, 0.0, "a", (1, 2.0), (1, 2), np.float32(1), None]
    for make in (with_closure, with_default):
        equal = [v for v in others if of(make(v)) == of(make(value))]
        assert [(type(v), repr(v)) for v in equal] == [(type(value), repr(value))]


def test_a_global_that_changes_is_noticed_also_where_a_helper_reads_it(monkeypatch):
    before = of(by_global), of(by_helper), of(by_inner)
    monkeypatch.setitem(by_global.__globals__, "SCALE", 3.0)
    assert of(by_global) != before[0]
    assert of(by_helper) != before[1]
    assert of(by_inner) != before[2]


def test_a_function_of_a_module_that_is_replaced_is_noticed(monkeypatch):
    before = of(plain)
    monkeypatch.setattr(np, "tanh", np.sinh)
    assert of(plain) != before


def with_helpers(f, g, k):
    def step(h, x, a):
        return f(h) + g(x) * k(h)

    return step


def test_helpers_that_change_places_are_told_apart():
    def doubled(v):
        return 2 * v

    assert of(with_helpers(helper, doubled, helper)) != of(with_helpers(helper, doubled, doubled))
    assert of(with_helpers(helper, doubled, helper)) == of(with_helpers(helper, doubled, helper))


def test_what_a_helper_reads_of_a_module_that_the_step_knows_too_is_noticed():
    module = ModuleType("module")
    module.scale, module.function = 2.0, helper
    names = {"module": module}
    exec("def helper(v): return v * module.scale", names)
    exec("def step(h, x, a): return module.function(h) + helper(x)", names)
    before = of(names["step"])
    assert of(names["step"]) == before
    module.scale = 3.0
    assert of(names["step"]) != before


def returns(kind):
    def step(h, x, a):
        return kind(a * h, x)

    return step


def test_a_named_tuple_of_fields_is_known():
    """As what a function returns; another one of the same fields is another."""
    assert of(returns(Products)) == of(returns(Products))
    assert of(returns(Products)) != of(returns(NamedTuple("Products", [("h", object)])))


@pytest.mark.parametrize(
    ("step", "theta"),
    [
        (returns(Theta), 0.5),
        (returns(Scaled), 0.5),
        (returns(type("Pair", (tuple,), {})), 0.5),
        (returns(type("Pair", (tuple,), {"_fields": ("h", "x")})), 0.5),
        (reads_array, 0.5),
        (with_closure(np.ones(3)), 0.5),
        (with_closure([1.0]), 0.5),
        (with_closure((1.0, [2.0])), 0.5),
        (with_default(np.random.default_rng(0)), 0.5),
        (with_closure(np.random.default_rng(0).normal), 0.5),
        (with_closure(TABLE.sum), 0.5),
        (with_attribute, 0.5),
        (by_inner_that_prints, 0.5),
        (helper_asks(Theta(0.5)), 0.5),  # what a method does is not looked at
        (with_closure(np.vectorize(lambda v: v)), 0.5),
        (counts, 0.5),
        (imports, 0.5),
        (prints, 0.5),
        (draws, 0.5),
        (asks_for_types, 0.5),
        (catches, 0.5),
        (partial(plain), 0.5),
        (Theta(1.0).doubled, 0.5),
        (calls_method, Theta(0.5)),
        (plain, object()),
    ],
)
def test_what_may_change_unseen_has_no_signature(step, theta):
    with pytest.raises(Unknown):
        of(step, theta=theta)
