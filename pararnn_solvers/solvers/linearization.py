"""Which A the iteration uses: the exact blocks df/dh, or something cheaper.

A linearization maps an :class:`Iterate` to blocks ``(T, batch, k, k, n)``. With full steps every
one of them has the exact-prefix property: after i iterations the first i states are exact, because
the first open state does not depend on A at all. Only the exact one converges quadratically.

Those with parameters are made by lower-case classes, values that are equal where their parameters
are: ``scaled(0.3) == scaled(0.3)``.
"""

# ruff: noqa: N801 - called like the functions beside them

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from pararnn_solvers import arrays
from pararnn_solvers.bidiagonal import block_matvec
from pararnn_solvers.checks import require_function, require_number, require_whole
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.recurrence import as_blocks
from pararnn_solvers.solvers.iterate import Iterate
from pararnn_solvers.typing import Array

Linearization = Callable[[Iterate], Array]


def require_linearization(name: str, value: Any) -> None:
    """Raise InvalidInput unless `value` can be a linearization."""
    require_function(name, value, "a linearization such as exact, diagonal or scaled(0.3)")


def exact(iterate: Iterate) -> Array:
    """Return the blocks ``A_t = df/dh`` at ``(h_{t-1}, x_t)``: Newton's method.

    Source: Danieli et al. 2025 (arXiv 2510.21450), eq. 3; Lim et al. 2023 (DEER).

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> x = np.sin(np.arange(50.0))[:, None]
    >>> step = lambda h, x, a: np.tanh(a * h + x)
    >>> prs.solve(step, x, np.zeros(1), 0.5, method=prs.newton(linearization=prs.exact)).n_iter
    4
    """
    return iterate.system.linearize(iterate.h)


