"""The linear recurrence over many processes: each has the blocks of its own slab of time.

A slab maps the state that arrives, ``h_in``, to the one that leaves, ``P h_in + b``: P is the
product of its blocks and b its last state where nothing arrives. Such maps are composed over the
slabs before by one Exscan of MPI (they do not commute); then each rank solves once more, with what
arrives.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pararnn_solvers import arrays
from pararnn_solvers.bidiagonal import block_matmul, block_matvec
from pararnn_solvers.communicators import mpi
from pararnn_solvers.linear import Scan, load
from pararnn_solvers.linear.arguments import Array, check_shapes
from pararnn_solvers.ranks import Ranks


def require_available() -> None:
    """Raise BackendUnavailable, with what to install, unless MPI can be used."""
    mpi()


def scan(blocks: Array, rhs: Array, *, adjoint: bool = False) -> Array:
    """Return this rank's slab of the solution over all ranks of COMM_WORLD; or of the adjoint.

    The slabs, one after another in the order of ranks, are the system that
    :func:`pararnn_solvers.linear.sequential.scan` solves. All ranks call this together.

    Parameters
    ----------
    blocks : ndarray, shape (T_r, *batch, k, k, n), float64, float32 or float16
        Of this rank's steps, any number, 0 too. The first block couples to the slab before; that of
        the first step of all is not used.
    rhs : ndarray, shape (T_r, *batch, k * n), same dtype
        Right-hand sides, component-major.
    adjoint : bool
        Solve the transposed system.

    Returns
    -------
    ndarray, of the shape and dtype of ``rhs``
        New and C-contiguous.

    Raises
    ------
    InvalidInput
        Shapes or dtypes do not fit, on one rank or between ranks: on all ranks.

    Notes
    -----
    Cost: two local scans and, of more than one rank, the product of the blocks: ``T_r k^3 n``
    multiplications a sequence. One message of ``k^2 n + k n + 1`` numbers a sequence to each of
    ``log2(ranks)`` others. Products of blocks may overflow where the states do not.

    Source: Blelloch 1990; the three phases are those of any distributed prefix sum.

    Examples
    --------
    >>> import pararnn_solvers as prs
    >>> try: h = prs.linear.load("mpi")(np.full((3, 1, 1, 1), 0.5), np.ones((3, 1)))  # one process
    ... except prs.BackendUnavailable: h = np.array([1.0, 1.5, 1.75])  # there is no MPI here
    >>> h.ravel()
    array([1.  , 1.5 , 1.75])
    """
    ranks = Ranks(mpi().COMM_WORLD)
    with ranks.together():
        check_shapes(blocks, rhs)
        said = {"the shape of a block": f"{blocks.shape[1:]}", "dtype": f"{rhs.dtype}"}
        ranks.require_same(said)
        local = load("cupy" if arrays.is_device_array(rhs) else "numba")
        return OverRanks(ranks, local)(blocks, rhs, adjoint=adjoint)


@dataclass(frozen=True)
class OverRanks:
    """The scan over the slabs of all ranks, by a scan that solves one slab."""

    ranks: Ranks
    local: Scan

    def __call__(self, blocks: Array, rhs: Array, *, adjoint: bool = False) -> Array:
        """Return this rank's slab of the solution."""
        if rhs.dtype == np.float16 and self.ranks.several:  # states between slabs, too, in float32
            wide = self(blocks.astype(np.float32), rhs.astype(np.float32), adjoint=adjoint)
            with np.errstate(over="ignore"):
                return wide.astype(np.float16)
        h = self.local(blocks, rhs, adjoint=adjoint)
        arrived = self.arriving(blocks, h, adjoint=adjoint)
        if arrived is None or not len(rhs):
            return h
        rhs = rhs.copy()
        with np.errstate(all="ignore"):
            if adjoint:
                rhs[-1] += arrived
            else:
                rhs[0] += block_matvec(blocks[0], arrived)
        return self.local(blocks, rhs, adjoint=adjoint)

    def arriving(self, blocks: Array, h: Array, *, adjoint: bool = False) -> Array | None:
        """Return the state before this slab's first step; of the adjoint, ``A^T lam`` of the next.

        Parameters
        ----------
        h : array, shape (T_r, *batch, k * n)
            The solution of this slab where nothing arrives.

        Returns
        -------
        array, shape (*batch, k * n), or None where no step is before (of the adjoint: after)
        """
        if not self.ranks.several:
            return None
        own = Map(blocks.shape[1:], h.shape[1:])
        message = own.nothing(h.dtype)
        if len(h):
            with np.errstate(all="ignore"):
                P = product(blocks)
                b = block_matvec(blocks[0], h[0], adjoint=True) if adjoint else h[-1]
            P = np.swapaxes(P, -3, -2) if adjoint else P
            message = own.pack(arrays.on_host(P), arrays.on_host(b))
        found = self.ranks.before(message, own.compose, backwards=adjoint)
        if found is None or not found[0]:
            return None
        arrived: Array = arrays.beside(own.unpack(found)[1], h)
        return arrived


@dataclass(frozen=True)
class Map:
    """Affine maps ``h -> P h + b`` as messages: whether there is any, P, and b.

    Parameters
    ----------
    of_block : tuple
        The shape of P, (*batch, k, k, n).
    of_state : tuple
        The shape of b, (*batch, k * n).
    """

    of_block: tuple[int, ...]
    of_state: tuple[int, ...]

    def nothing(self, dtype: np.dtype) -> Array:
        """Return the message of a slab without steps: the identity."""
        return np.zeros(1 + int(np.prod(self.of_block)) + int(np.prod(self.of_state)), dtype)

    def pack(self, P: Array, b: Array) -> Array:
        """Return the message of a map."""
        return np.concatenate([np.ones(1, P.dtype), P.ravel(), b.ravel()])

    def unpack(self, message: Array) -> tuple[Array, Array]:
        """Return the P and the b of a message, as views."""
        blocks, states = np.split(message[1:], [int(np.prod(self.of_block))])
        return blocks.reshape(self.of_block), states.reshape(self.of_state)

    def compose(self, earlier: Array, later: Array) -> Array:
        """Return ``later after earlier``: ``h -> P2 (P1 h + b1) + b2``."""
        if not later[0] or not earlier[0]:
            return later if later[0] else earlier
        (P1, b1), (P2, b2) = self.unpack(earlier), self.unpack(later)
        return self.pack(block_matmul(P2, P1), block_matvec(P2, b1) + b2)


def product(blocks: Array) -> Array:
    """Return ``A_T ... A_2 A_1``, shape (*batch, k, k, n), of at least one block.

    Neighbours are multiplied in pairs until one is left, which few large operations do.
    """
    if blocks.shape[-2] == 1:
        whole: Array = blocks.prod(axis=0)
        return whole
    while len(blocks) > 1:
        pairs = len(blocks) // 2
        left = blocks[2 * pairs :]
        products = block_matmul(blocks[1 : 2 * pairs : 2], blocks[: 2 * pairs : 2])
        blocks = np.concatenate([products, left]) if len(left) else products
    last: Array = blocks[0]
    return last
