"""When a solve runs kernels, when the step itself, and what is said about it."""

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers.compilation import COMPILE_FROM
from pararnn_solvers.errors import InvalidInput, NotTraceable
from pararnn_solvers.linear import load
from pararnn_solvers.sensitivities import adjoint
from tests.strategies import block_tanh, dense_tanh, solve

GAIN = 0.5


def step(h, x, a):
    return np.tanh(a * h + x)


def problem(T=20, n=8, batch=(), seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (T, *batch, n)), rng.uniform(-1, 1, (*batch, n)), np.full(n, 0.5)


LARGE = problem(T=COMPILE_FROM // 8)


def diagonal(function=step, **options):
    return prs.Recurrence(function, block_size=1, **options)


# --- which runs ----------------------------------------------------------------------------------


def test_large_problems_are_compiled_unless_they_are_told_not_to():
    x, h0, a = LARGE
    solutions = {
        compiled: prs.solve(diagonal(), x, h0, a, method="sequential", compiled=compiled)
        for compiled in (None, True, False)
    }
    assert [s.compiled for s in solutions.values()] == [True, True, False]
    np.testing.assert_array_equal(solutions[None].h, solutions[True].h)
    np.testing.assert_allclose(solutions[None].h, solutions[False].h, rtol=0, atol=1e-13)
    np.testing.assert_array_equal(solutions[None].h, prs.rollout(diagonal(), x, h0, a))


@pytest.mark.parametrize(("missing", "compiled"), [(0, True), (1, False)])
def test_the_limit_is_on_the_numbers_of_a_trajectory(missing, compiled):
    x, h0, a = LARGE
    solution = prs.solve(diagonal(), x[missing:], h0, a, method="sequential")
    assert solution.compiled is compiled
    short = prs.solve(diagonal(), x[: COMPILE_FROM // 32].reshape(-1, 4, 8), np.ones((4, 8)), a)
    assert not short.compiled


def test_small_problems_are_compiled_on_demand():
    x, h0, a = problem()
    assert not prs.solve(diagonal(), x, h0, a).compiled
    assert prs.solve(diagonal(), x, h0, a, compiled=True).compiled


@pytest.mark.parametrize("backend", ["sequential", "scipy"])
def test_a_backend_that_is_named_is_used(backend):
    x, h0, a = LARGE
    assert not prs.solve(diagonal(), x[: 2**14], h0, a, method="jacobi", backend=backend).compiled
    with pytest.raises(InvalidInput, match=f"backend='{backend}'"):
        prs.solve(diagonal(), x, h0, a, backend=backend, compiled=True)


def test_a_function_as_backend_is_used():
    calls = []

    def own(blocks, rhs, *, adjoint=False):
        calls.append(len(rhs))
        return load("sequential")(blocks, rhs, adjoint=adjoint)

    x, h0, a = problem()
    assert not prs.solve(diagonal(), x, h0, a, method="newton", backend=own).compiled
    assert calls
    with pytest.raises(InvalidInput, match="backend=<function"):
        prs.solve(diagonal(), x, h0, a, backend=own, compiled=True)


def test_derivatives_that_are_asked_for_otherwise_are_not_compiled():
    x, h0, a = LARGE
    for name in ("cs", "2-point", "3-point"):
        recurrence = diagonal(jacobian=name)
        assert not prs.solve(recurrence, x, h0, a, method="sequential").compiled
        with pytest.raises(InvalidInput, match=f"jacobian='{name}'"):
            prs.solve(recurrence, x, h0, a, compiled=True)


def test_large_blocks_are_not_compiled_as_channels():
    case = block_tanh(k=9, n=2)
    with pytest.raises(InvalidInput, match="block_size=9"):
        solve(case, compiled=True)
    assert not solve(case).compiled


@pytest.mark.parametrize("compiled", ["yes", 0, 1, 2, "auto", np.array([1, 2])])
def test_compiled_is_true_false_or_none(compiled):
    x, h0, a = problem()
    with pytest.raises(InvalidInput, match="compiled is .*; expected True, False, or None"):
        prs.solve(diagonal(), x, h0, a, compiled=compiled)
    with pytest.raises(InvalidInput, match="expected True, False, or None"):
        prs.rollout(diagonal(), x, h0, a, compiled=compiled)


def test_numpys_false_is_false():
    assert not prs.solve(DECAYING, np.ones((5, 8)), np.zeros(8), 0.5, compiled=np.False_).compiled


# --- what cannot be compiled ---------------------------------------------------------------------


def without_vectors(h, x, a):
    return np.arctan(a * h + x)


def branching(h, x, a):
    return np.tanh(a * h + x) if np.all(a < 1) else h


def mixing(h, x, a):
    return np.tanh(a * h + x) + 0 * h.sum(axis=-1, keepdims=True)


def unknown(h, x, a):
    return np.interp(h, [-1.0, 1.0], [-0.5, 0.5]) + x


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (without_vectors, "step calls arctan: no vector function computes it"),
        (branching, "np.where"),
        (mixing, "step calls numpy.sum over an axis of several channels"),
        (unknown, "interp"),
    ],
)
def test_what_cannot_be_compiled_runs_as_it_is(function, message):
    x, h0, a = LARGE
    solution = prs.solve(diagonal(function), x, h0, a, method="jacobi")
    assert not solution.compiled
    assert solution.success
    for call in (prs.solve, prs.rollout):
        with pytest.raises(NotTraceable, match=message):
            call(diagonal(function), x[:10], h0, a, compiled=True)


def test_functions_with_constants_are_compiled():
    """Also the first of two arguments may be a number."""

    def rectified(h, x, a):
        return 0.5 * np.maximum(0, h) + np.minimum(1, np.abs(x)) ** 1.5

    x, h0, a = LARGE
    solution = prs.solve(diagonal(rectified), x, h0, a, method="sequential")
    assert solution.compiled
    plain = prs.rollout(diagonal(rectified), x, h0, a, compiled=False)
    np.testing.assert_allclose(solution.h, plain, rtol=0, atol=1e-14)


# --- steps that are more than their arguments ----------------------------------------------------


def by_gain(h, x, _):
    return np.tanh(GAIN * h + x)


def test_a_global_that_changes_is_seen(monkeypatch):
    x, h0, _ = problem()
    for gain in (0.5, 0.25):
        monkeypatch.setitem(globals(), "GAIN", gain)
        solution = prs.solve(diagonal(by_gain), x, h0, method="newton", compiled=True)
        expected = prs.rollout(diagonal(by_gain), x, h0, compiled=False)
        np.testing.assert_allclose(solution.h, expected, rtol=0, atol=1e-11)


def test_a_step_that_cannot_have_changed_is_traced_once(monkeypatch):
    from pararnn_solvers.compiled import program

    traced, trace = [], program.trace
    monkeypatch.setattr(program, "trace", lambda *args: traced.append(args) or trace(*args))

    def step(h, x, a):
        return np.tanh(a * h + x) * 0.875

    def by_list(h, x, a, scale=[0.875]):  # noqa: B006
        return np.tanh(a * h + x) * scale[0]

    x, h0 = np.ones((50, 2)), np.zeros(2)
    for function, times in ((step, 1), (by_list, 3)):
        traced.clear()
        for a in (0.5, 0.25, 0.125):
            h = prs.solve(function, x, h0, np.array(a), compiled=True).h
            np.testing.assert_allclose(h, prs.rollout(function, x, h0, a, compiled=False))
        assert len(traced) == times


def test_constants_of_theta_that_change_are_seen():
    def powers(h, x, theta):
        return np.tanh(theta["a"] * h ** theta["count"] + (x if theta["kind"] == "driven" else 0))

    x, h0, a = problem()
    for count in (1, 2):
        for kind in ("driven", "free"):
            theta = {"a": a, "count": count, "kind": kind}
            found = prs.rollout(diagonal(powers), x, h0, theta, compiled=True)
            expected = prs.rollout(diagonal(powers), x, h0, theta, compiled=False)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)


