"""Kernels lose no meaning: what they compute is what the vectorized path computes.

Every shape in which rows are cut into vectors, lanes into tiles and arrays into threads' parts
differently, on few recurrences: kernels depend on these and the dtype, hardly on shapes.
"""

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pararnn_solvers as prs
from pararnn_solvers import tree
from pararnn_solvers.bidiagonal import BlockBidiagonal
from pararnn_solvers.compiled import gradients as compiled_gradients
from pararnn_solvers.compiled import numba_kernels as kernels
from pararnn_solvers.linear import load
from pararnn_solvers.solvers.stopping import max_norm
from tests.compiled.cases import (
    BATCHES,
    CHANNELS,
    FAMILIES,
    LENGTHS,
    cell,
    diagonal,
    program_of,
    system_of,
)
from tests.strategies import SEEDS, allowed_error, attempt, rounding, solve
from tests.test_sensitivities import assert_close, reference

Status = prs.Status
families = pytest.mark.parametrize("family", FAMILIES)


@st.composite
def shapes(draw):
    """What the families take."""
    return {
        "n": draw(st.sampled_from(CHANNELS)),
        "T": draw(st.sampled_from(LENGTHS)),
        "batch": draw(st.sampled_from(BATCHES)),
        "seed": draw(SEEDS),
    }


def both(case, **options):
    return (attempt(case, compiled=compiled, **options) for compiled in (False, True))


def states(system, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, system.shape).astype(system.h0.dtype)


def assert_near(actual, expected, case, growth=1.0):
    """To rounding of one step, or of so many."""
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=growth * rounding(case))


# --- kernels -----------------------------------------------------------------------------------


@families
@pytest.mark.parametrize("n", CHANNELS)
def test_evaluate_linearize_and_rollout_of_every_shape(family, n):
    for T in LENGTHS:
        for batch in BATCHES:
            case = FAMILIES[family](n=n, T=T, batch=batch, seed=T)
            system, made = system_of(case), program_of(case)
            h = states(system)
            f, A = system.evaluate(h), system.linearize(h)
            previous = system.previous(h)
            assert_near(kernels.evaluate(made, h, system.x), f, case)
            also_f, found = kernels.linearize(made, previous, system.x)
            assert_near(also_f, system.evaluate(previous), case)
            assert_near(found, A, case)
            rolled = np.full_like(h, 7)
            kernels.rollout(made, system.x, system.h0, rolled)
            expected = prs.rollout(*case[:4], steps=T, compiled=False).reshape(h.shape)
            assert_near(rolled, expected, case, growth=1 / (1 - case.lipschitz))


@families
@pytest.mark.parametrize("n", [8, 9, 15, 16, 17, 33, 64])
def test_a_newton_pass_is_the_solution_of_the_linear_equations(family, n):
    for T in LENGTHS[1:]:
        for batch in BATCHES:
            case = FAMILIES[family](n=n, T=T, batch=batch, seed=T)
            system = system_of(case)
            h = states(system, seed=1)
            moved, (far, large) = kernels.newton_pass(program_of(case), system.x, system.h0, h)
            residual = system.residual(h)
            matrix = BlockBidiagonal(system.linearize(h))
            expected = h - matrix.solve(residual, load("sequential"))
            assert_near(moved, expected, case, growth=2 / (1 - case.lipschitz))
            assert_near(moved[0], system.evaluate(system.previous(h))[0], case)
            assert_near(far, max_norm(residual), case)
            np.testing.assert_array_equal(large, max_norm(h))


@families
@given(shape=shapes())
def test_gradients_are_those_of_the_vectorized_path(family, shape):
    if family == "autonomous":  # whose theta has 9 n entries, one tangent each
        shape["n"] = min(shape["n"], 17)
    case = FAMILIES[family](**shape)
    plain, compiled = both(case, method="sequential")
    dh = np.random.default_rng(shape["seed"]).standard_normal(plain.h.shape)
    dh = dh.astype(plain.h.dtype)
    expected, found = prs.gradients(plain, dh), prs.gradients(compiled, dh)
    sums = max(1, dh.size) / (1 - case.lipschitz)
    leaves, _ = tree.flatten(found)
    for a, b in zip(leaves, tree.flatten(expected)[0], strict=True):
        assert np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=rounding(case) * np.sqrt(sums) * 8)


