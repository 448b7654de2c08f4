"""Exact derivatives of a trajectory: one more linear recurrence, then local products.

With ``g = dL/dh``, solve ``lam_t = g_t + A_{t+1}^T lam_{t+1}`` backwards in time; then
``dL/dtheta = sum_t lam_t^T df/dtheta``, ``dL/dx_t = lam_t^T df/dx_t``, ``dL/dh_0 = A_1^T lam_1``.
The blocks A are the exact ones at the returned states, whatever method found them.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers import arrays, tree
from pararnn_solvers.bidiagonal import BlockBidiagonal, block_matvec
from pararnn_solvers.checks import require_one_place
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.memory import require_blocks, where_arrays_are
from pararnn_solvers.solvers.solution import Solution
from pararnn_solvers.system import System, Tally
from pararnn_solvers.typing import Array
from pararnn_solvers.validation import close

MOST_DIRECTIONS = 256
WITHOUT_X = "dx is given for a recurrence without x; leave it out"
GROUP = 16  # directions carried at once: bounds the memory of their tangents


class Gradients(NamedTuple):
    """``dL/dtheta`` (nested as theta is), ``dL/dx`` (as x) and ``dL/dh_0`` (as h0).

    Arrays of NumPy, or of CuPy where the states are on a device.
    """

    theta: Any
    x: Array | None
    h0: Array


def gradients(solution: Solution, dh: Array) -> Gradients:
    """Return the gradients of a loss L from ``dh = dL/dh``.

    Parameters
    ----------
    solution : Solution
    dh : array, shape (T, *batch, d), dtype of the states
        Of NumPy or CuPy, or anything with DLPack; where the states are.

    Returns
    -------
    Gradients
        ``theta`` has None for leaves that are not real numbers (integers, text). With lengths,
        ``x`` is 0 in the padding, and dh there counts for the final state, which is held there;
        with resets, ``h0`` is the sum over every return to it.

    Raises
    ------
    InvalidInput
        If dh has another shape or dtype, or theta has more than 256 real entries and the
        recurrence no ``vjp=``.

    Notes
    -----
    Cost: with kernels (``solution.system.program``, and no ``vjp=`` that differs) one pass over the
    trajectory, or three for few channels that do not forget; what comes from later is left out
    where it is below rounding beside the greatest of all. Otherwise one evaluation with k tangents
    and one linear recurrence; then, with ``vjp=``, one call of it; without, one evaluation with m
    tangents for x (shape (..., m)) and one with as many as theta has real entries, carried 16 at a
    time.

    Source: Griewank & Walther 2008, chapter 3; Danieli et al. 2025 (arXiv 2510.21450), section 3.3.
    """
    dh, sequences = like("dh", dh, solution.h), solution.sequences
    with where_arrays_are(solution.system, "gradients"):
        if sequences is not None:
            dh, unmoved = sequences.release(dh)
        if solution.system.program is not None and kernels_agree(solution):
            found = compiled_gradients(solution, np.ascontiguousarray(dh, like=dh))
        else:
            found = pulled_back(solution, dh)
        return found if sequences is None else found._replace(h0=found.h0 + unmoved)


def pulled_back(solution: Solution, dh: Array) -> Gradients:
    """Return the gradients by one linear recurrence and products at all steps at once."""
    system, h = solution.system, solution.h
    require_blocks(system, "gradients")
    blocks = system.linearize(h)
    lam = BlockBidiagonal(blocks).solve_adjoint(dh, solution.scan)
    dh0 = np.zeros_like(system.h0)
    if len(h):
        dh0 = block_matvec(blocks[0], lam[0], adjoint=True)
    previous = system.previous(h)
    if solution.sequences is not None:
        dh0 = dh0 + solution.sequences.through_resets(system, lam)
        system, previous, lam = solution.sequences.unmasked(system, previous, lam)
    if system.recurrence.vjp is not None:
        dtheta, dx = local_products(system, previous, lam)
        return Gradients(dtheta, dx, dh0)
    return Gradients(theta_gradient(system, previous, lam), x_gradient(system, previous, lam), dh0)


def kernels_agree(solution: Solution) -> bool:
    """Tell whether kernels compute what the recurrence's own ``vjp`` does, on the first step.

    It may be meant to be another: a surrogate for the derivative.
    """
    system, sequences = solution.system, solution.sequences
    recurrence = system.recurrence if sequences is None else sequences.recurrence
    if recurrence.vjp is None or not solution.h.size:
        return True
    x = None if system.x is None else system.x[:1]
    first = replace(system, x=x, steps=1, tally=Tally())
    h = solution.h[:1]
    lam = np.random.default_rng(0).uniform(0.5, 1.5, h.shape).astype(h.dtype)
    lam = arrays.beside(lam, h)
    sequences = None if sequences is None else sequences.first_steps(1)
    ours = compiled_gradients(replace(solution, system=first, h=h, sequences=sequences), lam)
    previous = first.previous(h)
    if sequences is not None:
        first, previous, lam = sequences.unmasked(first, previous, lam)
    dtheta, dx = local_products(first, previous, lam)
    of_theta = (matching_leaves(system.theta, found) for found in (ours.theta, dtheta))
    pairs = [(ours.x, dx), *zip(*of_theta, strict=True)]
    return all(a is None or (b is not None and close(a, b)) for a, b in pairs)


def compiled_gradients(solution: Solution, dh: Array) -> Gradients:
    """Return the gradients by kernels, all in one reversed pass."""
    system, program = solution.system, solution.system.program
    pull_back = importlib.import_module(program.gradients).pull_back
    T, d = len(solution.h), solution.h.shape[-1]
    h0 = system.h0.reshape(-1, d)
    h = solution.h.reshape(T, len(h0), d)
    x = None if system.x is None else system.x.reshape(T, len(h0), system.x.shape[-1])

    def solve_adjoint(g: Array) -> tuple[Array, Array]:
        require_blocks(system, "gradients")
        flat = replace(system, x=x, h0=h0)
        blocks = flat.linearize(h)
        lam = BlockBidiagonal(blocks).solve_adjoint(g, solution.scan)
        first = block_matvec(blocks[0], lam[0], adjoint=True) if T else np.zeros_like(h0)
        return lam, first

    dx, dh0, products = pull_back(program, x, h0, h, dh.reshape(h.shape), solve_adjoint)
    leaves, rebuild = tree.flatten(system.theta)
    found = [
        arrays.beside(np.zeros_like(leaf), h) if tree.is_differentiable(leaf) else None
        for leaf in leaves
    ]
    for parameter, product in zip(program.parameters, products, strict=True):
        parameter.add(found[parameter.leaf], product)
    if dx is not None and system.x is not None:
        dx = dx.reshape(system.x.shape)
    dh0 = dh0.reshape(system.h0.shape)
    if solution.sequences is not None:
        dx, returned = solution.sequences.of_drives(dx)
        dh0 = dh0 + returned
    return Gradients(rebuild(found), dx, dh0)


def local_products(system: System, previous: Array, lam: Array) -> tuple[Any, Array | None]:
    """Return ``sum_t lam_t^T df/dtheta`` and ``lam_t^T df/dx_t`` from the recurrence's own vjp."""
    vjp = system.recurrence.vjp
    assert vjp is not None

    def products(h: Array, x: Array | None, theta: Any) -> Any:
        return vjp(h, x, theta, lam)

    returned = system.apply(products, previous, system.x)
    if not isinstance(returned, tuple) or len(returned) != 3:
        raise InvalidInput("vjp(h, x, theta, lam) must return a tuple of three: (dh, dx, dtheta)")
    _, dx, dtheta = returned
    if system.x is not None:
        dx = like("dx returned by vjp", dx, system.x)
    matching_leaves(system.theta, dtheta, "dtheta returned by vjp")
    return dtheta, dx