def test_values_of_theta_that_change_are_seen():
    x, h0, a = problem()
    for factor in (1.0, 0.1):
        found = prs.rollout(diagonal(), x, h0, factor * a, compiled=True)
        expected = prs.rollout(diagonal(), x, h0, factor * a, compiled=False)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)


def deceiving(h, x, a):
    return np.tanh(a * h + x) if isinstance(h, np.ndarray) else np.tanh(a * h - x)


def test_a_step_that_deceives_the_tracer_is_found_out():
    x, h0, a = LARGE
    solution = prs.solve(diagonal(deceiving), x, h0, a, method="sequential")
    assert not solution.compiled
    expected = prs.rollout(diagonal(step), x, h0, a, compiled=False)
    np.testing.assert_array_equal(solution.h, expected)
    for call in (prs.solve, prs.rollout):
        with pytest.raises(InvalidInput, match="something else on arrays than when it was traced"):
            call(diagonal(deceiving), x, h0, a, compiled=True)


def test_channels_that_couple_are_refused_either_way():
    def coupled(h, x, a):
        return np.tanh(a * h[..., ::-1] + x)

    x, h0, a = problem()
    with pytest.raises(NotTraceable):
        prs.solve(diagonal(coupled), x, h0, a, compiled=True)
    with pytest.raises(InvalidInput, match="channels couple"):
        prs.solve(diagonal(coupled), x, h0, a)