EXACT = {
    "narrow": diagonal(n=3, T=5, batch=(2,)),
    "one sequence": diagonal(n=2, T=18),
    "wide": diagonal(n=8, T=5),
    "odd": diagonal(n=11, T=3, batch=(2, 1)),
    "narrow cell": cell(n=2, T=5, batch=(5,)),
    "one channel": cell(n=1, T=5),
    "wide cell": cell(n=8, T=4, batch=(2,)),
    "odd cell": cell(n=9, T=5),
}


@pytest.mark.parametrize("name", EXACT)
def test_gradients_are_those_of_complex_step_rollouts(name):
    case = EXACT[name]
    solution = solve(case, method="newton", atol=1e-15, rtol=1e-15, compiled=True)
    dh = np.random.default_rng(0).standard_normal(solution.h.shape)
    assert_close(prs.gradients(solution, dh), reference(case, dh), rtol=1e-12)


@pytest.mark.parametrize("family", ["diagonal", "cell"])
@given(shape=shapes())
def test_dot_test_of_compiled_gradients(family, shape):
    """``<dh, J v> = <J^T dh, v>`` with J by tangents of the step itself."""
    case = FAMILIES[family](**shape)
    solution = attempt(case, method="sequential", compiled=True)
    rng = np.random.default_rng(shape["seed"])
    leaves, rebuild = tree.flatten(case.theta)
    dtheta = [
        rng.standard_normal(np.shape(leaf)) if tree.is_differentiable(leaf) else None
        for leaf in leaves
    ]
    dx, dh0, dh = (rng.standard_normal(a.shape) for a in (case.x, case.h0, solution.h))
    found = prs.gradients(solution, dh)
    change = prs.jvp(solution, dx=dx, dtheta=rebuild(dtheta), dh0=dh0)
    moved = [v for v in [*dtheta, dx, dh0] if v is not None]
    terms = [np.asarray(a) * v for a, v in zip(tree.flatten(found)[0], moved, strict=True)]
    scale = sum(np.abs(term).sum() for term in terms) + np.abs(dh * change).sum() + 1
    assert abs(np.vdot(dh, change) - sum(term.sum() for term in terms)) <= 1e-13 * scale


@families
@pytest.mark.parametrize("n", [8, 16, 32, 33])
def test_gradients_written_past_the_caches_are_the_same(family, n, monkeypatch):
    """Where components of a row start cache lines; elsewhere they are not written so."""
    for batch in BATCHES:
        case = FAMILIES[family](n=n, T=20, batch=batch, seed=n)
        solution = attempt(case, method="sequential", compiled=True)
        dh, found = np.ones_like(solution.h), []
        for least in (0, 1 << 62):
            monkeypatch.setattr(compiled_gradients, "STREAMED", least)
            found.append(tree.flatten(prs.gradients(solution, dh))[0])
        for a, b in zip(*found, strict=True):
            np.testing.assert_array_equal(a, b)


def test_gradients_that_start_cache_lines_are_written_past_the_caches(monkeypatch):
    monkeypatch.setattr(compiled_gradients, "STREAMED", 1 << 13)
    made = program_of(diagonal(n=16, T=20))
    for numbers, streams in (((64, 16), True), ((63, 16), False), ((64, 17), False)):
        assert compiled_gradients._starts_lines(made, np.zeros(numbers, made.dtype)) == streams
    narrow = program_of(diagonal(n=12, T=20))
    assert not compiled_gradients._starts_lines(narrow, np.zeros((64, 16), made.dtype))


def test_gradients_by_what_the_step_does_not_use_are_zero():
    case = cell(n=4, T=20, batch=(3,))
    solution = solve(case, compiled=True)
    found = prs.gradients(solution, np.ones_like(solution.h))
    assert (found.x[..., 1] == 0).all()
    assert (found.x[..., [0, 2]] != 0).all()
    assert found.theta["scale"][0] == 0 != found.theta["scale"][1]
    assert found.theta["name"] is None


