"""``pararnn_solvers.jax.solve`` is the rollout, derivatives included, whatever JAX makes of it."""

import importlib
import re
import sys
import threading
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers.cells import diagonal_gru, diagonal_lstm
from pararnn_solvers.errors import BackendUnavailable, ConvergenceError, InvalidInput
from pararnn_solvers.jax import solve

jax = pytest.importorskip("jax")
jnp = jax.numpy

T, B, N = 40, 3, 4


class Library(NamedTuple):
    tanh: Any
    where: Any


NUMPY, JAX = Library(np.tanh, np.where), Library(jnp.tanh, jnp.where)


def in_library(library):
    def step(h, x, theta):
        z = theta["gate"][0] * h + x
        c = library.tanh(theta["gate"][1] * h - theta["scale"] * x)
        return h + 0.5 * (1 + library.tanh(z)) * (c - h)

    return step


STEP = prs.Recurrence(in_library(NUMPY), block_size=1)


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    with jax.enable_x64(request.param == "float64"):
        yield request.param


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def data(dtype="float64", steps=T, seed=0):
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(rng.standard_normal(shape).astype(dtype))

    return normal(steps, B, N), normal(B, N), {"gate": normal(2, N), "scale": normal()}


def scanned(x, h0, theta):
    """Return the states by ``lax.scan`` with the same step in jnp."""

    def body(h, x_t):
        h = in_library(JAX)(h, x_t, theta)
        return h, h

    return jax.lax.scan(body, h0, x)[1]


def loss_of(states):
    def loss(*inputs):
        h = states(*inputs)
        return jnp.sum(jnp.sin(h) * jnp.arange(1, h.size + 1).reshape(h.shape) / h.size)

    return loss


def ours(*inputs, **options):
    return solve(STEP, *inputs, **options)


