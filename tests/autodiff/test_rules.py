import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from pararnn_solvers import functions
from pararnn_solvers.autodiff import RULES, Dual, tangent_of, value_of

ANY = (-3.0, 3.0)
POSITIVE = (0.2, 4.0)
UNIT = (-0.9, 0.9)
ABOVE_ONE = (1.2, 4.0)
PROBABILITY = (0.3, 0.7)

# name: (function, domain of each argument, whether a complex step through it is possible)
CASES = {
    "add": (np.add, (ANY, ANY), True),
    "subtract": (np.subtract, (ANY, ANY), True),
    "multiply": (np.multiply, (ANY, ANY), True),
    "divide": (np.divide, (ANY, POSITIVE), True),
    "power": (np.power, (POSITIVE, ANY), True),
    "float_power": (np.float_power, (POSITIVE, ANY), True),
    "remainder": (np.remainder, ((2.1, 2.4), (0.83, 0.95)), False),
    "fmod": (np.fmod, ((-2.4, -2.1), (0.83, 0.95)), False),
    "negative": (np.negative, (ANY,), True),
    "positive": (np.positive, (ANY,), True),
    "conjugate": (np.conjugate, (ANY,), False),
    "reciprocal": (np.reciprocal, (POSITIVE,), True),
    "square": (np.square, (ANY,), True),
    "sqrt": (np.sqrt, (POSITIVE,), True),
    "cbrt": (np.cbrt, (POSITIVE,), False),
    "hypot": (np.hypot, (POSITIVE, ANY), False),
    "exp": (np.exp, (ANY,), True),
    "exp2": (np.exp2, (ANY,), True),
    "exp10": (special.exp10, (UNIT,), False),
    "expm1": (np.expm1, (ANY,), True),
    "log": (np.log, (POSITIVE,), True),
    "log2": (np.log2, (POSITIVE,), True),
    "log10": (np.log10, (POSITIVE,), True),
    "log1p": (np.log1p, (POSITIVE,), True),
    "logaddexp": (np.logaddexp, (ANY, ANY), False),
    "logaddexp2": (np.logaddexp2, (ANY, ANY), False),
    "xlogy": (special.xlogy, (ANY, POSITIVE), True),
    "xlog1py": (special.xlog1py, (ANY, POSITIVE), True),
    "entr": (special.entr, (POSITIVE,), False),
    "sin": (np.sin, (ANY,), True),
    "cos": (np.cos, (ANY,), True),
    "tan": (np.tan, (UNIT,), True),
    "arcsin": (np.arcsin, (UNIT,), True),
    "arccos": (np.arccos, (UNIT,), True),
    "arctan": (np.arctan, (ANY,), True),
    "arctan2": (np.arctan2, (ANY, POSITIVE), False),
    "sinh": (np.sinh, (ANY,), True),
    "cosh": (np.cosh, (ANY,), True),
    "tanh": (np.tanh, (ANY,), True),
    "arcsinh": (np.arcsinh, (ANY,), True),
    "arccosh": (np.arccosh, (ABOVE_ONE,), True),
    "arctanh": (np.arctanh, (UNIT,), True),
    "deg2rad": (np.deg2rad, (ANY,), False),
    "radians": (np.radians, (ANY,), False),
    "rad2deg": (np.rad2deg, (ANY,), False),
    "degrees": (np.degrees, (ANY,), False),
    "absolute": (np.absolute, (POSITIVE,), False),
    "fabs": (np.fabs, ((-4.0, -0.2),), False),
    "copysign": (np.copysign, (POSITIVE, (-4.0, -0.2)), False),
    "maximum": (np.maximum, (POSITIVE, (-4.0, 0.1)), False),
    "minimum": (np.minimum, (POSITIVE, (-4.0, 0.1)), False),
    "fmax": (np.fmax, (POSITIVE, (-4.0, 0.1)), False),
    "fmin": (np.fmin, (POSITIVE, (-4.0, 0.1)), False),
    "clip": (np.clip, (ANY, (-4.0, -3.9), (3.9, 4.0)), False),
    "heaviside": (np.heaviside, (POSITIVE, UNIT), False),
    "sigmoid": (functions.sigmoid, (ANY,), True),
    "expit": (special.expit, (ANY,), False),
    "log_expit": (special.log_expit, (ANY,), False),
    "logit": (special.logit, (PROBABILITY,), False),
    "softplus": (functions.softplus, (ANY,), True),
    "silu": (functions.silu, (ANY,), True),
    "gelu": (functions.gelu, (ANY,), True),
    "erf": (special.erf, (ANY,), True),
    "erfc": (special.erfc, (ANY,), True),
    "erfcx": (special.erfcx, (ANY,), True),
    "erfinv": (special.erfinv, ((-0.6, 0.6),), False),
    "ndtr": (special.ndtr, (ANY,), True),
    "log_ndtr": (special.log_ndtr, (ANY,), True),
    "ndtri": (special.ndtri, (PROBABILITY,), False),
}
CONSTANT = [name for name, rule in RULES.items() if not any(rule)]
SHAPES = [((3, 4), (3, 4)), ((3, 4), (4,)), ((4,), (3, 4)), ((3, 1), (1, 4)), ((), (3,)), ((), ())]