@pytest.mark.parametrize("decay, passes", [(0.0, 0), (0.05, 1), (0.3, 2), (0.5, 3), (0.9, None)])
def test_adjoints_of_chunks_are_added_until_nothing_is_left_or_given_up(decay, passes, monkeypatch):
    """What chunks of two tiles pass on fades by ``decay**16`` a tile; each end is looked at."""
    recurrence = prs.Recurrence(lambda h, x, a: a[0] * h + x, block_size=1)
    rng = np.random.default_rng(0)
    x, h0, theta = rng.normal(size=(150, 1, 1)), np.ones((1, 1)), (np.full(1, decay),)
    h = prs.rollout(recurrence, x, h0, theta)
    g = rng.normal(size=x.shape)
    tiles = compiled_gradients._Tiles(program_of((recurrence, x, h0, theta, None)), x, h0, h)
    runs, run = [], tiles.run
    monkeypatch.setattr(tiles, "run", lambda *a, **k: (runs.append(1), run(*a, **k)))
    found = tiles.by_chunks(g, 2 * compiled_gradients.STEPS)
    if passes is None:
        assert found is None
        return
    assert len(runs) == 1 + passes
    lam = g.copy()
    for t in reversed(range(149)):
        lam[t] += decay * lam[t + 1]
    previous = np.concatenate([h0[None], h[:-1]])
    expected = lam, decay * lam[0], np.vdot(lam, previous)
    for mine, its in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.ravel(mine), np.ravel(its), rtol=1e-12, atol=1e-15)


# --- solves ------------------------------------------------------------------------------------

METHODS = {
    "newton": prs.newton(),
    "windowed": prs.windowed(prs.newton(), 7),
    "quasi_newton": prs.quasi_newton(),
    "windowed quasi_newton": prs.windowed("quasi_newton", 10),
    "damped_newton": prs.damped_newton(),
    "chord": prs.chord(),
    "jacobi": prs.jacobi(),
    "levenberg_marquardt": prs.levenberg_marquardt(),
    "sequential": prs.sequential(),
}


def assert_same_account(plain, compiled, case, atol):
    """The states, statuses and residuals; iterations unless rounding decides on one of them."""
    assert compiled.compiled and not plain.compiled
    norms = plain.residual_norms
    near_the_tolerance = (norms > atol / 2) & (norms < 2 * atol)
    if not near_the_tolerance.any():
        assert compiled.n_iter == plain.n_iter
        assert (compiled.sequence_status == plain.sequence_status).all()
        eps = float(np.finfo(norms.dtype).eps)
        allowed = 8 * rounding(case) / (1 - case.lipschitz)
        np.testing.assert_allclose(compiled.residual_norms, norms, rtol=eps**0.5, atol=allowed)
    assert compiled.h.dtype == plain.h.dtype
    if plain.success and compiled.success:
        error = np.abs(compiled.h - plain.h).max(initial=0)
        assert error <= 2 * allowed_error(case, atol=atol, rtol=0.0)


@families
@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=12)
@given(shape=shapes())
def test_a_compiled_solve_is_the_vectorized_one(family, method, shape):
    case = FAMILIES[family](**shape)
    atol = 1e-9 if case.h0.dtype == np.float64 else 1e-4
    options = {"method": METHODS[method], "atol": atol, "rtol": 0.0}
    plain, compiled = both(case, **options)
    assert_same_account(plain, compiled, case, atol)
    if METHODS[method] == prs.newton() or method == "windowed":
        assert compiled.n_step_evaluations <= plain.n_step_evaluations  # f and A together
    elif compiled.n_iter == plain.n_iter:  # which steps converge first may hang on rounding
        some = 0.1 * plain.n_step_evaluations
        assert abs(compiled.n_step_evaluations - plain.n_step_evaluations) <= some


