"""All Newton iterations in one pass are those of one iteration after another."""

from dataclasses import replace

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers.compiled import numba_kernels as kernels
from pararnn_solvers.compiled import wavefront
from pararnn_solvers.linear import load
from pararnn_solvers.solvers.iterate import Iterate
from pararnn_solvers.solvers.linearization import exact
from pararnn_solvers.solvers.step_length import full_step
from pararnn_solvers.solvers.stopping import Stopping
from pararnn_solvers.solvers.wavefront import iterate_together
from tests.compiled.cases import FAMILIES, cell, diagonal, program_of, system_of
from tests.strategies import rollout, rounding, solve

Status = prs.Status


def tolerance(case):
    return 1e-9 if case.h0.dtype == np.float64 else 1e-5


def front_of(case, guess=None, **bounds):
    system = system_of(case)
    stopping = Stopping(**{"atol": tolerance(case), "rtol": 0.0, **bounds})
    arguments = (program_of(case), system.x, system.h0, guess, system.empty())
    return wavefront.iterate(*arguments, stopping)


def one_by_one(case, guess=None, **bounds):
    """The vectorized path."""
    system = system_of(case)
    bounds = {"atol": tolerance(case), "rtol": 0.0, **bounds}
    h = None if guess is None else guess.reshape(*system.shape[:1], *case.h0.shape)
    return system, solve(case, method="newton", guess=h, compiled=False, **bounds)


def assert_the_same(case, front, plain, system):
    allowed = 16 * rounding(case) / (1 - case.lipschitz)
    norms = plain.residual_norms.reshape(len(plain.residual_norms), -1)
    assert front.norms.shape == norms.shape
    np.testing.assert_allclose(front.norms, norms, rtol=1e-4, atol=allowed)
    np.testing.assert_allclose(front.h, plain.h.reshape(system.shape), rtol=0, atol=allowed)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("n", [8, 9, 17, 40])
@pytest.mark.parametrize("batch", [(), (1,), (5,)])
def test_iterates_are_those_of_one_iteration_after_another(family, n, batch):
    case = FAMILIES[family](n=n, T=150, batch=batch, seed=n)
    system, plain = one_by_one(case)
    front = front_of(case)
    assert plain.n_iter >= 1
    assert_the_same(case, front, plain, system)
    assert front.finite


@pytest.mark.parametrize("n", [9, 16])
def test_iterates_from_a_guess(n):
    case = diagonal(n=n, T=130, batch=(3,))
    guess = np.random.default_rng(0).standard_normal(system_of(case).shape)
    system, plain = one_by_one(case, guess)
    kept = guess.copy()
    assert_the_same(case, front_of(case, guess), plain, system)
    np.testing.assert_array_equal(guess, kept)


def test_sequences_that_converge_early_keep_their_first_converged_iterate():
    """Their states are not improved further, nor their residuals."""
    case = diagonal(n=8, T=100, batch=(6,))
    x = case.x * np.array([1, 0, 3, 1e-4, 3, 1e-2])[:, None]
    h0 = case.h0 * np.array([1, 0, 3, 1e-4, 3, 1e-2])[:, None]
    case = case._replace(x=x, h0=h0)
    system, plain = one_by_one(case)
    reached = (plain.residual_norms > tolerance(case)).sum(axis=0)
    assert len(set(reached.tolist())) >= 3  # iterations that a sequence takes
    assert_the_same(case, front_of(case), plain, system)


def test_a_late_kick_takes_another_iteration_from_there():
    """Where the last steps need more iterations than all before, those are done once more."""
    case = diagonal(n=8, T=128)
    quiet = case._replace(x=case.x * 1e-3, h0=case.h0 * 1e-3)
    loud = quiet._replace(x=quiet.x.copy())
    loud.x[100:] = 2 * case.x[100:]
    few, many = front_of(quiet), front_of(loud)
    assert len(many.norms) > len(few.norms)
    system, plain = one_by_one(loud)
    assert_the_same(loud, many, plain, system)
    np.testing.assert_array_equal(many.h[:60], few.h[:60])


@pytest.mark.parametrize("B", [1, 4])
def test_threads_change_no_bit(B):
    case = diagonal(n=64, T=2048, batch=(B,))
    system = system_of(case)
    found = []
    before = prs.num_threads()
    try:
        for count in (1, 2, 3):
            prs.set_num_threads(count)
            found.append(front_of(case))
            pieces = wavefront.divide_rows(program_of(case), B, system.h0.size * 2048)
            assert len(pieces) == count
    finally:
        prs.set_num_threads(before)
    for other in found[1:]:
        np.testing.assert_array_equal(other.h, found[0].h)
        np.testing.assert_array_equal(other.norms, found[0].norms)


def test_too_many_iterations_and_overflows_are_left_to_others():
    case = diagonal(n=8, T=100)
    assert front_of(case, max_iter=1) is None
    bad = case._replace(x=case.x.copy())
    bad.x[70, 3] = np.nan
    assert front_of(bad) is None


def test_a_drive_that_is_infinite_is_noticed_where_the_states_do_not_show_it():
    case = diagonal(n=8, T=100)
    case.x[50, 2] = np.inf  # tanh is 1 there
    assert not front_of(case).finite


@pytest.mark.parametrize("drive", [0.5, np.inf])
def test_the_solution_says_that_a_kernel_ran_and_the_tally_what_it_noticed(drive):
    case = diagonal(n=8, T=100)
    case.x[50, 2] = drive
    system = replace(system_of(case), program=program_of(case))
    solution = iterate_together(system, None, load("numba"), Stopping())
    assert solution.compiled and solution.status is Status.CONVERGED
    assert system.tally.suspect == np.isinf(drive)