def sample(rng, domain, shape):
    return rng.uniform(*domain, size=shape)


def test_every_rule_has_a_case():
    assert set(CASES) | set(CONSTANT) == set(RULES)
    assert not set(CASES) & set(CONSTANT)


@pytest.mark.parametrize("name", CASES)
def test_rule_equals_the_reference(name, check):
    function, domains, analytic = CASES[name]
    rng = np.random.default_rng(1)
    for shapes in SHAPES:
        arrays = [sample(rng, d, s) for d, s in zip(domains, (*shapes, shapes[1]), strict=False)]
        check(function, *arrays, analytic=analytic, rtol=2e-12 if analytic else 1e-8)


@pytest.mark.parametrize("name", [name for name in CASES if len(CASES[name][1]) > 1])
def test_truths_beside_a_state_are_numbers(name):
    function, domains, _ = CASES[name]
    rng, truths = np.random.default_rng(3), np.array([True, False, True])
    for i in range(len(domains)):
        args = [Dual(sample(rng, d, 3), rng.normal(size=(2, 3))) for d in domains]
        args[i] = truths
        with np.errstate(all="ignore"):
            out = function(*args)
            args[i] = truths.astype(float)
            expected = function(*args)
        np.testing.assert_array_equal(value_of(out), value_of(expected))
        np.testing.assert_array_equal(tangent_of(out, 2), tangent_of(expected, 2))


@pytest.mark.parametrize("name", CONSTANT)
def test_piecewise_constant_functions_give_plain_arrays(name):
    function = getattr(np, name)
    h = Dual(np.array([-1.5, 0.5, 2.0]), np.ones((2, 3)))
    args = (h, h.value + 1)[: function.nin]
    out = function(*args)
    assert type(out) is np.ndarray
    np.testing.assert_array_equal(out, function(*(getattr(a, "value", a) for a in args)))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rules_keep_the_dtype(name, dtype):
    function, domains, _ = CASES[name]
    rng = np.random.default_rng(2)
    args = [sample(rng, d, (5,)).astype(dtype) for d in domains]
    out = function(*(Dual(a, np.ones((2, 5), dtype)) for a in args))
    assert out.dtype == function(*args).dtype
    if name != "float_power":
        assert out.dtype == dtype
        assert out.tangent.dtype == dtype


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.sampled_from([n for n in CASES if CASES[n][1] == (ANY,) and CASES[n][2]]),
        min_size=2,
        max_size=4,
    ),
    st.integers(0, 2**16),
)
def test_random_compositions(check, names, seed):
    a, b = np.random.default_rng(seed).normal(size=(2, 3))

    def function(x, y):
        for name in names:
            x = CASES[name][0](np.tanh(x * y) + 0.3 * x / (1 + y * y))
        return x

    check(function, a, b, rtol=1e-11, seed=seed)


# --- conventions at the points where derivatives are delicate ----------------------------------


def slope(function, *at):
    h = Dual(np.array(at[0], float), np.ones((1, *np.shape(at[0]))))
    return tangent_of(function(h, *at[1:]), 1)[0]