@pytest.mark.parametrize("guess", ["zeros", "repeat_h0", "from_zero", "far"])
@pytest.mark.parametrize("n", [3, 9])
def test_guesses(guess, n):
    case = diagonal(n=n, T=33, batch=(5,))
    far = 3 * np.random.default_rng(0).standard_normal((33, 5, n))
    options = {"method": "newton", "atol": 1e-9, "rtol": 0.0, "max_iter": 40}
    plain, compiled = both(case, guess=far if guess == "far" else guess, **options)
    assert_same_account(plain, compiled, case, 1e-9)


@pytest.mark.parametrize("method", ["newton", "windowed", "sequential", prs.newton(chunk=6)])
@pytest.mark.parametrize("n", [2, 9])
def test_arrays_in_any_memory_layout(method, n):
    """And sequences that leave the iteration one by one, which leave strided arrays behind."""
    case = diagonal(n=n, T=40, batch=(6,))
    scale = np.array([1, 0, 3, 0.01, 3, 1])[:, None]
    x, h0, theta = case.x * scale, case.h0 * scale, case.theta
    guess = 0.1 * x
    expected = prs.solve(case.recurrence, x, h0, theta, method=method, guess=guess, compiled=True)
    assert_same = np.testing.assert_array_equal
    np.testing.assert_allclose(
        expected.h, prs.rollout(case.recurrence, x, h0, theta, compiled=False), atol=1e-10
    )
    wide = np.zeros((80, 6, 2 * n))
    wide[::2, :, ::2] = x
    read_only = x.copy()
    read_only.flags.writeable = False
    for drives in (np.asfortranarray(x), wide[::2, :, ::2], read_only, x[::-1].copy()[::-1]):
        strided = np.asfortranarray(np.repeat(h0, 2, axis=0))[::2]
        solution = prs.solve(
            case.recurrence,
            drives,
            strided,
            np.asfortranarray(theta),
            method=method,
            guess=np.asfortranarray(guess),
            compiled=True,
        )
        assert_same(solution.h, expected.h)
        dh = np.asfortranarray(np.ones_like(x))
        found, wanted = (prs.gradients(s, dh) for s in (solution, expected))
        for a, b in zip(found, wanted, strict=True):
            assert_same(a, b)


@pytest.mark.parametrize("n", [2, 9])
def test_one_step_from_states_in_fortran_order(n):
    case = diagonal(n=n, T=1, batch=(5,))
    turned = case._replace(h0=np.asfortranarray(case.h0))
    for method in ("newton", "quasi_newton", "sequential"):
        plain, compiled = both(turned, method=method)
        assert_near(compiled.h, plain.h, case)
        dh = np.ones_like(plain.h)
        assert_close(prs.gradients(compiled, dh), prs.gradients(plain, dh))


@given(shape=shapes(), n=st.sampled_from([2, 9, 17]), size=st.sampled_from([1e-8, 1.0, 1e8]))
def test_a_linear_recurrence_is_solved_in_one_iteration(shape, n, size):
    rng = np.random.default_rng(shape["seed"])
    T, batch = shape["T"], shape["batch"]
    x, h0 = size * rng.standard_normal((T, *batch, n)), size * rng.standard_normal((*batch, n))
    recurrence = prs.Recurrence(linear_step, block_size=1)
    guess = 100 * size * rng.standard_normal(x.shape)
    a = rng.uniform(-0.9, 0.9, n)
    options = {"guess": guess, "atol": 1e-10 * size, "compiled": True}
    solution = prs.solve(recurrence, x, h0, a, method="newton", **options)
    assert solution.n_iter == (1 if x.size else 0)
    expected = prs.rollout(recurrence, x, h0, a, compiled=False)
    np.testing.assert_allclose(solution.h, expected, rtol=0, atol=1e-10 * size)


def linear_step(h, x, a):
    return a * h + x


# --- overflow ----------------------------------------------------------------------------------


def squares(h, x, _):
    return h * h + x


def overflowing(n, T=60, kick=None):
    """Five sequences that stay below one half; from a kick on, one of them overflows."""
    x = 0.1 * np.random.default_rng(0).uniform(-1, 1, (T, 5, n))
    h0 = np.full((5, n), 0.3)
    if kick is not None:
        step, sequence, channel = kick
        x[step, sequence, channel] = 1e200
    return prs.Recurrence(squares, block_size=1), x, h0