@pytest.mark.parametrize("chunk", [1, 10])
@pytest.mark.parametrize("choice", [(prs.exact, prs.relaxed(0.5)), (prs.scaled(0.5),)])
def test_kernels_take_the_steps_of_no_other_method(choice, chunk):
    """Of one that differs from Newton's in A alone, or in the length of the step alone."""
    case = diagonal(n=9, T=100)
    method = prs.Newton(*choice, chunk=chunk)
    found, expected = (solve(case, method=method, compiled=c) for c in (True, False))
    assert found.n_iter == expected.n_iter > 1
    np.testing.assert_allclose(found.residual_norms, expected.residual_norms, 1e-4, 1e-14)


@pytest.mark.parametrize(("n", "together"), [(2, False), (9, True)])
def test_solve_takes_all_iterations_together(monkeypatch, n, together):
    case = cell(n=n, T=100)
    seen = []
    iterate = wavefront.iterate
    monkeypatch.setattr(wavefront, "iterate", lambda *a: seen.append(iterate(*a)) or seen[-1])
    solution = solve(case, method="newton", compiled=True)
    assert len(seen) == together and solution.compiled
    if together:
        np.testing.assert_array_equal(solution.h, seen[0].h[:, 0])
        assert solution.n_step_evaluations == seen[0].evaluations
    watched = solve(case, method="newton", compiled=True, callback=lambda state: None)
    assert len(seen) == together  # a callback sees every iterate
    assert watched.n_iter == solution.n_iter


def test_a_given_guess_is_where_iterations_start():
    case = cell(n=9, T=100)
    found = solve(case, method="newton", compiled=True, guess=rollout(case))
    assert found.n_iter == 0
    assert solve(case, method="newton", compiled=True).n_iter > 0


def test_max_iter_ends_as_in_the_vectorized_path():
    case = diagonal(n=9, T=100)
    for compiled in (True, False):
        with pytest.raises(prs.ConvergenceError) as caught:
            prs.solve(*case[:4], method="newton", max_iter=1, compiled=compiled)
        solution = caught.value.solution
        assert solution.status is Status.MAX_ITER
        assert solution.n_iter == 1


def test_it_needs_rows_that_fill_vectors_and_occupy_threads():
    assert not wavefront.pays(program_of(diagonal(n=7, T=100)), (100, 1, 7))
    assert wavefront.pays(program_of(diagonal(n=8, T=100)), (100, 1, 8))
    assert not wavefront.pays(program_of(diagonal(n=8, T=63)), (63, 1, 8))
    before = prs.num_threads()
    try:
        prs.set_num_threads(2)
        numbers = 4 * kernels.WORTH_A_THREAD
        assert not wavefront.pays(program_of(diagonal(n=8)), (numbers // 8, 1, 8))
        assert wavefront.pays(program_of(diagonal(n=32)), (numbers // 32, 1, 32))
    finally:
        prs.set_num_threads(before)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_iterate_of_the_kernel_is_that_of_array_operations(family):
    """Its residual, the size of its states, its step; and those of the part that is left of it."""
    case = FAMILIES[family](n=16, T=9, batch=(3,))
    system = system_of(case)
    rng = np.random.default_rng(0)
    h = 2 * rng.standard_normal(system.shape).astype(case.h0.dtype)
    plain = Iterate(system, h, number=4)
    fused = Iterate(replace(system, program=program_of(case)), h, number=4, fused=True)
    chosen = np.array([True, False, True])
    parts = []
    for iterate in (plain, fused):
        h_left = iterate.h.copy()
        h_left[:2] = rollout(case)[:2].reshape(h_left[:2].shape)
        iterate = replace(iterate, h=h_left)
        part = iterate.system.part(h_left, 2, 9, chosen)
        parts.append((iterate, iterate.restrict(part, slice(2, None), chosen)))
    allowed = {"rtol": 1e-5, "atol": 64 * rounding(case)}
    for one, other in zip(*parts, strict=True):
        np.testing.assert_allclose(other.norm, one.norm, **allowed)
        np.testing.assert_allclose(other.size, one.size, rtol=0)
        stepped = full_step(one.linearized(exact(one)), load("numba"))
        moved = other.newton_step()
        np.testing.assert_allclose(moved.h, stepped.h, **allowed)
        assert moved.number == stepped.number == 5
        assert moved.fused


@pytest.mark.parametrize("family", FAMILIES)
def test_the_first_state_after_a_cut_is_f_of_the_state_before_it(family):
    """That one stays within its tolerance, whereas the kernel's step has moved it as well."""
    case = FAMILIES[family](n=16, T=9, batch=(3,))
    system = replace(system_of(case), program=program_of(case))
    h = 2 * np.random.default_rng(0).standard_normal(system.shape).astype(case.h0.dtype)
    iterate, chosen = Iterate(system, h, fused=True), np.array([True, False, True])
    for start in (2, 8, 9):
        part = system.part(h, start, 9, chosen)
        found = iterate.restrict(part, slice(start, None), chosen).newton_step().h
        expected = iterate.newton_step().h[start:, chosen]
        expected[:1] = part.evaluate(part.previous(h[start:, chosen]))[:1]
        np.testing.assert_allclose(found, expected, rtol=0, atol=rounding(case))