def close(a, b, factor=1.0):
    """Compare nested arrays to the tolerance of a solve, relative to the greatest entry."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for u, v in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert u.dtype == v.dtype
        assert u.shape == v.shape
        tolerance = factor * 20 * np.finfo(u.dtype).eps ** 0.75
        np.testing.assert_allclose(u, v, rtol=0, atol=tolerance * np.abs(v).max(initial=1))


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("method", ["auto", "newton", "sequential"])
def test_the_states_are_those_of_the_rollout(dtype, wrap, method):
    inputs = data(dtype)
    h = wrap(lambda *a: ours(*a, method=method))(*inputs)
    assert isinstance(h, jax.Array)
    close(h, jnp.asarray(prs.rollout(STEP, *inputs)))
    close(h, scanned(*inputs))


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_the_gradients_are_those_of_a_scan(dtype, wrap, compiled):
    inputs = data(dtype)
    found = wrap(jax.grad(loss_of(lambda *a: ours(*a, compiled=compiled)), (0, 1, 2)))(*inputs)
    close(found, jax.grad(loss_of(scanned), (0, 1, 2))(*inputs), factor=T)


def test_the_gradients_agree_with_differences_of_the_solve(x64):
    options = {"atol": 1e-14, "rtol": 1e-14, "method": "newton"}
    check_grads = importlib.import_module("jax.test_util").check_grads
    check_grads(lambda *a: ours(*a, **options), data(steps=8), order=1, modes=["rev"])


def test_jit_changes_no_bit(dtype):
    inputs = data(dtype)
    assert np.array_equal(ours(*inputs), jax.jit(ours)(*inputs))
    gradient = jax.grad(loss_of(ours), (0, 1, 2))
    for a, b in zip(
        *map(jax.tree.leaves, (gradient(*inputs), jax.jit(gradient)(*inputs))), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=20 * np.finfo(dtype).eps, atol=np.finfo(dtype).eps)


@pytest.mark.parametrize("cell", [diagonal_gru, diagonal_lstm])
def test_cells_have_gradients_by_their_named_parameters(x64, cell):
    rng = np.random.default_rng(1)
    theta = jax.tree.map(jnp.asarray, cell.init(rng, 2, N))
    drives = jnp.asarray(rng.standard_normal((T, B, 3 * N)))
    h0 = jnp.asarray(cell.initial_state(cell.init(rng, 2, N), (B,)))
    found = jax.jit(jax.grad(loss_of(lambda *a: solve(cell.recurrence, *a)), (0, 1, 2)))(
        drives, h0, theta
    )
    solution = prs.solve(cell.recurrence, drives, h0, theta)
    dh = jax.grad(loss_of(lambda h: h))(jnp.asarray(solution.h))
    expected = prs.gradients(solution, np.asarray(dh))
    assert isinstance(found[2], cell.Theta)
    close(found, tuple(jax.tree.map(jnp.asarray, (expected.x, expected.h0, expected.theta))))


def test_training_lowers_the_loss():
    rng = np.random.default_rng(2)
    x, h0, truth = data("float32")
    target = ours(x, h0, truth)
    theta = jax.tree.map(lambda a: a + 0.3 * rng.standard_normal(a.shape).astype(a.dtype), truth)

    @jax.jit
    def update(theta):
        value, slope = jax.value_and_grad(lambda t: jnp.mean((ours(x, h0, t) - target) ** 2))(theta)
        return value, jax.tree.map(lambda a, g: a - 0.5 * g, theta, slope)

    losses = []
    for _ in range(200):
        value, theta = update(theta)
        losses.append(float(value))
    assert losses[-1] < 0.02 * losses[0]


def test_numbers_take_the_dtype_of_the_state(dtype):
    x, h0, theta = data(dtype)
    theta["scale"] = 0.5  # of Python
    h = ours(x, h0, theta)
    assert h.dtype == dtype
    found = jax.jit(jax.grad(lambda a: jnp.sum(ours(x, h0, {**theta, "scale": a}))))(0.5)
    expected = jax.grad(lambda a: jnp.sum(scanned(x, h0, {**theta, "scale": a})))(0.5)
    np.testing.assert_allclose(found, expected, rtol=1e-3 if dtype == "float32" else 1e-8)


def test_leaves_that_are_not_real_have_no_gradient(x64):
    x, h0, theta = data()

    def step(h, x, theta):
        name, index, a = theta
        assert name == "tanh"
        return np.tanh(a[index] * h + x)

    for index in (1, jnp.asarray(1), np.array(1)):
        total = partial(lambda index, a: jnp.sum(solve(step, x, h0, ("tanh", index, a))), index)
        gradient = jax.jit(jax.grad(total))
        a = jnp.asarray([0.1, 0.4, 0.2])
        found = gradient(a)
        assert found[0] == found[2] == 0
        eps = 1e-6
        up, down = (jnp.sum(solve(step, x, h0, ("tanh", 1, a.at[1].add(e)))) for e in (eps, -eps))
        np.testing.assert_allclose(found[1], (up - down) / (2 * eps), rtol=1e-6)


def test_a_recurrence_without_inputs(x64):
    def states(h0, a):
        return solve(lambda h, x, a: np.cos(a * h), None, h0, a, steps=30)

    def rolled(h0, a):
        return jax.lax.scan(lambda h, _: (jnp.cos(a * h),) * 2, h0, None, length=30)[1]

    inputs = jnp.asarray([0.1, 0.2]), 0.9
    found = jax.jit(jax.grad(loss_of(states), (0, 1)))(*inputs)
    close(found, jax.grad(loss_of(rolled), (0, 1))(*inputs))


@pytest.mark.parametrize("steps", [0, 1])
def test_short_trajectories(x64, steps):
    inputs = data(steps=steps)
    assert ours(*inputs).shape == (steps, B, N)
    found = jax.jit(jax.grad(lambda *a: jnp.sum(ours(*a)), (0, 1, 2)))(*inputs)
    close(found, jax.grad(lambda *a: jnp.sum(scanned(*a)), (0, 1, 2))(*inputs))


def test_lengths_and_resets_may_be_traced(x64):
    x, h0, theta = data()
    lengths = jnp.asarray([T, 7, 0])
    resets = jnp.asarray(np.random.default_rng(3).random((T, B)) < 0.2)
    options = {"lengths": np.asarray(lengths), "resets": np.asarray(resets)}

    @jax.jit
    def gradient(x, h0, theta, lengths, resets):
        states = lambda *a: ours(*a, lengths=lengths, resets=resets)  # noqa: E731
        return jax.grad(loss_of(states), (0, 1, 2))(x, h0, theta)

    found = gradient(x, h0, theta, lengths, resets)
    solution = prs.solve(STEP, x, h0, theta, **options)
    dh = jax.grad(loss_of(lambda h: h))(jnp.asarray(solution.h))
    expected = prs.gradients(solution, np.asarray(dh))
    close(found, tuple(jax.tree.map(jnp.asarray, (expected.x, expected.h0, expected.theta))))
    assert not found[0][7:, 1].any()


def test_vmap_solves_each(x64):
    x, h0, theta = data()
    xs, scales = jnp.stack([x, 2 * x]), jnp.asarray([0.3, 0.6])

    def value(states):
        return lambda x, s: loss_of(states)(x, h0, {**theta, "scale": s})

    found = jax.vmap(jax.value_and_grad(value(ours), (0, 1)))(xs, scales)
    close(found, jax.vmap(jax.value_and_grad(value(scanned), (0, 1)))(xs, scales), factor=T)


def test_the_step_reads_the_memory_of_jax(x64):
    x, h0, theta = data(steps=20_000)
    seen = set()

    def step(h, x, theta):
        if isinstance(x, np.ndarray):
            seen.add(x.__array_interface__["data"][0])
        return np.tanh(0.5 * h + x)

    solve(step, x, h0, theta, compiled=False, method="sequential")
    assert {x.unsafe_buffer_pointer(), x[0].nbytes + x.unsafe_buffer_pointer()} <= seen


def test_results_stay_as_they_are(x64):
    """Memory that is used again must not be that of an array which JAX holds."""
    x, h0, theta = data(steps=10_000)
    results = [ours((i + 1) * x, h0, theta, compiled=True) for i in range(4)]
    sums = [float(jnp.sum(h)) for h in results]
    again = [float(jnp.sum(ours((i + 1) * x, h0, theta, compiled=True))) for i in range(4)]
    assert sums == again == [float(jnp.sum(h)) for h in results]


def test_large_arrays_pass_through_a_callback():
    """Some versions of JAX wait for ever for large arguments of a callback."""
    x = jnp.ones((1 << 22, 1), jnp.float32)
    done = threading.Event()

    def work():
        jax.block_until_ready(
            jax.jit(lambda x: solve(STEP, x, x[0], {"gate": x[:2], "scale": 1.0}))(x)
        )
        done.set()

    threading.Thread(target=work, daemon=True).start()
    assert done.wait(60)


UNSOLVED = {"method": "picard", "max_iter": 1}


def test_a_failure_raises_our_error_or_ends_with_its_text(x64):
    inputs = data()
    with pytest.raises(ConvergenceError, match="MAX_ITER") as raised:
        ours(*inputs, **UNSOLVED)
    assert raised.value.solution.h.shape == (T, B, N)
    with pytest.raises(ConvergenceError, match="MAX_ITER"):
        jax.grad(loss_of(lambda *a: ours(*a, **UNSOLVED)))(*inputs)
    with pytest.raises(jax.errors.JaxRuntimeError) as raised:
        jax.block_until_ready(jax.jit(lambda *a: ours(*a, **UNSOLVED))(*inputs))
    last = str(raised.value).strip().splitlines()[-1]
    assert re.fullmatch(r"(.*\.)?ConvergenceError: MAX_ITER: .*max_iter.*", last)


def test_on_failure_sequential_finishes(x64):
    inputs = data()
    h = jax.jit(lambda *a: ours(*a, **UNSOLVED, on_failure="sequential"))(*inputs)
    close(h, scanned(*inputs))
    found = jax.jit(
        jax.grad(loss_of(lambda *a: ours(*a, **UNSOLVED, on_failure="sequential")), (0, 1, 2))
    )(*inputs)
    close(found, jax.grad(loss_of(scanned), (0, 1, 2))(*inputs), factor=T)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_shapes_and_dtypes_are_refused_while_tracing(x64, wrap):
    x, h0, theta = data()
    with pytest.raises(InvalidInput, match=r"x has shape \(40, 3, 4\); expected .* h0"):
        wrap(ours)(x, h0[:2], theta)
    with pytest.raises(InvalidInput, match="x is float64 and h0 float32"):
        wrap(ours)(x, h0.astype("float32"), theta)
    with pytest.raises(InvalidInput, match="h0 is int64; expected float32 or float64"):
        wrap(ours)(x, h0.astype(int), theta)
    with pytest.raises(InvalidInput, match="not a multiple of block_size 3"):
        wrap(lambda *a: solve(prs.Recurrence(STEP.step, block_size=3), *a))(x, h0, theta)


def test_float64_without_x64_is_refused():
    x, h0, theta = data("float32")
    with pytest.raises(InvalidInput, match=r"x is float64.*jax_enable_x64"):
        ours(np.asarray(x, np.float64), h0, theta)


def test_values_are_refused_by_the_solve(x64):
    x, h0, theta = data()
    with pytest.raises(InvalidInput, match="x is nan at index"):
        ours(x.at[3].set(jnp.nan), h0, theta)
    with pytest.raises(InvalidInput, match="method is 'nowton'"):
        ours(x, h0, theta, method="nowton")
    with pytest.raises(TypeError, match="maximum"):
        ours(x, h0, theta, maximum=3)


def test_what_has_no_derivative_says_so(x64):
    x, h0, theta = data()
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: ours(x, h0, theta), (x,), (x,))
    with pytest.raises(ValueError, match="callbacks do not support JVP"):
        jax.jit(jax.hessian(lambda x: loss_of(ours)(x, h0, theta)))(x)


def test_without_jax_the_error_names_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(BackendUnavailable, match=r"pip install 'pararnn_solvers\[jax\]'"):
        solve(STEP, *data())
