"""Dual arrays: a value with ``p`` tangent directions, carried through plain NumPy code.

This is the forward mode of automatic differentiation (Griewank and Walther 2008, chapter 3) with
all directions at once. A tangent keeps its rank, one more than the value's, but may have size 1
along an axis over which it does not vary: the seeds ``(p, 1, ..., 1, d)`` remain that small until
an operation needs them in full, so ``h @ W`` costs no more than its value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from pararnn_solvers.autodiff.array_methods import ArrayMethods
from pararnn_solvers.autodiff.registry import (
    ARRAY_FUNCTIONS,
    PLAIN_ARRAY,
    REMEDY,
    TAKE_DTYPE,
    UFUNCS,
)
from pararnn_solvers.autodiff.rules import RULES
from pararnn_solvers.autodiff.tangents import (
    accumulate,
    direction_last,
    full,
    index_tangent,
    is_basic,
    lift,
    scaled,
)
from pararnn_solvers.errors import InvalidInput, NotDifferentiable

__all__ = ["Dual", "elementwise", "tangent_of", "value_of"]

_OPTIONS = frozenset({"out", "dtype", "where", "initial", "casting"})
_POWERS = {2: np.square, 1: np.positive, 0.5: np.sqrt, -1: np.reciprocal}


class Dual(ArrayMethods, NDArrayOperatorsMixin):
    """An array equal to ``value`` which carries its derivative along ``p`` directions.

    Parameters
    ----------
    value : array, shape S
        NumPy or CuPy.
    tangent : array, broadcastable to (p, *S)
        One directional derivative per leading index. Axes missing after the first count as 1.

    Notes
    -----
    All dual arrays of one evaluation have the same ``p``; other arrays have derivative zero.
    Comparisons, ``sign``, ``floor``, ``isfinite``, ``argmax`` and the like give plain arrays.
    Writing into a dual array works as it does in NumPy, views included.

    Examples
    --------
    >>> h = Dual(np.array([1.0, 2.0]), np.eye(2))
    >>> np.square(h).tangent
    array([[2., 0.],
           [0., 4.]])
    """

    __slots__ = ("_link", "_private", "_tangent", "value")
    __array_priority__ = 1000.0

    def __init__(self, value: Any, tangent: Any) -> None:
        self.value = value if hasattr(value, "dtype") else np.asarray(value)
        tangent = tangent if hasattr(tangent, "dtype") else np.asarray(tangent)
        self._tangent = lift(tangent, self.value.ndim)
        self._link: Any = None  # of a view: [the array it views, how, that array's tangent then]
        self._private = False  # whether only views of this array share its tangent

    # --- the tangent, and who shares it -------------------------------------------------------

    @property
    def tangent(self) -> Any:
        """Derivative, of rank ``ndim + 1`` and shape broadcastable to ``(p, *shape)``."""
        link = self._link
        if link is not None:
            current = link[0].tangent
            if current is not link[2]:
                link[2], self._tangent = current, link[1](current)
        return self._tangent

    def _root(self) -> Dual:
        root = self
        while root._link is not None:
            root = root._link[0]
        return root

    def _lend(self) -> Any:
        """Return the tangent for use in another array: the next write copies it first."""
        self._root()._private = False
        return self.tangent

    def _writable_tangent(self) -> Any:
        root = self._root()
        if not root._private:
            root._tangent = full(root._tangent, root.shape).astype(root.dtype, order="C")
            root._private = True
        tangent = self.tangent
        if self is not root and not np.may_share_memory(tangent, root._tangent):
            raise NotDifferentiable(
                "writing into this view has no derivative rule: write into an array, not a reshape"
            )
        return tangent

    def _derive(self, value: Any, view: Callable[[Any], Any]) -> Dual:
        """Return ``value`` with tangent ``view(tangent)``, linked if ``value`` is a view."""
        if not np.may_share_memory(value, self.value):
            return Dual(value, view(self._lend()))
        tangent = self.tangent
        out = Dual(value, view(tangent))
        out._link = [self, view, tangent]
        return out

    # --- NumPy's protocols --------------------------------------------------------------------

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        out = kwargs.pop("out", None)
        if out is not None:
            return _store(out[0], getattr(ufunc, method)(*args, **kwargs))
        name = ufunc.__name__
        if method == "outer" and not kwargs:
            a, b = args
            return ufunc(np.reshape(a, (*np.shape(a), *(1,) * np.ndim(b))), b)
        special = UFUNCS.get((name, method))
        if special is not None:
            return special(*args, **kwargs)
        if method != "__call__" or kwargs or name not in RULES:
            call = f"numpy.{name}" if hasattr(np, name) else f"scipy.special.{name}"
            call += "" if method == "__call__" else f".{method}"
            options = f" with {', '.join(kwargs)}=" if kwargs else ""
            raise NotDifferentiable(f"{call}{options} has no derivative rule here; {REMEDY}")
        return elementwise(name, ufunc, *args)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        implementation = ARRAY_FUNCTIONS.get(func)
        options = {key for key in kwargs.keys() & _OPTIONS if kwargs[key] is not None}
        if implementation is None or (options and func not in TAKE_DTYPE):
            with_options = f" with {', '.join(sorted(options))}=" if options else ""
            raise NotDifferentiable(
                f"{func.__module__}.{func.__name__}{with_options} has no derivative rule here; "
                f"{REMEDY}"
            )
        if func not in TAKE_DTYPE:
            kwargs = {key: kwargs[key] for key in kwargs if key not in _OPTIONS}
        return implementation(*args, **kwargs)

    def __pararnn_primitive__(self, name: str, function: Callable[[Any], Any]) -> Any:
        return elementwise(name, function, self)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise NotDifferentiable(PLAIN_ARRAY)

    def __float__(self) -> float:
        raise NotDifferentiable(f"converting a traced state to a number, or {PLAIN_ARRAY}")

    __int__ = __index__ = __complex__ = __float__

    def __bool__(self) -> bool:
        raise TypeError(
            "the truth of a traced state is not differentiable: use np.where, np.maximum or "
            "np.minimum in place of if, and, or, max, min"
        )

    def __pow__(self, exponent: Any) -> Any:
        # As ndarray does, so that the value is the same to the last bit.
        if isinstance(exponent, (int, float)) and exponent in _POWERS:
            return _POWERS[exponent](self)
        return np.power(self, exponent)

    def __divmod__(self, other: Any) -> Any:
        return self // other, self % other

    def __repr__(self) -> str:
        return f"Dual(value={self.value!r}, tangent={self.tangent!r})"

    # --- indexing -----------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> Dual:
        index = index if isinstance(index, tuple) else (index,)
        if is_basic(index):
            shape = self.shape
            return self._derive(self.value[index], lambda t: index_tangent(t, index, shape))
        value = self.value[index]  # first: an index that is wrong says so of the value
        tangent = np.moveaxis(full(self.tangent, self.shape), 0, -1)[direction_last(index)]
        return Dual(value, np.moveaxis(tangent, -1, 0))

    def __setitem__(self, index: Any, new: Any) -> None:
        index = index if isinstance(index, tuple) else (index,)
        if not getattr(self.value.flags, "writeable", True):
            raise InvalidInput(
                "step writes into its argument h, or into a read-only view; write into a copy: "
                "out = h.copy()"
            )
        target = np.moveaxis(self._writable_tangent(), 0, -1)
        if isinstance(new, Dual):
            self.value[index] = new.value
            target[direction_last(index)] = np.moveaxis(new.tangent, 0, -1)
        else:
            self.value[index] = new
            target[direction_last(index)] = 0

    # --- copies --------------------------------------------------------------------------------

    def astype(self, dtype: Any, *, copy: bool = True, **_: Any) -> Dual:
        """Convert to another floating type."""
        if not copy and dtype == self.dtype:
            return self
        if np.dtype(dtype).kind not in "fc":
            raise NotDifferentiable(
                f"astype({np.dtype(dtype).name}) of a traced state loses its derivative; {REMEDY}"
            )
        return Dual(self.value.astype(dtype), self._lend().astype(dtype))

    def copy(self, order: Any = "C") -> Dual:
        """Return an array equal to this one which shares no memory with it."""
        return Dual(self.value.copy(), self._lend())

    __copy__ = copy


def value_of(out: Any) -> Any:
    """Return ``out`` without its derivative."""
    return out.value if isinstance(out, Dual) else out


def tangent_of(out: Any, p: int) -> Any:
    """Return the derivative of ``out`` along each direction, in full.

    Parameters
    ----------
    out : Dual or array, shape S
        What an evaluation on dual arrays returned.
    p : int
        The number of directions.

    Returns
    -------
    array, shape (p, *S), dtype of ``out``
        Zero if ``out`` is not a dual array.
    """
    if not isinstance(out, Dual):
        out = out if hasattr(out, "dtype") else np.asarray(out)
        return np.zeros_like(out, shape=(p, *out.shape))
    tangent = out.tangent
    if tangent.shape[1:] != out.shape:
        tangent = full(tangent, out.shape).copy()
    return tangent if tangent.dtype == out.dtype else tangent.astype(out.dtype)


def elementwise(name: str, function: Callable[..., Any], *args: Any) -> Any:
    """Evaluate an elementwise function and, by its entry in ``RULES``, its tangent."""
    values = [np.asarray(a) if type(a) in (list, tuple) else value_of(a) for a in args]
    out = function(*values)
    tangent = None
    with np.errstate(all="ignore"):  # a derivative warns of nothing which its value does not
        for arg, partial in zip(args, RULES[name], strict=True):
            if partial is None or not isinstance(arg, Dual):
                continue
            factor = partial(out, *values)
            if type(factor) is int and factor == 1:
                tangent = accumulate(tangent, lift(arg._lend(), out.ndim), False, out)
            else:
                term = scaled(lift(arg.tangent, out.ndim), factor, out, values)
                tangent = accumulate(tangent, term, True, out)
    return out if tangent is None else Dual(out, tangent[0])


def _store(target: Any, result: Any) -> Any:
    """Write ``result`` into the array named by ``out=``, as in-place operators do."""
    if not isinstance(target, Dual):
        raise NotDifferentiable(PLAIN_ARRAY)
    if isinstance(target.value, np.generic):  # a scalar is replaced, as in NumPy
        return result
    target[...] = result
    return target
