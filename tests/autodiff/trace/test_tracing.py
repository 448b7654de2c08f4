"""A trace equals the step it was made of, or says why there is none."""

import dataclasses
import math
import time
from typing import NamedTuple

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers import problems
from pararnn_solvers.autodiff.trace.explanation import explain
from pararnn_solvers.autodiff.trace.graph import Graph
from pararnn_solvers.autodiff.trace.inputs import Input
from pararnn_solvers.autodiff.trace.source import source
from pararnn_solvers.autodiff.trace.tracing import evaluate, trace
from pararnn_solvers.cells import diagonal_gru, diagonal_lstm
from pararnn_solvers.functions import gelu, sigmoid, silu, softplus
from tests.strategies import block_tanh

RNG = np.random.default_rng(0)
N, T = 5, 7


def weights(*shape):
    return RNG.normal(size=shape)


class Pair(NamedTuple):
    a: np.ndarray
    b: tuple


@dataclasses.dataclass(frozen=True)
class Fields:
    a: np.ndarray
    dt: float = 0.1
    order: int = 2


def written(h, x, theta):
    out = np.empty_like(h)
    n = h.shape[-1] // 2
    out[..., :n] = np.tanh(h[..., n:])
    out[..., n:] = 0.5
    out[..., n:] += h[..., :n] * x
    return out


def blocks_by_einsum(h, x, a):
    parts = h.reshape(*h.shape[:-1], 2, -1)
    return np.tanh(np.einsum("ijn,...jn->...in", a, parts).reshape(h.shape) + x)


def unpacked(h, x, a):
    c, y = np.moveaxis(h.reshape(*h.shape[:-1], 2, -1), -2, 0)
    return np.concatenate([y * a, c], axis=-1) + x


def reduced(h, x, a):
    parts = np.moveaxis(h.reshape(*h.shape[:-1], 2, -1), -2, 0)
    return np.concatenate([np.add.reduce(parts), np.maximum.reduce(parts, axis=0) * x], axis=-1)


def riccati(h, x, F):
    P = h.reshape(*h.shape[:-1], 2, 2)
    return (F @ P @ F.T + np.eye(2)).reshape(h.shape)


def in_place(h, x, a):
    z = a * h
    z += x
    z *= 2
    return np.tanh(z)


def split_and_stack(h, x, a):
    u, v = np.split(h, 2, axis=-1)
    parts = np.stack([np.sin(v) * x, u - v], axis=-2)
    return (parts * a).reshape(h.shape)


def two_of_two(h, x, a):
    """Two channels, and leaves, inputs and constants of as many."""
    parts = h.reshape(*h.shape[:-1], 2, 2) * np.full(2, 0.5)
    return (parts * a).reshape(h.shape) + x


def axes_of_one(h, x, a):
    parts = h.reshape(*h.shape[:-1], 2, 1, -1)
    flat = np.squeeze(parts, axis=-2)
    return np.concatenate([flat[..., 0, :], flat[..., 1, :]], axis=-1) * np.size(parts, -3)


def means(h, x, a):
    parts = h.reshape(*h.shape[:-1], 2, -1)
    mean, share = np.mean(parts, axis=-2), parts / np.sum(parts, axis=-2, keepdims=True)
    return (share + mean[..., None, :] * x[..., None, :]).reshape(h.shape)


def four_parts(h, x, a):
    parts = h.reshape(*h.shape[:-1], 2, 2, -1)
    total = np.einsum("...n,n->...n", np.sum(parts, axis=(-3, -2)), a)
    return h + np.concatenate([total, x, total, x], axis=-1)


def constants(h, x, a):
    """(2, n) alike in all channels, (n, 1) for none, and (2 n,)."""
    parts = h.reshape(*h.shape[:-1], 2, -1) * np.repeat([[0.5], [2.0]], N, axis=1)
    summed = (x[..., None, :] * np.arange(1.0, N + 1)[:, None]).sum(-2)
    return (parts + summed[..., None, :]).reshape(h.shape) * np.repeat([1.0, 3.0], N)


def sum_of_truths(h, x, function):
    return function(np.stack([h > 0, x > 0, h > x], axis=-2), axis=-2)


def changes_of_truth(h, x, a):
    truths = np.stack([h > 0, x > 0, h > x], axis=-2)
    change = np.diff(truths, axis=-2)
    return h * (change[..., 0, :] + change[..., 1, :]) + np.diff(
        truths * x[..., None, :], axis=-2
    ).sum(-2)