def x_gradient(system: System, previous: Array, lam: Array) -> Array | None:
    """Return ``lam_t^T df/dx_t`` by tangents in the m directions of x."""
    if system.x is None:
        return None
    m = system.x.shape[-1]
    dx = np.empty_like(system.x)
    unit = arrays.identity(m, system.x)
    for part in system.slabs(min(m, GROUP)):
        for group in groups(m):
            tangent = differentiate_inputs(system, previous[part], system.x[part], unit[group])
            dx[part][..., group] = np.einsum("p...i,...i->...p", tangent, lam[part])
    return dx


def differentiate_inputs(system: System, h: Array, x: Array, directions: Array) -> Array:
    """Return ``df/dx v`` for each direction v of shape (m,)."""

    def tangent(h: Array, x: Array, theta: Any) -> Array:
        step = system.recurrence.step
        result: Array = system.recurrence.derivative(lambda u: step(h, u, theta), x, directions)[1]
        return result

    result: Array = system.apply(tangent, h, x)
    return result


def theta_gradient(system: System, previous: Array, lam: Array) -> Any:
    """Return ``sum_t lam_t^T df/dtheta`` by tangents in every real entry of theta."""
    leaves, rebuild = tree.flatten(system.theta)
    entries = sum(np.size(leaf) for leaf in leaves if tree.is_differentiable(leaf))
    if entries > MOST_DIRECTIONS:
        raise InvalidInput(
            f"theta has {entries} real entries; beyond {MOST_DIRECTIONS} give the recurrence its "
            "products: Recurrence(step, vjp=...) with vjp(h, x, theta, lam) -> (dh, dx, dtheta)"
        )
    return rebuild(
        [
            leaf_gradient(system, previous, lam, leaves, i)
            if tree.is_differentiable(leaf)
            else None
            for i, leaf in enumerate(leaves)
        ]
    )


