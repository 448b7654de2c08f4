"""A simplified operation has the value of the operation, and what is equal is one node."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pararnn_solvers.autodiff.trace.graph import Graph, function_named
from pararnn_solvers.autodiff.trace.simplify import SIMPLIFY

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


C, D = X < Y, np.equal(X, Y)
EQUAL = {  # beside those of test_source
    "0 + x": (0 + X, X),
    "-y + x": (-Y + X, X - Y),
    "x - 0": (X - 0, X),
    "0 - x": (0 - X, -X),
    "x - (-3 y)": (X - -3 * Y, X + 3 * Y),
    "-1 * x": (-1 * X, -X),
    "x * (-y)": (X * (-Y), -(X * Y)),
    "2 * (-x)": (2 * (-X), -2 * X),
    "x / (-0.5)": (X / -0.5, -2 * X),
    "(-x) / y": (-X / Y, -(X / Y)),
    "-(-x)": (np.negative(-X), X),
    "-(2 x)": (-(2 * X), -2 * X),
    "x**0": (X**0, GRAPH.constant(1)),
    "x**3": (X**3, X * X * X),
    "x**16": (X**16, ((X**2) ** 2) ** 4),
    "x**-2": (X**-2, 1 / (X * X)),
    "abs(abs(x))": (np.abs(np.abs(X)), np.abs(X)),
    "where(True, x, y)": (np.where(GRAPH.constant(True), X, Y), X),
    "where(False, x, y)": (np.where(GRAPH.constant(False), X, Y), Y),
    "False & c": (False & C, GRAPH.constant(False)),
    "c | False": (C | False, C),
    "True | c": (True | C, GRAPH.constant(True)),
    "c & c": (C & C, C),
    "~~c": (~~C, C),
    "~(x == y)": (~D, np.not_equal(X, Y)),
    "y >= x": (np.greater_equal(Y, X), np.less_equal(X, Y)),
}


@pytest.mark.parametrize("identity", EQUAL)
def test_what_is_equal_is_one_node(identity):
    left, right = EQUAL[identity]
    assert left is right


@pytest.mark.parametrize(
    ("node", "op"),
    [
        (X / 2.0**120, "divide"),  # its reciprocal is subnormal in float32
        (X**17, "power"),
        (X**2.5, "power"),
        (2**X, "power"),
        (C & D, "logical_and"),
    ],
    ids=repr,
)
def test_what_is_not_simpler_stays(node, op):
    assert node.op == op
