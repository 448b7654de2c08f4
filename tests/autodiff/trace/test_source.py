"""The graph: equal expressions are one node. Its source: what a compiler and a person read."""

import ast

import numpy as np
import pytest
from scipy import special

import pararnn_solvers as prs
from pararnn_solvers.autodiff.trace.derivative import reverse
from pararnn_solvers.autodiff.trace.graph import Graph, reachable
from pararnn_solvers.autodiff.trace.lowering import lower
from pararnn_solvers.autodiff.trace.source import Dialect, source
from pararnn_solvers.autodiff.trace.tracing import evaluate, trace
from pararnn_solvers.cells import diagonal_gru
from pararnn_solvers.functions import gelu, sigmoid, silu


@pytest.fixture
def symbols():
    graph = Graph()
    return graph.input("a"), graph.input("b")


SAME = [
    (lambda a, b: a + b, lambda a, b: b + a),
    (lambda a, b: np.tanh(a * b), lambda a, b: np.tanh(b * a)),
    (lambda a, b: a > b, lambda a, b: b < a),
    (lambda a, b: a - (-b), lambda a, b: a + b),
    (lambda a, b: a + (-b), lambda a, b: a - b),
    (lambda a, b: -(a - b), lambda a, b: b - a),
    (lambda a, b: (-a) * b, lambda a, b: -(a * b)),
    (lambda a, b: a / -b, lambda a, b: -(a / b)),
    (lambda a, b: a + -0.5, lambda a, b: a - 0.5),
    (lambda a, b: b + -2 * a, lambda a, b: b - 2 * a),
    (lambda a, b: a / 4, lambda a, b: 0.25 * a),
    (lambda a, b: a + a, lambda a, b: 2 * a),
    (lambda a, b: a * 1 + 0, lambda a, b: a),
    (lambda a, b: a**1, lambda a, b: a),
    (lambda a, b: a**4, lambda a, b: np.square(np.square(a))),
    (lambda a, b: a**-1, lambda a, b: np.reciprocal(a)),
    (lambda a, b: a**0.5, lambda a, b: np.sqrt(a)),
    (lambda a, b: abs(-a), lambda a, b: np.fabs(a)),
    (lambda a, b: np.where(~(a > b), a, b), lambda a, b: np.where(a > b, b, a)),
    (lambda a, b: np.where(a > b, a, a), lambda a, b: a),
    (lambda a, b: (a > b) & True, lambda a, b: a > b),
    (lambda a, b: a * (np.float32(0.5) + np.exp(0.0)), lambda a, b: 1.5 * a),
]


@pytest.mark.parametrize("number", range(len(SAME)))
def test_equal_expressions_are_one_node(symbols, number):
    first, second = SAME[number]
    assert first(*symbols) is second(*symbols)


DIFFERENT = [
    (lambda a, b: 0 * a, lambda a, b: 0.0),  # NaN where a is not finite
    (lambda a, b: a - a, lambda a, b: 0.0),
    (lambda a, b: a / 3, lambda a, b: a * (1 / 3)),
    (lambda a, b: np.maximum(a, b), lambda a, b: np.maximum(b, a)),  # differ in the derivative
    (lambda a, b: (a + b) + 1, lambda a, b: a + (b + 1)),
    (lambda a, b: ~(a < b), lambda a, b: a >= b),  # differ for NaN
    (lambda a, b: np.copysign(a, 0.0), lambda a, b: np.copysign(a, -0.0)),
]


@pytest.mark.parametrize("number", range(len(DIFFERENT)))
def test_what_may_differ_stays_apart(symbols, number):
    graph = symbols[0].graph
    first, second = (graph.lift(f(*symbols)) for f in DIFFERENT[number])
    assert first is not second


def test_constants_are_folded_as_numpy_does(symbols):
    graph = symbols[0].graph
    assert graph.apply("divide", 1.0, 0.0).value == np.inf
    assert np.isnan(graph.apply("log", -1.0).value)
    assert graph.apply("less", 1, 2).value is True
    assert graph.constant(np.nan) is graph.constant(np.nan)
    assert graph.constant(1.0) is not graph.constant(True)


