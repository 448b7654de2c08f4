"""Gradients and directional derivatives of whole trajectories, held to complex-step rollouts."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pararnn_solvers as prs
from pararnn_solvers import problems, tree
from pararnn_solvers.sensitivities import Gradients, adjoint, local_products
from tests.strategies import BATCHES, block_tanh, dense_tanh, gru, solve

STEP = 1e-30


def complex_rollout(step, x, h0, theta, steps):
    h, states = h0 + 0j, []
    for t in range(steps):
        h = step(h, None if x is None else x[t], theta)
        states.append(h)
    return np.stack(states)


def entries(array):
    """Each entry's unit direction, in the shape of the array."""
    array = np.asarray(array)
    return np.eye(array.size).reshape(array.size, *array.shape)


def reference(case, dh):
    """dL/d(theta, x, h0) of ``L = <dh, h>``, one complex rollout for every entry."""
    step = getattr(case.recurrence, "step", case.recurrence)

    def loss(x=case.x, h0=case.h0, theta=case.theta):
        return (dh * complex_rollout(step, x, h0, theta, case.steps)).sum().imag / STEP

    leaves, rebuild = tree.flatten(case.theta)
    dtheta = []
    for i, leaf in enumerate(leaves):
        if not tree.is_differentiable(leaf):
            dtheta.append(None)
            continue
        slopes = [
            loss(theta=rebuild([*leaves[:i], leaf + 1j * STEP * v, *leaves[i + 1 :]]))
            for v in entries(leaf)
        ]
        dtheta.append(np.reshape(slopes, np.shape(leaf)))
    dx = None
    if case.x is not None:
        dx = np.reshape([loss(x=case.x + 1j * STEP * v) for v in entries(case.x)], case.x.shape)
    dh0 = np.reshape([loss(h0=case.h0 + 1j * STEP * v) for v in entries(case.h0)], case.h0.shape)
    return Gradients(rebuild(dtheta), dx, dh0)


def assert_close(actual, expected, rtol=1e-12):
    """Relative to the largest entry of each array: sums of terms of that size."""
    ours, theirs = tree.flatten(actual)[0], tree.flatten(expected)[0]
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert np.shape(a) == np.shape(b)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.max(np.abs(b), initial=0))