def truths_by_einsum(h, x, a):
    truths = np.stack([h > 0, x > 0, h > x], axis=-2)
    return h * (np.einsum("...ij->...j", truths) + np.einsum("...ij,...ij->...j", truths, truths))


def beside_numbers(h, x, a):
    both = np.stack([h > 0, h], axis=-2)
    return (both + both).astype(h.dtype).sum(axis=-2) * x


def written_truths(h, x, a):
    number, truth = np.zeros_like(h), h > 0
    number[...] = h > x
    truth = truth.copy()
    truth[...] = x - 1
    three = np.full_like(h, True) + np.ones_like(h > 0, dtype=h.dtype) + np.full_like(h, True)
    return number + number + h * (truth + truth) + x * (np.ones_like(h > 0) + truth) + three


# name: (step, k, n, m, theta); m = None is no input.
STEPS = {
    "gru": (diagonal_gru.step, 1, N, 3 * N, diagonal_gru.init(RNG, 4, N)),
    "lstm": (diagonal_lstm.step, 2, N, 3 * N, diagonal_lstm.init(RNG, 4, N)),
    "tanh": (lambda h, x, a: np.tanh(a * h + x), 1, N, N, weights(N)),
    "shared drive": (lambda h, x, a: np.tanh(a * h + x), 1, N, 1, weights(N)),
    "shared drives": (lambda h, x, a: h * x[..., :1] + x[..., 1:2], 1, N, 2, None),
    "softplus": (lambda h, x, a: softplus(a[0] * h) - gelu(a[1] * x), 1, N, N, weights(2, N)),
    "silu": (lambda h, x, a: silu(h * x) + 0.1 * h, 1, N, N, None),
    "where": (lambda h, x, a: np.where((h > x) & ~(h > 2), a * h, h / 3), 1, N, N, 0.3),
    "maximum": (lambda h, x, a: np.maximum(h, 0) - np.minimum(a, h * x), 1, N, N, weights(N)),
    "clip": (lambda h, x, a: np.clip(a * h + x, -1, 1), 1, N, N, weights(N)),
    "clip by name": (lambda h, x, a: np.clip(h * x, a_min=-1, a_max=a), 1, N, N, weights(N)),
    "clip one side": (lambda h, x, a: np.clip(h * x, None, 0.1), 1, N, N, None),
    "select": (lambda h, x, a: np.select([h > 1, h > 0], [x, h], -h), 1, N, N, None),
    "relu by product": (lambda h, x, a: (h > 0) * h + (x < 0) * 0.5, 1, N, N, None),
    "powers": (lambda h, x, a: h**3 - 2 * h**-2 + abs(x) ** a + h**2.5, 1, N, N, 1.5),
    "dict": (
        lambda h, x, p: p["w"]["a"] * h + p["c"] * x + p["list"][1],
        *(1, N, N, {"w": {"a": weights(N)}, "c": 0.5, "list": [1.0, np.float64(2)]}),
    ),
    "named tuple": (
        lambda h, x, p: np.tanh(p.a[1] * h) + p.b[0] * x,
        *(1, N, N, Pair(weights(3, N), (weights(N), None))),
    ),
    "dataclass": (
        lambda h, x, p: h + p.dt * (p.a * h**p.order + x),
        *(1, N, N, Fields(weights(1, N)[0])),
    ),
    "shared scalars": (lambda h, x, p: p[0] * h + p[1] * x, 1, N, N, weights(2)),
    "component-major leaf": (lambda h, x, a: np.tanh(a * h + x), 2, N, 2 * N, weights(2 * N)),
    "no input": (lambda h, x, r: r * h * (1 - h), 1, N, None, 3.2),
    "writes": (written, 2, N, N, None),
    "in place": (in_place, 1, N, N, weights(N)),
    "blocks": (block_tanh(k=3, n=N).recurrence.step, 3, N, 3 * N, weights(3, 3, N)),
    "einsum": (blocks_by_einsum, 2, N, 2 * N, weights(2, 2, N)),
    "split": (split_and_stack, 2, N, N, weights(2, N)),
    "uniform constant": (lambda h, x, a: h * np.full(N, 0.5) + np.ones(1), 1, N, N, None),
    "concatenated constant": (
        lambda h, x, a: np.concatenate([h[..., :N] * x, np.zeros_like(x)], axis=-1),
        *(2, N, N, None),
    ),
    "van der pol": (problems.van_der_pol().recurrence.step, 2, 1, None, 1.0),
    "lorenz": (problems.lorenz63().recurrence.step, 3, 1, None, (10.0, 28.0, 8 / 3)),
    "langevin": (problems.two_well_langevin(9).recurrence.step, 2, 1, 2, None),
    "observer": (
        problems.observer("lorenz", 9).recurrence.step,
        *(3, 1, 3, ((10.0, 28.0, 2.0), weights(1, 3))),
    ),
    "logistic": (problems.logistic_map(3.0).recurrence.step, 1, 1, None, 3.0),
    "dense": (lambda h, x, W: np.tanh(h @ W.T + x), 4, 1, 4, weights(4, 4)),
    "dense by einsum, too": (
        lambda h, x, W: np.tanh(np.einsum("ij,...j->...i", W, h) - h @ W + W.sum(axis=0)),
        *(4, 1, None, weights(4, 4)),
    ),
    "riccati": (riccati, 4, 1, None, weights(2, 2)),
    "norm": (
        lambda h, x, a: h / np.sqrt(np.mean(h * h, axis=-1, keepdims=True)) + x,
        *(3, 1, 3, None),
    ),
    "largest": (lambda h, x, a: h - h.max(axis=-1, keepdims=True) + x, 3, 1, 3, None),
    "rolled": (
        lambda h, x, a: np.roll(h, 1, axis=-1) * h[..., ::-1] + a[[2, 0, 1]],
        *(3, 1, None, weights(3)),
    ),
    "constant": (lambda h, x, a: 0 * h + 1, 2, N, None, None),
    "unpacked": (unpacked, 2, N, 2 * N, weights(N)),
    "truth as numbers": (lambda h, x, a: (h > 0).astype(h.dtype) * x - h, 1, N, N, None),
    "sums of truth": (lambda h, x, a: ((h > 0) + (x > 0)) * (h < x) * h, 1, N, N, None),
    "sizes": (
        lambda h, x, a: h.reshape(np.shape(h)) * np.size(h, -1) ** np.ndim(a), 1, N, N, weights(N)
    ),
    "types": (
        lambda h, x, a: np.conj(np.copy(h)).astype(np.result_type(h, x)) * x, 1, N, N, None
    ),
    "reduced": (reduced, 2, N, N, None),
    "two of two": (two_of_two, 2, 2, 4, weights(2)),
    "joined in front": (
        lambda h, x, a: np.concatenate([h[None], 2 * x[None]]).sum(0), 1, N, N, None
    ),
    "joined alone": (lambda h, x, a: np.concatenate([h], axis=-1) * x, 1, N, N, None),
    "ones like": (lambda h, x, a: h + np.ones_like(h, dtype=h.dtype) * x, 1, N, N, None),
    "real": (lambda h, x, a: np.real(h) * x, 1, N, N, None),
    "axes of one": (axes_of_one, 2, N, N, None),
    "means": (means, 2, N, N, None),
    "four parts": (four_parts, 4, N, N, weights(N)),
    "constants of rank 2": (constants, 2, N, N, None),
    "not a number": (lambda h, x, a: np.where(h > 0, h, np.full(N, np.nan)) * x, 1, N, N, None),
    "numbers as truth": (
        lambda h, x, a: np.logical_and(h - h, x) + np.logical_or(h, x) * x, 1, N, N, None
    ),
    "counted": (lambda h, x, a: h * sum_of_truths(h, x, np.sum), 1, N, N, None),
    "counted, a mean": (lambda h, x, a: h * sum_of_truths(h, x, np.mean), 1, N, N, None),
    "counted, all": (lambda h, x, a: h * np.sum(h > 0.5, axis=-1, keepdims=True), 4, 1, None, None),
    "counted so far": (lambda h, x, a: h * np.cumsum(h > 0.5, axis=-1), 4, 1, None, None),
    "changes of truth": (changes_of_truth, 1, N, N, None),
    "truths by einsum": (truths_by_einsum, 1, N, N, None),
    "truths are numbers beside numbers": (beside_numbers, 1, N, N, None),
    "truths written into numbers": (written_truths, 1, N, N, None),
    "largest truth": (
        lambda h, x, a: h * (np.maximum(h > 1, x > 0) + np.minimum(h > 0, x < 9)), 1, N, N, None
    ),
    "chosen truth": (
        lambda h, x, a: h * (np.where(h > 1, x > 0, h < 2) + np.where(h > 1, h > x, 2.0)),
        *(1, N, N, None),
    ),
}  # fmt: skip


