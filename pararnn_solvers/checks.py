"""What a parameter must be, said in one way everywhere: expected, received, remedy."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import numpy as np

from pararnn_solvers import arrays
from pararnn_solvers.errors import InvalidInput

ONE_THREAD = 8192  # numbers of a product that BLAS does not share: OpenBLAS from 10,001 on


def require_whole(name: str, value: Any, least: int = 1) -> None:
    """Raise InvalidInput unless `value` is an integer of at least `least`; True is none.

    Examples
    --------
    >>> require_whole("chunk", 2.0)
    Traceback (most recent call last):
    pararnn_solvers.errors.InvalidInput: chunk is 2.0; expected a whole number >= 1, as an int
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise InvalidInput(f"{name} is {value!r}; expected a whole number >= {least}, as an int")


def require_number(
    name: str, value: Any, allowed: Callable[[float], bool], expected: str = "a number"
) -> None:
    """Raise InvalidInput unless `value` is a finite real number that is `allowed`.

    Examples
    --------
    >>> require_number("s", 2, lambda s: 0 <= s <= 1, "a fraction between 0 and 1")
    Traceback (most recent call last):
    pararnn_solvers.errors.InvalidInput: s is 2; expected a fraction between 0 and 1
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not (is_number and -math.inf < value < math.inf and allowed(value)):
        raise InvalidInput(f"{name} is {value!r}; expected {expected}")


def require_function(name: str, value: Any, expected: str) -> None:
    """Raise InvalidInput unless `value` can be called, and is not a class yet to be called."""
    if isinstance(value, type):
        made = value.__name__
        raise InvalidInput(f"{name} is {made} itself; expected {expected}: call it, {made}(...)")
    if not callable(value):
        raise InvalidInput(f"{name} is {value!r}; expected {expected}")


def all_finite(array: Any) -> bool:
    """Tell whether a real array is finite everywhere.

    The sum of squares shows it at the speed of memory, unless it overflows; on a device, the sum.
    It is taken by rows: BLAS gives longer products to threads of its own, which wait busily for
    more (OpenBLAS some 20 ms) and take cores from the kernels that run next.

    Examples
    --------
    >>> all_finite(np.array([1.0, np.inf])), all_finite(np.array([1e300, 0.0]))
    (False, True)
    """
    if arrays.is_device_array(array):
        total = array.sum()
    elif array.size > ONE_THREAD and array.flags.c_contiguous:
        with np.errstate(all="ignore"):
            total = _sum_of_squares(array.reshape(-1))
    else:
        return bool(np.isfinite(array).all())
    return math.isfinite(total) or bool(np.isfinite(array).all())


def _sum_of_squares(flat: Any) -> Any:
    """Return the product of a vector with itself, on the calling thread."""
    whole = flat.size - flat.size % ONE_THREAD
    rows, rest = flat[:whole].reshape(-1, ONE_THREAD), flat[whole:]
    return np.vecdot(rows, rows).sum() + np.vdot(rest, rest)


def require_one_place(named: dict[str, Any]) -> None:
    """Raise InvalidInput unless all arrays are on the host, or all on one device.

    Numbers fit in anywhere.

    Parameters
    ----------
    named : dict
        What the user calls each value -> the value.
    """
    if not any(map(arrays.is_device_array, named.values())):
        return
    where: dict[str, list[str]] = {}
    for name, value in named.items():
        if found := arrays.place(value):
            where.setdefault(found, []).append(name)
    if len(where) > 1:
        listed = ", ".join(f"{' and '.join(names)} on {found}" for found, names in where.items())
        raise InvalidInput(
            f"arrays are in {len(where)} places: {listed}; expected one, and nothing is moved "
            "unasked: move them by cupy.asarray(a), under cupy.cuda.Device(i), or by a.get()"
        )