def test_text_of_operators(symbols):
    a, b = symbols
    outputs = {
        "p": (a + b) * a - (b - (a - b)) / a,
        "q": np.where((a > b) & (b > 0) | ~(a == 0), -(a * b), np.abs(a) ** b),
        "r": -np.maximum(a, -b) / (a / b),
    }
    written = source(outputs, np.float64)
    scope = {"pow": np.power, "maximum": np.maximum, "abs": np.abs}
    exec(written.function("f"), scope)
    assert written.functions == ("abs", "maximum", "pow")
    values = {"a": 0.7, "b": -1.3}
    expected = evaluate(list(outputs.values()), values)
    np.testing.assert_allclose(scope["f"](**values), expected, rtol=1e-15)


def test_literals_have_the_type_of_the_state(symbols):
    a, b = symbols
    outputs = {"f": 0.1 * a + np.where(a > b, np.inf, -1e300)}
    single, double = source(outputs, np.float32), source(outputs, np.float64)
    assert "np.float32(0.1) * a" in single.lines[0]
    assert "np.float32(np.inf)" in single.lines[0]
    assert single.lines[0].count("np.float32") == 3
    assert "float32" not in double.lines[0] and "0.1 * a" in double.lines[0]


def test_every_number_of_a_float32_source_is_typed():
    theta = diagonal_gru.init(np.random.default_rng(0), 4, 3, dtype=np.float32)
    explained = prs.Recurrence(diagonal_gru.step, 1).explain(
        np.ones(3, np.float32), np.ones(9, np.float32), theta
    )
    text = ast.parse(explained.linearization.function("f"))
    calls = [node for node in ast.walk(text) if isinstance(node, ast.Call)]
    typed = {
        id(arg) for call in calls for arg in call.args if ast.unparse(call.func) == "np.float32"
    }
    numbers = [node for node in ast.walk(text) if isinstance(node, ast.Constant)]
    assert numbers and all(id(number) in typed for number in numbers)


def test_outputs_that_are_inputs_constants_or_equal(symbols):
    a, b = symbols
    zero = a.graph.constant(0.0)
    written = source({"f": a * b, "g": a * b, "h": a, "z": zero, "k": (a * b) + 1}, np.float64)
    scope = {}
    exec(written.function("f"), scope)
    assert scope["f"](2.0, 3.0) == (6.0, 6.0, 2.0, 0.0, 7.0)
    assert written.operations == 2


def test_another_dialect(symbols):
    a, b = symbols
    dialect = Dialect(
        literal=lambda value, dtype: f"{value}f",
        choice="{condition} ? {a} : {b}",
        negation="!{a}",
        number="const float {name} = {value};",
        truth="const bool {name} = {value};",
    )
    c = ~(a < b)
    written = source({"f": np.where(c, a, 2.0) + np.where(c, 1.0, b)}, np.float32, dialect)
    assert written.lines == (
        "const bool v0 = a < b;",
        "const float f = (v0 ? 2.0f : a) + (v0 ? b : 1.0f);",
    )


NUMBERS = "add subtract multiply divide maximum".split()
COMPARISONS = "less less_equal equal not_equal".split()
CONNECTIVES = "logical_and logical_or logical_xor".split()
SIGNS = {
    "add": "+", "subtract": "-", "multiply": "*", "divide": "/", "less": "<", "less_equal": "<=",
    "equal": "==", "not_equal": "!=", "logical_and": "&", "logical_or": "|", "logical_xor": "^",
}  # fmt: skip


def in_full(node):
    """Write an expression with parentheses around every operation."""
    if node.op in ("input", "constant"):
        return f"({node.value})"
    args = [in_full(arg) for arg in node.args]
    if node.op == "where":
        return f"({args[1]} if {args[0]} else {args[2]})"
    if node.op in ("negative", "logical_not"):
        return f"({'-' if node.op == 'negative' else 'not '}{args[0]})"
    return f"({args[0]} {SIGNS[node.op]} {args[1]})" if node.op in SIGNS else f"{node.op}{args}"


