"""Drives by heads, and sizes that are refused."""

import numpy as np
import pytest

from pararnn_solvers.cells.parameters import (
    clipped,
    gate_biases,
    head_matrices,
    project_inputs,
    recurrent_weights,
)
from pararnn_solvers.errors import InvalidInput


@pytest.mark.parametrize("heads", [1, 2, 3])
@pytest.mark.parametrize("lead", [(), (5,), (4, 2)])
def test_drives_are_products_with_a_block_diagonal_matrix(heads, lead):
    rng = np.random.default_rng(0)
    B, b = head_matrices(rng, 2, 6, 12, heads, np.float64), rng.standard_normal((2, 12))
    x = rng.standard_normal((*lead, 6))
    full = np.zeros((2, 6, 12))
    for g, j in np.ndindex(2, heads):
        rows, columns = np.split(np.arange(6), heads)[j], np.split(np.arange(12), heads)[j]
        full[g][np.ix_(rows, columns)] = B[g, j]
    expected = np.concatenate([x @ full[g] + b[g] for g in range(2)], axis=-1)
    np.testing.assert_allclose(project_inputs(x, B, b), expected, rtol=0, atol=1e-14)


def test_no_inputs_leave_the_biases():
    b = np.arange(6.0).reshape(2, 3)
    drives = project_inputs(np.zeros((4, 0)), np.zeros((2, 1, 0, 3)), b)
    np.testing.assert_array_equal(drives, np.tile(np.arange(6.0), (4, 1)))


def test_an_empty_sequence_has_no_drives():
    assert project_inputs(np.zeros((0, 2, 4)), np.zeros((3, 2, 2, 5)), np.zeros((3, 10))).shape == (
        *(0, 2),
        30,
    )


def test_draws_have_the_deviations_they_name():
    rng = np.random.default_rng(0)
    assert recurrent_weights(rng, 50, 80, np.float64).std() == pytest.approx(0.1, rel=0.05)
    B = head_matrices(rng, 3, 40, 80, 2, np.float64)
    assert np.abs(B).max() <= np.sqrt(6 / 60)
    assert B.std() == pytest.approx(np.sqrt(2 / 60), rel=0.05)
    np.testing.assert_array_equal(gate_biases(2, 3, np.float32), [[0, -0.5, -1], [0, 0, 0]])


@pytest.mark.parametrize("bound", [0, -1, np.inf, np.nan, "1"])
def test_bounds_that_bound_nothing_are_refused(bound):
    with pytest.raises(InvalidInput, match="bound is"):
        clipped(np.ones(3), bound)


def test_clipping_keeps_the_dtype():
    assert clipped(np.ones(3, np.float32), 0.5).dtype == np.float32