def case(name, dtype=np.float64):
    step, k, n, m, theta = STEPS[name]
    leaves, rebuild = prs.tree.flatten(theta)
    theta = rebuild([np.asarray(v, dtype) if isinstance(v, np.ndarray) else v for v in leaves])
    h = np.random.default_rng(1).uniform(0.1, 2, (T, k * n)).astype(dtype)
    x = None if m is None else np.random.default_rng(2).normal(size=(T, m)).astype(dtype)
    return step, k, n, h, x, theta


def joined(parts, shape):
    """Components, which may not depend on anything, as an array (T, k*n)."""
    lead = (shape[0], shape[1] // len(parts))
    return np.concatenate([np.broadcast_to(part, lead) for part in parts], axis=-1)


@pytest.mark.parametrize("name", STEPS)
def test_a_trace_equals_the_step(name):
    step, k, n, h, x, theta = case(name)
    traced = trace(step, h, x, theta, k)
    assert len(traced.outputs) == k and traced.channels == n
    out = joined(evaluate(traced.outputs, traced.values(h, x, theta)), h.shape)
    np.testing.assert_allclose(out, step(h, x, theta), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", STEPS)
def test_the_jacobian_equals_that_of_dual_arrays(name):
    step, k, n, h, x, theta = case(name)
    traced = trace(step, h, x, theta, k)
    values = traced.values(h, x, theta)
    _, blocks = prs.Recurrence(step, k).linearize(h, x, theta)
    for i, row in enumerate(traced.jacobian()):
        for j, entry in enumerate(evaluate(row, values)):
            np.testing.assert_allclose(
                np.broadcast_to(entry, (T, n)), blocks[:, i, j], rtol=1e-12, atol=1e-12
            )


@pytest.mark.parametrize("name", STEPS)
def test_products_with_adjoints_equal_differences(name):
    """Along a random direction in h, x and theta together."""
    step, k, n, h, x, theta = case(name)
    traced, lam = trace(step, h, x, theta, k), weights(T, k * n)
    values, vjp = traced.values(h, x, theta, lam), traced.vjp()
    along, total = {}, 0.0
    found = zip(traced.inputs, evaluate([*vjp.h, *vjp.x, *vjp.theta], values), strict=True)
    for node, product in found:
        v = along[node.value.name] = weights(*np.shape(values[node.value.name]))
        total += np.sum(np.broadcast_to(product * v, (T, n)))

    def outputs(distance):
        moved = {key: values[key] + distance * v for key, v in along.items()}
        return joined(evaluate(traced.outputs, moved), h.shape)

    s = 1e-4
    slope = (8 * (outputs(s) - outputs(-s)) - (outputs(2 * s) - outputs(-2 * s))) / (12 * s)
    # The cells alone, whose kinks no step of 1e-4 crosses at these points.
    np.testing.assert_allclose(total, np.sum(lam * slope), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(("cell", "k"), [(diagonal_gru, 1), (diagonal_lstm, 2)])
def test_products_with_adjoints_equal_those_by_hand(cell, k):
    theta = cell.init(RNG, 4, N)
    h, u, lam = weights(T, k * N), weights(T, 3 * N), weights(T, k * N)
    traced = trace(cell.step, h, u, theta, k)
    values, vjp = traced.values(h, u, theta, lam), traced.vjp()
    dh, du, dtheta = cell.vjp(h, u, theta, lam)
    np.testing.assert_allclose(np.concatenate(evaluate(vjp.h, values), -1), dh, rtol=1e-12)
    np.testing.assert_allclose(np.concatenate(evaluate(vjp.x, values), -1), du, rtol=1e-12)
    for node, product in zip(traced.parameters, evaluate(vjp.theta, values), strict=True):
        expected = node.value.pick(dtheta[node.value.leaf])
        np.testing.assert_allclose(product.sum(axis=0), expected, rtol=1e-11)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["gru", "lstm", "where", "silu", "powers", "lorenz", "blocks"])
def test_the_source_computes_the_same_in_the_type_of_the_state(name, dtype):
    step, k, n, h, x, theta = case(name, dtype)
    traced = trace(step, h, x, theta, k)
    rows = traced.jacobian()
    outputs = {f"f{i}": node for i, node in enumerate(traced.outputs)}
    outputs |= {f"A{i}_{j}": rows[i][j] for i in range(k) for j in range(k)}
    written = source(outputs, dtype)
    values = {key: np.asarray(v, dtype) for key, v in traced.values(h, x, theta).items()}
    for t, c in [(0, 0), (3, n - 1)]:
        scalars = {key: np.broadcast_to(v, (T, n))[t, c] for key, v in values.items()}
        results = run(written, scalars)
        assert all(type(result) is dtype for result in results)
        at_c = [
            np.broadcast_to(v, (T, n))[t, c]
            for v in evaluate(list(outputs.values()), values, dtype)
        ]
        np.testing.assert_allclose(results, at_c, rtol=1e-5 if dtype == np.float32 else 1e-13)


def run(written, scalars):
    from scipy import special

    names = {"np": np, "pow": np.power, "ndtr": special.ndtr, "sigmoid": sigmoid}
    names |= {name: getattr(np, name) for name in written.functions if hasattr(np, name)}
    exec(written.function("step"), names)
    return names["step"](*(scalars[name] for name in written.names))


# --- what an argument is -----------------------------------------------------------------------


def test_names_and_places_of_the_inputs():
    step = lambda h, x, p: h * p["a"][1] * p["s"] + x[..., N : 2 * N] * p["q"][1] + p["t"][0]  # noqa: E731
    theta = {"a": weights(3, N), "s": 2.0, "unused": weights(N, 7), "q": weights(3), "t": (1.0,)}
    traced = trace(step, np.ones((T, N)), np.ones((T, 3 * N)), theta, 1)
    assert [node.value.name for node in traced.inputs] == [
        *("h0", "x0", "x1", "x2", "theta_a1", "theta_s", "theta_q1", "theta_t_0"),
    ]
    assert [node.value.channels for node in traced.parameters] == [N, 0, 0, 0]
    assert [node.value.leaf for node in traced.parameters] == [0, 1, 3, 4]
    values = traced.values(np.ones((T, N)), np.ones((T, 3 * N)), theta)
    assert values["theta_a1"] is not None and values["theta_a1"].base is theta["a"]
    assert values["theta_q1"] == theta["q"][1]


def test_names_stay_apart():
    theta = {"a": {"b": 1.0}, "a_b": 2.0, "a b": 3.0}
    step = lambda h, x, p: h * p["a"]["b"] + p["a_b"] * p["a b"]  # noqa: E731
    traced = trace(step, np.ones(N), None, theta, 1)
    assert len({node.value.name for node in traced.parameters}) == 3
    values = traced.values(np.ones(N), None, theta)
    np.testing.assert_array_equal(evaluate(traced.outputs, values)[0], 7)


def test_leaves_that_are_not_floats_are_part_of_the_program():
    theta = {"power": 3, "kind": "relu", "a": 0.5}
    step = lambda h, x, p: p["a"] * h ** p["power"] if p["kind"] == "relu" else h  # noqa: E731
    traced = trace(step, np.ones(N), None, theta, 1)
    assert traced.constants == (("theta['power']", 3), ("theta['kind']", "relu"))
    assert [node.value.name for node in traced.parameters] == ["theta_a"]


# --- what cannot be traced ----------------------------------------------------------------------


def branching(h, x, a):
    return h if h > 0 else -h


def writes_too_much(h, x, a):
    out = np.empty_like(h)
    out[:] = np.stack([h, h])
    return out


REFUSED = {
    "np.where": (branching, 1, None, "np.where"),
    "all": (lambda h, x, a: h if np.all(h > 0) else -h, 1, None, "np.where"),
    "max": (lambda h, x, a: max(h, 0), 1, None, "np.maximum"),
    "matmul": (lambda h, x, W: h @ W, 1, weights(N, N), "numpy.matmul"),
    "sum": (lambda h, x, a: h - h.sum(-1, keepdims=True), 1, None, "numpy.sum over an axis"),
    "mean": (lambda h, x, a: h - np.mean(h), 1, None, "over an axis of several channels"),
    "roll": (lambda h, x, a: np.roll(h, 1, axis=-1), 1, None, "numpy.roll"),
    "reversed": (lambda h, x, a: h[..., ::-1], 1, None, "None, None, -1"),
    "one channel": (lambda h, x, a: h * h[..., 0:1], 1, None, "multiples of 5"),
    "one entry": (lambda h, x, a: h * h[..., 0], 1, None, "multiples of 5"),
    "outer": (lambda h, x, a: (h[..., None, :] * h[..., :, None])[..., 0], 1, None, "across"),
    "reshape": (lambda h, x, a: h.reshape(-1, 2).reshape(-1), 2, None, "reshape"),
    "closure": (lambda h, x, a: h * np.arange(5.0), 1, None, "pass it in theta"),
    "closure of rank 2": (
        lambda h, x, a: (h * np.arange(10.0).reshape(2, 5)).sum(0),
        1,
        None,
        "pass it in theta",
    ),
    "plain array": (lambda h, x, a: np.array(h) + 1, 1, None, "np.stack"),
    "math": (lambda h, x, a: h * math.exp(a), 1, 0.5, "NumPy's functions"),
    "float": (lambda h, x, a: h * float(a), 1, 0.5, "NumPy's functions"),
    "no rule": (lambda h, x, a: np.nextafter(h, 1), 1, None, "numpy.nextafter"),
    "unknown function": (lambda h, x, a: np.sort(h), 1, None, "numpy.sort"),
    "linalg": (lambda h, x, a: h * np.linalg.norm(h), 1, None, "linalg.norm"),
    "accumulate": (lambda h, x, a: np.add.accumulate(h), 1, None, "numpy.add.accumulate"),
    "index": (lambda h, x, a: h[h > 0], 1, None, "np.where"),
    "shape": (lambda h, x, a: h[..., :5], 2, None, r"shape \(5,\)"),
    "writes into h": (lambda h, x, a: h.__iadd__(1), 1, None, "read-only"),
    "error": (lambda h, x, a: h.nothing, 1, None, "AttributeError"),
    "cast": (lambda h, x, a: h.astype(int), 1, None, "int64"),
    "large": (lambda h, x, a: h * a[0], 1, np.ones((5000, N)), "25000 entries|5000 entries"),
    "steps": (lambda h, x, a: [h := np.sin(h + i) for i in range(9000)][-1], 1, None, "more than"),
    "complex": (lambda h, x, a: np.real(h * 1j), 1, None, "complex"),
    "into a plain array": (lambda h, x, a: np.add(h, 1, out=np.zeros(N)), 1, None, "plain number"),
    "index by a state": (lambda h, x, a: h[h], 1, None, "indexes by a traced value"),
    "writes too much": (writes_too_much, 1, None, r"cannot write shape \(2, 5\) into shape \(5,\)"),
    "order": (lambda h, x, a: np.reshape(h, (1, -1), order="F"), 1, None, "order='F'"),
    "integers": (lambda h, x, a: h + np.zeros_like(h, int), 1, None, "array of int64"),
    "where of a ufunc": (
        lambda h, x, a: np.add(h, 1, where=True),
        1,
        None,
        "numpy.add with where=",
    ),
    "largest": (lambda h, x, a: h - h.max(), 1, None, "numpy.max over an axis of several"),
    "signs of zero": (
        lambda h, x, a: np.copysign(h, [0.0, 0.0, -0.0, 0.0, 0.0]),
        1,
        None,
        "pass it in theta",
    ),
    "where alone": (lambda h, x, a: np.where(h > 0)[0], 1, None, "with a condition only"),
    "initial": (lambda h, x, a: h[None].sum(axis=0, initial=1.0), 1, None, "with initial="),
    "floats as bits": (lambda h, x, a: h & 1, 1, None, "bitwise_and"),
    "joins numbers": (lambda h, x, a: np.concatenate([h, a]), 1, np.ones(3), "joins an array of"),
    "stacks sizes": (lambda h, x, a: np.stack([h, h[:5]])[0], 2, None, "must have the same shape"),
    "unlike axis": (lambda h, x, a: h.reshape(2, 5).T.reshape(2, 5).ravel(), 2, None, "reshapes"),
    "too few": (lambda h, x, a: h.reshape(5, 2)[:, 0], 2, None, "reshapes"),
    "writes into theta": (
        lambda h, x, a: h * a.__setitem__(slice(None), 1.0),
        1,
        np.ones(5),
        "read-only",
    ),
    "an axis of n": (
        lambda h, x, a: (h[..., None] * a).sum(-1),
        1,
        np.ones((5, 2)),
        r"shapes \(5, 1\) and \(5, 2\) across channels",
    ),
    "sums channels": (lambda h, x, a: np.einsum("n->", h), 1, None, "may mix channels"),
    "n in front": (lambda h, x, a: np.einsum("n...->n...", h), 1, None, "may mix channels"),
    "open output": (
        lambda h, x, a: np.einsum("...i,n->n...", a, h)[:, 0],
        1,
        np.ones((2, 3)),
        "may mix channels",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_traced_says_why(name):
    step, k, theta, message = REFUSED[name]
    with pytest.raises(prs.NotTraceable, match=message):
        trace(step, np.ones(5 * k), None, theta, k)


def test_an_if_is_a_type_error_naming_where():
    with pytest.raises(TypeError, match=r"np\.where"):
        trace(lambda h, x, a: h if h > 0 else -h, np.ones(1), None, None, 1)


def test_large_parameters_that_are_not_used_cost_nothing():
    theta = diagonal_gru.init(RNG, 400, 200)
    traced = trace(diagonal_gru.step, np.ones(200), np.ones(600), theta, 1)
    assert traced.graph.size < 40


def test_one_thousand_and_twenty_four_entries():
    step, theta = (lambda h, x, a: h * a[-1]), np.ones((1024, 3))
    (name,) = (node.value.name for node in trace(step, np.ones(3), None, theta, 1).parameters)
    assert name == "theta1023"
    with pytest.raises(prs.NotTraceable, match="1025 entries per channel; at most 1024"):
        trace(step, np.ones(3), None, np.ones((1025, 3)), 1)


def test_arrays_of_no_entries_join():
    def step(h, x, a):
        rows = np.concatenate([h.reshape(2, 3), np.zeros((0, 3))])
        return np.concatenate([rows.ravel(), a, np.zeros(0)])

    traced = trace(step, np.ones(6), None, np.ones(0), 2)
    assert [str(node) for node in traced.outputs] == ["h0", "h1"]


def test_traces_are_themselves_not_what_they_consist_of():
    step = lambda h, x, p: h[..., p["order"]] * p["a"]  # noqa: E731
    theta = {"order": np.array([1, 0]), "a": 0.5}
    assert len({trace(step, np.ones(2), None, theta, 2) for _ in range(2)}) == 2


def test_traced_arrays_have_the_dtypes_of_numpy():
    seen = []

    def step(h, x, a):
        parts = h.reshape(*h.shape[:-1], 2, -1)
        seen.append([part.dtype for part in (h, parts > 0, parts[..., :0, :])])
        return a * h

    h = np.ones((1, 6), np.float32)
    trace(step, h, None, np.float32(2), 2)
    step(h, None, np.float32(2))
    assert seen[0] == seen[-1] == [np.float32, bool, np.float32]


def test_the_truth_of_one_component_is_bool():
    def step(h, x, a):
        assert (h > 0).dtype == bool and np.ones_like(h > 0).dtype == bool
        return h

    trace(step, np.ones(3), None, None, 1)


def test_numbers_are_of_the_type_that_is_asked_for():
    graph = Graph()
    number, truth = evaluate([graph.constant(0.1), graph.constant(True)], {}, np.float32)
    assert number.dtype == np.float32 and truth is True


def test_inputs_say_where_they_are():
    step = lambda h, x, p: h * p["a1"][2] * x[..., 0] * p["b"]  # noqa: E731
    traced = trace(step, np.ones(N), np.ones(3), {"a1": weights(3), "b": weights(N)}, 1)
    places = [tuple(node.value) for node in (*traced.inputs, *traced.vjp().adjoints)]
    assert places == [
        ("h0", "h", 0, (0,), N),
        *((f"x{i}", "x", 0, (i,), 0) for i in range(3)),
        ("theta_a1_2", "theta", 0, (2,), 0),
        ("theta_b", "theta", 1, (0,), N),
        ("adjoint0", "adjoint", 0, (0,), N),
    ]


def test_values_are_added_where_the_input_is():
    array = np.zeros((2, 6))
    Input("theta_a1_1", "theta", 0, (1, 1), 3).add(array, np.arange(3.0))
    Input("theta_a0_2", "theta", 0, (0, 2), 0).add(array, np.arange(3.0))
    np.testing.assert_array_equal(array, [[0, 0, 3, 0, 0, 0], [0, 0, 0, 0, 1, 2]])


def one_entry(h):
    """Numbers of rank 0, a part of the state and a constant, written into single entries."""
    out = h.copy()
    out[1], out[2] = 2 * h[0], 0.5
    return out


# Of one state, as an array of rank 1: with one channel, whatever NumPy does with the entries.
WHOLE = {
    "joined, flat": lambda h: np.concatenate([h[:2].reshape(1, 2), h[2:, None].T], axis=None),
    "diagonal": lambda h: np.diagonal(np.outer(h, h)) + np.trace(np.outer(h, h) > 0),
    "numbers that join": lambda h: np.append(h[1:], 1.0),
    "zeros that join": lambda h: np.diag(h).sum(axis=0) + np.diag(h > 0).sum(axis=-1),
    "truths that join": lambda h: 2 * np.hstack([h[:3] > 0, 0.5]) + np.hstack([h > 0])[::-1],
    "one entry": one_entry,
    "sums along an axis": lambda h: np.cumsum(h.reshape(2, 2), 0).ravel(),
    "ranks": lambda h: np.atleast_3d(np.atleast_2d(np.atleast_1d(h))).ravel(),
}
if hasattr(np, "unstack"):  # NumPy 2.1
    WHOLE["unstacked"] = lambda h: np.hstack(
        [np.unstack(h.reshape(2, 2))[1], np.unstack(h.reshape(2, 2), axis=-1)[0]]
    )


@pytest.mark.parametrize("name", WHOLE)
def test_with_one_channel_functions_are_those_of_numpy(name):
    h = np.array([0.5, -2.0, 3.0, 0.0])
    traced = trace(lambda h, x, a: WHOLE[name](h), h, None, None, 4)
    values = {f"h{i}": entry for i, entry in enumerate(h)}
    np.testing.assert_array_equal(evaluate(traced.outputs, values), WHOLE[name](h))


def test_tracing_is_quick(untraced):
    theta = diagonal_gru.init(RNG, 4, N)

    def once():
        start = time.perf_counter()
        traced = trace(diagonal_gru.step, np.ones(N), np.ones(3 * N), theta, 1)
        traced.jacobian(), traced.vjp()
        return time.perf_counter() - start

    assert min(once() for _ in range(10)) < 2e-3


# --- explain -------------------------------------------------------------------------------------


def test_explain_prints_the_source():
    step = lambda h, x, a: np.tanh(a * h + x)  # noqa: E731
    text = str(prs.Recurrence(step, 1).explain(np.ones(3, np.float32), np.ones(3), np.ones(3)))
    assert text == (
        "traced: 1 component(s) in each of 3 channel(s), float32\n"
        "operations: 3 for the step, 6 with its Jacobian\n"
        "functions: tanh\n"
        "kernels: rollout, multiple shooting, Newton, gradients\n\n"
        "def step(h0, x0, theta):\n"
        "    f0 = tanh(x0 + h0 * theta)\n"
        "    A0_0 = theta * (np.float32(1.0) - f0 * f0)\n"
        "    return f0, A0_0"
    )


def test_explain_prints_constants():
    step = lambda h, x, p: h ** p["power"]  # noqa: E731
    text = str(prs.Recurrence(step, 1).explain(np.ones(3), None, {"power": 2}))
    assert text.splitlines()[3] == "constant: theta['power'] = 2"


def test_explain_prints_sources_of_two_hundred_operations():
    def step(h, x, a):
        out = h
        for i in range(50):
            out = out * h + i
        return sum([x[..., j : j + 1] for j in range(x.shape[-1])], out)

    for m, text in ((2, "def step(h0, x0, x1):"), (3, "(print .linearization.function('step')")):
        explanation = explain(step, np.ones(5), np.ones(m), None, 1)
        assert explanation.linearization.operations == 198 + m
        assert text in str(explanation)


def test_explain_tells_which_kernels_there_are():
    W = np.ones((12, 12))
    dense = str(prs.Recurrence(lambda h, x, W: np.tanh(h @ W)).explain(np.ones(12), None, W))
    assert "kernels: rollout and multiple shooting, with 1 product(s) a step" in dense
    none = str(prs.Recurrence(lambda h, x, _: np.arctan(h), 1).explain(np.ones(12)))
    assert "kernels: none: step calls arctan" in none
    many = {k: str(prs.Recurrence(lambda h, x, _: 2 * h, k).explain(np.ones(72))) for k in (8, 9)}
    assert "kernels: rollout, multiple shooting, Newton, gradients" in many[8]
    assert "kernels: none: at most 8 components are compiled" in many[9]


def test_explain_says_why_not():
    explanation = prs.Recurrence(branching, 1).explain(np.ones(3))
    assert not explanation.traced
    assert str(explanation).startswith("not traced: step asks whether a traced value is true")
    assert "np.where" in explanation.reason
    with pytest.raises(prs.InvalidInput, match="h0 is int64"):
        prs.Recurrence(branching, 1).explain(np.ones(3, int))
