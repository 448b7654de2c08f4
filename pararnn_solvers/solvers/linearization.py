"""Which A the iteration uses: the exact blocks df/dh, or something cheaper.

A linearization maps an :class:`Iterate` to blocks ``(T, batch, k, k, n)``. With full steps every
one of them has the exact-prefix property: after i iterations the first i states are exact, because
the first open state does not depend on A at all. Only the exact one converges quadratically.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from pararnn_solvers.bidiagonal import block_matvec
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.recurrence import as_blocks
from pararnn_solvers.solvers.iterate import Iterate
from pararnn_solvers.typing import Array

Linearization = Callable[[Iterate], Array]


def exact(iterate: Iterate) -> Array:
    """Return the blocks ``A_t = df/dh`` at ``(h_{t-1}, x_t)``: Newton's method.

    Source: Danieli et al. 2025 (arXiv 2510.21450), eq. 3; Lim et al. 2023 (DEER).
    """
    return iterate.system.linearize(iterate.h)[1]


def block_diagonal(k: int, jacobian: Callable[..., Any] | None = None) -> Linearization:
    """Keep the k x k blocks that couple the components of each of d/k channels, drop the rest.

    Parameters
    ----------
    k : int
        Block size; must divide the state size d.
    jacobian : callable, optional
        ``jacobian(h, x, theta)`` that returns just these blocks, for a recurrence that knows them
        at less than the cost of its whole Jacobian. Otherwise they are taken out of the exact
        blocks a few time steps at a time.

    Source: Gonzalez et al. 2024 (arXiv 2407.19115), quasi-DEER.
    """

    def linearization(iterate: Iterate) -> Array:
        system, d = iterate.system, iterate.h.shape[-1]
        if d % k:
            raise InvalidInput(f"block_diagonal({k}) on states of size {d}; pass a divisor of it")
        if jacobian is not None:
            previous = system.previous(iterate.h)
            return as_blocks(system.apply(jacobian, previous, system.x), previous)
        return system.linearize(iterate.h, reduce=lambda A: extract_blocks(A, k))[1]

    return linearization


def diagonal(iterate: Iterate) -> Array:
    """Keep the diagonal of df/dh: ``block_diagonal(1)``."""
    return block_diagonal(1)(iterate)


def extract_blocks(blocks: Array, k: int) -> Array:
    """Return the block-diagonal part, with block size k, of blocks of another size.

    Both number the d states component-major: row ``i * n + c`` is component i of channel c.
    """
    K, N = blocks.shape[-2:]
    if k == K:
        return blocks
    n = K * N // k
    rows = np.arange(k * n).reshape(k, 1, n)
    columns = rows.reshape(1, k, n)
    # Entry (row, column) of the Jacobian sits in block (row // N, column // N) of one channel.
    inside = (rows - columns) % N == 0
    entries = blocks[..., rows // N, columns // N, rows % N]
    return np.where(inside, entries, entries.dtype.type(0))


def hutchinson(probes: int = 1, seed: int = 0) -> Linearization:
    """Estimate the diagonal of df/dh as the mean of ``v * (df/dh v)`` over random signs v.

    Unbiased, with variance the squared row sums off the diagonal over `probes`. Fresh signs are
    drawn in each iteration, the same for equal `seed`.

    Cost: `probes` tangent directions, whatever the size of the state.

    Source: Bekas, Kokiopoulou & Saad 2007, "An estimator for the diagonal of a matrix".
    """
    if probes < 1:
        raise InvalidInput(f"hutchinson(probes={probes}); expected at least one probe")

    def linearization(iterate: Iterate) -> Array:
        system, d = iterate.system, iterate.h.shape[-1]
        rng = np.random.default_rng((seed, iterate.number))
        signs = rng.choice(np.array([-1, 1], iterate.h.dtype), size=(probes, d))
        previous = system.previous(iterate.h)
        along = partial(system.recurrence.tangent, signs)
        products = system.apply(along, previous, system.x)[1]
        lifted = signs.reshape(probes, *(1,) * (previous.ndim - 1), d)
        return as_blocks((lifted * products).mean(axis=0), previous)

    return linearization


def scaled(s: float, base: Linearization = exact) -> Linearization:
    """Shrink the blocks to ``(1 - s) A``: between Newton (s = 0) and Jacobi (s = 1).

    Source: Gonzalez et al. 2024 (arXiv 2407.19115), where it is the filter form of ELK.
    """
    return lambda iterate: iterate.h.dtype.type(1 - s) * base(iterate)


def clipped(bound: float = 1.0, base: Linearization = exact) -> Linearization:
    """Scale down each block whose norm (greatest absolute row sum) exceeds `bound`.

    With ``bound <= 1`` no error grows along the linear recurrence. A diagonal is clipped to
    ``[-bound, bound]``.
    """

    def linearization(iterate: Iterate) -> Array:
        A = base(iterate)
        norm = np.abs(A).sum(axis=-2).max(axis=-2)[..., None, None, :]
        return np.where(norm > bound, A * (bound / np.where(norm > bound, norm, 1)), A)

    return linearization


def frozen(base: Linearization = exact) -> Linearization:
    """Linearize once, at the guess, and keep it: the chord method's choice."""
    return lambda iterate: base(iterate) if iterate.blocks is None else iterate.blocks


def secant(base: Linearization = exact) -> Linearization:
    """Update each block so that it maps the last change of ``h_{t-1}`` to the change of f.

    Broyden's rank-one update applied within each block, so that the sparsity of ``I - S A`` is
    kept; `base` gives the first blocks. A scalar recurrence gets the secant method at every step.

    Cost: no derivative after the first iteration.

    Source: Broyden 1965; Schubert 1970 for systems with a known sparsity.
    """

    def linearization(iterate: Iterate) -> Array:
        A, last = iterate.blocks, iterate.previous
        if A is None or last is None:
            return base(iterate)
        k, n = A.shape[-2:]
        change, df = iterate.h - last.h, iterate.f - last.f
        dh = np.concatenate([np.zeros_like(change[:1]), change[:-1]])
        miss = (df - block_matvec(A, dh)).reshape(*dh.shape[:-1], k, n)
        dh = dh.reshape(*dh.shape[:-1], k, n)
        length = np.square(dh).sum(axis=-2, keepdims=True)
        direction = np.divide(dh, length, out=np.zeros_like(dh), where=length > 0)
        update: Array = miss[..., :, None, :] * direction[..., None, :, :]
        return A + update

    return linearization


def identity(iterate: Iterate) -> Array:
    """Return ``A = I``: Picard iteration, a running sum of the residuals."""
    return np.ones((*iterate.h.shape[:-1], 1, 1, iterate.h.shape[-1]), iterate.h.dtype)


def zero(iterate: Iterate) -> Array:
    """Return ``A = 0``: Jacobi iteration, ``h_t <- f(h_{t-1}, x_t)`` at all steps at once."""
    return np.zeros((*iterate.h.shape[:-1], 1, 1, iterate.h.shape[-1]), iterate.h.dtype)
