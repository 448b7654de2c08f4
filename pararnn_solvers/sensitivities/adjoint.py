"""Exact derivatives of a trajectory: one more linear recurrence, then local products.

With ``g = dL/dh``, solve ``lam_t = g_t + A_{t+1}^T lam_{t+1}`` backwards in time; then
``dL/dtheta = sum_t lam_t^T df/dtheta``, ``dL/dx_t = lam_t^T df/dx_t``, ``dL/dh_0 = A_1^T lam_1``.
The blocks A are the exact ones at the returned states, whatever method found them.
"""

from __future__ import annotations

import importlib
import math
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np

from pararnn_solvers import arrays, tree
from pararnn_solvers.bidiagonal import BlockBidiagonal, block_matvec
from pararnn_solvers.compilation import remember, signature_of
from pararnn_solvers.memory import require_blocks, where_arrays_are
from pararnn_solvers.recurrence import Recurrence
from pararnn_solvers.sensitivities.leaves import like, matching_leaves
from pararnn_solvers.sensitivities.local_products import local_products, theta_gradient, x_gradient
from pararnn_solvers.sensitivities.over_ranks import joined_gradients
from pararnn_solvers.sequences import Sequences
from pararnn_solvers.solvers.solution import Solution
from pararnn_solvers.system import System, Tally
from pararnn_solvers.typing import Array
from pararnn_solvers.validation import close

ENTRIES_OF_A_CALL = 1 << 13  # of blocks, that take as long to form as a call of vjp
_agreements: dict[Any, bool] = {}


class Gradients(NamedTuple):
    """``dL/dtheta`` (nested as theta is), ``dL/dx`` (as x) and ``dL/dh_0`` (as h0).

    Arrays of NumPy, or of CuPy where the states are on a device.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> sol = prs.solve(lambda h, x, a: a * h + x, np.ones((3, 1)), np.zeros(1), np.array(0.5))
    >>> prs.gradients(sol, np.ones((3, 1))).h0
    array([0.875])
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
        with resets, ``h0`` is the sum over every return to it. Where ranks share the steps, all
        call this with dh of their slabs, and get ``x`` of it, ``theta`` and ``h0`` of the whole.

    Raises
    ------
    InvalidInput
        If dh has another shape or dtype, or theta has more than 256 real entries and the
        recurrence no ``vjp=``.

    Notes
    -----
    Cost: with kernels (``solution.system.program``, and no ``vjp=`` that differs on the first step
    of the first solution) one pass over the trajectory, or three for few channels that do not
    forget; what comes from later is left out where it is below rounding beside the greatest of all.
    Otherwise one evaluation with k tangents and one linear recurrence; then, with ``vjp=``, one
    call of it; without, one evaluation with m tangents for x (shape (..., m)) and one with as many
    as theta has real entries, carried 16 at a time. Over ranks, one evaluation with k tangents, one
    linear recurrence and the product of the blocks more.

    Source: Griewank & Walther 2008, chapter 3; Danieli et al. 2025 (arXiv 2510.21450), section 3.3.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> sol = prs.solve(lambda h, x, a: a * h + x, np.ones((3, 1)), np.zeros(1), np.array(0.5))
    >>> prs.gradients(sol, np.ones((3, 1))).x.ravel()
    array([1.75, 1.5 , 1.  ])
    """
    if solution.ranks.several:
        return cast(Gradients, joined_gradients(solution, dh, gradients))
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
    lam, dh0 = solve_adjoint(solution, dh)
    system, previous = bare(solution)
    if solution.sequences is not None:
        lam = solution.sequences.blank(lam)
    if system.recurrence.vjp is not None:
        dtheta, dx = local_products(system, previous, lam)
        return Gradients(dtheta, dx, dh0)
    return Gradients(theta_gradient(system, previous, lam), x_gradient(system, previous, lam), dh0)


def solve_adjoint(solution: Solution, dh: Array) -> tuple[Array, Array]:
    """Return lam and dL/dh_0 in the cheaper of two ways."""
    if steps_are_cheaper(solution):
        system, previous = bare(solution)
        if blocks_agree(system, previous, dh):
            return adjoint_by_steps(system, previous, dh, solution.sequences)
    return adjoint_by_blocks(solution, dh)


def bare(solution: Solution) -> tuple[System, Array]:
    """Return the user's equations, and the states their steps start from."""
    system, previous = solution.system, solution.system.previous(solution.h)
    if solution.sequences is None:
        return system, previous
    return solution.sequences.unmasked(system, previous)


def adjoint_by_blocks(solution: Solution, dh: Array) -> tuple[Array, Array]:
    """Return lam and dL/dh_0 from the blocks of all steps and one linear recurrence."""
    system, h = solution.system, solution.h
    require_blocks(system, "gradients")
    blocks = system.linearize(h)
    lam = BlockBidiagonal(blocks).solve_adjoint(dh, solution.scan)
    dh0 = np.zeros_like(system.h0)
    if len(h):
        dh0 = block_matvec(blocks[0], lam[0], adjoint=True)
    if solution.sequences is not None:
        dh0 = dh0 + solution.sequences.through_resets(system, lam)
    return lam, dh0


