"""A staged trace equals the step it was made of, or says why there is none."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pararnn_solvers.autodiff.trace.staged import columns_of, trace_staged
from pararnn_solvers.autodiff.trace.stages import cut
from pararnn_solvers.errors import InvalidInput, NotTraceable
from pararnn_solvers.functions import sigmoid
from tests.dense_steps import DENSE, dense, gru, weights

RNG = np.random.default_rng(0)
D, M = 6, 4
W, U, Q = weights(RNG, (D, D), (D, D), (D, 3 * D))
V = RNG.normal(size=(M, D))
STACK = RNG.normal(size=(3, D, D))
HIGH = RNG.normal(size=(2 * D, D))
BIAS = RNG.normal(size=D)


def check(step, theta, d=D, m=M, other=None, components=1):
    """Assert that the trace equals the step, for the theta it was made with and for another.

    And that it has the components that the step has, though it would be right with more of them.
    """
    h, x = RNG.normal(size=(3, 2, d)), None if m is None else RNG.normal(size=(3, 2, m))
    trace = trace_staged(step, h, x, theta)
    for given_theta in [theta] if other is None else [theta, other]:
        expected = step(h, x, given_theta)
        np.testing.assert_allclose(trace.apply(h, x, given_theta), expected, rtol=1e-12, atol=1e-13)
    assert (trace.components, trace.inputs) == (components, m)
    return trace


@pytest.mark.parametrize("name", DENSE)
def test_the_trace_equals_the_step(name):
    step, d, m, theta = dense(name, np.random.default_rng(1))
    other = dense(name, np.random.default_rng(2))[-1]
    check(step, theta, d, m, other, components=d // 6)


@given(st.sampled_from(DENSE), st.integers(2, 12), st.integers(1, 13), st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_the_trace_equals_the_step_for_any_size(name, n, m, seed):
    step, d, m, theta = dense(name, np.random.default_rng(seed), n, m)
    check(step, theta, d, m, components=d // n)


WIDE = RNG.normal(size=(3, D, 2 * D))


def rows(h):
    """Shape (..., 3, d)."""
    return np.stack([h, -h * h, 2 * h], axis=-2)


def both_in_rows(h, x, W):
    row = np.concatenate([h[..., None, :], x[..., None, :]], axis=h.ndim)
    return (row @ W)[..., 0, :]


@dataclasses.dataclass
class Fields:
    W: np.ndarray
    gain: float = 1.5


# Each is a way to write np.tanh(h @ W + ...), or something close to it.
WAYS = {
    "matmul": (lambda h, x, W: np.matmul(h, W), W),
    "transposed": (lambda h, x, W: h @ W.T, W),
    "transposed by axes": (lambda h, x, W: h @ np.swapaxes(W, 0, 1), W),
    "dot": (lambda h, x, W: np.dot(h, W), W),
    "method": (lambda h, x, W: h.dot(W), W),
    "inner": (lambda h, x, W: np.inner(h, W), W),
    "tensordot": (lambda h, x, W: np.tensordot(h, W, axes=1), W),
    "tensordot of axes": (lambda h, x, W: np.tensordot(h, W, axes=([-1], [1])), W),
    "einsum": (lambda h, x, W: np.einsum("...i,ij->...j", h, W), W),
    "einsum, matrix first": (lambda h, x, W: np.einsum("ij, ...j -> ...i", W, h), W),
    "einsum, all gates": (lambda h, x, W: np.einsum("...i,gij->...gj", h, W).sum(-2), STACK),
    "column": (lambda h, x, W: (W @ h[..., None])[..., 0], W),
    "row": (lambda h, x, W: (h[..., None, :] @ W)[..., 0, :], W),
    "stack of matrices": (lambda h, x, W: (h[..., None, None, :] @ W).sum((-3, -2)), STACK),
    "one of a stack": (lambda h, x, W: h @ W[1], STACK),
    "columns": (lambda h, x, W: h @ W[:, :D] * (h @ W[:, D:])[..., :D], Q),
    "gates": (lambda h, x, W: np.prod(np.stack(np.split(h @ W, 3, axis=-1)), axis=0), Q),
    "reshaped": (lambda h, x, W: (h @ W).reshape(*h.shape[:-1], 3, D).sum(-2), Q),
    "reshaped matrix": (lambda h, x, w: h @ w.reshape(D, D), W.ravel()),
    "computed matrix": (lambda h, x, W: h @ np.linalg.solve(W, np.eye(D)), W + 3 * np.eye(D)),
    "function of a matrix": (lambda h, x, W: h @ sigmoid(W), W),
    "parts of a factorization": (lambda h, x, W: h @ np.linalg.qr(W).Q, W),
    "selected entries": (lambda h, x, W: h @ np.where(W > 0, W, 0), W),
    "joined matrices": (lambda h, x, p: np.split(h @ np.hstack(p), 2, -1)[1], [W, U]),
    "product of matrices": (lambda h, x, p: h @ (p[0] @ p[1]), [W, U]),
    "product of products": (lambda h, x, p: (h @ p[0]) @ p[1], [W, U]),
    "dataclass": (lambda h, x, p: p.gain * (h @ p.W) + p.gain**2, Fields(W)),
    "matrix of another place": (lambda h, x, _: h @ W + BIAS, None),
    "vector of another place": (lambda h, x, W: h @ W + np.linspace(0, 1, D), W),
    "an input by state": (lambda h, x, p: (h * (x @ p[1])) @ p[0], [W, V]),
    "an input only": (lambda h, x, V: 0.5 * h + np.tanh(x @ V) @ U, V),
    "an input, narrow": (lambda h, x, p: h @ W + np.tanh(x @ p[0]) @ p[1], [V[:, :3], W[:3]]),
    "an input by a stack": (
        lambda h, x, p: h @ p[0] + (x[..., None, None, :] @ p[1]).sum((-3, -2)), [W, STACK[:, :M]]
    ),
    "an input, a number": (lambda h, x, v: h @ W * (x @ v)[..., None], V[:, 0]),
    "both": (lambda h, x, p: np.concatenate([h, x @ p[1]], axis=-1) @ p[0], [HIGH, V]),
    "with a bias": (
        lambda h, x, W: np.concatenate([x, h, np.ones((*h.shape[:-1], 1))], axis=-1) @ W,
        np.vstack([V, W, BIAS]),
    ),
    "bias only": (
        lambda h, x, W: np.concatenate([h, np.ones((*h.shape[:-1], 1))], axis=-1) @ W,
        np.vstack([W, BIAS]),
    ),
    "both, in rows": (both_in_rows, np.vstack([W, V])),
    "in front": (lambda h, x, W: np.concatenate([h[None], h[None] @ W]).sum(0), W),
    "dot of a number": (lambda h, x, p: np.dot(p[1], np.dot(h @ p[0], p[1])), [W, 0.5]),
    "inner of a number": (lambda h, x, p: np.inner(p[1], np.inner(h @ p[0], p[1])), [W, 0.5]),
    "dot of an input": (lambda h, x, p: h @ W * np.dot(x, p)[..., None], V[:, 0]),
    "inner of an input": (lambda h, x, p: h @ W * np.inner(x, p)[..., None], V[:, 0]),
    "tensordot, wide": (lambda h, x, W: np.tensordot(h, W, axes=1)[..., :D], Q),
    "einsum of an input": (lambda h, x, V: h @ W + np.einsum("...i,ij->...j", x, V), V),
    "einsum, matrix of another place": (lambda h, x, _: np.einsum("...i,ij->...j", h, W), None),
    "row by columns": (lambda h, x, v: h @ W * (v @ x[..., None]), V[:, 0]),
    "row by stacks": (lambda h, x, v: h @ W * (v @ x[..., None, :, None])[..., 0], V[:, 0]),
    "stack by columns": (lambda h, x, S: (S @ h[..., None, :, None])[..., 0].sum(-2), STACK),
    "rows by matrix": (lambda h, x, W: (rows(h)[..., None, :] @ W).sum((-3, -2)), W),
    "rows by wide": (lambda h, x, S: (rows(h)[..., None, :, :] @ S)[..., D:].sum((-3, -2)), WIDE),
    "stacks by stack": (
        lambda h, x, S: (rows(h)[..., :, None, None, :] @ S).sum((-4, -3, -2))[..., :D], WIDE
    ),
    "of nothing": (lambda h, x, W: h @ W + x[..., :0] @ W[:0], W),
    "astype": (lambda h, x, W: (h @ W.astype(np.float64)).astype(W.dtype), W),
    "function of a number": (lambda h, x, p: h @ p[0] * sigmoid(p[1]), [W, 0.5]),
    "a condition": (lambda h, x, W: np.where(h @ W > 0, h, -h), W),
    "truths of theta": (lambda h, x, p: h @ p[0] * ((h > 0) + (p[1] > 0)), [W, BIAS]),
    "truths of theta, chosen": (
        lambda h, x, p: h @ p[0] * ((h > 0) & (p[1] > 0)), [W, BIAS]
    ),
    "a product with truths": (lambda h, x, W: (h @ (W > 0)) * ((h > 0) @ W), W),
    "joined with nothing": (lambda h, x, b: np.concatenate([h, h[..., :0] * b[:0]], -1) * b, BIAS),
    "no product": (lambda h, x, a: a * h, BIAS),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_products_may_be_written_in_many_ways(way):
    step, theta = WAYS[way]
    check(step, theta)


@pytest.mark.skipif(not hasattr(np, "vecmat"), reason="NumPy 2.2")
def test_products_of_newer_numpy():
    check(lambda h, x, W: np.matvec(W, h) + np.vecmat(h, W), W)


def test_products_of_one_row_are_one():
    def step(h, x, p):
        r, z = sigmoid(h @ p[0] + x), sigmoid(h @ p[1])
        return z * np.tanh(h @ p[2]) + r * h

    trace = check(step, [W, U, V[:1] * W], m=D)
    (product,) = trace.products
    assert product.shape == (D, 3 * D)
    assert [str(node) for node in product.operand] == ["h0"]


def test_products_with_inputs_are_hoisted():
    step, d, m, theta = dense("gru", RNG)
    trace = check(step, theta, d, m)
    assert [(p.level, p.shape) for p in trace.products] == [(0, (m, 3 * d)), (1, (d, 3 * d))]
    assert trace.hoisted == trace.products[:1]


def test_levels_follow_from_what_waits_for_what():
    step, d, m, theta = dense("minimal gated unit", RNG)
    trace = check(step, theta, d, m)
    assert [p.level for p in trace.products] == [0, 1, 2]
    stages, operands, stored = cut(trace)
    # The gate is an operand's factor and is needed again at the end: stored, not computed twice.
    assert [stage.code.functions for stage in stages] == [("sigmoid",), ("tanh",)]
    assert (operands, stored) == ({2: 0}, 2)


def levels(step, theta, m=D):
    return [(p.level, p.shape[0]) for p in check(step, theta, m=m).products]


def test_what_does_not_wait_for_the_state_is_hoisted():
    assert levels(lambda h, x, V: h + np.tanh(x @ V) @ W, V, m=M) == [(0, M), (0, D)]
    assert levels(lambda h, x, W: h + np.ones_like(h) @ W, W) == [(0, D)]
    both = lambda h, x, W: np.concatenate([h, x], axis=-1) @ W  # noqa: E731
    assert levels(both, HIGH) == [(0, D), (1, D)]
    three = lambda h, x, p: np.concatenate([x, h, np.tanh(h @ p[0])], axis=-1) @ p[1]  # noqa: E731
    assert levels(three, [W, np.vstack([HIGH, U])]) == [(0, D), (1, D), (2, 2 * D)]


def test_the_same_product_is_made_once():
    """Of a matrix of theta, and of one of another place."""
    for matrix in (lambda W: W, lambda _: U):
        trace = check(lambda h, x, W, m=matrix: h @ m(W) + np.tanh(h @ m(W)), W)
        assert [product.shape for product in trace.products] == [(D, D)]
    assert not trace.tape.reads_values


def test_what_serves_all_channels_has_none():
    trace = check(lambda h, x, v: h @ W * (x @ v)[..., None], V[:, 0])
    assert [(p.channels, p.shape) for p in trace.products] == [(0, (M, 1)), (D, (D, D))]
    assert {c.channels for c in columns_of(trace.outputs)} == {0, D}


def test_a_matrix_times_one_state():
    h = RNG.normal(size=D)
    trace = trace_staged(lambda h, x, W: np.tanh(W @ h), h, None, W)
    np.testing.assert_allclose(trace.apply(h, None, W), np.tanh(W @ h), rtol=1e-13)


def test_a_vector_times_one_input():
    h, x, v = RNG.normal(size=D), RNG.normal(size=M), V[:, 0]
    trace = trace_staged(lambda h, x, v: h * (v @ x), h, x, v)
    np.testing.assert_allclose(trace.apply(h, x, v), h * (v @ x), rtol=1e-13)
    assert trace.components == 1


def test_what_is_joined_to_be_multiplied_has_the_shape_of_numpy():
    def step(h, x, W):
        joined = np.concatenate([h[None, None], x[None, None]], -1)
        assert joined.shape == (1, 1, D + 5)  # no component, however the state is cut
        with pytest.raises(NotTraceable, match="joins an array of components"):
            joined * 1
        return h

    trace_staged(step, np.ones(D), np.ones(5), None)


def test_sixty_four_products_at_once():
    matrices = RNG.normal(size=(64, 2, 2))
    check(lambda h, x, S: (h[..., None, None, :] @ S).sum((-3, -2)), matrices, d=2)


def test_a_comparison_of_values_is_noticed():
    step = lambda h, x, W: h @ W if np.allclose(W, W) else h  # noqa: E731
    assert check(step, W).tape.reads_values
    for step in (lambda h, x, W: h @ W.T, lambda h, x, W: h @ W * np.ndim(W) * np.size(W, 0)):
        assert not check(step, W).tape.reads_values


def test_arrays_of_numbers_become_those_of_another_library():
    made = []

    def asarray(a, *args, **kwargs):
        made.append(np.shape(a))
        return np.asarray(a, *args, **kwargs)

    trace = trace_staged(lambda h, x, W: h @ np.hstack([W, U])[:, :D], np.ones(D), None, W)
    trace.weights(W, asarray)
    assert (D, 2 * D) in made  # what NumPy returns


def test_a_state_of_components():
    step, d, m, theta = dense("lstm", RNG)
    trace = check(step, theta, d, m, components=2)
    assert trace.channels == d // 2
    assert [str(node) for node in trace.products[-1].operand] == ["h1"]


@pytest.mark.parametrize("k", [3, 4])
def test_a_state_of_more_components(k):
    def step(h, x, W):
        first, *others = np.split(h, k, axis=-1)
        return np.concatenate([*others, np.tanh(first @ W)], axis=-1)

    check(step, W, d=k * D, components=k)
    with pytest.raises(NotTraceable, match="of an axis of 30 entries"):
        trace_staged(lambda h, x, W: h[..., :D] @ W, np.ones(5 * D), None, W)


def test_a_matrix_that_is_used_alone_is_not_copied():
    step = lambda h, x, W: np.tanh(h @ W)  # noqa: E731
    trace = check(step, W)
    assert trace.weights(W)[trace.products[0].matrix] is W
    assert len({trace, check(step, W)}) == 2  # traces are themselves, not what they consist of


def test_products_that_are_not_used_are_left_out():
    def step(h, x, p):
        h @ p[1]
        return np.tanh(h @ p[0])

    assert len(check(step, [W, U]).products) == 1


def test_leaves_that_are_no_floats_are_constants():
    trace = check(lambda h, x, p: h @ p[0] ** p[1]["power"], [W, {"power": 2}])
    assert trace.constants == (("theta[1]['power']", 2),)


def test_whole_numbers_of_theta_are_constants():
    """An array of integers selects channels; it is no parameter."""
    order = np.arange(D)[::-1].copy()
    trace = check(lambda h, x, p: np.tanh(h @ p[0][p[1]]), [W, order])
    assert [path for path, _ in trace.constants] == ["theta[1]"]


def test_float32_stays():
    step, d, m, theta = dense("gru", RNG, dtype=np.float32)
    h, x = np.ones((2, d), np.float32), np.ones((2, m), np.float32)
    out = trace_staged(step, h, x, theta).apply(h, x, theta)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, step(h, x, theta), rtol=1e-6)


REFUSED = {
    "function": (lambda h, x, W: np.sort(h @ W), W, "numpy.sort"),
    "sum": (lambda h, x, W: h @ W / np.sum(h), W, "numpy.sum over an axis of several channels"),
    "norm": (lambda h, x, w: h * (h @ w)[..., None], BIAS, r"matrix of shape \(6, 1\); with"),
    "narrow": (lambda h, x, p: np.tanh(h @ p[0]) @ p[1], [W[:, :5], W[:5]], "multiple of"),
    "writes": (lambda h, x, b: b.__setitem__(0, 1), BIAS, "writes into an array computed from"),
    "writes in place": (lambda h, x, b: b.__iadd__(h @ W), BIAS, "writes into an array computed"),
    "number": (lambda h, x, W: h @ W * float(W[0, 0]), W, "plain number"),
    "condition": (lambda h, x, W: h @ W if W[0, 0] > 0 else h, W, "asks whether"),
    "indexed": (lambda h, x, b: b[h > 0], BIAS, "indexes by a traced value"),
    "shape": (lambda h, x, W: (h @ W)[..., None], W, r"returns shape \(6, 1\)"),
    "sizes": (lambda h, x, W: h @ W[:4], W, "raises ValueError"),
    "two states": (lambda h, x, W: h * (h @ h), W, "matmul"),
    "other": (lambda h, x, W: np.einsum("...i,...i,ij->...j", h, h, W), W, "einsum"),
    "ranks": (lambda h, x, W: np.dot(h, W[None]), W, "stack of matrices"),
    "outer": (lambda h, x, W: np.tensordot(h, W, axes=0).ravel()[:D], W, "tensordot other than"),
    "axes by default": (lambda h, x, W: np.tensordot(h, W), W, "tensordot other than"),
    "matrix first": (lambda h, x, b: np.tensordot(b, h, axes=1), BIAS, "tensordot other than"),
    "rows": (lambda h, x, W: np.tensordot(h[None], W, axes=1)[0], W, "tensordot other than"),
    "unequal axes": (
        lambda h, x, W: np.tensordot(h, W, axes=([-1], [0, 1])),
        W,
        "tensordot other than",
    ),
    "einsum of rows": (
        lambda h, x, W: np.einsum("...i,ij->...j", np.stack([h, -h]), W).sum(0),
        W,
        "numpy.einsum",
    ),
    "einsum, all summed": (
        lambda h, x, W: h * np.einsum("...i,ij->...", h, W)[..., None],
        W,
        "numpy.einsum",
    ),
    "einsum, no output": (lambda h, x, W: np.einsum("i,ij", h, W), W, "numpy.einsum"),
    "two axes": (lambda h, x, W: np.tensordot(h, W, axes=2), W, "tensordot other than"),
    "many": (
        lambda h, x, S: (h @ S).sum(0),
        np.ones((65, D, D)),
        "65 products at once, of at most",
    ),
    "truths by truths": (lambda h, x, W: h * ((h > 0) @ (W > 0)), W, "matrix of truth values"),
    "other axis": (
        lambda h, x, A: (np.stack([h, h], axis=-1) @ A)[:, 0],
        np.ones((2, 2)),
        "another axis than the channels",
    ),
}
if hasattr(np, "vecmat"):  # NumPy 2.2
    REFUSED["vecmat"] = (lambda h, x, S: np.vecmat(h, S).sum(0), STACK, "vecmat or matvec other")


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_says_why(case):
    step, theta, message = REFUSED[case]
    with pytest.raises(NotTraceable, match=message):
        trace_staged(step, np.ones(D), np.ones(M), theta)


def test_state_and_inputs_side_by_side_can_only_be_multiplied():
    with pytest.raises(NotTraceable, match="joins an array of components with one that is not"):
        trace_staged(lambda h, x, W: np.concatenate([h, x], -1)[:D], np.ones(D), np.ones(5), None)


def test_one_channel_is_not_dense():
    with pytest.raises(NotTraceable, match="no channels"):
        trace_staged(lambda h, x, a: a * h, np.ones(1), np.ones(1), 0.5)


def test_a_theta_of_other_shapes_is_refused():
    step, d, m, theta = dense("elman", RNG)
    trace = trace_staged(step, np.ones(d), np.ones(m), theta)
    with pytest.raises(InvalidInput, match="trace step again"):
        trace.weights([*theta[:2], np.ones(2 * d)])


def test_a_trace_holds_no_parameters():
    trace = trace_staged(lambda h, x, p: np.tanh(h @ p), np.ones(D), None, W)
    assert trace.tape.theta is None
    assert not trace.tape.leaves


def test_the_reason_is_that_of_the_trace_which_came_furthest():
    """With one component a slice is refused; with two only the sort is."""

    def step(h, x, W):
        return np.sort(np.concatenate([h[..., : D // 2], np.tanh(h[..., D // 2 :] @ W)], -1))

    with pytest.raises(NotTraceable, match=r"numpy\.sort"):
        trace_staged(step, np.ones(D), None, W[:3, :3])


def test_tracing_leaves_the_step_as_it_is():
    """What is registered for staged traces changes no other array."""
    step, d, m, theta = dense("gru", RNG)
    h, x = np.ones(d), np.ones(m)
    before = step(h, x, theta)
    trace_staged(gru, h, x, theta)
    np.testing.assert_array_equal(step(h, x, theta), before)