def expressions():
    """Every operation of every operation, on both sides."""
    graph = Graph()
    a, b, c, d = map(graph.input, "abcd")
    apply = graph.apply
    truths = [apply(name, a, b) for name in COMPARISONS]
    truths += [apply(name, a < b, c < d) for name in CONNECTIVES]
    numbers = [apply(name, a, b) for name in NUMBERS[:4]]
    numbers += [-(a + b), graph.constant(-3.0), np.where(a < b, c, d), graph.number(a < b)]
    last = graph.input("e")  # a sum is written in the order in which its terms are met
    for name in (*NUMBERS[:4], *COMPARISONS):
        for inner in numbers:
            yield from (apply(name, inner, d), apply(name, d, inner), apply(name, inner, last))
    for name in CONNECTIVES:
        for inner in truths:
            yield from (apply(name, inner, c <= d), apply(name, c <= d, inner))
    for inner in numbers:
        yield from (-inner, np.where(c < d, inner, d), np.where(c < d, d, inner))
    for inner in truths:
        yield from (~inner, np.where(inner, c, d))


def test_parentheses_are_those_that_are_needed():
    for node in expressions():
        (line,) = source({"f": node}, np.float64).lines
        text = line.removeprefix("f = ")
        tree = ast.parse(text, mode="eval")
        assert ast.dump(tree) == ast.dump(ast.parse(in_full(node), mode="eval"))
        if node.op != "logical_not" and "if" not in text:  # whose are for other languages
            assert ast.unparse(tree) == text


def test_a_choice_has_no_more_parentheses(symbols):
    a, b = symbols
    for condition, text in ((a < b, "a < b"), ((a < b) & (b < 2), "(a < b) & (b < 2.0)")):
        chosen = np.where(condition, a + b, -b)
        assert source({"f": chosen}, np.float64).lines == (f"f = a + b if {text} else -b",)


def test_long_expressions_are_assigned():
    for length, lines in ((60, 1), (61, 2)):
        a = Graph().input("a" * (length - len("sin()")))
        assert len(source({"f": np.cos(np.sin(a))}, np.float64).lines) == lines


def test_variables_are_numbered(symbols):
    a, b = symbols
    c, d = np.sin(a), np.cos(b)
    written = source({"f": c * d + c / d}, np.float64)
    assert written.lines == ("v0 = sin(a)", "v1 = cos(b)", "f = v0 * v1 + v0 / v1")


def test_constants_that_functions_are_called_with(symbols):
    a, b = symbols
    dialect = Dialect(argument="number({a})")
    (line,) = source({"f": np.maximum(a, 2.0) + 3.0}, np.float64, dialect).lines
    assert line == "f = 3.0 + maximum(a, number(2.0))"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("function", [silu, gelu, special.log_expit])
def test_lowered_functions_are_right_in_the_tails(function, dtype):
    traced = trace(lambda h, x, a: function(h), np.ones(2, dtype), None, None, 1)
    lowered = lower(list(traced.outputs), np.dtype(dtype))
    assert not {"silu", "gelu", "log_expit"} & {node.op for node in reachable(lowered)}
    h = np.array([-np.inf, -1000, -3, 0, 3, np.inf], dtype)
    with np.errstate(under="ignore"):
        found = evaluate(lowered, {"h0": h}, dtype)[0]
        np.testing.assert_allclose(found, function(h), rtol=1e-6 if dtype == np.float32 else 1e-14)


def test_unselected_branches_do_not_leak_in_reverse():
    """The two uses of the root are selected by different conditions, and neither holds at 0."""

    def step(h, x, a):
        root = np.sqrt(h)
        return np.where(h > 1, root, h) + np.where(h > 2, sigmoid(root), 3 * h)

    traced = trace(step, np.ones(2), None, None, 1)
    vjp, h = traced.vjp(), np.array([0.0, 1.5, 4.0])
    values = {"h0": h, "adjoint0": np.ones(3)}
    with np.errstate(all="ignore"):
        (backward,) = evaluate(vjp.h, values)
        (slope,) = evaluate(traced.jacobian()[0], values)
    np.testing.assert_allclose(backward, slope, rtol=1e-14)
    assert backward[0] == 4


def test_masks_of_two_branches_join(symbols):
    a, b = symbols
    graph = a.graph
    out = np.where(b > 0, np.sin(a), np.sin(a) * 2)
    (slope,) = reverse([out], [graph.constant(1.0)], [a])
    operations = [node.op for node in reachable([slope]) if node.op not in ("input", "constant")]
    assert sorted(operations) == ["cos", "less", "multiply", "where"]
