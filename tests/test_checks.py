"""What parameters must be: told by what was expected and what was received."""

import time
from fractions import Fraction

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers.checks import all_finite, require_function, require_number, require_whole


@pytest.mark.parametrize("value", [0, 1, 7, 10**400, np.int8(3), np.uint64(2**63)])
def test_whole_numbers(value):
    require_whole("n", value, least=0)


@pytest.mark.parametrize(
    "value", [-1, 2.0, np.float64(2), np.nan, np.inf, "2", None, True, np.True_, np.ones(2, int)]
)
def test_what_is_no_whole_number(value):
    with pytest.raises(prs.InvalidInput, match="n is .*; expected a whole number >= 0, as an int"):
        require_whole("n", value, least=0)


@pytest.mark.parametrize("value", [0, 1, 0.5, np.float32(0.5), np.int64(1), Fraction(1, 3)])
def test_numbers(value):
    require_number("s", value, lambda s: 0 <= s <= 1)


@pytest.mark.parametrize(
    "value",
    [-0.1, 1.1, np.nan, np.inf, -np.inf, 10**400, "0.5", None, True, 0.5j, np.full(1, 0.5), [0.5]],
)
def test_what_is_no_number_in_range(value):
    with pytest.raises(prs.InvalidInput, match="s is .*; expected a fraction"):
        require_number("s", value, lambda s: 0 <= s <= 1, "a fraction")


def test_functions():
    require_function("f", abs, "a function")
    require_function("f", prs.scaled(0.5), "a function")
    with pytest.raises(prs.InvalidInput, match="f is 'abs'; expected a function"):
        require_function("f", "abs", "a function")
    with pytest.raises(prs.InvalidInput, match=r"f is scaled itself; .*: call it, scaled\("):
        require_function("f", prs.scaled, "a linearization")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_number_that_is_not_finite_is_found_in_any_layout(dtype, bad):
    array = np.ones((4, 6), dtype)
    assert all_finite(array) and all_finite(array.T) and all_finite(array[::2, ::3])
    assert all_finite(array * np.finfo(dtype).max)  # whose squares overflow
    assert all_finite(np.zeros((0, 3), dtype))
    array[2, 3] = bad
    assert not all_finite(array) and not all_finite(array.T) and not all_finite(array[::2, ::3])


def test_looking_at_all_numbers_wakes_no_threads_of_blas():
    """They would wait busily for more, on the cores of the kernels that run next."""
    array = np.ones(1 << 20)
    time.sleep(0.1)  # those that others woke are asleep again
    others = time.process_time() - time.thread_time()
    assert all_finite(array)
    time.sleep(0.03)
    assert time.process_time() - time.thread_time() - others < 0.01