# --- what comes with a compiled solve ------------------------------------------------------------


def test_a_callback_sees_and_stops_a_compiled_solve():
    x, h0, a = problem(T=40)
    seen = []

    def stop(state):
        seen.append(state.n_iter)
        if len(seen) == 2:
            raise StopIteration

    for method in ("newton", "quasi_newton", prs.windowed("newton", 20)):
        seen.clear()
        solution = prs.solve(diagonal(), x, h0, a, method=method, callback=stop, compiled=True)
        assert solution.status is prs.Status.STOPPED
        assert seen == [0, 1]


@pytest.mark.parametrize("method", ["sequential", prs.newton(chunk=5)])
def test_a_callback_sees_the_end_of_what_kernels_do_at_once(method):
    x, h0, a = problem(T=40)
    seen = []
    options = {"method": method, "compiled": True}
    solution = prs.solve(diagonal(), x, h0, a, callback=seen.append, **options)
    assert (seen[-1].converged_steps, seen[-1].n_iter) == (40, solution.n_iter)
    np.testing.assert_array_equal(seen[-1].residual_norm, [solution.residual_norms[-1]])


@pytest.mark.parametrize("method", ["newton", "auto", "sequential", prs.newton(chunk=5)])
@pytest.mark.parametrize("batch", [(0,), (2, 0), (2, 3)])
def test_no_sequences_and_several_batch_axes(method, batch):
    x, h0, a = problem(batch=batch)
    solution = prs.solve(diagonal(), x, h0, a, method=method, compiled=True)
    assert solution.h.shape == x.shape
    assert solution.sequence_status.shape == batch
    assert solution.residual_norms.shape[1:] == batch
    found = prs.gradients(solution, np.ones_like(x))
    assert found.x.shape == x.shape and found.h0.shape == h0.shape
    assert found.theta.shape == a.shape


def test_nothing_of_the_callers_is_changed():
    x, h0, a = problem(batch=(3,))
    before = [np.copy(array) for array in (x, h0, a)]
    for method in ("newton", "sequential", prs.newton(chunk=4)):
        guess = np.zeros_like(x)
        solution = prs.solve(diagonal(), x, h0, a, method=method, guess=guess, compiled=True)
        prs.gradients(solution, np.ones_like(x))
        for old, new in zip(before, (x, h0, a), strict=True):
            np.testing.assert_array_equal(old, new)
        assert not guess.any()
        assert not np.shares_memory(solution.h, guess)


def test_a_recurrence_given_without_a_block_size_is_solved_either_way():
    case = dense_tanh(d=3, T=20)
    try:
        solution = solve(case, method="newton", compiled=True)
    except NotTraceable:
        solution = solve(case, method="newton")
    np.testing.assert_allclose(solution.h, solve(case, compiled=False).h, rtol=0, atol=1e-11)


# --- found by a review --------------------------------------------------------------------------


def decaying_step(h, x, a):
    return a * h + x


DECAYING = prs.Recurrence(decaying_step, block_size=1)


@pytest.mark.parametrize("d", [2, 64])
@pytest.mark.parametrize("shape", [(1000, 0), (0, 5), (0, 0)])
def test_nothing_to_compute(d, shape):
    x, h0 = np.zeros((*shape, d)), np.zeros((shape[1], d))
    for method in ("auto", "sequential", "newton", prs.newton(chunk=8)):
        solution = prs.solve(DECAYING, x, h0, 0.5, method=method, compiled=True)
        assert solution.h.shape == x.shape
        gradients = prs.gradients(solution, solution.h)
        assert gradients.x.shape == x.shape
        np.testing.assert_array_equal(gradients.h0, np.zeros_like(h0))


