import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pararnn_solvers.autodiff import (
    DERIVATIVES,
    central_difference,
    complex_step,
    forward_difference,
    pushforward,
)
from pararnn_solvers.errors import InvalidInput, NotDifferentiable

TOLERANCE = {
    ("dual", np.float64): 1e-14,
    ("cs", np.float64): 1e-14,
    ("2-point", np.float64): 1e-6,
    ("3-point", np.float64): 1e-9,
    ("dual", np.float32): 2e-6,
    ("cs", np.float32): 2e-6,
    ("2-point", np.float32): 1e-2,
    ("3-point", np.float32): 2e-4,
}
W = np.random.default_rng(0).normal(size=(4, 4))


def network(h):
    return np.tanh(h @ W.astype(h.real.dtype)) + h[..., ::-1] ** 2


def jacobian(h):
    slope = 1 - np.tanh(h @ W) ** 2
    return np.einsum("...j,ij->i...j", slope, W) + np.einsum(
        "...j,ij->i...j", 2 * h[..., ::-1], np.eye(4)[::-1]
    )


@pytest.mark.parametrize(("name", "dtype"), TOLERANCE)
@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4), (0, 4)])
def test_value_and_derivatives(name, dtype, shape):
    h = np.random.default_rng(1).normal(size=shape).astype(dtype)
    value, tangent = DERIVATIVES[name](network, h, np.eye(4))
    assert value.dtype == tangent.dtype == dtype
    assert tangent.shape == (4, *shape)
    np.testing.assert_array_equal(value, network(h))
    tolerance = TOLERANCE[name, dtype]
    np.testing.assert_allclose(tangent, jacobian(h.astype(float)), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", DERIVATIVES)
@pytest.mark.parametrize(
    "directions",
    [[[1.0, 0, 0, 0], [0, 1, 0, 0]], np.eye(4)[:2], np.eye(4, dtype=np.float32)[:2],
     np.broadcast_to(np.eye(4)[:2, None], (2, 3, 4))],
    ids=["list", "array", "float32", "full"],
)  # fmt: skip
def test_forms_of_directions(name, directions):
    h = np.random.default_rng(1).normal(size=(3, 4))
    _, tangent = DERIVATIVES[name](network, h, directions)
    np.testing.assert_allclose(tangent, jacobian(h)[:2], atol=1e-6)


@pytest.mark.parametrize("name", DERIVATIVES)
def test_structured_seeds_stay_valid_for_states_of_very_different_size(name):
    """One direction reveals all channels of a diagonal system, whatever their sizes."""
    h = np.array([[1e-3, 1.0, 50.0], [1e3, 2.0, 0.0]])
    a = np.array([1.0, -2.0, 3.0])
    _, tangent = DERIVATIVES[name](lambda h: a * h, h, np.ones((1, 3)))
    np.testing.assert_allclose(tangent[0], np.broadcast_to(a, h.shape), rtol=1e-6)


@pytest.mark.parametrize("name", ["2-point", "3-point"])
def test_nan_stays_in_its_state(name):
    h = np.array([[1.0, 2, 3, 4], [1, np.nan, 3, 4]])
    _, tangent = DERIVATIVES[name](network, h, np.eye(4))
    assert np.isfinite(tangent[:, 0]).all()


@pytest.mark.parametrize("name", DERIVATIVES)
def test_integer_states_are_refused(name):
    with pytest.raises(InvalidInput, match=r"dtype int64, not a floating type"):
        DERIVATIVES[name](network, np.ones((3, 4), int), np.eye(4))


@pytest.mark.parametrize("name", DERIVATIVES)
def test_a_direction_of_one_number_moves_all_entries_by_it(name):
    h = np.random.default_rng(1).normal(size=(3, 4))
    _, tangent = DERIVATIVES[name](network, h, [[1.0], [-2.0]])
    expected = np.array([1.0, -2.0])[:, None, None] * jacobian(h).sum(axis=0)
    np.testing.assert_allclose(tangent, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "directions", [np.ones(4), np.ones((2, 3)), np.ones((4, 2)), np.ones((4, 0))]
)
def test_directions_of_the_wrong_shape_are_refused(directions):
    with pytest.raises(InvalidInput, match=r"shape \(p, 4\)"):
        pushforward(network, np.ones((3, 4)), directions)


def test_complex_step_detects_a_real_result():
    with pytest.raises(NotDifferentiable, match="returned a real array"):
        complex_step(np.abs, np.ones((3, 4)), np.eye(4))


def test_constant_functions_have_derivative_zero():
    for name in ("dual", "2-point", "3-point"):
        value, tangent = DERIVATIVES[name](lambda h: np.ones(h.shape), np.ones((3, 4)), np.eye(4))
        np.testing.assert_array_equal(tangent, np.zeros((4, 3, 4)))
    assert pushforward(lambda h: 1.0, np.ones((3, 4)), np.eye(4)[:2])[1].shape == (2,)


def test_steps_of_differences_follow_the_largest_entry_but_are_never_below_that_of_one():
    """Of a parabola the forward difference at 0 is the step, of a cubic the central its square."""
    root = 2.0**-26  # eps**(1/2) of float64
    _, small = forward_difference(np.square, np.array([0.0, 0.5]), [[1.0, 0.0]])
    _, large = forward_difference(np.square, np.array([0.0, -8.0]), [[1.0, 0.0]])
    np.testing.assert_array_equal([small[0, 0], large[0, 0]], [root, 8 * root])
    _, central = central_difference(lambda h: h**3, np.array([0.0, -8.0]), [[1.0, 0.0]])
    np.testing.assert_allclose(central[0, 0], (8 * 2 ** (-52 / 3)) ** 2, rtol=1e-14)


def test_a_complex_step_leaves_the_real_part_alone():
    _, tangent = complex_step(np.square, np.zeros((1, 2)), np.eye(2))
    np.testing.assert_array_equal(tangent, np.zeros((2, 1, 2)))


def test_a_complex_step_in_extended_precision():
    h = np.linspace(-1, 1, 4, dtype=np.longdouble)
    value, tangent = complex_step(np.exp, h, np.eye(4))
    assert value.dtype == tangent.dtype == np.longdouble
    tolerance = 4 * float(np.finfo(np.longdouble).eps)
    np.testing.assert_allclose(np.diag(np.diag(tangent)), tangent)
    np.testing.assert_allclose(np.diag(tangent), np.exp(h), rtol=tolerance)


def test_half_precision_is_computed_in_single():
    for name in ("dual", "cs"):
        h = np.linspace(-1, 1, 4, dtype=np.float16)
        value, tangent = DERIVATIVES[name](np.tanh, h, np.eye(4))
        assert value.dtype == tangent.dtype == np.float16
        np.testing.assert_allclose(tangent, np.diag(1 - np.tanh(h) ** 2), atol=2e-3)


def test_nothing_is_written_into_the_argument():
    h = np.ones((3, 4))
    for derivative in DERIVATIVES.values():
        derivative(network, h, np.eye(4))
    np.testing.assert_array_equal(h, np.ones((3, 4)))
    assert h.flags.writeable


def test_the_tangent_is_not_the_directions():
    directions = np.ones((2, 3, 4))
    for step in (lambda h: h, lambda h: h + 1, lambda h: h[..., ::-1]):
        _, tangent = pushforward(step, np.ones((3, 4)), directions)
        tangent[...] = 7
        np.testing.assert_array_equal(directions, np.ones((2, 3, 4)))


def test_differences_of_functions_that_round_or_branch():
    _, tangent = forward_difference(lambda h: np.maximum(h, 0), np.array([[-1.0, 2.0]]), np.eye(2))
    np.testing.assert_allclose(tangent[:, 0], [[0, 0], [0, 1]], atol=1e-7)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 5), st.integers(1, 4))
def test_exact_methods_agree(seed, p, d):
    rng = np.random.default_rng(seed)
    h, V, D = rng.normal(size=(2, 3, d)), rng.normal(size=(d, d)), rng.normal(size=(p, d))

    def step(h):
        return np.exp(-h * h) @ V + np.sin(h) / (2 + np.cos(h)) + np.sum(h, -1, keepdims=True)

    np.testing.assert_allclose(
        pushforward(step, h, D)[1], complex_step(step, h, D)[1], rtol=1e-12, atol=1e-12
    )
