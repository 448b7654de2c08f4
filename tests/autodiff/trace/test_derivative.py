"""Derivatives on the graph against dual arrays and complex steps, for random expressions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from pararnn_solvers import functions
from pararnn_solvers.autodiff import RULES, Dual, tangent_of, value_of
from pararnn_solvers.autodiff.trace.derivative import forward, reverse
from pararnn_solvers.autodiff.trace.graph import Graph, Node, reachable
from pararnn_solvers.autodiff.trace.inputs import Input
from pararnn_solvers.autodiff.trace.source import source
from pararnn_solvers.autodiff.trace.tracing import evaluate, trace

POSITIVE, UNIT, ABOVE_ONE, PROBABILITY, ANY = (
    *((0.2, 4.0), (-0.9, 0.9), (1.2, 4.0), (0.3, 0.7), (-3.0, 3.0)),
)
# Where a function has a derivative, if that is not everywhere in ANY.
DOMAINS = {
    "divide": (ANY, POSITIVE), "power": (POSITIVE, ANY), "float_power": (POSITIVE, ANY),
    "remainder": ((2.1, 2.4), (0.83, 0.95)), "fmod": ((-2.4, -2.1), (0.83, 0.95)),
    "reciprocal": (POSITIVE,), "sqrt": (POSITIVE,), "cbrt": (POSITIVE,), "hypot": (POSITIVE, ANY),
    "log": (POSITIVE,), "log2": (POSITIVE,), "log10": (POSITIVE,), "log1p": (POSITIVE,),
    "xlogy": (ANY, POSITIVE), "xlog1py": (ANY, POSITIVE), "entr": (POSITIVE,), "tan": (UNIT,),
    "arcsin": (UNIT,), "arccos": (UNIT,), "arctan2": (ANY, POSITIVE), "arccosh": (ABOVE_ONE,),
    "arctanh": (UNIT,), "logit": (PROBABILITY,), "erfinv": (UNIT,), "ndtri": (PROBABILITY,),
    "copysign": (POSITIVE, ANY), "heaviside": (POSITIVE, UNIT), "exp10": (UNIT,),
}  # fmt: skip
NAMES = [name for name in RULES if any(RULES[name])]
PREDICATES = ["less", "less_equal", "greater", "greater_equal", "not_equal"]
ROUNDING = ["floor", "ceil", "rint", "trunc", "sign"]


def function(name):
    for library in (np, functions, special):
        if hasattr(library, name):
            return getattr(library, name)


def into(domain, a):
    low, high = domain
    return (low + high) / 2 + (high - low) / 2 * np.tanh(a)


def apply(name, *args):
    domains = DOMAINS.get(name, (ANY,) * len(RULES[name]))
    return function(name)(*(into(d, a) for d, a in zip(domains, args, strict=True)))


# A tree is an index of an argument, a number, or an operation and its operands.
LEAVES = st.one_of(
    st.integers(0, 2).map(lambda i: ("argument", i)), st.sampled_from([0.5, -2.0, 3])
)


def deeper(trees):
    calls = [st.tuples(st.just(name), *[trees] * len(RULES[name])) for name in (*NAMES, *ROUNDING)]
    choice = st.tuples(
        st.just("where"), st.tuples(st.sampled_from(PREDICATES), trees, trees), trees, trees
    )
    return st.one_of(*calls, choice)


TREES = st.recursive(LEAVES, deeper, max_leaves=8)


def compute(tree, args):
    if not isinstance(tree, tuple):
        return tree
    name, *operands = tree
    if name == "argument":
        return args[operands[0]]
    values = [compute(operand, args) for operand in operands]
    if name == "where":
        return np.where(*values)
    if name in PREDICATES or name in ROUNDING:
        return function(name)(*values)
    return apply(name, *values)


def inputs(graph):
    return [graph.input(Input(f"a{i}", "x", 0, (i,), 4)) for i in range(3)]


def graph_and_arrays(tree, seed):
    graph = Graph()
    nodes = inputs(graph)
    out = graph.lift(compute(tree, nodes)) if any_argument(tree) else None
    arrays = list(np.random.default_rng(seed).normal(size=(3, 4)))
    return graph, nodes, out, arrays


def any_argument(tree):
    return isinstance(tree, tuple) and (tree[0] == "argument" or any(map(any_argument, tree[1:])))


@given(TREES.filter(any_argument), st.integers(0, 2**16))
def test_derivatives_of_random_expressions(tree, seed):
    graph, nodes, out, arrays = graph_and_arrays(tree, seed)
    values = {f"a{i}": a for i, a in enumerate(arrays)}
    with np.errstate(all="ignore"):
        seeds = np.eye(3)[:, :, None] * np.ones(4)
        expected = compute(tree, [Dual(a, seeds[:, i]) for i, a in enumerate(arrays)])
        (row,) = forward([out], nodes)
        lam = graph.constant(1.0)
        backward = reverse([out], [lam], nodes)
        (value,) = evaluate([out], values)
        found = evaluate(row, values), evaluate(backward, values)
    np.testing.assert_allclose(value, value_of(expected), rtol=1e-9, atol=1e-12)
    for entries in found:
        for entry, tangent in zip(entries, tangent_of(expected, 3), strict=True):
            scale = max(1.0, float(np.max(np.abs(tangent), where=np.isfinite(tangent), initial=0)))
            np.testing.assert_allclose(
                np.broadcast_to(entry, 4), np.broadcast_to(tangent, 4), 1e-7, 1e-9 * scale
            )


@given(TREES.filter(any_argument), st.integers(0, 2**16))
def test_source_of_random_expressions(tree, seed):
    """Parentheses, literals and the names of functions."""
    graph, nodes, out, arrays = graph_and_arrays(tree, seed)
    written = source({"f": out}, np.float64)
    names = {"np": np, "pow": np.power, "abs": np.abs}
    names |= {name: function(name) for name in written.functions if name not in names}
    with np.errstate(all="ignore"):
        exec(written.function("step"), names)
        scalars = {f"a{i}": a[0] for i, a in enumerate(arrays)}
        result = names["step"](*(scalars[name] for name in written.names))
        (expected,) = evaluate([out], scalars)
    np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("name", NAMES)
def test_every_rule_applies_to_nodes(name):
    graph, arrays = Graph(), np.random.default_rng(3).normal(size=(3, 4))
    nodes = inputs(graph)[: len(RULES[name])]
    if name == "clip":
        out = graph.apply(name, *nodes)
        expected = np.clip(*(Dual(a, np.eye(3)[:, i, None]) for i, a in enumerate(arrays)))
    else:
        out = apply(name, *nodes)
        seeds = np.eye(3)[:, :, None]
        duals = [Dual(a, seeds[:, i]) for i, a in enumerate(arrays[: len(nodes)])]
        expected = apply(name, *duals)
    assert isinstance(out, Node)
    values = {f"a{i}": a for i, a in enumerate(arrays)}
    (row,) = forward([out], nodes)
    for entry, tangent in zip(evaluate(row, values), tangent_of(expected, 3), strict=False):
        np.testing.assert_allclose(np.broadcast_to(entry, 4), tangent, rtol=1e-10, atol=1e-13)


ANALYTIC = [np.tanh, np.sin, np.exp, np.arctan, functions.sigmoid, functions.softplus]


@given(st.lists(st.sampled_from(ANALYTIC), min_size=1, max_size=4), st.integers(0, 2**16))
def test_derivatives_equal_the_complex_step(calls, seed):
    def step(h, x, a):
        for call in calls:
            h = call(0.5 * h * x) / (1 + a * a) - h**3
        return h

    h, x, a = np.random.default_rng(seed).uniform(-1, 1, (3, 4))
    traced = trace(step, h, x, a, 1)
    ((slope,),) = traced.jacobian()
    exact = step(h + 1e-30j, x, a).imag / 1e-30
    np.testing.assert_allclose(evaluate([slope], traced.values(h, x, a))[0], exact, rtol=1e-12)


DELICATE = [
    (lambda h: h**2, 0.0, 0),
    (lambda h: h**0, 0.0, 0),
    (lambda h: h**1, 0.0, 1),
    (lambda h: h**0.5, 0.0, np.inf),
    (lambda h: 0**h, 2.0, 0),
    (lambda h: 2.0**h, 3.0, 8 * np.log(2)),
    (np.abs, 0.0, 0),
    (lambda h: np.hypot(h, 0), 0.0, 0),
    (lambda h: np.maximum(h, 1), 1.0, 1),
    (lambda h: np.maximum(1, h), 1.0, 0),
    (lambda h: np.minimum(h, 1), 1.0, 1),
    (lambda h: np.fmax(h, np.nan), 1.0, 1),
    (lambda h: np.fmin(np.nan, h), 1.0, 1),
    (lambda h: np.clip(h, 0, 1), 0.0, 1),
    (lambda h: np.clip(h, 0, 1), 1.0, 1),
    (lambda h: np.clip(h, 0, 1), 1.5, 0),
    (lambda h: np.maximum(np.sqrt(h), 1), 0.0, 0),
    (lambda h: np.where(h > 1, np.sqrt(h), 2 * h), 0.0, 2),
    (lambda h: np.clip(np.sqrt(h), 1, 9), 0.0, 0),
    (functions.sigmoid, -1000.0, 0),
    (functions.softplus, 1000.0, 1),
    (functions.silu, -1000.0, 0),
    (functions.gelu, 1000.0, 1),
    (lambda h: np.log1p(h), 1e-20, 1),
    (lambda h: 0 * h + 3, 1.0, 0),
]


@pytest.mark.parametrize("number", range(len(DELICATE)))
def test_derivative_at_delicate_points(number):
    """The conventions of dual arrays, forward, in reverse, and after the source is lowered."""
    step, at, expected = DELICATE[number]
    traced = trace(lambda h, x, a: step(h), np.ones(3), None, None, 1)
    ((slope,),), vjp = traced.jacobian(), traced.vjp()
    with np.errstate(all="ignore"):
        values = {"h0": np.array(at), "adjoint0": np.array(1.0)}
        for node in (slope, vjp.h[0]):
            np.testing.assert_allclose(evaluate([node], values)[0], expected, rtol=1e-15)


def test_unused_inputs_have_no_operations():
    traced = trace(lambda h, x, a: np.tanh(h) + a, np.ones(4), np.ones(4), np.ones(4), 1)
    vjp = traced.vjp()
    assert vjp.x[0].is_constant(0.0)
    assert vjp.theta[0] is vjp.adjoints[0]
    assert len(reachable(vjp.h)) == 7  # h, tanh, its square, 1, 1 - square, the adjoint, product
