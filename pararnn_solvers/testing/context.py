"""What the checks of a recurrence look at: a few states near its trajectory, in float64, too."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from pararnn_solvers import arrays, tree
from pararnn_solvers.checks import require_number
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.recurrence import Recurrence
from pararnn_solvers.system import System
from pararnn_solvers.testing.oracles import Oracles, ask
from pararnn_solvers.testing.results import CheckFailed
from pararnn_solvers.typing import Array
from pararnn_solvers.validation import check_inputs, make_system

MOST_STEPS, MOST_SEQUENCES = 16, 3
SAMPLES = (5, 3)  # steps and sequences: unequal, so that no axis is taken for the other
# Ascending, so that the first to fail is a smallest counterexample; both orders, and T == batch.
LEADING = [(), (1,), (2,), (1, 2), (2, 1), (2, 2), (3, 2), (2, 3), (3, 3), (5, 3), (2, 3, 2)]
AXES = "axis step sequence component"
LAST_AXIS = "index and reduce over the last axis only (h[..., :n], axis=-1), never a leading one"


@dataclass(frozen=True, eq=False)
class Context:
    """A recurrence with few steps and sequences of its data, and states to look at it from.

    Attributes
    ----------
    system : System
        With one batch axis, at most 16 steps and 3 sequences.
    rtol : float, optional
        The least relative tolerance of any comparison.
    """

    system: System
    rtol: float | None = None

    @property
    def recurrence(self) -> Recurrence:
        """The recurrence that is checked."""
        return self.system.recurrence

    @property
    def size(self) -> int:
        """The number d of components of a state."""
        return self.system.shape[-1]

    def tolerance(self, bound: float) -> float:
        """Return the relative tolerance: the stated bound, or `rtol` if that is greater."""
        return max(bound, self.rtol or 0.0)

    def rounding(self, dtype: Any) -> float:
        """Bound the relative error of one step: 64 operations and a sum over the state."""
        return self.tolerance((64 + self.size) * float(np.finfo(dtype).eps))

    @cached_property
    def trajectory(self) -> Array:
        """States ``h_0 h_1 ...`` made one by one; only those before `step` fails or overflows."""
        states = [self.system.h0]
        for t in range(self.system.shape[0]):
            try:
                x = None if self.system.x is None else self.system.x[t].copy()
                h = self.call(states[-1].copy(), x)
                h = np.asarray(h, states[0].dtype)
            except Exception:
                break  # the checks call it again, and say what is wrong
            if h.shape != states[0].shape or not np.all(np.isfinite(h)):
                break
            states.append(h)
        return np.stack(states)

    @cached_property
    def samples(self) -> tuple[Array, Array | None]:
        """States and drives (5, 3, .) near the trajectory, all different from one another."""
        rng = np.random.default_rng(0)
        d = self.size
        states = self.trajectory.reshape(-1, d).astype(np.float64)
        scale = np.max(np.abs(states), axis=0)
        scale[scale == 0] = scale.max() or 1.0
        h = rng.choice(states, SAMPLES) * rng.uniform(0.9, 1.1, (*SAMPLES, d))
        h = (h + 0.01 * scale * rng.standard_normal((*SAMPLES, d))).astype(self.system.h0.dtype)
        x = self.system.x
        if x is not None:
            m, dtype = x.shape[-1], x.dtype
            if x.size:
                x = rng.choice(x.reshape(-1, m), SAMPLES) * rng.uniform(0.9, 1.1, (*SAMPLES, m))
            else:
                x = rng.standard_normal((*SAMPLES, m))
            x = x.astype(dtype)
        return h, x

    def sampled(self, lead: tuple[int, ...]) -> tuple[Array, Array | None]:
        """Return writable samples with these leading axes."""
        count = int(np.prod(lead))

        def with_axes(array: Array) -> Array:
            return np.resize(rows(array)[:count], (*lead, array.shape[-1]))

        h, x = self.samples
        return with_axes(h), None if x is None else with_axes(x)

    def call(self, h: Any, x: Any, theta: Any = None) -> Any:
        """Return ``step(h, x, theta)``, by default with a copy of the given theta."""
        theta = copied(self.system.theta) if theta is None else theta
        with np.errstate(all="ignore"):
            return self.recurrence.step(h, x, theta)

    @cached_property
    def wide(self) -> Context:
        """The same in float64."""
        return self.cast(np.float64)

    def cast(self, dtype: Any) -> Context:
        """Return the same in another dtype."""
        system = self.system
        x = None if system.x is None else system.x.astype(dtype)
        theta = as_dtype(system.theta, dtype)
        return Context(replace(system, x=x, h0=system.h0.astype(dtype), theta=theta), self.rtol)

    @cached_property
    def oracles(self) -> Oracles:
        """``df/dh`` at the samples in float64, direction by direction: (d, 5, 3, d)."""
        h, x = self.wide.samples
        return ask(lambda state: self.wide.call(state, x), h, np.eye(self.size))

    @cached_property
    def jacobian(self) -> Array:
        """``df/dh`` at the samples in float64 as matrices (5, 3, d, d), by the best oracle."""
        return np.moveaxis(self.oracles.best, 0, -1)

    @cached_property
    def theta_paths(self) -> list[tuple[int, str]]:
        """Number and name of each leaf of theta that is real."""
        leaves = tree.flatten(self.system.theta)[0]
        named = enumerate(zip(leaves, tree.paths(self.system.theta), strict=True))
        return [(i, name) for i, (leaf, name) in named if tree.is_differentiable(leaf)]


def make_context(
    recurrence: Any, x: Any, h0: Any, theta: Any, steps: int | None, rtol: float | None
) -> Context:
    """Validate as ``solve`` does, and keep little enough to look at closely."""
    if rtol is not None:
        require_number("rtol", rtol, lambda r: 0 < r < 1, "None, or a number between 0 and 1")
    if isinstance(recurrence, type):
        raise InvalidInput(
            f"recurrence is the class {recurrence.__name__}; expected step(h, x, theta), or a "
            "Recurrence: pass an instance that can be called, or a method of it"
        )
    if not (callable(recurrence) or isinstance(recurrence, Recurrence)):
        raise InvalidInput(
            f"recurrence is {recurrence!r}; expected step(h, x, theta), or a Recurrence"
        )
    system = make_system(recurrence, x, h0, theta, steps)
    check_inputs(system)
    if arrays.is_device_array(system.h0):
        raise InvalidInput("h0 is on a device; checks run on the host: pass h0.get() and its kind")
    if 0 in system.shape:
        raise InvalidInput(
            f"the trajectory has shape {system.shape}; expected one step, sequence and state at "
            "least: there is nothing to check"
        )
    T, *batch, d = system.shape
    h0 = system.h0.reshape(-1, d)[:MOST_SEQUENCES]
    T = min(T, MOST_STEPS)
    if system.x is not None:
        m, sequences = system.x.shape[-1], int(np.prod(batch))
        x = system.x.reshape(len(system.x), sequences, m)[:T, :MOST_SEQUENCES]
    return Context(replace(system, x=x, h0=h0, steps=T), rtol)


def rows(array: Array) -> Array:
    """View an array (..., m) as (S, m), m = 0 included."""
    return array.reshape(int(np.prod(array.shape[:-1])), array.shape[-1])


def as_dtype(theta: Any, dtype: Any) -> Any:
    """Return theta with its real arrays in another dtype."""
    leaves, rebuild = tree.flatten(theta)
    return rebuild(
        [
            leaf.astype(dtype) if tree.is_differentiable(leaf) and type(leaf) is not float else leaf
            for leaf in leaves
        ]
    )


def copied(theta: Any) -> Any:
    """Return theta with copies of its arrays, which may be written to."""
    leaves, rebuild = tree.flatten(theta)
    return rebuild([leaf.copy() if isinstance(leaf, np.ndarray) else leaf for leaf in leaves])


def copy(array: Any) -> Any:
    """Copy an array; None stays None."""
    return None if array is None else array.copy()


def require_close(
    promised: str,
    got: Any,
    expected: Any,
    tolerance: float,
    *,
    remedy: str,
    axes: str = "step sequence component",
    names: tuple[str, str] = ("", "expected"),
    scale: float = 0.0,
    defect: str = "",
) -> None:
    """Raise CheckFailed at the entry that differs most.

    Parameters
    ----------
    tolerance : float
        Relative to `scale`, or to the greatest expected entry if that is greater.
    axes : str
        Names of the last axes.
    names : (str, str)
        Of the two values.
    defect : str
        Its name, if it is known.
    """
    got, expected = np.asarray(got), np.asarray(expected)
    if got.shape != expected.shape:
        raise CheckFailed(
            promised, f"shape {got.shape} where {names[1]} has {expected.shape}", remedy
        )
    index = farthest(got, expected, tolerance, scale)
    if index is None:
        return
    values = numbers(got[index], expected[index])
    first = f"{names[0]} {values[0]}".strip()
    raise CheckFailed(
        promised,
        f"{first}, {names[1]} {values[1]}{place(index, axes)}",
        remedy,
        defect,
    )


def farthest(
    got: Array, expected: Array, tolerance: float, scale: float = 0.0
) -> tuple[int, ...] | None:
    """Return the index of the entry that differs most, if beyond the tolerance."""
    if got.size == 0:
        return None
    finite = np.isfinite(expected)
    scale = max(scale, float(np.max(np.abs(expected), initial=0, where=finite))) or 1.0
    with np.errstate(invalid="ignore"):
        error = np.abs(got - expected)
    same = (got == expected) | (np.isnan(got) & np.isnan(expected))
    error = np.where(same, 0, np.where(np.isnan(error), np.inf, error))
    if not np.any(error > tolerance * scale):
        return None
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(error)), error.shape))


def number(value: Any) -> str:
    """Print a number of any kind briefly."""
    value = np.asarray(value).item()
    return f"{value:.6g}" if isinstance(value, (int, float, complex)) else repr(value)


def numbers(a: Any, b: Any) -> tuple[str, str]:
    """Print two numbers with as many digits as it takes to tell them apart."""
    first, second = number(a), number(b)
    for digits in (9, 17):
        if first == second:
            first, second = (f"{np.asarray(v).item():.{digits}g}" for v in (a, b))
    return first, second


def place(index: tuple[int, ...], axes: str = "step sequence component") -> str:
    """Say an index in words: the last axes by name."""
    names = axes.split()[-len(index) :] if index else []
    names = ["axis"] * (len(index) - len(names)) + names
    words = [f"{name} {i}" for name, i in zip(names, index, strict=True)]
    return f" at {', '.join(words)}" if words else ""