def leaf_gradient(
    system: System, previous: Array, lam: Array, leaves: list[Any], index: int
) -> Array:
    """Return the gradient by one leaf of theta, in the leaf's shape and dtype."""
    leaf = arrays.from_any(leaves[index])
    if not arrays.is_device_array(leaf):
        leaf = arrays.beside(leaf, lam)  # on a device, this is a number
    _, rebuild = tree.flatten(system.theta)
    units = arrays.identity(leaf.size, leaf)
    gradient = np.zeros_like(leaf, shape=(leaf.size,))

    def tangent(group: slice, h: Array, x: Array | None, theta: Any) -> Array:
        def by_leaf(entries: Any) -> Any:
            value = np.reshape(entries, leaf.shape)
            changed = rebuild([value if i == index else other for i, other in enumerate(leaves)])
            return system.recurrence.step(h, x, changed)

        result: Array = system.recurrence.derivative(by_leaf, leaf.reshape(-1), units[group])[1]
        return result

    for part in system.slabs(min(leaf.size, GROUP)):
        x = None if system.x is None else system.x[part]
        for group in groups(leaf.size):
            along = system.apply(partial(tangent, group), previous[part], x)
            flat = along.reshape(len(along), -1)
            gradient[group] += flat @ lam[part].ravel()
    return gradient.reshape(leaf.shape)


def groups(count: int) -> list[slice]:
    """Cut `count` directions in groups that are carried together."""
    return [slice(i, min(i + GROUP, count)) for i in range(0, count, GROUP)]


