"""A simplified operation has the value of the operation, and what is equal is one node."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pararnn_solvers.autodiff.trace.graph import Graph, function_named
from pararnn_solvers.autodiff.trace.simplify import SIMPLIFY
from pararnn_solvers.errors import NotTraceable

GRAPH = Graph()
X, Y = GRAPH.input("x"), GRAPH.input("y")
NUMBERS = [0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, 3.0, -3.0, 4.0, 17.0, 2.0**-120, np.inf, np.nan]
OPERANDS = [X, Y, -X, -Y, 2 * X, -3 * Y, X - Y, X + Y, np.abs(X), X * Y, X / Y]
TRUTHS = [X < Y, X <= Y, ~(X < Y), np.equal(X, Y), np.not_equal(X, Y), True, False]
POINTS = [0.0, -0.0, 1.0, -1.0, 0.3, -3.7, 2.0, 1e-300, 1e300, np.inf, -np.inf, np.nan]
ARITY = {"where": 3, "clip": 3} | dict.fromkeys(
    "add subtract multiply divide power float_power logical_and logical_or greater "
    "greater_equal".split(),
    2,
)


def value(node, x, y):
    """Evaluate a node as NumPy would, operation by operation."""
    if not hasattr(node, "op"):
        return np.asarray(node)
    if node.op in ("input", "constant"):
        return np.asarray({"x": x, "y": y}.get(node.value, node.value))
    return function_named(node.op)(*(value(arg, x, y) for arg in node.args))


@given(st.data(), st.sampled_from(sorted(SIMPLIFY)))
def test_every_simplification_keeps_the_value(data, name):
    numbers = st.one_of(st.sampled_from(OPERANDS), st.sampled_from(NUMBERS))
    truths = st.sampled_from(TRUTHS)
    connective = name.startswith("logical")
    args = [data.draw(truths if connective else numbers) for _ in range(ARITY.get(name, 1))]
    if name == "where":
        args[0] = data.draw(truths)
    x, y = data.draw(st.sampled_from(POINTS)), data.draw(st.sampled_from(POINTS))
    with np.errstate(all="ignore"):
        expected = function_named(name)(*(value(arg, x, y) for arg in args))
        found = value(GRAPH.apply(name, *args), x, y)
        if name in ("power", "float_power") and value(args[1], x, y) == 0.5:
            expected = np.sqrt(value(args[0], x, y))  # as ndarray has it
    np.testing.assert_allclose(found, expected, rtol=1e-14)  # powers are products


@pytest.mark.parametrize("exponent", [np.inf, -np.inf, np.nan])
def test_powers_with_an_exponent_that_is_not_finite_are_left(exponent):
    assert GRAPH.apply("power", X, exponent).op == "power"


C, D = X < Y, np.equal(X, Y)
EQUAL = {  # beside those of test_source
    "0 + x": lambda: (0 + X, X),
    "-y + x": lambda: (-Y + X, X - Y),
    "x - 0": lambda: (X - 0, X),
    "0 - x": lambda: (0 - X, -X),
    "x - (-3 y)": lambda: (X - -3 * Y, X + 3 * Y),
    "-1 * x": lambda: (-1 * X, -X),
    "x * (-y)": lambda: (X * (-Y), -(X * Y)),
    "2 * (-x)": lambda: (2 * (-X), -2 * X),
    "x / (-0.5)": lambda: (X / -0.5, -2 * X),
    "(-x) / y": lambda: (-X / Y, -(X / Y)),
    "-(-x)": lambda: (np.negative(-X), X),
    "x + (-0.5 y)": lambda: (X + -0.5 * Y, X - 0.5 * Y),
    "x - (-1)": lambda: (X - -1, X + 1),
    "-(2 x)": lambda: (-(2 * X), -2 * X),
    "x**0": lambda: (X**0, GRAPH.constant(1)),
    "x**3": lambda: (X**3, X * X * X),
    "x**16": lambda: (X**16, ((X**2) ** 2) ** 4),
    "x**-2": lambda: (X**-2, 1 / (X * X)),
    "abs(abs(x))": lambda: (np.abs(np.abs(X)), np.abs(X)),
    "where(True, x, y)": lambda: (np.where(GRAPH.constant(True), X, Y), X),
    "where(False, x, y)": lambda: (np.where(GRAPH.constant(False), X, Y), Y),
    "False & c": lambda: (False & C, GRAPH.constant(False)),
    "c | False": lambda: (C | False, C),
    "True | c": lambda: (True | C, GRAPH.constant(True)),
    "c & c": lambda: (C & C, C),
    "~~c": lambda: (~~C, C),
    "~(x == y)": lambda: (~D, np.not_equal(X, Y)),
    "x and y": lambda: (np.logical_and(X, Y), np.not_equal(X, 0) & np.not_equal(Y, 0)),
    "not x": lambda: (np.logical_not(X), np.equal(X, 0)),
    "true * true": lambda: (C * D, C & D),
    "max(true, true)": lambda: (np.maximum(C, D), C | D),
    "fmax(true, true)": lambda: (np.fmax(C, D), C | D),
    "fmin(true, true)": lambda: (np.fmin(C, D), C & D),
    "abs(true)": lambda: (np.abs(C), C),
    "min(true, true)": lambda: (np.minimum(C, D), C & D),
    "y >= x": lambda: (np.greater_equal(Y, X), np.less_equal(X, Y)),
}


@pytest.mark.parametrize("identity", EQUAL)
def test_what_is_equal_is_one_node(identity):
    left, right = EQUAL[identity]()  # made here, so that it is known which test makes it
    assert left is right


STAYS = {  # operation: how it is asked for
    "x / 2**99": (lambda: X / 2.0**99, "divide"),  # its reciprocal is small in float32
    "x / 2**98": (lambda: X / 2.0**98, "multiply"),
    "x**16": (lambda: X**16, "multiply"),
    "x**17": (lambda: X**17, "power"),
    "x**-16": (lambda: X**-16, "divide"),
    "x**-17": (lambda: X**-17, "power"),
    "x**2.5": (lambda: X**2.5, "power"),
    "2**x": (lambda: 2**X, "power"),
    "c & d": (lambda: C & D, "logical_and"),
    "true + number": (lambda: C + X, "add"),
}


@pytest.mark.parametrize("name", STAYS)
def test_what_is_not_simpler_stays(name):
    make, op = STAYS[name]
    assert make().op == op


def test_a_choice_of_truths_is_true_or_false_and_any_other_is_a_number():
    assert np.where(C, D, ~D).boolean
    for a, b in ((D, 2.0), (2.0, D), (X, D), (D, X)):
        chosen = np.where(C, a, b)
        assert not chosen.boolean
        assert not any(arg.boolean for arg in chosen.args[1:])


def test_a_node_is_no_array():
    for call in (
        lambda: np.add(X, Y, where=True),
        lambda: np.add.reduce(X),
        lambda: np.where(C),
        lambda: np.sort(X),
    ):
        with pytest.raises(NotTraceable, match="of a traced scalar"):
            call()


def test_what_is_deep_is_shown_in_part():
    node = X
    for _ in range(7):
        node = np.sin(node)
    assert repr(node) == "sin(sin(sin(sin(sin(sin(...))))))"


def test_there_are_only_so_many_nodes():
    graph = Graph()
    for i in range(8192):
        graph.constant(i)
    assert graph.constant(0).value == 0  # an old one
    with pytest.raises(NotTraceable, match="8192"):
        graph.constant(8192)