@dataclass(frozen=True)
class block_diagonal:
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

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> x = np.sin(np.arange(50.0))[:, None] * np.ones(2)
    >>> W = np.array([[0.5, 0.1], [0.1, 0.5]])
    >>> method = prs.quasi_newton(prs.block_diagonal(2))
    >>> prs.solve(lambda h, x, W: np.tanh(h @ W + x), x, np.zeros(2), W, method=method).n_iter
    4
    """

    k: int
    jacobian: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        require_whole("k", self.k)
        if self.jacobian is not None:
            require_function("jacobian", self.jacobian, "a function jacobian(h, x, theta)")

    def __call__(self, iterate: Iterate) -> Array:
        """Return the blocks."""
        system, d, k = iterate.system, iterate.h.shape[-1], self.k
        if d % k:
            raise InvalidInput(f"block_diagonal({k}) on states of size {d}; pass a divisor of it")
        if self.jacobian is not None:
            previous = system.previous(iterate.h)
            return as_blocks(system.apply(self.jacobian, previous, system.x), previous)
        return system.linearize(iterate.h, reduce=lambda A: extract_blocks(A, k))


def diagonal(iterate: Iterate) -> Array:
    """Keep the diagonal of df/dh: ``block_diagonal(1)``.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> x = np.sin(np.arange(50.0))[:, None] * np.ones(2)
    >>> W = np.array([[0.5, 0.1], [0.1, 0.5]])
    >>> method = prs.newton(linearization=prs.diagonal)
    >>> prs.solve(lambda h, x, W: np.tanh(h @ W + x), x, np.zeros(2), W, method=method).n_iter
    10
    """
    return block_diagonal(1)(iterate)


def extract_blocks(blocks: Array, k: int) -> Array:
    """Return the block-diagonal part, with block size k, of blocks of another size.

    Both number the d states component-major: row ``i * n + c`` is component i of channel c.
    """
    K, N = blocks.shape[-2:]
    if k == K:
        return blocks
    n = K * N // k
    rows = np.arange(k * n, like=blocks).reshape(k, 1, n)
    columns = rows.reshape(1, k, n)
    # Entry (row, column) of the Jacobian sits in block (row // N, column // N) of one channel.
    inside = (rows - columns) % N == 0
    entries = blocks[..., rows // N, columns // N, rows % N]
    return np.where(inside, entries, entries.dtype.type(0))


@dataclass(frozen=True)
class hutchinson:
    """Estimate the diagonal of df/dh as the mean of ``v * (df/dh v)`` over random signs v.

    Unbiased, with variance the squared row sums off the diagonal over `probes`. Fresh signs are
    drawn in each iteration, the same for equal `seed`.

    Cost: `probes` tangent directions, whatever the size of the state.

    Source: Bekas, Kokiopoulou & Saad 2007, "An estimator for the diagonal of a matrix".

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> x = np.sin(np.arange(50.0))[:, None] * np.ones(2)
    >>> W = np.array([[0.5, 0.1], [0.1, 0.5]])
    >>> method = prs.quasi_newton(prs.hutchinson(2))
    >>> prs.solve(lambda h, x, W: np.tanh(h @ W + x), x, np.zeros(2), W, method=method).n_iter
    5
    """

    probes: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        require_whole("probes", self.probes)
        require_whole("seed", self.seed, least=0)

    def __call__(self, iterate: Iterate) -> Array:
        """Return the estimate as blocks of one component."""
        system, d = iterate.system, iterate.h.shape[-1]
        rng = np.random.default_rng((self.seed, iterate.number))
        signs = rng.choice(np.array([-1, 1], iterate.h.dtype), size=(self.probes, d))
        signs = arrays.beside(signs, iterate.h)
        previous = system.previous(iterate.h)
        along = partial(system.recurrence.tangent, signs)
        products = system.apply(along, previous, system.x)[1]
        lifted = signs.reshape(self.probes, *(1,) * (previous.ndim - 1), d)
        return as_blocks((lifted * products).mean(axis=0), previous)


@dataclass(frozen=True)
class scaled:
    """Shrink the blocks of `base` to ``(1 - s) A``: between Newton (s = 0) and Jacobi (s = 1).

    Source: Gonzalez et al. 2024 (arXiv 2407.19115), where it is the filter form of ELK.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> x = np.sin(np.arange(50.0))[:, None]
    >>> step = lambda h, x, a: np.tanh(a * h + x)
    >>> prs.solve(step, x, np.zeros(1), 0.5, method=prs.quasi_newton(prs.scaled(0.1))).n_iter
    8
    """

    s: float
    base: Linearization = exact

    def __post_init__(self) -> None:
        require_number("s", self.s, lambda s: 0 <= s <= 1, "a number from 0 (Newton) to 1 (Jacobi)")
        require_linearization("base", self.base)

    def __call__(self, iterate: Iterate) -> Array:
        """Return the blocks."""
        A: Array = iterate.h.dtype.type(1 - self.s) * self.base(iterate)
        return A


@dataclass(frozen=True)
class clipped:
    """Scale down each block of `base` whose norm (greatest absolute row sum) exceeds `bound`.

    With ``bound <= 1`` no error grows along the linear recurrence. A diagonal is clipped to
    ``[-bound, bound]``.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> x = np.sin(np.arange(50.0))[:, None]
    >>> step = lambda h, x, a: np.tanh(a * h + x)
    >>> prs.solve(step, x, np.zeros(1), 0.5, method=prs.quasi_newton(prs.clipped(0.9))).n_iter
    4
    """

    bound: float = 1.0
    base: Linearization = exact

    def __post_init__(self) -> None:
        require_number("bound", self.bound, lambda bound: bound >= 0, "a finite number >= 0")
        require_linearization("base", self.base)

    def __call__(self, iterate: Iterate) -> Array:
        """Return the blocks."""
        A = self.base(iterate)
        bound = A.dtype.type(self.bound)
        norm = np.abs(A).sum(axis=-2).max(axis=-2)[..., None, None, :]
        return np.where(norm > bound, A * (bound / np.where(norm > bound, norm, 1)), A)


@dataclass(frozen=True)
class frozen:
    """Linearize once by `base`, at the guess, and keep it: the chord method's choice.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> x = np.sin(np.arange(50.0))[:, None]
    >>> step = lambda h, x, a: np.tanh(a * h + x)
    >>> prs.solve(step, x, np.zeros(1), 0.5, method=prs.newton(linearization=prs.frozen())).n_iter
    8
    """

    base: Linearization = exact

    def __post_init__(self) -> None:
        require_linearization("base", self.base)

    def __call__(self, iterate: Iterate) -> Array:
        """Return the first blocks."""
        return self.base(iterate) if iterate.blocks is None else iterate.blocks


@dataclass(frozen=True)
class secant:
    """Update each block so that it maps the last change of ``h_{t-1}`` to the change of f.

    Broyden's rank-one update applied within each block, so that the sparsity of ``I - S A`` is
    kept; `base` gives the first blocks. A scalar recurrence gets the secant method at every step.

    Cost: no derivative after the first iteration.

    Source: Broyden 1965; Schubert 1970 for systems with a known sparsity.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> x = np.sin(np.arange(50.0))[:, None]
    >>> step = lambda h, x, a: np.tanh(a * h + x)
    >>> prs.solve(step, x, np.zeros(1), 0.5, method=prs.newton(linearization=prs.secant())).n_iter
    4
    """

    base: Linearization = exact

    def __post_init__(self) -> None:
        require_linearization("base", self.base)

    def __call__(self, iterate: Iterate) -> Array:
        """Return the updated blocks."""
        A, last = iterate.blocks, iterate.previous
        if A is None or last is None:
            return self.base(iterate)
        k, n = A.shape[-2:]
        change, df = iterate.h - last.h, iterate.f - last.f
        dh = replace(iterate.system, h0=np.zeros_like(iterate.system.h0)).previous(change)
        miss = (df - block_matvec(A, dh)).reshape(*dh.shape[:-1], k, n)
        dh = dh.reshape(*dh.shape[:-1], k, n)
        length = np.square(dh).sum(axis=-2, keepdims=True)
        direction = np.where(length > 0, dh / np.where(length > 0, length, 1), 0)
        update: Array = miss[..., :, None, :] * direction[..., None, :, :]
        return A + update


def identity(iterate: Iterate) -> Array:
    """Return ``A = I``: Picard iteration, a running sum of the residuals.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> step = lambda h, x, _: h - 0.01 * h**3
    >>> method = prs.newton(linearization=prs.identity)
    >>> prs.solve(step, None, np.ones(1), steps=50, method=method).n_iter
    13
    """
    h = iterate.h
    return np.ones_like(h, order="C", shape=(*h.shape[:-1], 1, 1, h.shape[-1]))


def zero(iterate: Iterate) -> Array:
    """Return ``A = 0``: Jacobi iteration, ``h_t <- f(h_{t-1}, x_t)`` at all steps at once.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> x = np.sin(np.arange(50.0))[:, None]
    >>> step = lambda h, x, a: np.tanh(a * h + x)
    >>> prs.solve(step, x, np.zeros(1), 0.5, method=prs.newton(linearization=prs.zero)).n_iter
    21
    """
    h = iterate.h
    return np.zeros_like(h, order="C", shape=(*h.shape[:-1], 1, 1, h.shape[-1]))
