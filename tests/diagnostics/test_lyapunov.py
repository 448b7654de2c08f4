"""Lyapunov exponents: known values, and one answer whichever way they are computed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pararnn_solvers as prs
from pararnn_solvers import problems
from pararnn_solvers.diagnostics import lyapunov_exponent, lyapunov_spectrum
from pararnn_solvers.diagnostics.jacobians import products

CHUNKS = (1, 7, 32)


def affine(h, x, W):
    return h @ W.T + x


def of(problem, function=lyapunov_exponent, **options):
    return function(*problem[:4], steps=problem.steps, **options)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_the_logistic_map_at_4_has_log_2(chunk):
    problem = problems.load("logistic_chaotic", length=8000)
    assert of(problem, chunk=chunk, discard=100) == pytest.approx(np.log(2), abs=0.01)


@pytest.fixture(scope="module")
def lorenz():
    problem = problems.load("lorenz63", length=20000)
    return problem, prs.rollout(*problem[:4], steps=problem.steps)


def test_lorenz_has_its_published_exponents(lorenz):
    problem, h = lorenz
    spectrum = of(problem, lyapunov_spectrum, h=h, chunk=10, discard=1000) / 0.01
    np.testing.assert_allclose(spectrum, [0.9056, 0, -14.5723], atol=0.03)
    assert spectrum.sum() == pytest.approx(-(10 + 1 + 8 / 3), rel=1e-4)  # the trace of the field
    largest = of(problem, h=h, chunk=141, discard=1000) / 0.01
    assert largest == pytest.approx(spectrum[0], abs=5e-3)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_chunks_do_not_change_the_exponents(chunk):
    for name in ("tanh_network_0.9", "long_memory_lstm", "lorenz63", "observer_abc"):
        problem = problems.load(name, length=200)
        one, many = of(problem, discard=20), of(problem, discard=20, chunk=chunk)
        np.testing.assert_allclose(many, one, rtol=1e-9, atol=1e-12)
        spectra = [of(problem, lyapunov_spectrum, chunk=c, discard=20) for c in (1, chunk)]
        # Relative to the first direction, others lose what that gains: eps times the ratio.
        kept = chunk * (spectra[0][0] - spectra[0]) < np.log(1e-7 / np.finfo(float).eps)
        np.testing.assert_allclose(spectra[1][kept], spectra[0][kept], rtol=1e-3, atol=1e-5)
        assert kept.sum() >= 2 or name == "observer_abc"  # which is told the two others


@given(
    logs=st.lists(st.floats(-2, 0.5), min_size=1, max_size=5),
    T=st.integers(1, 40),
    chunk=st.integers(1, 50),
)
def test_a_diagonal_map_has_its_logarithms(logs, T, chunk):
    a, d = np.exp(logs), len(logs)
    recurrence = prs.Recurrence(lambda h, x, a: a * h + x, block_size=1)
    arguments = recurrence, np.zeros((T, d)), np.ones(d), a
    spectrum = lyapunov_spectrum(*arguments, chunk=chunk)
    np.testing.assert_allclose(spectrum, np.sort(logs)[::-1], atol=1e-10)
    largest = [lyapunov_exponent(*arguments, chunk=c) for c in (1, chunk)]
    assert largest[0] == pytest.approx(largest[1], abs=1e-10)
    # A random vector of unit length lies along the largest one by a fixed share.
    assert largest[0] <= max(logs) + 1e-10


@given(seed=st.integers(0, 99), k=st.integers(1, 3), n=st.integers(1, 3), T=st.integers(1, 12))
def test_the_spectrum_sums_to_the_change_of_volume(seed, k, n, T):
    rng = np.random.default_rng(seed)
    blocks = rng.standard_normal((T, 2, k, k, n))
    for chunk in (1, 2, 5):
        recurrence = prs.Recurrence(
            lambda h, x, _: h, block_size=k, jacobian=lambda h, x, _: x.reshape(-1, 2, k, k, n)
        )
        x, h0 = blocks.reshape(T, 2, -1), np.ones((2, k * n))
        spectrum = lyapunov_spectrum(recurrence, x, h0, chunk=chunk)
        assert spectrum.shape == (2, k * n)
        volumes = np.linalg.slogdet(np.moveaxis(blocks, -1, 2))[1].sum(axis=(0, 2)) / T
        np.testing.assert_allclose(spectrum.sum(axis=-1), volumes, rtol=1e-6, atol=1e-6)


@given(seed=st.integers(0, 99), T=st.integers(1, 12), chunk=st.integers(1, 14))
def test_products_over_chunks_are_products(seed, T, chunk):
    blocks = np.random.default_rng(seed).standard_normal((T, 2, 3, 3, 2))
    for shared in (False, True):
        G, logarithms = products(blocks, chunk, shared=shared)
        assert np.abs(G).max() <= 1
        for p in range(len(G)):
            for channel in np.ndindex(2, 2):
                b, c = channel
                expected = np.eye(3)
                for A in blocks[p * chunk : (p + 1) * chunk, b, :, :, c]:
                    expected = A @ expected
                found = G[p, b, :, :, c] * np.exp(logarithms[p, b, c])
                np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


def test_sequences_of_a_batch_are_on_their_own():
    rng = np.random.default_rng(0)
    W, x, h0 = rng.standard_normal((3, 3)), rng.standard_normal((30, 4, 3)), np.zeros((4, 3))
    step = lambda h, x, W: np.tanh(h @ W.T + x)  # noqa: E731
    for chunk in (1, 4):
        spectrum = lyapunov_spectrum(step, x, h0, W, chunk=chunk)
        assert lyapunov_exponent(step, x, h0, W, chunk=chunk).shape == (4,)
        for b in range(4):
            alone = lyapunov_spectrum(step, x[:, b], h0[b], W, chunk=chunk)
            np.testing.assert_allclose(spectrum[b], alone, rtol=1e-9)


def test_a_map_that_forgets_at_once_has_minus_infinity():
    step = lambda h, x, _: 0 * h + x  # noqa: E731
    for chunk in (1, 3):
        assert lyapunov_exponent(step, np.ones((9, 2)), np.ones(2), chunk=chunk) == -np.inf
        assert (lyapunov_spectrum(step, np.ones((9, 2)), np.ones(2), chunk=chunk) == -np.inf).all()


def test_float32_is_taken_and_refusals_are_clear():
    problem = problems.load("gru", length=50, dtype=np.float32)
    double = problems.load("gru", length=50)
    for chunk in (1, 5):
        np.testing.assert_allclose(of(problem, chunk=chunk), of(double, chunk=chunk), rtol=1e-3)
    with pytest.raises(prs.InvalidInput, match="discard is 50 of 50 steps; expected fewer"):
        of(double, discard=50)
    with pytest.raises(prs.InvalidInput, match=r"h has shape \(3, 32\); expected a trajectory"):
        of(double, h=np.zeros((3, 32)))
    with pytest.raises(prs.InvalidInput, match="expected a finite trajectory"):
        of(double, h=np.full((50, 32), np.nan), chunk=2)
