"""Derivatives of a trajectory whose slabs ranks hold: of each slab, once what arrives is known.

What arrives at a slab is found by one Exscan, as in the scan; then each rank differentiates its
slab alone, as if it were all there is. Sums over time are summed over ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from pararnn_solvers import arrays, tree
from pararnn_solvers.bidiagonal import BlockBidiagonal
from pararnn_solvers.linear.mpi_scan import OverRanks
from pararnn_solvers.memory import require_blocks, where_arrays_are
from pararnn_solvers.ranks import ALONE, Ranks
from pararnn_solvers.sensitivities.leaves import like
from pararnn_solvers.solvers.solution import Solution
from pararnn_solvers.typing import Array


def joined_gradients(solution: Solution, dh: Any, gradients: Callable[..., Any]) -> Any:
    """Return the gradients of a slab, with those by theta and h0 of the whole on all ranks.

    Parameters
    ----------
    gradients : callable
        ``gradients(solution, dh)`` of one process.
    """
    ranks = solution.ranks
    with ranks.together(), where_arrays_are(solution.system, "gradients"):
        dh = like("dh", dh, solution.h)
        slab, blocks, scan = apart(solution)
        lam = BlockBidiagonal(blocks).solve_adjoint(dh, slab.scan)
        arrived = scan.arriving(blocks, lam, adjoint=True)
        del blocks, lam
        if arrived is not None and len(dh):
            dh = dh.copy()
            dh[-1] += arrived
        found = gradients(slab, dh)
        first = solution.steps_before == 0 and len(dh)
        dh0 = found.h0 if first else np.zeros_like(found.h0)
        dtheta, dh0 = summed((found.theta, dh0), ranks)
        return found._replace(theta=dtheta, h0=dh0)


def joined_jvp(solution: Solution, changes: dict[str, Any], jvp: Callable[..., Array]) -> Array:
    """Return the change of a slab along changes of its x, and of theta and h0.

    Parameters
    ----------
    changes : dict
        ``dx``, ``dtheta`` and ``dh0``; h0 is the state before the first step of all.
    jvp : callable
        ``jvp(solution, dx=, dtheta=, dh0=)`` of one process.
    """
    with solution.ranks.together(), where_arrays_are(solution.system, "jvp"):
        slab, blocks, scan = apart(solution)
        if solution.steps_before:
            changes = {**changes, "dh0": None}
        change = jvp(slab, **changes)
        arrived = scan.arriving(blocks, change)
        return change if arrived is None else jvp(slab, **{**changes, "dh0": arrived})


def apart(solution: Solution) -> tuple[Solution, Array, OverRanks]:
    """Return the solution of a slab as that of one process; its blocks; the scan over ranks."""
    scan = solution.scan
    assert isinstance(scan, OverRanks)  # as every solve over ranks has it
    require_blocks(solution.system, "a derivative over ranks")
    blocks = solution.system.linearize(solution.h)
    return replace(solution, ranks=ALONE, scan=scan.local), blocks, scan


def summed(values: Any, ranks: Ranks) -> Any:
    """Return nested arrays summed over all ranks: one message, in float64."""
    leaves, rebuild = tree.flatten(values)
    on_host = [np.asarray(arrays.on_host(leaf)) for leaf in leaves]
    flat = np.concatenate([leaf.ravel().astype(np.float64) for leaf in on_host])
    parts = np.split(ranks.total(flat), np.cumsum([leaf.size for leaf in on_host])[:-1])
    totals = [
        arrays.beside(part.reshape(old.shape).astype(old.dtype), leaf)
        for part, old, leaf in zip(parts, on_host, leaves, strict=True)
    ]
    return rebuild(totals)
