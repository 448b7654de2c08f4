"""``solve`` within JAX: a function of x, h0 and theta that ``jax.jit`` and ``jax.grad`` know.

The recurrence stays a NumPy ``step``. It runs on the host: at once where values are known, as a
callback of XLA where JAX only traces. Needs the extra ``jax``, which is imported at the first call.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import pararnn_solvers as prs
from pararnn_solvers import tree
from pararnn_solvers.distributed import require_one_process
from pararnn_solvers.errors import BackendUnavailable, InvalidInput
from pararnn_solvers.linear import Scan
from pararnn_solvers.recurrence import Recurrence
from pararnn_solvers.sensitivities.leaves import matching_leaves
from pararnn_solvers.solvers.solution import Solution
from pararnn_solvers.solvers.stopping import Status, Stopping
from pararnn_solvers.solvers.unsolved import Observer
from pararnn_solvers.system import System
from pararnn_solvers.typing import Array
from pararnn_solvers.validation import make_system

__all__ = ["solve"]

CONSTANTS = ("lengths", "resets", "guess")  # options that may be arrays of JAX, too


def solve(
    recurrence: Recurrence | Callable[..., Any], x: Any, h0: Any, theta: Any = None, **options: Any
) -> Any:
    """Return the states that :func:`pararnn_solvers.solve` finds, as an array of JAX.

    Differentiable in reverse by x, h0 and the floating-point leaves of theta: the gradients are
    those of :func:`pararnn_solvers.gradients`.

    Parameters
    ----------
    recurrence : Recurrence or callable
        ``step(h, x, theta)``, written with NumPy and not with ``jax.numpy``. It is static: JAX
        does not look into it.
    x : array, shape (T, *batch, m), or None
        Of JAX or NumPy, float32, or float64 where JAX has it (``jax_enable_x64``).
    h0 : array, shape (*batch, d)
        Of the dtype of x.
    theta : nested containers of arrays, optional
        Numbers of Python take the dtype of h0. Leaves that are no arrays of JAX and no floats are
        static.
    **options
        Those of :func:`pararnn_solvers.solve`. Where lengths, resets and guess are arrays they
        may be traced; no derivatives are taken by them.

    Returns
    -------
    jax.Array, shape (T, *batch, d)

    Raises
    ------
    InvalidInput
        For shapes and dtypes, while JAX traces.
    ConvergenceError, InvalidInput, ...
        From the solve itself. Under ``jax.jit`` JAX raises a ``jax.errors.JaxRuntimeError`` in
        their place; its text ends with theirs.
    BackendUnavailable
        JAX is not installed.

    Notes
    -----
    Cost: that of the solve, and for gradients of `gradients`, whose validation and preparation
    run once more. x, h0 and theta are read where JAX has them; the states are copied once under
    ``jax.jit``. ``jax.vmap`` solves one after another: give batch axes to x and h0 instead.

    Examples
    --------
    >>> import jax, pararnn_solvers.jax  # doctest: +SKIP
    >>> jax.grad(lambda a: pararnn_solvers.jax.solve(step, x, h0, a).sum())(0.5)  # doctest: +SKIP
    """
    require_one_process("pararnn_solvers.jax", options)
    jax = library()
    x, h0 = operand(jax, "x", x), operand(jax, "h0", h0)
    leaves, rebuild = tree.flatten(theta)
    paths = tree.paths(theta)
    theta = rebuild([parameter(jax, *pair, h0) for pair in zip(paths, leaves, strict=True)])
    shapes = described(jax, (x, h0, theta))
    system = make_system(recurrence, shapes[0], shapes[1], shapes[2], options.get("steps"))
    constants = {name: options.pop(name) for name in CONSTANTS if name in options}
    problem = Problem.of(jax, recurrence, (x, h0, theta), constants, options)
    states = jax.ShapeDtypeStruct(system.shape, system.h0.dtype)
    return differentiable(jax, problem, states)(*problem.given)


@dataclass(frozen=True)
class Problem:
    """A solve, as functions of the arrays of JAX alone that are in its arguments.

    Parameters
    ----------
    leaves, join
        Of ``(x, h0, theta), constants``.
    traced : list of int
        Which leaves are arrays of JAX.
    smooth : list of int
        By which of those there are gradients.
    """

    recurrence: Recurrence | Callable[..., Any]
    leaves: list[Any]
    join: Callable[[list[Any]], Any]
    traced: list[int]
    smooth: list[int]
    options: dict[str, Any]

    @classmethod
    def of(
        cls,
        jax: Any,
        recurrence: Recurrence | Callable[..., Any],
        inputs: tuple[Any, Any, Any],
        constants: dict[str, Any],
        options: dict[str, Any],
    ) -> Problem:
        """Find the arrays of JAX."""
        leaves, join = tree.flatten((inputs, constants))
        traced = [i for i, leaf in enumerate(leaves) if isinstance(leaf, jax.Array)]
        count = len(tree.flatten(inputs)[0])
        smooth = [i for i in traced if i < count and tree.is_differentiable(leaves[i])]
        return cls(recurrence, leaves, join, traced, smooth, options)

    @property
    def given(self) -> list[Any]:
        """The arrays of JAX."""
        return [self.leaves[i] for i in self.traced]

    def arguments(self, given: Sequence[Any]) -> Any:
        """Return ``(x, h0, theta), constants`` with these values in the place of JAX's."""
        known = dict(zip(self.traced, map(np.asarray, given), strict=True))
        return self.join([known.get(i, leaf) for i, leaf in enumerate(self.leaves)])

    def solve(self, *given: Any) -> Array:
        """Return the states."""
        inputs, constants = self.arguments(given)
        h: Array = prs.solve(self.recurrence, *inputs, **self.options, **constants).h
        return h

    def gradients(self, dh: Any, h: Any, *given: Any) -> tuple[Array, ...]:
        """Return the gradients by the smooth leaves, at states that are known."""
        inputs, constants = self.arguments(given)
        options = {**self.options, **constants, "guess": np.asarray(h), "method": Known()}
        solution = prs.solve(self.recurrence, *inputs, **options)
        found = prs.gradients(solution, np.asarray(dh))
        by_leaf = matching_leaves(inputs, (found.x, found.h0, found.theta))
        return tuple(by_leaf[i] for i in self.smooth)


