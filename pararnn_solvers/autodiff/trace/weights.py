"""Arrays computed from theta alone: their values while tracing, and how to compute them again.

A staged trace leaves to NumPy whatever a ``step`` does with parameters only, such as ``W.T``,
``theta.W[0]``, ``W - W.T`` or ``np.concatenate([W_z, W_r], axis=1)``. Such an array is a
:class:`Weight`. It carries its value, so that its shape is known, and a place on a :class:`Tape`
of calls, which are repeated when the parameters change. Combined with a state entry by entry, it
is a traced array like any other, whose entries are inputs of the graph.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers import tree
from pararnn_solvers.autodiff.trace.arrays import Context, Traced
from pararnn_solvers.autodiff.trace.channels import refuse_large
from pararnn_solvers.autodiff.trace.functions import arrays_in
from pararnn_solvers.autodiff.trace.graph import Graph
from pararnn_solvers.autodiff.trace.inputs import Input
from pararnn_solvers.errors import InvalidInput, NotTraceable

__all__ = ["PRODUCTS", "Tape", "Weight"]

PRODUCTS: dict[Any, Callable[..., Any]] = {}  # of traced arrays and weights; filled on import


_OF_SHAPES = (np.shape, np.ndim, np.size, np.iscomplexobj, np.isrealobj)


class _Place(NamedTuple):
    """Where a result is on the tape."""

    number: int


class Tape:
    """Calls of functions on parameters alone, in order.

    Parameters
    ----------
    graph, channels, dtype
        Of the trace.
    theta : nested containers

    Attributes
    ----------
    context : Context
        Of all arrays of the trace: arrays of numbers that it meets become weights.
    leaves : list
        Those of theta, the floats as weights.
    constants : tuple of (str, object)
        Path and value of the leaves that became part of the program.
    reads_values : bool
        Whether `step` was told something of the values of theta, and not only of their shapes.
    """

    reads_values = False

    def __init__(self, graph: Graph, channels: int, dtype: np.dtype[Any], theta: Any) -> None:
        self.context = Context(graph, channels, dtype, self.constant)
        self._calls: list[tuple[Callable[..., Any] | None, Any, dict[str, Any]]] = []
        self._constants: dict[int, Weight] = {}
        self.shapes: dict[int, tuple[int, ...]] = {}  # of the weights, by place
        self.products: Any = None  # who records products with weights
        self.theta, self.leaves = theta, list[Any]()
        constants = []
        for i, (path, leaf) in enumerate(
            zip(tree.paths(theta), tree.flatten(theta)[0], strict=True)
        ):
            if isinstance(leaf, (float, np.ndarray, np.generic)) and tree.is_differentiable(leaf):
                self.leaves.append(Weight(self, leaf, self._add(None, i, {})))
            else:
                self.leaves.append(leaf)
                constants.append((path, leaf))
        self.constants = tuple(constants)

    def _add(self, function: Callable[..., Any] | None, args: Any, kwargs: dict[str, Any]) -> int:
        self._calls.append((function, args, kwargs))
        return len(self._calls) - 1

    def constant(self, value: Any) -> Weight:
        """Return an array of numbers that is not part of theta; the same array, the same weight."""
        value = np.asarray(value)
        weight = self._constants.get(id(value))
        if weight is None or weight.value is not value:
            weight = Weight(self, value, self._add(lambda: value, (), {}))
            self._constants[id(value)] = weight
        return weight

    def call(self, function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        """Call a function on values of weights, and note it."""
        with np.errstate(all="ignore"):
            result = function(*_mapped(_value, args), **_mapped(_value, kwargs))
        places = (_mapped(_place, args), _mapped(_place, kwargs))
        if isinstance(result, (bool, int, float, str)) and function not in _OF_SHAPES:
            self.reads_values = True  # np.allclose, np.array_equal, ...
        return self._wrapped(result, self._add(function, *places))

    def _wrapped(self, result: Any, index: int) -> Any:
        if isinstance(result, (list, tuple)):
            parts = [
                self._wrapped(part, self._add(operator.getitem, (_Place(index), i), {}))
                for i, part in enumerate(result)
            ]
            return type(result)(*parts) if hasattr(result, "_fields") else type(result)(parts)
        if isinstance(result, (np.ndarray, np.generic)):
            return Weight(self, result, index)
        return result  # a shape, a rank, a dtype

    def replay(
        self, theta: Any, wanted: Iterable[int], asarray: Callable[..., Any] = np.asarray
    ) -> dict[int, Any]:
        """Repeat the calls for other parameters.

        Parameters
        ----------
        theta : nested containers
            Like that of the trace.
        wanted : iterable of int
            Places of weights.
        asarray : callable, optional
            That of the library whose arrays theta has: arrays of numbers in `step` become such.

        Returns
        -------
        dict of int to array
            The weights, in the type of the state, C-contiguous.

        Raises
        ------
        InvalidInput
            If one has another shape than in the trace.
        """
        wanted = list(wanted)
        leaves, known = tree.flatten(theta)[0], dict[int, Any]()

        def find(place: Any) -> Any:
            if isinstance(place, _Place):
                return known[place.number]
            return asarray(place) if isinstance(place, np.ndarray) else place

        with np.errstate(all="ignore"):
            for index in self._needed(wanted):
                function, args, kwargs = self._calls[index]
                if function is None:
                    known[index] = leaves[args]
                else:
                    result = function(*_mapped(find, args), **_mapped(find, kwargs))
                    known[index] = asarray(result) if isinstance(result, np.ndarray) else result
        for i in wanted:
            if np.shape(known[i]) != self.shapes[i]:
                raise InvalidInput(
                    f"an array computed from theta has shape {np.shape(known[i])}, in the trace "
                    f"it had {self.shapes[i]}; trace step again for this theta"
                )
        return {i: asarray(known[i], self.context.dtype, order="C") for i in wanted}

    def forget_values(self) -> None:
        """Let go of theta, which is not needed after the trace."""
        self.theta, self.leaves = None, []

    def _needed(self, wanted: Iterable[int]) -> list[int]:
        needed, waiting = set[int](), list(wanted)
        while waiting:
            index = waiting.pop()
            if index not in needed:
                needed.add(index)
                _mapped(
                    lambda p: waiting.append(p.number) if isinstance(p, _Place) else None,
                    self._calls[index],
                )
        return sorted(needed)


class Weight(Traced):
    """An array computed from theta alone.

    Parameters
    ----------
    tape : Tape
    value : array or float
        For the theta of the trace.
    place : int
        On the tape.
    """

    __slots__ = ("place", "tape", "value")

    def __init__(self, tape: Tape, value: Any, place: int) -> None:
        self.tape, self.value, self.place = tape, value, place
        shape, n, graph = np.shape(value), tape.context.channels, tape.context.graph
        tape.shapes[place] = shape
        per_channel = len(shape) > 0 and shape[-1] % n == 0
        extent = (*shape[:-1], shape[-1] // n) if per_channel else shape

        def load() -> Any:
            refuse_large(extent, "a parameter")
            cells = np.empty(extent, object)
            for i in np.ndindex(extent):
                name = "_".join(map(str, (f"theta{place}", *i)))
                node = graph.input(Input(name, "theta", place, i, n if per_channel else 0))
                # Among the inputs of a program truth values are 0 and 1.
                cells[i] = graph.apply("not_equal", node, 0.0) if self.dtype == bool else node
            return cells

        super().__init__(tape.context, load, len(shape) - 1 if per_channel else None, extent)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the value."""
        return np.result_type(self.value)

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        if any(isinstance(out, Weight) for out in kwargs.get("out", ())):
            raise NotTraceable("step writes into an array computed from theta")
        if _weights_only(args, kwargs):
            return self.tape.call(getattr(ufunc, method), args, kwargs)
        if method == "__call__" and ufunc in PRODUCTS and not kwargs:
            return PRODUCTS[ufunc](*args)
        return super().__array_ufunc__(ufunc, method, *args, **kwargs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if _weights_only(args, kwargs):
            return self.tape.call(func, args, kwargs)
        if func in PRODUCTS:
            return PRODUCTS[func](*args, **kwargs)
        return super().__array_function__(func, types, args, kwargs)

    def __pararnn_primitive__(self, name: str, function: Callable[[Any], Any]) -> Any:
        def convert_and_apply(a: Any) -> Any:
            return function(a if hasattr(a, "dtype") else np.asarray(a))

        return self.tape.call(convert_and_apply, (self,), {})

    def __getitem__(self, index: Any) -> Any:
        if not _weights_only((index,), {}):
            raise NotTraceable("step indexes by a traced value; use np.where")
        return self.tape.call(operator.getitem, (self, index), {})

    def __setitem__(self, index: Any, value: Any) -> None:
        raise NotTraceable("step writes into an array computed from theta")

    def astype(self, dtype: Any, **_: Any) -> Any:
        """Convert as NumPy does."""
        return self.tape.call(operator.methodcaller("astype", dtype), (self,), {})

    def copy(self, order: Any = "C") -> Any:
        """Return the same, as a copy cannot be written to, either."""
        return self

    __copy__ = copy


def _weights_only(args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    return all(isinstance(a, Weight) for a in arrays_in([list(args), kwargs]))


def _value(a: Any) -> Any:
    return a.value if isinstance(a, Weight) else a


def _place(a: Any) -> Any:
    return _Place(a.place) if isinstance(a, Weight) else a


def _mapped(function: Callable[[Any], Any], arguments: Any) -> Any:
    """Apply a function to what nested lists, tuples and dicts hold."""
    if type(arguments) in (list, tuple):
        return type(arguments)(_mapped(function, a) for a in arguments)
    if isinstance(arguments, dict):
        return {key: _mapped(function, a) for key, a in arguments.items()}
    return function(arguments)