def test_a_gradient_that_is_nan_in_one_channel_leaves_the_others():
    rng = np.random.default_rng(0)
    T, n = 20_000, 8
    x, a, dh = rng.normal(size=(T, n)), np.full(n, 0.999), rng.normal(size=(T, n))
    solution = prs.solve(DECAYING, x, np.zeros(n), a, compiled=True, method="sequential")
    expected = prs.gradients(solution, dh)
    dh[-1, 0] = np.nan
    found = prs.gradients(solution, dh)
    np.testing.assert_allclose(found.theta[1:], expected.theta[1:])
    np.testing.assert_allclose(found.h0[1:], expected.h0[1:])
    assert np.isnan(found.theta[0])


def test_kernels_of_one_type_do_not_serve_the_other():
    """The step's text is the same in both, that of its folded derivative is not."""
    step = prs.Recurrence(lambda h, x, _: np.tanh(0.1 * (h / 0.3) + x), block_size=1)
    for dtype in (np.float32, np.float64):
        x = np.random.default_rng(0).normal(size=(50, 16)).astype(dtype)
        found, expected = (
            prs.gradients(solution, solution.h)
            for solution in (
                prs.solve(step, x, np.zeros(16, dtype), compiled=compiled)
                for compiled in (True, False)
            )
        )
        np.testing.assert_allclose(found.x, expected.x, atol=20 * np.finfo(dtype).eps)


def test_a_vjp_of_the_user_is_used():
    def vjp(h, x, a, lam):
        return lam, lam, 7.0

    step = prs.Recurrence(decaying_step, block_size=1, vjp=vjp)
    solution = prs.solve(step, np.ones((20, 8)), np.zeros(8), 0.5, compiled=True)
    assert solution.compiled
    assert prs.gradients(solution, solution.h).theta == 7.0


def test_a_vjp_that_cannot_have_changed_is_compared_with_the_kernels_once(monkeypatch):
    compared = []

    def counted(solution, recurrence):
        compared.append(solution)
        return agree_on_the_first_step(solution, recurrence)

    agree_on_the_first_step = adjoint.agree_on_the_first_step
    monkeypatch.setattr(adjoint, "agree_on_the_first_step", counted)
    monkeypatch.setattr(adjoint, "_agreements", {})
    share = [1.0]

    def exact(h, x, a, lam):
        return a * lam, lam, np.sum(lam * h)

    def surrogate(h, x, a, lam):
        return a * lam, 0.5 * lam, np.sum(lam * h)

    def looked_up(h, x, a, lam):
        return a * lam, share[0] * lam, np.sum(lam * h)

    def last_gradient(vjp):
        step = prs.Recurrence(decaying_step, block_size=1, vjp=vjp)
        solution = prs.solve(step, np.ones((3, 1)), np.ones(1), np.float64(0.5), compiled=True)
        return float(prs.gradients(solution, np.ones((3, 1))).x[-1, 0])

    assert [last_gradient(vjp) for vjp in (exact, surrogate) * 2] == [1.0, 0.5] * 2
    assert len(compared) == 2
    assert last_gradient(looked_up) == 1.0
    share[0] = 0.5  # may change unseen: so it is compared each time
    assert last_gradient(looked_up) == 0.5
    assert len(compared) == 4


def test_kernels_take_the_place_of_a_vjp_that_is_the_derivative():
    """Leaves that are no numbers have no gradient, in either."""

    def step(h, x, p):
        return p["a"] ** p["n"] * h + x

    def vjp(h, x, p, lam):
        da = 2 * p["a"] * (lam * h).sum(axis=tuple(range(h.ndim - 1)))
        return lam * p["a"] ** 2, lam, {"a": da, "n": None}

    x, theta = np.random.default_rng(0).normal(size=(30, 4)), {"a": np.full(4, 0.5), "n": 2}
    own, kernels = (prs.Recurrence(step, block_size=1, vjp=v) for v in (vjp, None))
    found, expected = (
        prs.gradients(s, s.h)
        for s in (prs.solve(r, x, np.zeros(4), theta, compiled=True) for r in (own, kernels))
    )
    np.testing.assert_array_equal(found.theta["a"], expected.theta["a"])  # so kernels ran
    assert found.theta["n"] is None