@pytest.mark.parametrize(
    ("function", "args", "expected"),
    [
        (lambda h: h**2, ([0.0, -3.0],), [0, -6]),
        (lambda h: h**3, ([0.0, -2.0],), [0, 12]),
        (lambda h: h**0, ([0.0, 2.0],), [0, 0]),
        (lambda h: h**1, ([0.0, 2.0],), [1, 1]),
        (lambda h: h**0.5, ([0.0, 4.0],), [np.inf, 0.25]),
        (lambda h: h**-1, ([2.0],), [-0.25]),
        (lambda h: np.power(h, np.array([0.0, 1, 2])), ([0.0, 0.0, 0.0],), [0, 1, 0]),
        (lambda h: 0**h, ([2.0],), [0]),
        (lambda h: 2.0**h, ([3.0],), [8 * np.log(2)]),
        (np.sqrt, ([0.0],), [np.inf]),
        (np.abs, ([-2.0, 0.0, 2.0],), [-1, 0, 1]),
        (lambda h: np.hypot(h, 0), ([0.0, 2.0],), [0, 1]),
        (lambda h: np.hypot(0, h), ([0.0, 2.0],), [0, 1]),
        (lambda h: np.maximum(h, 1), ([0.0, 1.0, 2.0],), [0, 1, 1]),
        (lambda h: np.maximum(1, h), ([0.0, 1.0, 2.0],), [0, 0, 1]),
        (lambda h: np.minimum(h, 1), ([0.0, 1.0, 2.0],), [1, 1, 0]),
        (lambda h: np.fmax(h, np.nan), ([1.0],), [1]),
        (lambda h: np.fmax(np.nan, h), ([1.0],), [1]),
        (lambda h: np.fmin(h, np.nan), ([1.0],), [1]),
        (lambda h: np.clip(h, 0, 1), ([-1.0, 0.0, 0.5, 1.0, 2.0],), [0, 1, 1, 1, 0]),
        (lambda h: np.clip(h, None, 1), ([0.0, 1.0, 2.0],), [1, 1, 0]),
        (lambda h: np.clip(h, 0, None), ([-1.0, 0.0, 2.0],), [0, 1, 1]),
        (lambda h: np.expm1(h), ([1e-20],), [1]),
        (lambda h: np.log1p(h), ([1e-20],), [1]),
        (lambda h: np.arcsinh(h), ([1e300],), [1e-300]),
        (functions.sigmoid, ([-1000.0, 1000.0],), [0, 0]),
        (functions.softplus, ([-1000.0, 1000.0],), [0, 1]),
        (functions.silu, ([-1000.0, 1000.0],), [0, 1]),
        (functions.gelu, ([-1000.0, 1000.0],), [0, 1]),
    ],
)
def test_derivative_at_delicate_points(function, args, expected):
    with np.errstate(divide="ignore", over="ignore", under="ignore"):
        np.testing.assert_allclose(slope(function, *args), expected, rtol=1e-15)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [(np.maximum, 2), (np.minimum, 2), (np.fmax, 2), (np.fmin, 2), (np.clip, 3)],
)
def test_what_selects_moves_with_all_its_arguments(function, arguments):
    """``f(a + e, b + e, ...) = f(a, b, ...) + e``, ties and crossed bounds included."""
    levels = np.meshgrid(*[[-1.0, 0.0, 1.0]] * arguments)
    out = function(*(Dual(level, np.ones((1, *level.shape))) for level in levels))
    np.testing.assert_array_equal(tangent_of(out, 1)[0], 1)


def test_heaviside_at_the_jump_is_its_second_argument():
    value_at_jump = Dual(np.full(3, 0.5), np.ones((1, 3)))
    out = np.heaviside([-1.0, 0.0, 1.0], value_at_jump)
    np.testing.assert_array_equal(out.tangent[0], [0, 1, 0])


def test_unselected_branches_do_not_leak():
    h = [0.0, 4.0]
    np.testing.assert_array_equal(slope(lambda h: np.maximum(np.sqrt(h), 1), h), [0, 0.25])
    np.testing.assert_array_equal(slope(lambda h: np.where(h > 1, np.sqrt(h), 2 * h), h), [2, 0.25])
    np.testing.assert_array_equal(slope(lambda h: np.clip(np.sqrt(h), 1, 9), h), [0, 0.25])


def test_derivatives_warn_of_nothing_that_the_value_does_not():
    h = Dual(np.array([0.0, 1.0]), np.eye(2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.sqrt(h), h**0.5, np.cbrt(h), np.arcsin(h), np.hypot(h, h), h**h, np.float_power(h, h)
    with pytest.warns(RuntimeWarning, match="divide by zero"):
        np.log(h)


def test_python_scalars_are_weak():
    h = Dual(np.ones(2, np.float32), np.ones((1, 2), np.float32))
    out = 2 * h + 1.5 - h / 3 + h**2 + 2**h + np.where(h > 0, h, 0.0) + np.maximum(0.0, h)
    assert out.dtype == out.tangent.dtype == np.float32
