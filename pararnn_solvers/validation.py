"""What can be wrong with the arguments of a solve, found before the first iteration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from pararnn_solvers import arrays, tree
from pararnn_solvers.bidiagonal import block_matvec
from pararnn_solvers.checks import all_finite, require_one_place, require_whole
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.recurrence import Recurrence
from pararnn_solvers.system import System, read_only
from pararnn_solvers.typing import Array


def as_recurrence(recurrence: Recurrence | Callable[..., Any]) -> Recurrence:
    """Return a Recurrence: the one given, or one around a step function."""
    return recurrence if isinstance(recurrence, Recurrence) else Recurrence(recurrence)


def make_system(
    recurrence: Recurrence | Callable[..., Any], x: Any, h0: Any, theta: Any, steps: int | None
) -> System:
    """Validate shapes, dtypes, places and values, and return the system of equations.

    Raises
    ------
    InvalidInput
        Says what was expected, what was received, and what to do.
    """
    h0, x = arrays.from_any(h0), None if x is None else arrays.from_any(x)
    leaves, rebuild = tree.flatten(theta)
    leaves = [arrays.imported(leaf) for leaf in leaves]
    named = dict(zip(tree.paths(theta), leaves, strict=True))
    require_one_place({"x": x, "h0": h0, **named})
    with arrays.device_of(h0):
        for path, leaf in named.items():
            if tree.is_differentiable(leaf):
                require_finite(path, leaf)
        theta = rebuild([read_only(arrays.operand(leaf, h0)) for leaf in leaves])
        return system_of(as_recurrence(recurrence), x, h0, theta, steps)


def system_of(recurrence: Recurrence, x: Any, h0: Any, theta: Any, steps: int | None) -> System:
    """Validate what arrays in one place say, theta aside, and return the system of equations."""
    h0 = real_array("h0", h0)
    if h0.ndim == 0:
        raise InvalidInput("h0 is a scalar; expected shape (*batch, d): pass h0[None] for d = 1")
    if h0.shape[-1] == 0:
        raise InvalidInput(f"h0 has shape {h0.shape}; expected (*batch, d) with d >= 1")
    recurrence.structure(h0.shape[-1])
    recurrence.require_fast_math(h0)
    if x is None:
        if steps is None:
            raise InvalidInput("x is None and steps is None; pass steps=T, the steps to take")
        require_whole("steps", steps, least=0)
        steps = int(steps)
    else:
        x = real_array("x", x, finite=False)  # see check_inputs
        if x.ndim != h0.ndim + 1 or x.shape[1:-1] != h0.shape[:-1]:
            batch = "".join(f"{size}, " for size in h0.shape[:-1])
            raise InvalidInput(
                f"x has shape {x.shape}; expected (T, {batch}m), time first and the batch axes of "
                f"h0, which has shape {h0.shape}"
                + ("; pass x[:, None]" if x.ndim == h0.ndim == 1 else "")
            )
        if x.dtype != h0.dtype:
            raise InvalidInput(
                f"x is {x.dtype} and h0 {h0.dtype}; expected one dtype: pass x.astype({h0.dtype}) "
                f"or h0.astype({x.dtype})"
            )
        if steps not in (None, len(x)):
            raise InvalidInput(f"steps is {steps} and x has {len(x)}; leave steps out")
    return System(recurrence, x, h0, theta, steps if x is None else len(x))


def check_inputs(system: System) -> None:
    """Raise InvalidInput unless x is finite: a pass over what may be most of the memory in use."""
    if system.x is not None:
        require_finite("x", system.x)


def real_array(name: str, array: Any, finite: bool = True) -> Array:
    """Return a float32 or float64 array, finite if so asked; no dtype is cast silently."""
    if array.dtype not in (np.float32, np.float64):
        better = np.float32 if array.dtype == np.float16 else np.float64
        raise InvalidInput(
            f"{name} is {array.dtype}; expected float32 or float64: "
            f"pass {name}.astype(np.{better.__name__})"
        )
    if finite:
        require_finite(name, array)
    checked: Array = array
    return checked


def require_finite(name: str, value: Any) -> None:
    """Raise InvalidInput that says where an array is NaN or infinite."""
    array = arrays.from_any(value)
    if not all_finite(array):
        bad = ~np.isfinite(array)
        where = tuple(int(i) for i in np.unravel_index(int(bad.argmax()), array.shape))
        raise InvalidInput(
            f"{name} is {float(array[where])} at index {where}, and not finite at {bad.sum()} "
            "place(s) in all; expected finite numbers"
        )


def probe(system: System) -> None:
    """Call `step` on a few states together and one by one: it must treat them alike.

    Finds, at the price of a few steps, a `step` that mixes time steps or sequences, that depends
    on the number of leading axes, or whose channels couple beyond the declared block size.

    Raises
    ------
    InvalidInput
    """
    T, *batch, d = system.shape
    if 0 in system.shape:
        return
    steps, sequences = min(T, 3), min(batch[0], 2)
    x = None if system.x is None else system.x[:steps, :sequences]
    # Neighbours in time must differ, or mixing them could not be seen.
    ramp = np.linspace(1.0, 0.7, steps, dtype=system.h0.dtype)[:, None, None]
    h = arrays.beside(ramp, system.h0) * (system.h0[None, :sequences] + system.h0.dtype.type(0.1))
    few = replace(system, x=x, h0=system.h0[:sequences], steps=steps)
    try:
        if arrays.is_device_array(h):  # whose memory cannot be made read-only
            require_unwritten(few, h)
        together = few.evaluate(h)
        for t, b in np.ndindex(steps, sequences):
            alone = few.apply(system.recurrence.step, h[t, b], None if x is None else x[t, b])
            if not close(together[t, b], alone):
                raise InvalidInput(
                    f"step gives {arrays.from_any(alone).ravel()[:3]} for one state and "
                    f"{together[t, b].ravel()[:3]} for the same state among others (step {t}, "
                    f"sequence {b}); expected a function that never mixes leading axes: index and "
                    "reduce over the last axis only"
                )
    except Exception as error:
        if not isinstance(error, InvalidInput):
            error.add_note(
                "raised by step(h, x, theta), called on states of shape "
                f"{h.shape} and on single ones of shape {h[0, 0].shape}; it must accept any "
                "leading axes (np.where in place of if) and must not write into its arguments"
            )
        raise
    probe_structure(few, h)


def require_unwritten(system: System, h: Array) -> None:
    """Raise InvalidInput if `step` writes into its arguments, which are copies here."""
    given = [h] if system.x is None else [h, system.x]
    argument, *x = copies = [array.copy() for array in given]
    replace(system, x=x[0] if x else None).evaluate(argument)
    if not all(np.array_equal(a, b) for a, b in zip(given, copies, strict=True)):
        raise InvalidInput("step writes into its argument h or x; write into a copy: h.copy()")


def probe_structure(system: System, h: Array) -> None:
    """Compare the blocks with one directional derivative: they must say the same.

    A `jacobian` that is given is compared with a central difference of `step`.
    """
    recurrence = system.recurrence
    given = callable(recurrence.jacobian)
    if recurrence.structure(h.shape[-1])[1] == 1 and not given:
        return  # one dense block, computed: it can only be right
    blocks = system.apply(recurrence.linearize, h, system.x)[1]
    if blocks.dtype != h.dtype:
        raise InvalidInput(f"jacobian returned {blocks.dtype} for states in {h.dtype}; cast it")
    v: Array = np.random.default_rng(0).uniform(0.5, 1.5, (h.shape[-1],)).astype(h.dtype)
    v = arrays.beside(v, h)
    along = (replace(recurrence, jacobian="3-point") if given else recurrence).tangent
    expected = system.apply(partial(along, v[None]), h, system.x)[1][0]
    digits = 0.25 if given or recurrence.jacobian in ("2-point", "3-point") else 0.5
    if not close(block_matvec(blocks, np.broadcast_to(v, h.shape)), expected, digits):
        differ = "df/dh times a vector differs from the blocks times that vector"
        if given:
            raise InvalidInput(
                f"jacobian is not the derivative of step: {differ}; correct it, or give an "
                "approximation to quasi_newton(block_diagonal(k, jacobian))"
            )
        raise InvalidInput(
            f"channels couple beyond block_size {blocks.shape[-2]}: {differ}; declare the true "
            "block size (component-major), or leave it None"
        )


def close(a: Any, b: Any, digits: float = 0.5) -> bool:
    """Tell whether two small results agree to this share of the digits of their dtype."""
    if np.shape(a) != np.shape(b):
        return False
    a, b = arrays.on_host(a), arrays.on_host(b)
    tolerance = float(np.finfo(np.asarray(a).dtype).eps) ** digits
    scale = max(1.0, float(np.max(np.abs(b), initial=0, where=np.isfinite(b))))
    return bool(np.allclose(a, b, rtol=tolerance, atol=tolerance * scale, equal_nan=True))
