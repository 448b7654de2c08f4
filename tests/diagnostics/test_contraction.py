"""Contraction and conditioning, against dense matrices."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pararnn_solvers as prs
from pararnn_solvers import problems
from pararnn_solvers.bidiagonal import BlockBidiagonal
from pararnn_solvers.diagnostics import (
    conditioning,
    contraction_rate,
    lyapunov_exponent,
    matrix_conditioning,
)
from pararnn_solvers.diagnostics import contraction as module
from pararnn_solvers.linear import load


def of(problem, function, **options):
    return function(*problem[:4], steps=problem.steps, **options)


def dense(blocks):
    """I - S A of blocks (T, k, k, n), written out."""
    T, k, _, n = blocks.shape
    M = np.eye(T * k * n).reshape(T, k, n, T, k, n)
    for t in range(1, T):
        for c in range(n):
            M[t, :, c, t - 1, :, c] -= blocks[t, :, :, c]
    return M.reshape(T * k * n, -1)


@given(
    seed=st.integers(0, 99),
    T=st.integers(1, 9),
    k=st.integers(1, 3),
    n=st.integers(1, 3),
    lanczos=st.booleans(),
)
def test_norms_are_those_of_the_dense_matrix(seed, T, k, n, lanczos):
    blocks = np.random.default_rng(seed).standard_normal((T, 1, k, k, n))
    M = dense(blocks[:, 0])
    limit = module.EXACT_SIZE
    module.EXACT_SIZE = 2 if lanczos else limit
    try:
        shape = (T, 1, k * n)
        found = matrix_conditioning(BlockBidiagonal(blocks), shape, load("sequential"))
    finally:
        module.EXACT_SIZE = limit
    assert found.norm == pytest.approx(np.linalg.norm(M, 2), rel=1e-3)
    assert found.inverse_norm == pytest.approx(np.linalg.norm(np.linalg.inv(M), 2), rel=1e-3)
    assert found.number == pytest.approx(np.linalg.cond(M), rel=2e-3)


SIZES = {"gru": 32, "observer_lorenz": 3, "linear_rotation": 8}


@pytest.mark.parametrize("name", SIZES)
def test_many_unknowns_by_scans_alone(name):
    problem = problems.load(name, length=100).first(300 // SIZES[name])
    h = prs.rollout(*problem[:4], steps=problem.steps)
    system = prs.System(*problem[:4], problem.steps)
    M = dense(system.linearize(h))
    assert len(M) > module.EXACT_SIZE
    found = of(problem, conditioning)
    assert found.norm == pytest.approx(np.linalg.norm(M, 2), rel=1e-3)
    assert found.inverse_norm == pytest.approx(np.linalg.norm(np.linalg.inv(M), 2), rel=1e-3)


def test_the_inverse_tells_contractive_marginal_and_expansive_apart():
    def inverse_norm(name, T):
        return of(problems.load(name, length=T), conditioning).inverse_norm

    shrinking = [inverse_norm("linear_contractive", T) for T in (200, 400)]
    assert max(shrinking) <= 1 / (1 - 0.95)
    assert shrinking[1] == pytest.approx(shrinking[0], rel=0.05)
    kept = [inverse_norm("linear_rotation", T) for T in (200, 400)]
    assert kept[1] / kept[0] == pytest.approx(2, rel=0.02)
    assert kept[1] == pytest.approx(2 * 400 / np.pi, rel=0.01)  # of a running sum of 400 numbers
    assert inverse_norm("logistic_chaotic", 400) > 1e60
    assert inverse_norm("logistic_chaotic", 3000) == np.inf


@given(seed=st.integers(0, 99), T=st.integers(1, 8), span=st.integers(1, 8))
def test_contraction_is_the_greatest_product(seed, T, span):
    span = min(span, T)
    rng = np.random.default_rng(seed)
    W, x = rng.standard_normal((3, 3)), rng.standard_normal((T, 3))
    step = lambda h, x, W: np.tanh(h @ W.T + x)  # noqa: E731
    A = prs.System(prs.Recurrence(step), x, np.zeros(3), W).linearize(
        prs.rollout(step, x, np.zeros(3), W)
    )[..., 0]
    for norm in (1, 2, np.inf):
        sizes = []
        for t in range(T - span + 1):
            G = np.eye(3)
            for s in range(span):
                G = A[t + s] @ G
            sizes.append(np.linalg.norm(G, norm) ** (1 / span))
        found = contraction_rate(step, x, np.zeros(3), W, span=span, norm=norm)
        assert found == pytest.approx(max(sizes), rel=1e-9)


def test_contraction_bounds_the_exponent_and_approaches_it():
    problem = problems.load("gru", length=400)
    h = prs.rollout(*problem[:4])
    rates = [np.log(of(problem, contraction_rate, span=span, h=h)) for span in (1, 10, 100)]
    exponent = of(problem, lyapunov_exponent, discard=50)
    assert rates[0] > rates[1] > rates[2] >= exponent - 0.02
    with pytest.raises(prs.InvalidInput, match="span is 401; expected at most the 400 steps"):
        of(problem, contraction_rate, span=401)