def steps_are_cheaper(solution: Solution) -> bool:
    """Tell whether products with a step's transpose cost less than forming its blocks would.

    A call of ``vjp`` takes some 0.1 ms and O(B d) memory, blocks 10 ns an entry and O(B d^2).
    """
    recurrence, h0 = solution.system.recurrence, solution.system.h0
    if solution.sequences is not None:
        recurrence = solution.sequences.recurrence
    k, n = recurrence.structure(h0.shape[-1])
    entries = k * k * n * math.prod(h0.shape[:-1])
    return recurrence.vjp is not None and k > 1 and n == 1 and entries >= ENTRIES_OF_A_CALL


def blocks_agree(system: System, previous: Array, lam: Array) -> bool:
    """Tell whether ``vjp`` is the transpose of the blocks, on the last step; it may be a surrogate.

    Not where there is no step.
    """
    if not len(lam):
        return False
    last = replace(system, steps=1, tally=Tally())
    x = None if system.x is None else system.x[-1:]
    probe = np.ones_like(lam[-1:])
    blocks = last.apply(system.recurrence.linearize, previous[-1:], x)[1]
    return close(
        transposed(last, previous[-1:], x, probe), block_matvec(blocks, probe, adjoint=True)
    )


def transposed(system: System, previous: Array, x: Array | None, lam: Array) -> Array:
    """Return ``A^T lam`` of some steps from the recurrence's own vjp."""
    vjp = system.recurrence.vjp
    assert vjp is not None
    return like("dh returned by vjp", system.apply(partial(products, vjp, lam), previous, x), lam)


def products(vjp: Any, lam: Array, h: Array, x: Array | None, theta: Any) -> Any:
    """Return the first of the three products that a vjp returns."""
    return vjp(h, x, theta, lam)[0]


def adjoint_by_steps(
    system: System, previous: Array, dh: Array, sequences: Sequences | None
) -> tuple[Array, Array]:
    """Return lam and dL/dh_0 one step after another, without a block.

    Cost: T calls of ``vjp``, O(batch d) memory beside lam.
    """
    resets = None if sequences is None else sequences.resets
    lam = np.empty_like(dh)
    back, dh0 = np.zeros_like(system.h0), np.zeros_like(system.h0)
    for t in reversed(range(len(dh))):
        lam[t] = dh[t] + back
        x = None if system.x is None else system.x[t : t + 1]
        back = transposed(system, previous[t : t + 1], x, lam[t : t + 1])[0]
        if resets is not None:
            dh0 += np.where(resets[t], back, np.zeros_like(back))
            back = np.where(resets[t], np.zeros_like(back), back)
    return lam, dh0 + back


def kernels_agree(solution: Solution) -> bool:
    """Tell whether kernels compute what the recurrence's own ``vjp`` does.

    It may be meant to be another: a surrogate for the derivative. They are compared once, unless
    what the vjp depends on may change unnoticed.
    """
    system, sequences = solution.system, solution.sequences
    recurrence = system.recurrence if sequences is None else sequences.recurrence
    if recurrence.vjp is None or not solution.h.size:
        return True
    depends = signature_of(recurrence.vjp, system)
    key = system.program.step_source, depends
    found = None if depends is None else _agreements.get(key)
    if found is None:
        found = agree_on_the_first_step(solution, recurrence)
        if depends is not None:
            remember(_agreements, key, found)
    return found


def agree_on_the_first_step(solution: Solution, recurrence: Recurrence) -> bool:
    """Tell whether kernels and ``vjp`` pull the same back through one step."""
    system, sequences = solution.system, solution.sequences
    x = None if system.x is None else system.x[:1]
    first = replace(system, x=x, steps=1, tally=Tally())
    h = solution.h[:1]
    lam = np.random.default_rng(0).uniform(0.5, 1.5, h.shape).astype(h.dtype)
    lam = arrays.beside(lam, h)
    sequences = None if sequences is None else sequences.first_steps(1)
    ours = compiled_gradients(replace(solution, system=first, h=h, sequences=sequences), lam)
    previous = first.previous(h)
    if sequences is not None:
        first, previous = sequences.unmasked(first, previous)
        lam = sequences.blank(lam)
    dtheta, dx = local_products(first, previous, lam)
    of_theta = (matching_leaves(system.theta, found) for found in (ours.theta, dtheta))
    pairs = [(ours.x, dx), *zip(*of_theta, strict=True)]
    digits = recurrence.agreement
    return all(a is None or (b is not None and close(a, b, digits)) for a, b in pairs)


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