def jvp(
    solution: Solution,
    *,
    dx: Array | None = None,
    dtheta: Any = None,
    dh0: Array | None = None,
) -> Array:
    """Return the change of the trajectory along a change of x, theta and h0, to first order.

    Parameters
    ----------
    solution : Solution
    dx, dh0 : arrays of the shapes of x and h0, optional
        Of NumPy or CuPy, or anything with DLPack; where x and h0 are.
    dtheta : nested as theta is, optional
        None, whole or in place of a leaf, is no change.

    Returns
    -------
    array, shape (T, *batch, d)

    Notes
    -----
    Cost: one evaluation with k tangents, one with a single tangent, and one linear recurrence.
    """
    system, h, sequences = solution.system, solution.h, solution.sequences
    with where_arrays_are(system, "jvp"):
        require_blocks(system, "jvp")
        dh0 = None if dh0 is None else like("dh0", dh0, system.h0)
        if sequences is not None:
            dx = change_of_drives(solution, dx, dh0)
        blocks = system.linearize(h)
        rhs = np.zeros_like(h)
        if dx is not None or dtheta is not None:
            rhs = local_change(system, h, dx, dtheta)
        if dh0 is not None and len(h):
            rhs[0] += block_matvec(blocks[0], dh0)
        change = BlockBidiagonal(blocks).solve(rhs, solution.scan)
        if sequences is not None:
            change = sequences.hold(change, np.zeros_like(system.h0) if dh0 is None else dh0)
        return change


def change_of_drives(solution: Solution, dx: Array | None, dh0: Array | None) -> Array:
    """Return the change of the drives of a masked recurrence, with that of the starts."""
    system, sequences = solution.system, solution.sequences
    assert sequences is not None
    assert system.x is not None
    if dx is not None:
        if sequences.columns is None:
            raise InvalidInput(WITHOUT_X)
        dx = like("dx", dx, system.x[..., : sequences.columns])
    return sequences.change_of_drives(system, dx, dh0)


def local_change(system: System, h: Array, dx: Array | None, dtheta: Any) -> Array:
    """Return ``df/dx dx + df/dtheta dtheta`` at every step, the state held."""
    leaves, rebuild = tree.flatten(system.theta)
    changes = [arrays.operand(da, h) for da in matching_leaves(system.theta, dtheta)]
    if dx is not None and system.x is None:
        raise InvalidInput(WITHOUT_X)
    dx = None if dx is None else like("dx", dx, system.x)

    def change(previous: Array, x: Array | None, theta: Any) -> Array:
        def along(e: Any) -> Any:
            e = e[0]
            moved = [a if da is None else a + e * da for a, da in zip(leaves, changes, strict=True)]
            return system.recurrence.step(previous, x if dx is None else x + e * dx, rebuild(moved))

        zero, one = np.zeros_like(h, shape=(1,)), np.ones_like(h, shape=(1, 1))
        result: Array = system.recurrence.derivative(along, zero, one)[1][0]
        return result

    whole = np.empty_like(h)
    whole[...] = system.apply(change, system.previous(h), system.x)
    return whole


def matching_leaves(theta: Any, dtheta: Any, name: str = "dtheta") -> list[Any]:
    """Return a change, or None, for every leaf of theta."""
    if theta is None and dtheta is not None:
        raise InvalidInput(f"{name} is given where theta is None; expected None there too")
    if dtheta is None:
        return [None] * len(tree.flatten(theta)[0])
    keys, children, build = tree.open_container(theta)
    if build is None:
        return [like(name, dtheta, theta)]
    other_keys, others, _ = tree.open_container(dtheta)
    if keys != other_keys:
        raise InvalidInput(f"{name} has entries {other_keys}; expected those of theta, {keys}")
    pairs = zip(children, others, strict=True)
    return [change for child, other in pairs for change in matching_leaves(child, other, name)]


def like(name: str, array: Any, reference: Any) -> Array:
    """Return an array after checking that it has the shape, dtype and place of a reference."""
    array, reference = arrays.from_any(array), arrays.from_any(reference)
    require_one_place({name: array, "the solution": reference})
    checked: Array = array
    if array.shape != reference.shape or array.dtype != reference.dtype:
        raise InvalidInput(
            f"{name} has shape {array.shape} and dtype {array.dtype}; expected {reference.shape} "
            f"and {reference.dtype}"
        )
    return checked
