"""How a trajectory changes along one direction: one linear recurrence forwards.

With blocks A at the returned states, ``dh_t = A_t dh_{t-1} + df/dx dx_t + df/dtheta dtheta``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pararnn_solvers import arrays, tree
from pararnn_solvers.bidiagonal import BlockBidiagonal, block_matvec
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.memory import require_blocks, where_arrays_are
from pararnn_solvers.sensitivities.leaves import like, matching_leaves
from pararnn_solvers.sensitivities.over_ranks import joined_jvp
from pararnn_solvers.solvers.solution import Solution
from pararnn_solvers.system import System
from pararnn_solvers.typing import Array

WITHOUT_X = "dx is given for a recurrence without x; leave it out"


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

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> sol = prs.solve(lambda h, x, a: a * h + x, np.ones((3, 1)), np.zeros(1), np.array(0.5))
    >>> prs.jvp(sol, dh0=np.ones(1)).ravel()
    array([0.5  , 0.25 , 0.125])
    """
    if solution.ranks.several:
        return joined_jvp(solution, {"dx": dx, "dtheta": dtheta, "dh0": dh0}, jvp)
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