def loss_gradient(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


class Gates(NamedTuple):
    w: Any
    bias: Any


@dataclasses.dataclass(frozen=True)
class Layer:
    gates: Any
    name: str = "layer"
    scale: float = 0.7


def nested_step(h, x, theta):
    layer, extra = theta["layer"], theta["extra"]
    gates = layer.gates
    drive = layer.scale * (h @ gates.w[0]) + x[..., :1] * gates.bias + extra[0] * x[..., 1:2]
    return np.tanh(drive) * np.exp(-(extra[1] ** 2)) + gates.w[1] * h


def nested_case(T=5, batch=()):
    rng = np.random.default_rng(0)
    w = [0.4 * rng.standard_normal((3, 3)), 0.2 * rng.standard_normal(3)]
    theta = {
        "layer": Layer(Gates(w, rng.standard_normal(3))),
        "extra": (np.float64(0.3), 0.1, None),
        "count": 3,
    }
    case = dense_tanh(d=3, T=T, batch=batch)
    return case._replace(recurrence=nested_step, theta=theta)


CASES = {
    "diagonal": block_tanh(k=1, n=3, T=5),
    "blocks": block_tanh(k=2, n=2, T=5, batch=(2,)),
    "dense": dense_tanh(d=3, T=5, batch=(2, 1)),
    "autonomous": block_tanh(k=2, n=2, T=5, x=False),
    "gru with vjp": gru(n=2, T=5, batch=(2,)),
    "nested": nested_case(),
    "nested batch": nested_case(batch=(2,)),
    "one step": dense_tanh(d=3, T=1),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("method", ["sequential", "newton"])
def test_gradients_are_those_of_complex_step_rollouts(case, method):
    case = CASES[case]
    # A gradient is as wrong as the states: solve these to rounding.
    solution = solve(case, method=method, atol=1e-15, rtol=1e-15)
    dh = loss_gradient(solution.h.shape)
    assert_close(prs.gradients(solution, dh), reference(case, dh))


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_nested_as_the_arguments(case):
    case = CASES[case]
    gradients = prs.gradients(solve(case), loss_gradient((case.steps, *case.h0.shape)))
    assert type(gradients.theta) is type(case.theta) or np.ndim(case.theta) == 0
    assert tree.paths(gradients.theta) == [
        path
        for path, leaf in zip(tree.paths(case.theta), tree.flatten(case.theta)[0], strict=True)
        if tree.is_differentiable(leaf)
    ]
    assert gradients.h0.shape == case.h0.shape
    assert (gradients.x is None) == (case.x is None)


def test_leaves_that_are_not_real_numbers_get_none():
    case = nested_case()
    gradient = prs.gradients(solve(case), np.ones((5, 3))).theta
    assert gradient["count"] is None
    assert gradient["layer"].name is None
    assert gradient["extra"][2] is None
    assert np.shape(gradient["extra"][1]) == ()
    assert np.shape(gradient["layer"].gates.w[0]) == (3, 3)


DERIVATIVES = {
    "dual": (None, 1e-12),
    "cs": ("cs", 1e-12),
    "callable": (lambda h, x, W: (1 - np.tanh(h @ W.T + x) ** 2)[..., None] * W, 1e-12),
    "3-point": ("3-point", 1e-8),
    "2-point": ("2-point", 1e-5),
}


@pytest.mark.parametrize("name", DERIVATIVES)
def test_whatever_differentiates_the_step(name):
    jacobian, accuracy = DERIVATIVES[name]
    case = dense_tanh(d=3, T=5, batch=(2,))
    recurrence = prs.Recurrence(case.recurrence, jacobian=jacobian)
    dh = loss_gradient((5, 2, 3))
    solution = solve(case._replace(recurrence=recurrence), method="sequential")
    assert_close(prs.gradients(solution, dh), reference(case, dh), rtol=accuracy)


def test_a_given_vjp_is_used():
    case = dense_tanh(d=3, T=5, batch=(2,))
    calls = []

    def vjp(h, x, W, lam):
        calls.append(lam.shape)
        slope = lam * (1 - np.tanh(h @ W.T + x) ** 2)
        return slope @ W, slope, np.einsum("tbi,tbj->ij", slope, h)

    dh = loss_gradient((5, 2, 3))
    recurrence = prs.Recurrence(case.recurrence, vjp=vjp)
    solution = solve(case._replace(recurrence=recurrence), method="sequential")
    assert_close(prs.gradients(solution, dh), reference(case, dh))
    assert calls == [(5, 2, 3)]


def dense_with_vjp(T=7, batch=(3,), d=4, share=1.0):
    """A dense tanh network; `share` of the product with its transpose is what its vjp returns."""

    def vjp(h, x, W, lam):
        slope = lam * (1 - np.tanh(h @ W.T + x) ** 2)
        return share * slope @ W, slope, slope.reshape(-1, d).T @ h.reshape(-1, d)

    case = dense_tanh(d=d, T=T, batch=batch)
    return case._replace(recurrence=prs.Recurrence(case.recurrence, vjp=vjp))


@pytest.mark.parametrize("share", [1.0, 0.5], ids=["exact", "surrogate"])
def test_gradients_by_steps_are_those_by_blocks(share, monkeypatch):
    """A vjp is asked for the transpose of a step only if it is what it returns."""
    monkeypatch.setattr(adjoint, "ENTRIES_OF_A_CALL", 1)
    by_steps, case = [], dense_with_vjp(share=share)
    stepped = adjoint.adjoint_by_steps
    monkeypatch.setattr(adjoint, "adjoint_by_steps", lambda *a: by_steps.append(1) or stepped(*a))
    dh = loss_gradient((7, 3, 4))
    found = prs.gradients(solve(case, method="sequential"), dh)
    assert_close(found, reference(case, dh))
    assert len(by_steps) == (share == 1)


@pytest.mark.parametrize(("d", "batch"), [(4, (2, 3)), (4, (6,)), (4, ()), (2, (3,)), (1, (96,))])
def test_a_step_is_transposed_where_its_blocks_have_many_entries(d, batch, monkeypatch):
    """Blocks cost by their entries, d * d of each sequence; those of one state only a product."""
    solution = solve(dense_with_vjp(T=2, batch=batch, d=d), method="sequential")
    entries = d * d * int(np.prod(batch))
    for calls, cheaper in ((entries, d > 1), (entries + 1, False)):
        monkeypatch.setattr(adjoint, "ENTRIES_OF_A_CALL", calls)
        assert adjoint.steps_are_cheaper(solution) == cheaper


def test_no_steps_have_no_gradient(monkeypatch):
    monkeypatch.setattr(adjoint, "ENTRIES_OF_A_CALL", 1)
    found = prs.gradients(solve(dense_with_vjp(T=0)), np.zeros((0, 3, 4)))
    np.testing.assert_array_equal(found.h0, np.zeros((3, 4)))
    np.testing.assert_array_equal(found.theta, np.zeros((4, 4)))


@pytest.mark.parametrize("masks", ["lengths", "resets", "both"])
def test_gradients_by_steps_mind_lengths_and_resets(masks, monkeypatch):
    case, dh = dense_with_vjp(), loss_gradient((7, 3, 4))
    given = {
        "lengths": np.array([7, 0, 4]),
        "resets": np.random.default_rng(1).random((7, 3)) < 0.4,
    }
    given = given if masks == "both" else {masks: given[masks]}
    solution = prs.solve(case.recurrence, case.x, case.h0, case.theta, method="sequential", **given)
    monkeypatch.setattr(adjoint, "ENTRIES_OF_A_CALL", 1 << 60)
    by_blocks = prs.gradients(solution, dh)
    monkeypatch.setattr(adjoint, "ENTRIES_OF_A_CALL", 1)
    monkeypatch.setattr(adjoint, "adjoint_by_blocks", None)
    assert_close(prs.gradients(solution, dh), by_blocks)


@given(BATCHES, st.sampled_from(["diagonal", "blocks", "dense"]), st.integers(0, 2**16))
def test_dot_test_between_gradients_and_directional_derivatives(batch, structure, seed):
    """``<dh, J v> = <J^T dh, v>`` for changes of x, theta and h0 together."""
    make = {
        "diagonal": lambda **kw: block_tanh(k=1, n=3, **kw),
        "blocks": lambda **kw: block_tanh(k=2, n=2, **kw),
        "dense": lambda **kw: dense_tanh(d=3, **kw),
    }[structure]
    case = make(T=6, batch=batch, seed=seed)
    solution = solve(case)
    rng = np.random.default_rng(seed)
    dh = rng.standard_normal(solution.h.shape)
    dx, dtheta, dh0 = (rng.standard_normal(a.shape) for a in (case.x, case.theta, case.h0))
    change = prs.jvp(solution, dx=dx, dtheta=dtheta, dh0=dh0)
    gradients = prs.gradients(solution, dh)
    pairs = zip(gradients, (dtheta, dx, dh0), strict=True)
    products = [np.vdot(a, b) for a, b in pairs]
    scale = sum(np.abs(a).sum() for a in gradients) + 1
    assert abs(np.vdot(dh, change) - sum(products)) <= 1e-13 * scale


def test_a_change_of_parameters_that_are_none_is_refused():
    solution = prs.solve(lambda h, x, _: h / 2 + x, np.ones((3, 1)), np.zeros(1))
    with pytest.raises(prs.InvalidInput, match="dtheta is given where theta is None"):
        prs.jvp(solution, dtheta=np.ones(2))


def test_a_change_says_of_what():
    solution = prs.solve(lambda h, x, _: h / 2 + x, np.ones((3, 1)), np.zeros(1))
    with pytest.raises(TypeError, match="positional"):
        prs.jvp(solution, np.ones((3, 1)))


@pytest.mark.parametrize("case", CASES)
def test_directional_derivatives_are_those_of_complex_step_rollouts(case):
    case = CASES[case]
    rng = np.random.default_rng(0)
    solution = solve(case, method="sequential")
    step = getattr(case.recurrence, "step", case.recurrence)
    leaves, rebuild = tree.flatten(case.theta)
    changes = [
        rng.standard_normal(np.shape(leaf)) if tree.is_differentiable(leaf) else None
        for leaf in leaves
    ]
    moved = [a if v is None else a + 1j * STEP * v for a, v in zip(leaves, changes, strict=True)]
    dx = None if case.x is None else rng.standard_normal(case.x.shape)
    dh0 = rng.standard_normal(case.h0.shape)
    x = None if dx is None else case.x + 1j * STEP * dx
    states = complex_rollout(step, x, case.h0 + 1j * STEP * dh0, rebuild(moved), case.steps)
    change = prs.jvp(solution, dx=dx, dtheta=rebuild(changes), dh0=dh0)
    assert_close(change, states.imag / STEP)


def test_parts_of_a_change_add_up():
    case = nested_case()
    solution = solve(case)
    rng = np.random.default_rng(0)
    dx, dh0 = rng.standard_normal(case.x.shape), rng.standard_normal(case.h0.shape)
    dtheta = {"layer": None, "extra": (1.0, None, None), "count": None}
    whole = prs.jvp(solution, dx=dx, dtheta=dtheta, dh0=dh0)
    parts = [
        prs.jvp(solution, dx=dx),
        prs.jvp(solution, dtheta=dtheta),
        prs.jvp(solution, dh0=dh0),
    ]
    np.testing.assert_allclose(sum(parts), whole, atol=1e-14)
    np.testing.assert_array_equal(prs.jvp(solution), np.zeros((5, 3)))


@pytest.mark.parametrize(
    "method", ["newton", "quasi_newton", "jacobi", "windowed", prs.newton(chunk=3), "anderson"]
)
def test_gradients_do_not_depend_on_the_method(method):
    """They use the exact Jacobian at the states, which differ by the tolerance."""
    case = dense_tanh(d=3, T=20, batch=(2,))
    dh = loss_gradient((20, 2, 3))
    expected = prs.gradients(solve(case, method="sequential"), dh)
    assert_close(prs.gradients(solve(case, method=method), dh), expected, rtol=1e-9)


def test_gradients_do_not_depend_on_the_backend():
    case = dense_tanh(d=3, T=20, batch=(2,))
    dh = loss_gradient((20, 2, 3))
    expected = prs.gradients(solve(case, backend="sequential"), dh)
    for backend in ("numba", "scipy"):
        assert_close(prs.gradients(solve(case, backend=backend), dh), expected, rtol=1e-10)


def test_float32_gradients_are_float32():
    case = dense_tanh(d=3, T=20, batch=(2,), dtype=np.float32)
    double = dense_tanh(d=3, T=20, batch=(2,))
    dh = loss_gradient((20, 2, 3))
    gradients = prs.gradients(solve(case, method="sequential"), dh.astype(np.float32))
    assert all(leaf.dtype == np.float32 for leaf in gradients)
    expected = prs.gradients(solve(double, method="sequential"), dh)
    # Sums of 40 terms of size one, amplified by at most 1 / (1 - L) = 5 forwards and backwards.
    assert_close(gradients, expected, rtol=25 * 8 * 1.2e-7)


def test_as_many_as_256_parameters_are_differentiated():
    case = problems.mean_field_rnn(0.5, length=2, D=16)
    solution = prs.solve(*case[:4])
    dh, change = np.ones((2, 16)), np.ones((16, 16))
    slope = np.vdot(prs.gradients(solution, dh).theta, change)
    assert slope == pytest.approx(np.vdot(dh, prs.jvp(solution, dtheta=change)), rel=1e-10)


def test_nothing_is_differentiated_beyond_256_parameters():
    case = problems.mean_field_rnn(0.5, length=5, D=17)
    solution = prs.solve(*case[:4])
    with pytest.raises(prs.InvalidInput, match=r"theta has 289 real entries; beyond 256 .*vjp="):
        prs.gradients(solution, np.ones((5, 17)))
    assert prs.jvp(solution, dtheta=np.ones((17, 17))).shape == (5, 17)


@pytest.mark.parametrize("group", [1, 2, 3, 100])
def test_directions_carried_together_do_not_matter(group, monkeypatch):
    case = dense_tanh(d=3, T=7, batch=(2,))
    solution, dh = solve(case), loss_gradient((7, 2, 3))
    expected = prs.gradients(solution, dh)
    monkeypatch.setattr(local_products, "GROUP", group)
    assert_close(prs.gradients(solution, dh), expected, rtol=1e-13)


@pytest.mark.parametrize(("T", "batch"), [(0, ()), (0, (2,)), (3, (0,))])
def test_gradients_of_nothing(T, batch):
    case = block_tanh(T=T, batch=batch)
    gradients = prs.gradients(solve(case), np.zeros((T, *batch, 3)))
    np.testing.assert_array_equal(gradients.theta, np.zeros_like(case.theta))
    np.testing.assert_array_equal(gradients.h0, np.zeros_like(case.h0))
    assert gradients.x.shape == case.x.shape
    assert prs.jvp(solve(case), dh0=np.zeros_like(case.h0)).shape == (T, *batch, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dx": np.ones((5, 4))}, r"dx has shape \(5, 4\).*expected \(5, 3\)"),
        ({"dh0": np.ones(3, np.float32)}, "dh0 .* float32; expected .* float64"),
        ({"dtheta": np.ones((2, 2))}, r"dtheta has shape \(2, 2\).*expected \(3, 3\)"),
    ],
)
def test_changes_of_another_shape_are_refused(change, message):
    solution = solve(dense_tanh(d=3, T=5))
    with pytest.raises(prs.InvalidInput, match=message):
        prs.jvp(solution, **change)


def test_changes_nested_otherwise_are_refused():
    solution = solve(nested_case())
    with pytest.raises(prs.InvalidInput, match=r"dtheta has entries \['layer'\]; expected .*extra"):
        prs.jvp(solution, dtheta={"layer": None})


def test_a_change_of_inputs_that_are_not_there_is_refused():
    solution = solve(block_tanh(x=False, T=5))
    with pytest.raises(prs.InvalidInput, match="dx is given for a recurrence without x"):
        prs.jvp(solution, dx=np.ones((5, 3)))


@pytest.mark.parametrize("dh", [np.ones((5, 4)), np.ones((5, 3), np.float32), np.ones((5, 3), int)])
def test_loss_gradients_of_another_shape_or_dtype_are_refused(dh):
    with pytest.raises(prs.InvalidInput, match="dh has shape"):
        prs.gradients(solve(dense_tanh(d=3, T=5)), dh)


def test_training_by_gradient_descent_recovers_a_parameter():
    case = dense_tanh(d=2, T=30)
    target = solve(case).h
    W = np.zeros((2, 2))
    for _ in range(200):
        solution = prs.solve(case.recurrence, case.x, case.h0, W)
        W -= 0.1 * prs.gradients(solution, solution.h - target).theta
    np.testing.assert_allclose(W, case.theta, atol=1e-3)


def test_jvp_along_scalars_of_theta():
    step = lambda h, x, p: np.tanh(np.stack([p["a"], p["b"]]) * h + x)  # noqa: E731
    x = np.random.default_rng(0).standard_normal((20, 2, 2))
    theta = {"a": np.asarray(0.5), "b": 0.25}
    solution = prs.solve(prs.Recurrence(step, block_size=1), x, np.zeros((2, 2)), theta)
    dh = np.random.default_rng(1).standard_normal(solution.h.shape)
    grads = prs.gradients(solution, dh)
    for dtheta in ({"a": 1.0, "b": None}, {"a": np.asarray(1.0), "b": 2.0}):
        change = prs.jvp(solution, dtheta=dtheta)
        expected = grads.theta["a"] + (dtheta["b"] or 0.0) * grads.theta["b"]
        assert np.vdot(change, dh) == pytest.approx(float(expected), rel=1e-12)


def test_jvp_of_single_precision_states_along_a_python_float():
    x = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
    step = lambda h, x, a: np.tanh(a * h + x)  # noqa: E731
    solution = prs.solve(prs.Recurrence(step, block_size=1), x, np.zeros(3, np.float32), 0.5)
    assert prs.jvp(solution, dtheta=1.0).dtype == np.float32


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda h, x, a, lam: (lam, lam), "must return a tuple of three"),
        (lambda h, x, a, lam: [lam, lam, np.zeros(3)], "must return a tuple of three"),
        (lambda h, x, a, lam: (lam, lam.sum(), np.zeros(3)), "dx returned by vjp"),
        (lambda h, x, a, lam: (lam, lam, np.zeros(2)), "dtheta returned by vjp"),
        (lambda h, x, a, lam: (lam, lam, {"a": np.zeros(3)}), "dtheta returned by vjp"),
    ],
)
def test_products_of_a_wrong_shape_are_refused(returned, message):
    step = lambda h, x, a: np.tanh(a * h + x)  # noqa: E731
    recurrence = prs.Recurrence(step, block_size=1, vjp=returned)
    solution = prs.solve(recurrence, np.ones((10, 3)), np.zeros(3), np.full(3, 0.5))
    with pytest.raises(prs.InvalidInput, match=message):
        prs.gradients(solution, np.ones((10, 3)))


@pytest.mark.parametrize(
    "call", [lambda s: prs.gradients(s, s.h), prs.jvp, lambda s: s.error_bound()]
)
def test_blocks_that_do_not_fit_are_told_before(call, monkeypatch):
    solution = prs.solve(lambda h, x, _: np.tanh(0.5 * h + x), np.ones((10, 3)), np.zeros(3))
    monkeypatch.setattr("pararnn_solvers.memory.available_memory", lambda *enough: 100)
    with pytest.raises(prs.InsufficientMemory, match="declare a block_size"):
        call(solution)