def differentiable(jax: Any, problem: Problem, states: Any) -> Any:
    """Return the solve as a function of JAX's arrays which its ``grad`` knows.

    ``states``: their shape and dtype.
    """

    def forward(*given: Any) -> tuple[Any, tuple[Any, ...]]:
        h = on_host(jax, problem.solve, states, *given)
        return h, (h, *given)

    def backward(kept: tuple[Any, ...], dh: Any) -> tuple[Any, ...]:
        smooth = [problem.leaves[i] for i in problem.smooth]
        shapes = tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in smooth)
        found = on_host(jax, problem.gradients, shapes, dh, *kept)
        by_leaf = dict(zip(problem.smooth, found, strict=True))
        return tuple(by_leaf.get(i) for i in problem.traced)  # None: there is no gradient

    function = jax.custom_vjp(lambda *given: forward(*given)[0])
    function.defvjp(forward, backward)
    return function


def on_host(jax: Any, function: Callable[..., Any], shapes: Any, *given: Any) -> Any:
    """Call a function of NumPy on arrays of JAX: now, or when JAX has computed them."""
    if any(isinstance(value, jax.core.Tracer) for value in given):
        return jax.pure_callback(function, shapes, *given, vmap_method="sequential")
    return jax.tree.map(jax.numpy.asarray, function(*given))  # and errors are our own


@dataclass(frozen=True)
class Known:
    """The method for states that are known: they are the guess."""

    def solve(
        self,
        system: System,
        guess: Any,
        scan: Scan,
        stopping: Stopping,
        observe: Observer | None = None,
    ) -> Solution:
        """Return the guess as the solution, whatever its residual."""
        status = np.full(guess.shape[1], Status.CONVERGED, object)
        norms = np.zeros((1, guess.shape[1]), guess.dtype)
        return Solution(guess, status, norms, 0, system, scan, stopping)


def library() -> Any:
    """Return the module ``jax``.

    Raises
    ------
    BackendUnavailable
    """
    try:
        return importlib.import_module("jax")
    except ImportError as cause:
        raise BackendUnavailable(
            f"pararnn_solvers.jax needs JAX, which cannot be imported: {cause}; "
            "pip install 'pararnn_solvers[jax]'"
        ) from cause


def operand(jax: Any, name: str, value: Any) -> Any:
    """Return an array of JAX, which keeps the dtype."""
    if value is None or isinstance(value, jax.Array):
        return value
    array = np.asarray(value)
    made = jax.numpy.asarray(array)
    if made.dtype != array.dtype:
        raise InvalidInput(
            f"{name} is {array.dtype}, which JAX would turn into {made.dtype}; pass "
            f"{name}.astype(np.{made.dtype}), or jax.config.update('jax_enable_x64', True) first"
        )
    return made


def parameter(jax: Any, path: str, leaf: Any, h0: Any) -> Any:
    """Return a leaf of theta: as an array of JAX if it is real, otherwise as it is."""
    if not tree.is_differentiable(leaf):
        return leaf
    if isinstance(leaf, (float, np.generic)) or getattr(leaf, "weak_type", False):
        return jax.numpy.asarray(leaf, h0.dtype)  # a number, which fits in anywhere
    return operand(jax, path, leaf)


def described(jax: Any, nested: Any) -> Any:
    """Return arrays of NumPy, without memory of their own, of the shapes and dtypes of JAX's."""
    leaves, rebuild = tree.flatten(nested)
    return rebuild(
        [
            np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)
            if isinstance(leaf, jax.Array)
            else leaf
            for leaf in leaves
        ]
    )
