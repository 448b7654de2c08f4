"""One step after another, each as soon as its input is there: for generation.

What :func:`pararnn_solvers.solve` computes for all steps at once has to be computed step by step
where an input is made from the state before. A call should cost little more than its arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from pararnn_solvers import arrays
from pararnn_solvers.api import with_one_batch_axis
from pararnn_solvers.checks import require_one_place
from pararnn_solvers.compilation import obstacle, with_program
from pararnn_solvers.errors import InvalidInput, NotTraceable
from pararnn_solvers.linear import alignment
from pararnn_solvers.recurrence import Recurrence
from pararnn_solvers.system import System, checked
from pararnn_solvers.typing import Array
from pararnn_solvers.validation import make_system, real_array

__all__ = ["Stepper", "stepper", "with_any_program"]


class Stepper:
    """A recurrence that takes one step of all its streams in each call: see :func:`stepper`.

    Attributes
    ----------
    h0 : array, shape (*batch, d)
        A copy of the states to which `reset` returns. May be written to.
    """

    __slots__ = (
        *("_advance", "_autonomous", "_dtype", "_fast", "_option", "_shape", "_system", "_view"),
        "h0",
    )
    _advance: Callable[[Any], Any]

    def __init__(self, system: System, compiled: bool | None) -> None:
        self._system, self._option = system, compiled
        copy = np.copy if arrays.is_device_array(system.h0) else alignment.copy
        self.h0, self._view = copy(system.h0), copy(system.h0)
        self._dtype = self._view.dtype
        # Of inputs that need no second look: on a device, none does without.
        self._fast = None if arrays.is_device_array(self._view) else self._dtype
        self._shape: tuple[int, ...] | None = None  # of x, known from the first call on
        self._autonomous = False

    def __call__(self, x: Any = None) -> Array:
        """Take one step of every stream, in place, and return the new states.

        Parameters
        ----------
        x : array, shape (*batch, m), or None
            The inputs of this step, of the dtype of the states; C-contiguous ones are read where
            they are, others are copied. Not looked at for NaN: that ends in the state of its
            stream, which `reset` or `state` replace.

        Returns
        -------
        array, shape (*batch, d)
            The states themselves, not a copy: valid until the next call, and what is written to
            them is where that starts. Copy what is to be kept.

        Raises
        ------
        InvalidInput
            x has another shape or dtype than it should have. The states are as they were.

        Notes
        -----
        Cost: one evaluation of `step`; compiled, less than a microsecond beside it, and no
        memory; kernels for fewer channels than a vector has, and several streams, take some 100 KB
        while they run.
        """
        if not (
            type(x) is np.ndarray
            and x.shape == self._shape
            and x.dtype is self._fast
            and x.flags.c_contiguous
        ):
            x = self._received(x)
        self._advance(x)
        return self._view

    @property
    def state(self) -> Array:
        """The states, shape (*batch, d): what calls return. Assigning copies into them."""
        return self._view

    @state.setter
    def state(self, value: Any) -> None:
        value = arrays.from_any(value)
        require_one_place({"state": value, "h0": self._view})
        real_array("state", value)
        self._require("state", value, self._view.shape)
        self._view[...] = value

    @property
    def compiled(self) -> bool | None:
        """Whether a kernel runs in place of `step`; None before the first call, which decides."""
        return None if self._shape is None else self._system.is_compiled

    def reset(self, mask: Any = None) -> None:
        """Return streams to their states in ``h0``.

        Parameters
        ----------
        mask : array of bool, shape (*batch), optional
            Which ones; None for all.

        Raises
        ------
        InvalidInput
        """
        if mask is None:
            self._view[...] = self.h0
            return
        mask = arrays.from_any(mask)
        if mask.dtype != bool or mask.shape != self._view.shape[:-1]:
            raise InvalidInput(
                f"mask has shape {mask.shape} and dtype {mask.dtype}; expected True for each "
                f"stream to reset, shape {self._view.shape[:-1]} and dtype bool"
            )
        if arrays.is_device_array(self._view):
            chosen = mask if arrays.is_device_array(mask) else arrays.beside(mask, self._view)
            self._view[...] = np.where(chosen[..., None], self.h0, self._view)
        else:
            np.copyto(self._view, self.h0, where=mask[..., None])

    def _received(self, x: Any) -> Array:
        """Return inputs as `_advance` takes them; the first ones decide what that is."""
        if x is not None:
            x = arrays.from_any(x)
            require_one_place({"x": x, "h0": self._view})
            real_array("x", x, finite=False)
        if self._shape is None:
            self._prepare(x)
        elif (x is None) is not self._autonomous:
            now, before = ("None", "an array") if x is None else (f"of shape {x.shape}", "None")
            raise InvalidInput(f"x is {now}, and was {before} in the first call; expected the same")
        if x is None:
            return np.empty(0)
        assert self._shape is not None
        self._require("x", x, self._shape)
        return np.ascontiguousarray(x) if isinstance(x, np.ndarray) else x

    def _require(self, name: str, value: Array, shape: tuple[int, ...]) -> None:
        if value.shape != shape or value.dtype != self._dtype:
            raise InvalidInput(
                f"{name} has shape {value.shape} and dtype {value.dtype}; expected shape {shape} "
                f"and dtype {self._dtype}"
            )

    def _prepare(self, x: Array | None) -> None:
        """Compile for inputs like these, or do without."""
        batch = self._view.shape[:-1]
        shape = (*batch, 0)
        if x is not None:
            if x.ndim != self._view.ndim:
                raise InvalidInput(
                    f"x has shape {x.shape}; expected the inputs of one step, ({self._batch()}m), "
                    f"for states of shape {self._view.shape}"
                )
            shape = (*batch, x.shape[-1])
            self._require("x", x, shape)
        with arrays.device_of(self._view):
            system = replace(self._system, x=None if x is None else x[None], steps=1)
            flat = with_one_batch_axis(system)
            if self._option is not False and not arrays.is_device_array(self._view):
                flat = with_any_program(flat, "auto", self._option)
            self._advance = self._kernel(flat, x) if flat.is_compiled else self._evaluate
        self._system = replace(self._system, program=flat.program, dense=flat.dense)
        self._shape, self._autonomous = shape, x is None

    def _batch(self) -> str:
        return "".join(f"{size}, " for size in self._view.shape[:-1])

    def _kernel(self, flat: System, x: Array | None) -> Callable[[Any], Any]:
        from pararnn_solvers.compiled.one_step import channel_step, dense_step  # imports Numba

        state = self._view.reshape(flat.h0.shape)
        if not state.size:
            return lambda x: None
        if flat.program is None:
            inputs = None if flat.x is None else flat.x[0]
            return dense_step(flat.dense, inputs, self._system.theta, state)
        nothing = np.empty((1, 0), self._dtype)
        like = nothing if x is None else np.ascontiguousarray(x)
        advance = channel_step(flat.program, like, state)
        return advance if x is not None else lambda x: advance(nothing)

    def _evaluate(self, x: Array) -> None:
        """Call `step` itself."""
        given = None if self._autonomous else x
        with arrays.device_of(self._view):
            new = self._system.apply(self._system.recurrence.step, self._view, given)
            self._view[...] = checked(new, self._view)

    def __repr__(self) -> str:
        *batch, d = self._view.shape
        how = {True: "compiled", False: "not compiled", None: "not called yet"}[self.compiled]
        return f"<Stepper: {math.prod(batch)} streams × {d} states, {self._dtype}, {how}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what it was made of and the states; kernels are found again by the next call."""
        given = (self._system.recurrence, self._system.theta, self.h0)
        return _restored, (*given, self._option, self._view)


