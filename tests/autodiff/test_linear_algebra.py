import numpy as np
import pytest

RNG = np.random.default_rng(0)
A = RNG.normal(size=(5, 3, 3)) + 3 * np.eye(3)


@pytest.mark.parametrize("function", [np.linalg.inv, np.linalg.det])
@pytest.mark.parametrize("a", [A, A[0]], ids=["stack", "matrix"])
def test_inverse_and_determinant(function, a, check):
    check(function, a, rtol=1e-11)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (A[0], RNG.normal(size=3)),
        (A[0], RNG.normal(size=(3, 2))),
        (A, RNG.normal(size=3)),
        (A, RNG.normal(size=(3, 2))),
        (A[0], RNG.normal(size=(5, 3, 2))),
        (A, RNG.normal(size=(5, 3, 2))),
        (A[:, None], RNG.normal(size=(4, 3, 2))),
    ],
)
def test_solve(a, b, check):
    check(np.linalg.solve, a, b, rtol=1e-11)


@pytest.mark.parametrize("a", [A, A[0], A[:, :2, :2]], ids=["stack", "matrix", "2 x 2"])
def test_cholesky(a, check):
    check(lambda a: np.linalg.cholesky(a @ np.swapaxes(a, -1, -2)), a, analytic=False)


def test_cholesky_reads_the_lower_triangle_only(check):
    """As NumPy does: a change above the diagonal changes nothing."""
    symmetric = A[0] @ A[0].T
    check(np.linalg.cholesky, symmetric, analytic=False)
    check(np.linalg.cholesky, np.tril(symmetric), analytic=False)
