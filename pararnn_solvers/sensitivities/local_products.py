"""What each step does to its inputs and parameters, times adjoints, for all steps at once."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from pararnn_solvers import arrays, tree
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.sensitivities.leaves import like, matching_leaves
from pararnn_solvers.system import System
from pararnn_solvers.typing import Array

MOST_DIRECTIONS = 256
GROUP = 16  # directions carried at once: bounds the memory of their tangents


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
