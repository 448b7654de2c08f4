"""Steps as programs: what they use, where it lies, and every function that they may call."""

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers import functions
from pararnn_solvers.compiled import numba_kernels as kernels
from pararnn_solvers.compiled.addresses import Place
from pararnn_solvers.compiled.program import FUNCTIONS, compile_source, program
from pararnn_solvers.errors import NotTraceable
from tests.compiled.cases import cell, diagonal, program_of
from tests.test_sensitivities import assert_close

scipy_erf = pytest.importorskip("scipy.special").erf

# As a step writes them, of any numbers.
CALLS = {
    "abs": lambda a, b: np.abs(a),
    "ceil": lambda a, b: np.ceil(a),
    "copysign": lambda a, b: np.copysign(a, b),
    "cos": lambda a, b: np.cos(a),
    "erf": lambda a, b: scipy_erf(a),
    "exp": lambda a, b: np.exp(a),
    "expm1": lambda a, b: np.expm1(a),
    "fabs": lambda a, b: np.fabs(a),
    "floor": lambda a, b: np.floor(a),
    "fmax": lambda a, b: np.fmax(a, b),
    "fmin": lambda a, b: np.fmin(a, b),
    "isfinite": lambda a, b: np.where(np.isfinite(a), a, b),
    "isinf": lambda a, b: np.where(np.isinf(a), 1, b),
    "isnan": lambda a, b: np.where(np.isnan(a), 2, b),
    "log": lambda a, b: np.log(a),
    "log1p": lambda a, b: np.log1p(a),
    "maximum": lambda a, b: np.maximum(a, b),
    "minimum": lambda a, b: np.minimum(a, b),
    "pow": lambda a, b: np.abs(a) ** b,
    "rint": lambda a, b: np.rint(a),
    "sigmoid": lambda a, b: functions.sigmoid(a),
    "sign": lambda a, b: np.sign(a),
    "sin": lambda a, b: np.sin(a),
    "softplus": lambda a, b: functions.softplus(a),
    "sqrt": lambda a, b: np.sqrt(a),
    "tanh": lambda a, b: np.tanh(a),
    "trunc": lambda a, b: np.trunc(a),
}
MORE = {
    "square": lambda a, b: np.square(a) - a**3,
    "silu": lambda a, b: functions.silu(a),
    "clip": lambda a, b: np.clip(a, -0.5, 0.25),
    "masks": lambda a, b: np.where((a < b) & ~(a > 0) | (b >= 1) ^ (a != 0.5), a, b),
    "masks of masks": lambda a, b: np.where(np.where(a < b, a > 0, b > 0), a, b),
    "a mask as a number": lambda a, b: (a > b) * b + (a <= 0.1),
    "a constant": lambda a, b: 0 * a + 0.1,
    "reciprocal": lambda a, b: 1 / a + 2 / (1 + b * b),
}
EVERY = {**CALLS, **MORE}
WITH_CONSTANTS = {
    "a power with a constant exponent": lambda a, b: np.abs(a) ** 2.5,
    "a constant to a power": lambda a, b: 1.5**b,
    "greater of a constant": lambda a, b: np.maximum(0, a) + np.maximum(b, 0.1),
    "lesser of a constant": lambda a, b: np.minimum(0, a) + np.minimum(b, 0.1),
    "numbers among constants": lambda a, b: np.fmax(0.1, a) + np.fmin(b, 0.1) + np.fmax(b, 0.2),
    "the sign of a constant": lambda a, b: np.copysign(a, -1) * np.copysign(0.5, b),
}
both = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def every_step(h, x, _):
    """Each function is a component of the next state, of the first component and the drive."""
    first = h[..., : h.shape[-1] // len(EVERY)]
    return np.concatenate([call(first, x) for call in EVERY.values()], axis=-1)


def constant_step(h, x, _):
    first = h[..., : h.shape[-1] // len(WITH_CONSTANTS)]
    return np.concatenate([call(first, x) for call in WITH_CONSTANTS.values()], axis=-1)


def special(dtype):
    info = np.finfo(dtype)
    each = [0.0, info.smallest_normal, 0.1, 0.5, 1.0, 1.5, 2.5, 7.25, 30.0, np.inf]
    each = np.array([*each, *(-v for v in each), np.nan], dtype)
    return (part.ravel() for part in np.meshgrid(each, each))


def test_the_table_is_tried_whole():
    assert set(CALLS) == set(FUNCTIONS)


@both
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("step, calls", [(every_step, EVERY), (constant_step, WITH_CONSTANTS)])
def test_every_function_is_numpys_on_special_values(dtype, wide, step, calls):
    """Of narrow rows with lanes in vectors, and of wide ones with channels."""
    first, x = special(dtype)
    n = len(first) if wide else 1
    h = np.tile(first.reshape(-1, n), (1, len(calls)))
    x = x.reshape(-1, n)
    made = program(step, h[:1], x[:1], None, len(calls))
    made.require_functions()
    with np.errstate(all="ignore"):
        expected = step(h, x, None).astype(dtype)
    found = kernels.evaluate(made, h, x)
    for i, name in enumerate(calls):
        columns = slice(i * n, (i + 1) * n)
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(
            found[:, columns], expected[:, columns], rtol=8 * eps, atol=eps, err_msg=name
        )


def smooth_sum(h, x, a):
    """Everything that has a derivative, where it has one, in one component."""
    u = 1.5 + 0.4 * np.tanh(a * h + x)  # between 1.1 and 1.9
    total = np.log(u) + np.log1p(u) + np.sqrt(u) + np.abs(u) ** a
    total = total + np.exp(-u) + np.expm1(-u) + np.sin(u) * np.cos(u) + scipy_erf(u)
    total = total + functions.sigmoid(u) + functions.softplus(u) + functions.silu(u)
    total = total + np.maximum(u, 1.4) + np.minimum(u, 1.6) + np.fmax(x, u) * np.fmin(a, u)
    total = total + np.copysign(u, x) + np.abs(h - u) + np.fabs(h) + np.sign(x) * u
    total = total + np.floor(u) + np.ceil(u) + np.rint(u) + np.trunc(u)
    usual = np.isfinite(u) & ~np.isnan(u) & ~np.isinf(u)
    return 0.1 * np.where(usual, total, 1) - 1


def sum_with_constants(h, x, a):
    u = 1.5 + 0.4 * np.tanh(a * h + x)
    total = u**2.5 + 1.1**u + np.maximum(0.2, h) + np.fmin(0.5, x) + np.copysign(0.1, x) * u
    return 0.1 * (total + np.copysign(u, -1) + np.fmax(h, 0) + np.minimum(1.5, u)) - 0.5


@pytest.mark.parametrize("n", [2, 9])
@pytest.mark.parametrize("step", [smooth_sum, sum_with_constants])
def test_every_function_in_a_solve_and_its_gradients(n, step):
    rng = np.random.default_rng(0)
    x, h0 = rng.standard_normal((40, 3, n)), rng.standard_normal((3, n))
    a = rng.uniform(0.2, 0.4, n)
    recurrence = prs.Recurrence(step, block_size=1)
    dh = rng.standard_normal(x.shape)
    for method in ("newton", "sequential"):
        plain, compiled = (
            prs.solve(recurrence, x, h0, a, method=method, compiled=compiled)
            for compiled in (False, True)
        )
        assert compiled.n_iter == plain.n_iter
        np.testing.assert_allclose(compiled.h, plain.h, rtol=0, atol=1e-12)
        assert_close(prs.gradients(compiled, dh), prs.gradients(plain, dh), rtol=1e-10)


# --- what a program is ----------------------------------------------------------------------------


def test_a_program_knows_what_the_step_uses():
    made = program_of(cell(n=4))
    assert (made.k, made.n, made.dtype) == (2, 4, np.float64)
    assert [i.position for i in made.drives] == [(0,), (2,)]
    assert made.drive_places == (Place(0, 0, False), Place(2, 0, False))
    shared = [not i.channels for i in made.parameters]
    assert shared == sorted(shared, reverse=True)
    assert sum(shared) == 3  # bias, rate, and one entry of the scale
    assert made.parameter_places[:3] == tuple(Place(i, 0, False) for i in range(3))
    assert made.parameter_places[3:] == (Place(3, 0, True), Place(3, 1, True))
    case = cell(n=4)
    values = [0.1, 0.7, 0.8]
    assert sorted(made.theta[:3]) == sorted(values)
    np.testing.assert_array_equal(
        made.theta[3:], np.concatenate([case.theta["gates"].w[0], case.theta["gates"].w[1]])
    )


def test_parameters_have_the_dtype_of_the_state():
    made = program_of(diagonal(n=3, dtype=np.float32))
    assert made.theta.dtype == np.float32


def test_drives_are_of_each_channel_where_they_can_be():
    def step(h, x, _):
        return 0.5 * h + x[..., : h.shape[-1]]

    h = np.zeros((1, 3))
    assert program(step, h, h, None, 1).drive_places == (Place(0, 0, True),)
    assert program(step, h, np.zeros((1, 9)), None, 1).drive_places == (Place(0, 0, True),)
    dense = program(step, h, h, None, 3)
    assert (dense.k, dense.n) == (3, 1)
    assert dense.drive_places == tuple(Place(0, i, True) for i in range(3))


def test_equal_sources_are_one_function():
    one, other = program_of(diagonal(n=3)), program_of(diagonal(n=5, seed=1, T=3))
    assert one.step_source == other.step_source
    assert compile_source(one.step_source) is compile_source(other.step_source)
    assert kernels.kernel(one, "row", "sweep", 1, 1) is kernels.kernel(other, "row", "sweep", 1, 1)


def test_constants_are_written_in_the_dtype_of_the_state():
    step = lambda h, x, _: 0.1 * h + 1e300  # noqa: E731
    double, single = (
        program(step, np.zeros((1, 2), dtype), None, None, 1) for dtype in ("f8", "f4")
    )
    assert "0.1" in double.step_source and "1e+300" in double.step_source
    assert "inf" in single.step_source
    h = np.ones((5, 2), np.float32)
    assert np.isposinf(kernels.evaluate(single, h, None)).all()


def test_a_step_of_nothing_but_constants():
    recurrence = prs.Recurrence(lambda h, x, _: 0 * h + np.float64(0.25), block_size=1)
    found = prs.rollout(recurrence, None, np.ones((3, 2)), steps=4, compiled=True)
    np.testing.assert_array_equal(found, np.full((4, 3, 2), 0.25))


def test_a_step_that_returns_its_state_or_its_drive():
    x, h0 = np.random.default_rng(0).standard_normal((20, 3, 9)), np.ones((3, 9))
    still = prs.Recurrence(lambda h, x, _: h, block_size=1)
    passing = prs.Recurrence(lambda h, x, _: x, block_size=1)
    states = np.broadcast_to(h0, x.shape)
    np.testing.assert_array_equal(prs.rollout(still, x, h0, compiled=True), states)
    np.testing.assert_array_equal(prs.rollout(passing, x, h0, compiled=True), x)
    solution = prs.solve(passing, x, h0, method="newton", compiled=True)
    gradients = prs.gradients(solution, 2 * x)
    np.testing.assert_array_equal(gradients.x, 2 * x)
    np.testing.assert_array_equal(gradients.h0, 0 * h0)


def swap(h, x, _):
    """Components exchange places: what is written must not be read again."""
    u, v = np.split(h, 2, axis=-1)
    return np.concatenate([v, u], axis=-1) + x


@pytest.mark.parametrize("n", [2, 9])
def test_components_that_change_places(n):
    x = np.random.default_rng(0).standard_normal((33, 5, 2 * n))
    h0 = np.random.default_rng(1).standard_normal((5, 2 * n))
    recurrence = prs.Recurrence(swap, block_size=2)
    expected = prs.rollout(recurrence, x, h0, compiled=False)
    np.testing.assert_allclose(prs.rollout(recurrence, x, h0, compiled=True), expected, atol=1e-13)
    for method in ("newton", prs.newton(chunk=7)):
        solution = prs.solve(recurrence, x, h0, method=method, compiled=True)
        assert solution.n_iter == 1
        np.testing.assert_allclose(solution.h, expected, rtol=0, atol=1e-11)


def test_functions_without_a_vector_version_are_named():
    step = lambda h, x, _: np.arctan(np.sinh(h)) + x  # noqa: E731
    made = program(step, np.zeros((1, 2)), np.zeros((1, 2)), None, 1)
    with pytest.raises(NotTraceable, match="step calls arctan, sinh"):
        made.require_functions()


def test_functions_that_only_a_derivative_calls_are_found_too():
    step = lambda h, x, _: functions.gelu(h) + x  # noqa: E731
    made = program(step, np.zeros((1, 2)), np.zeros((1, 2)), None, 1)
    with pytest.raises(NotTraceable, match="ndtr"):
        made.require_functions()