KICKS = [(0, 0, 0), (20, 3, -1), (33, 4, 1), (59, 1, 0), (58, 2, -1)]


@pytest.mark.parametrize("method", ["newton", "sequential", "windowed", "quasi_newton"])
@pytest.mark.parametrize("n", [2, 11])
@pytest.mark.parametrize("kick", KICKS)
def test_an_overflow_reaches_no_earlier_state_and_no_other_sequence(method, n, kick):
    usual = prs.solve(*overflowing(n), method=method, compiled=True)
    arguments = overflowing(n, kick=kick)
    t, b, _ = kick
    with pytest.raises(prs.ConvergenceError) if t < 59 else warnings.catch_warnings() as caught:
        solution = prs.solve(*arguments, method=method, compiled=True)
    if t < 59:
        solution = caught.value.solution
        assert solution.sequence_status[b] is Status.DIVERGED
        assert not np.isfinite(solution.residual_norms[-1, b])
        others = np.arange(5) != b
        assert (solution.sequence_status[others] == usual.sequence_status[others]).all()
        np.testing.assert_array_equal(solution.h[:, others], usual.h[:, others])
    with np.errstate(all="ignore"):
        expected = prs.rollout(*arguments, compiled=False)
    if method in ("sequential", "windowed"):
        np.testing.assert_allclose(solution.h[: t + 1, b], expected[: t + 1, b], rtol=1e-11)
    if method == "sequential":  # channels of the same sequence too
        np.testing.assert_array_equal(np.isnan(solution.h), np.isnan(expected))
        np.testing.assert_array_equal(solution.h[:t], usual.h[:t])


@pytest.mark.parametrize("method", ["newton", "windowed", "quasi_newton", "damped_newton"])
@pytest.mark.parametrize("n", [2, 11])
def test_overflows_end_as_in_the_vectorized_path(method, n):
    for kick in KICKS:
        case = overflowing(n, kick=kick)
        ends = []
        for compiled in (False, True):
            try:
                ends.append(prs.solve(*case, method=method, compiled=compiled))
            except prs.ConvergenceError as error:
                ends.append(error.solution)
        plain, compiled = ends
        assert (compiled.sequence_status == plain.sequence_status).all()
        assert compiled.n_iter == plain.n_iter
        np.testing.assert_array_equal(
            np.isfinite(compiled.residual_norms), np.isfinite(plain.residual_norms)
        )


@pytest.mark.parametrize("n", [2, 11])
def test_several_failed_sequences_are_finished_step_by_step(n):
    recurrence, x, h0 = overflowing(n)
    h0[[1, 3]], x[40:, 2:4] = 0.9, 0.05
    options = {"method": "newton", "max_iter": 2, "on_failure": "sequential"}
    solution = prs.solve(recurrence, x, h0, compiled=True, **options)
    assert solution.success
    assert (solution.sequence_status == Status.SEQUENTIAL).sum() >= 2
    expected = prs.rollout(recurrence, x, h0, compiled=False)
    np.testing.assert_allclose(solution.h, expected, rtol=0, atol=1e-10)


def logarithms(h, x, _):
    return np.log(h) + x


def test_an_infinite_derivative_does_no_harm_at_the_first_step():
    """``f`` itself is returned there, whatever A would multiply."""
    recurrence = prs.Recurrence(lambda h, x, _: np.sqrt(h) + x, block_size=1)
    x, h0 = np.ones((20, 8)), np.zeros(8)
    solution = prs.solve(recurrence, x, h0, method="newton", compiled=True)
    np.testing.assert_allclose(solution.h, prs.rollout(recurrence, x, h0), rtol=1e-11)


