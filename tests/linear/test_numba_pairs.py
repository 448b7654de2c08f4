"""Two components, one channel, many sequences: 2 x 2 systems side by side in SIMD."""

import numpy as np
import pytest

from pararnn_solvers.linear import load

TOLERANCE = {np.float32: 2e-5, np.float64: 2e-14}


@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sequences", [1, 3, 4, 7, 8, 9, 16, 21, 40])
def test_equals_the_sequential_scan(sequences, dtype, adjoint):
    rng = np.random.default_rng(sequences)
    blocks = rng.uniform(-0.7, 0.7, (37, sequences, 2, 2, 1)).astype(dtype)
    rhs = rng.standard_normal((37, sequences, 2)).astype(dtype)
    expected = load("sequential")(blocks, rhs, adjoint=adjoint)
    np.testing.assert_allclose(
        load("numba")(blocks, rhs, adjoint=adjoint), expected, atol=TOLERANCE[dtype]
    )


@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_inf_stay_in_their_sequence_and_after_their_step(bad, adjoint):
    rng = np.random.default_rng(1)
    blocks, rhs = rng.uniform(-0.7, 0.7, (20, 21, 2, 2, 1)), rng.standard_normal((20, 21, 2))
    clean = load("numba")(blocks, rhs, adjoint=adjoint)
    rhs[11, 5] = bad
    spoilt = load("numba")(blocks, rhs, adjoint=adjoint)
    others = np.arange(21) != 5
    np.testing.assert_array_equal(spoilt[:, others], clean[:, others])
    before = slice(12, None) if adjoint else slice(0, 11)
    np.testing.assert_array_equal(spoilt[before, 5], clean[before, 5])
    assert not np.isfinite(spoilt[11, 5]).any()