@pytest.mark.parametrize(
    "method",
    ["auto", "sequential", "newton", prs.newton(chunk=10), prs.windowed(prs.newton(chunk=10), 20)],
    ids=str,
)
def test_inputs_that_are_nan_are_found_even_if_the_step_ignores_them(method):
    step = prs.Recurrence(lambda h, x, _: 0.5 * h + np.where(x > 0, x, 0), block_size=1)
    x = np.zeros((50, 4))
    x[7, 3] = np.nan
    with pytest.raises(prs.InvalidInput, match=r"x is nan at index \(7, 3\)"):
        prs.solve(step, x, np.zeros(4), compiled=True, method=method)


def test_the_residual_of_corrected_chunks_is_that_of_the_states():
    a = np.where(np.arange(4096) % 2, 1e6, 1e-6)
    x = np.stack([a, np.random.default_rng(0).normal(size=4096)], axis=-1)
    step = prs.Recurrence(lambda h, x, _: x[..., :1] * h + x[..., 1:], block_size=1)
    solution = prs.solve(step, x, np.zeros(1), compiled=True, method=prs.newton(chunk=256))
    residual = np.abs(solution.system.residual(solution.h)).max()
    np.testing.assert_allclose(solution.residual_norms[-1], residual, rtol=1e-6, atol=1e-15)


def test_an_integrator_that_starts_at_rest_is_not_taken_to_forget():
    x = np.random.default_rng(0).normal(size=(1 << 15, 1))
    x[: 1 << 13] = 0
    step = prs.Recurrence(lambda h, x, _: h + x, block_size=1)
    solution = prs.solve(step, x, np.zeros(1), compiled=True)
    assert solution.method == "sequential()"


def test_drives_without_components():
    step = prs.Recurrence(lambda h, x, a: np.tanh(a * h), block_size=1)
    solution = prs.solve(step, np.zeros((40, 0)), np.ones(8), 0.5, method="newton", compiled=True)
    assert solution.success


def turned(h, x, theta):
    return 0.5 * h + np.sin(x)


def turned_dense(h, x, theta):
    return np.tanh(h @ theta) + np.cos(x)


@pytest.mark.parametrize(
    ("step", "dtype"), [(turned, np.float32), (turned, np.float64), (turned_dense, np.float32)]
)
def test_angles_that_kernels_do_not_compute_are_left_to_step(step, dtype):
    """Kernels know sines up to 2**20 and 2**49; NumPy, all."""
    theta = None if step is turned else 0.1 * np.ones((3, 3), dtype)
    x, h0 = np.ones((20, 2, 3), dtype), np.zeros((2, 3), dtype)
    x[7, 1] = 1e30
    case, expected = (step, x, h0, theta), prs.rollout(step, x, h0, theta, compiled=False)
    assert np.array_equal(prs.rollout(*case, compiled=True), expected)
    for method in ("sequential", "auto"):
        solution = prs.solve(*case, method=method, compiled=True)
        assert not solution.compiled
        np.testing.assert_allclose(solution.h, expected, atol=1e-4)
        assert np.isfinite(prs.gradients(solution, solution.h).x).all()
    x[7, 1] = 1e5
    assert prs.solve(*case, compiled=True).compiled


@pytest.mark.parametrize("method", ["auto", "sequential", prs.newton(chunk=20)])
def test_nan_of_the_inputs_is_not_taken_for_an_angle_out_of_reach(method):
    x = np.ones((2000, 3, 2))
    x[5, 1, 0] = np.nan
    with pytest.raises(InvalidInput, match=r"x is nan at index \(5, 1, 0\)"):
        prs.solve(turned, x, np.zeros((3, 2)), method=method, compiled=True)


def test_what_overflows_without_kernels_too_has_diverged():
    x = np.full((2000, 1), 2.0)
    with pytest.raises(prs.ConvergenceError, match="DIVERGED"):
        prs.solve(lambda h, x, _: x * h + np.sin(x), x, np.zeros(1), method="sequential",
                  compiled=True)  # fmt: skip