def test_nan_from_a_logarithm_has_its_place():
    x = np.full((30, 3, 2), 2.0)
    x[12, 1, 0] = -2
    recurrence = prs.Recurrence(logarithms, block_size=1)
    with np.errstate(all="ignore"):
        expected = prs.rollout(recurrence, x, np.ones((3, 2)), compiled=False)
    found = prs.rollout(recurrence, x, np.ones((3, 2)), compiled=True)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    assert np.isnan(found[13:, 1, 0]).all() and np.isnan(found).sum() == 17
    np.testing.assert_allclose(found, expected, rtol=1e-12)


# --- threads, processes --------------------------------------------------------------------------


@pytest.fixture
def threads_restored():
    before = prs.num_threads()
    yield
    prs.set_num_threads(before)


LARGE = {
    "rows": diagonal(n=17, T=3000, batch=(3,)),
    "row": diagonal(n=200, T=700),
    "tiles": diagonal(n=3, T=600, batch=(80,)),
    "cell": cell(n=3, T=400, batch=(60,)),
    "one sequence": cell(n=2, T=40_000),
}


@pytest.mark.parametrize("method", ["newton", "sequential", prs.windowed("newton", 500)])
@pytest.mark.parametrize("name", LARGE)
def test_states_do_not_depend_on_the_number_of_threads(name, method, threads_restored):
    case, found = LARGE[name], []
    for count in (1, 2, 3, 3, 1):
        prs.set_num_threads(count)
        solution = solve(case, method=method, compiled=True)
        dh = np.ones_like(solution.h)
        found.append((solution.h, solution.residual_norms, prs.gradients(solution, dh)))
    for h, norms, _ in found[1:]:
        np.testing.assert_array_equal(h, found[0][0])
        np.testing.assert_array_equal(norms, found[0][1])
    # Sums over parts may differ with the parts, but not with who computes them.
    for first, again in ((found[0], found[4]), (found[2], found[3])):
        for a, b in zip(*(tree.flatten(f[2])[0] for f in (first, again)), strict=True):
            np.testing.assert_array_equal(a, b)
    assert_close(found[2][2], found[0][2], rtol=1e-10)


def test_python_threads_may_solve_at_the_same_time():
    cases = [LARGE["rows"], LARGE["one sequence"], cell(n=8, T=500, batch=(20,))] * 3
    methods = ["newton", "sequential", prs.newton(chunk=100)]

    def work(job):
        case, method = job
        solution = solve(case, method=method, compiled=True)
        return solution.h, prs.gradients(solution, np.ones_like(solution.h)).h0

    jobs = [(case, method) for case in cases for method in methods]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(work, jobs))
    for job, (h, dh0) in zip(jobs, together, strict=True):
        alone = work(job)
        np.testing.assert_array_equal(h, alone[0])
        np.testing.assert_array_equal(dh0, alone[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_solves_too():
    case = LARGE["rows"]
    expected = solve(case, method="newton", compiled=True).h
    child = os.fork()
    if child == 0:  # nothing may leave here but the process
        status = 1
        try:
            h = solve(case, method="newton", compiled=True).h
            other = solve(diagonal(n=3, T=20), method=prs.newton(chunk=4), compiled=True)
            status = 0 if np.array_equal(h, expected) and other.success else 2
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.parametrize("T", LENGTHS)
def test_one_channel(T):
    """Its sources are others: nothing is of each channel."""
    for batch in BATCHES:
        case = diagonal(n=1, T=T, batch=batch)
        for method in ("newton", "sequential", prs.newton(chunk=7)):
            plain, compiled = both(case, method=method)
            error = np.abs(compiled.h - plain.h).max(initial=0)
            assert error <= 2 * allowed_error(case)
        dh = np.ones_like(plain.h)
        assert_close(prs.gradients(compiled, dh), prs.gradients(plain, dh), rtol=1e-10)


def test_a_solution_of_several_batch_axes_serves_again():
    """Its residual, error bound and gradients are those of the vectorized path."""
    case = cell(n=4, T=20, batch=(2, 3))
    plain, compiled = both(case, method="newton")
    assert compiled.system.program is not None
    assert_near(compiled.system.residual(compiled.h), plain.system.residual(compiled.h), case)
    assert_near(compiled.error_bound(), replace(plain, h=compiled.h).error_bound(), case, 10)
