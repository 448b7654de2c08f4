"""All Newton iterations in one pass of a CUDA kernel are those of one iteration after another."""

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers.compiled import cuda_wavefront
from pararnn_solvers.solvers.stopping import Stopping
from tests.compiled.cuda.on_device import FAMILIES, problem
from tests.cuda_on_cpu import fake_cupy, raw_module
from tests.strategies import rounding, solve


def tolerance(case):
    return 1e-9 if case.h0.dtype == np.float64 else 1e-5


def front_of(device, case, guess=None, **bounds):
    p = problem(device, case)
    stopping = Stopping(**{"atol": tolerance(case), "rtol": 0.0, **bounds})
    h = device.empty(p.system.shape, case.h0.dtype)
    guess = None if guess is None else device.asarray(guess)
    return cuda_wavefront.iterate(p.gpu, p.x, p.h0, guess, h, stopping)


def one_by_one(case, guess=None, **bounds):
    """The vectorized path."""
    bounds = {"atol": tolerance(case), "rtol": 0.0, **bounds}
    guess = None if guess is None else guess.reshape(len(guess), *case.h0.shape)
    return solve(case, method="newton", guess=guess, compiled=False, **bounds)


def assert_the_same(case, front, plain):
    allowed = 16 * rounding(case) / (1 - case.lipschitz)
    norms = plain.residual_norms.reshape(len(plain.residual_norms), -1)
    assert front.norms.shape == norms.shape
    np.testing.assert_allclose(front.norms, norms, rtol=1e-4, atol=allowed)
    h = front.h.get()
    np.testing.assert_allclose(h, plain.h.reshape(h.shape), rtol=0, atol=allowed)


@pytest.mark.parametrize(
    ("family", "n", "batch"),
    [
        ("diagonal", 1, ()),
        ("diagonal", 33, (2,)),
        ("cell", 3, (5,)),
        ("single gru", 5, (2,)),
        ("autonomous", 3, ()),
    ],
)
@pytest.mark.parametrize("rtol", [0.0, 1e-6])
def test_iterates_are_those_of_one_iteration_after_another(device, family, n, batch, rtol):
    case = FAMILIES[family](n=n, T=70, batch=batch, seed=n)
    plain, front = one_by_one(case, rtol=rtol), front_of(device, case, rtol=rtol)
    assert plain.n_iter >= 1
    assert_the_same(case, front, plain)
    assert front.finite


def test_iterates_from_a_guess(device):
    case = FAMILIES["diagonal"](n=3, T=70, batch=(3,))
    guess = np.random.default_rng(0).standard_normal((70, 3, 3))
    assert_the_same(case, front_of(device, case, guess), one_by_one(case, guess))


def test_sequences_that_converge_early_keep_their_first_converged_iterate(device):
    case = FAMILIES["diagonal"](n=3, T=70, batch=(5,))
    size = np.array([1, 0, 3, 1e-4, 1e-2])[:, None]
    case = case._replace(x=case.x * size, h0=case.h0 * size)
    plain = one_by_one(case)
    assert len(set((plain.residual_norms > tolerance(case)).sum(axis=0).tolist())) >= 3
    assert_the_same(case, front_of(device, case), plain)


def test_a_late_kick_takes_another_iteration_from_there(device):
    case = FAMILIES["diagonal"](n=3, T=100)
    quiet = case._replace(x=case.x * 1e-3, h0=case.h0 * 1e-3)
    loud = quiet._replace(x=quiet.x.copy())
    loud.x[60:] = 2 * case.x[60:]
    few, many = front_of(device, quiet), front_of(device, loud)
    assert len(many.norms) > len(few.norms)
    assert_the_same(loud, many, one_by_one(loud))
    np.testing.assert_array_equal(many.h.get()[:40], few.h.get()[:40])


def test_the_first_state_is_f_where_its_derivative_is_infinite(device):
    case = FAMILIES["diagonal"](n=2, T=64)
    root = prs.Recurrence(lambda h, x, a: np.sqrt(np.abs(h)) + x * x, block_size=1)
    case = case._replace(recurrence=root, h0=np.zeros_like(case.h0))
    expected = prs.rollout(root, *case[1:4], compiled=False)
    front = front_of(device, case)
    np.testing.assert_allclose(front.h.get()[:, 0], expected, atol=1e-7)


def test_too_many_iterations_and_overflows_are_left_to_others(device):
    case = FAMILIES["diagonal"](n=2, T=64)
    assert front_of(device, case, max_iter=1) is None
    bad = case._replace(x=case.x.copy())
    bad.x[40, 1] = np.nan
    assert front_of(device, bad) is None


def test_a_drive_that_is_infinite_is_noticed_where_the_states_do_not_show_it(device):
    case = FAMILIES["diagonal"](n=2, T=64)
    case.x[50, 1] = np.inf  # tanh is 1 there
    assert not front_of(device, case).finite


def test_every_order_of_threads_gives_the_same_bits(device, thread_order):
    case = FAMILIES["diagonal"](n=33, T=64, batch=(2,))
    front = front_of(device, case)
    with raw_module.schedule(raw_module.FORWARD):
        other = front_of(device, case)
    np.testing.assert_array_equal(front.h.get(), other.h.get())
    np.testing.assert_array_equal(front.norms, other.norms)


@pytest.mark.double
def test_what_comes_to_the_host_is_small(device):
    p = problem(device, FAMILIES["diagonal"](n=3, T=640, batch=(2,)))
    h = device.empty(p.system.shape)
    fake_cupy.copies.clear()
    cuda_wavefront.iterate(p.gpu, p.x, p.h0, None, h, Stopping())
    iterates = cuda_wavefront.MOST_ITERATIONS + 1
    assert max(fake_cupy.copies.to_host) <= 8 * (2 + 2 * iterates)
    assert max(fake_cupy.copies.to_device) <= 8 * iterates


@pytest.mark.double
@pytest.mark.parametrize(("n", "T", "together"), [(70, 64, True), (3, 140, False)])
def test_solve_takes_all_iterations_together_where_lanes_fill_the_device(
    device, monkeypatch, n, T, together
):
    seen, iterate = [], cuda_wavefront.iterate
    monkeypatch.setattr(cuda_wavefront, "iterate", lambda *a: seen.append(iterate(*a)) or seen[-1])
    case = FAMILIES["diagonal"](n=n, T=T, batch=(3,))
    arrays = [device.asarray(a) if isinstance(a, np.ndarray) else a for a in case[1:4]]
    options = dict(method="newton", compiled=True)
    host = prs.solve(*case[:4], method="newton", compiled=False)
    found = prs.solve(case.recurrence, *arrays, **options)
    assert len(seen) == together
    assert found.n_iter == host.n_iter
    np.testing.assert_allclose(found.h.get(), host.h, atol=1e-9)
    if together:
        assert found.n_step_evaluations == seen[0].evaluations
    watched = prs.solve(case.recurrence, *arrays, callback=lambda state: None, **options)
    assert len(seen) == together  # a callback sees every iterate
    assert watched.n_iter == found.n_iter