def _restored(
    recurrence: Recurrence, theta: Any, h0: Array, compiled: bool | None, state: Array
) -> Stepper:
    """Return a stepper in some state, finite or not."""
    made = stepper(recurrence, theta, h0, compiled=compiled)
    made.state[...] = state
    return made


def stepper(
    recurrence: Recurrence | Callable[..., Any],
    theta: Any,
    h0: Any,
    *,
    example: Any = None,
    compiled: bool | None = None,
) -> Stepper:
    """Return what takes one step of ``h_t = step(h_{t-1}, x_t, theta)`` in each call, in place.

    ``h = advance(x)`` equals the next row of ``rollout(recurrence, ..., compiled=True)`` bit for
    bit, or of ``compiled=False`` where `step` itself runs. Beside ``advance.state`` no memory is
    used, however many steps there are.

    Parameters
    ----------
    recurrence : Recurrence or callable
        ``step(h, x, theta)``, as of :func:`solve`.
    theta : nested containers of arrays, or None
        Kernels have a copy of it: make another stepper when it has changed.
    h0 : array, shape (*batch, d)
        Where the streams start, float32 or float64; copied. Thousands of streams advance together.
    example : array, shape (*batch, m), optional
        An input like those to come. With it a kernel is compiled now, else by the first call; the
        states stay where they are.
    compiled : bool, optional
        True insists on a kernel and False does without. None compiles what can be compiled: steps
        with functions of each channel, and those with matrix products, of arrays on the host.
        ``Stepper.compiled`` tells. Sines and cosines of kernels are NaN for angles beyond 2**20 in
        float32 and 2**49 in float64, where adjacent numbers lie 1/16 or more apart.

    Returns
    -------
    Stepper
        Call it with x, read and write its ``state``, ``reset`` all streams or some. It can be
        copied and pickled if `recurrence` can.

    Raises
    ------
    InvalidInput
    NotTraceable
        With ``compiled=True``: what in `step` cannot be compiled. Without `example`, in the first
        call.

    Notes
    -----
    Threads: steppers are independent of each other, and kernels release the interpreter's lock. One
    stepper is one state: calls of it from several threads at once must be kept apart by a lock of
    the caller's. Kernels of large batches run on as many threads as ``num_threads()`` was when
    they were bound, by the first call.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> advance = prs.stepper(lambda h, x, a: a * h + x, 0.5, np.zeros(2), compiled=False)
    >>> for x in np.ones((3, 2)):
    ...     h = advance(x)
    >>> h
    array([1.75, 1.75])
    """
    if not (compiled is None or isinstance(compiled, (bool, np.bool_))):
        raise InvalidInput(f"compiled is {compiled!r}; expected True, False, or None to choose")
    system = make_system(recurrence, None, h0, theta, 1)
    if compiled and arrays.is_device_array(system.h0):
        raise InvalidInput(
            "compiled=True is impossible: single steps have kernels for arrays on the host, and h0 "
            f"is on {arrays.place(system.h0)}; leave out one of them"
        )
    option = None if compiled is None else bool(compiled)
    with arrays.device_of(system.h0):
        made = Stepper(system, option)
    if example is not None:
        made._received(example)
    return made


def with_any_program(system: System, backend: Any, compiled: bool | None = None) -> System:
    """Return the system with the program of its step, however small it is, or as it is.

    Parameters
    ----------
    system, backend, compiled
        As of :func:`~pararnn_solvers.compilation.with_program`.
    """
    if compiled:
        return with_program(system, backend, True)
    if obstacle(system, backend, True):
        return system
    try:
        return with_program(system, backend, True)
    except (NotTraceable, InvalidInput):  # no trace, or one that computes something else
        return system
