"""Solvers of linear recurrences ``h_t = A_t h_{t-1} + b_t``, one function each, loaded by name.

A backend is a function ``scan(blocks, rhs, *, adjoint=False) -> h``; :data:`BACKENDS` says where
each one lives. Importing this module imports none of them.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any, Protocol, cast

from numpy.typing import NDArray

from pararnn_solvers.errors import BackendUnavailable, InvalidInput

__all__ = ["BACKENDS", "Scan", "availability", "discover_backends", "load"]

BACKENDS: dict[str, str] = {
    "sequential": "pararnn_solvers.linear.sequential:scan",
    "numba": "pararnn_solvers.linear.numba_scan:scan",
    "scipy": "pararnn_solvers.linear.scipy_sparse:scan",
    "cupy": "pararnn_solvers.linear.cupy_scan:scan",
    "mpi": "pararnn_solvers.linear.mpi_scan:scan",
}
"""Name of every backend -> ``"module:attribute"``, resolved by :func:`load` on first use."""

ENTRY_POINT_GROUP = "pararnn_solvers.backends"


class Scan(Protocol):
    """What every backend is: the solution of one block lower bidiagonal system.

    Forward, ``h_1 = b_1`` and ``h_t = A_t h_{t-1} + b_t``. Adjoint, with ``rhs`` as ``g``,
    ``lam_T = g_T`` and ``lam_t = g_t + A_{t+1}^T lam_{t+1}``: the transposed system. ``A_1`` is
    never used.

    Parameters
    ----------
    blocks : ndarray, shape (T, *batch, k, k, n)
        ``blocks[..., i, j, :]`` is ``dh_i/dh_j`` as a vector over channels.
    rhs : ndarray, shape (T, *batch, k * n), of the dtype of ``blocks``
        Right-hand sides, component-major: ``rhs.reshape(T, *batch, k, n)``.
    adjoint : bool
        Solve the transposed system, backwards in time.

    Returns
    -------
    ndarray, of the shape and dtype of ``rhs``
        A new C-contiguous array.

    Examples
    --------
    >>> import numpy as np
    >>> scan = load('numba')
    >>> blocks, rhs = np.full((3, 1, 1, 1), 0.5), np.ones((3, 1))
    >>> scan(blocks, rhs, adjoint=True).ravel()
    array([1.75, 1.5 , 1.  ])
    """

    def __call__(
        self, blocks: NDArray[Any], rhs: NDArray[Any], *, adjoint: bool = False
    ) -> NDArray[Any]:
        """Return the solution."""
        ...


def load(name: str) -> Scan:
    """Return the backend registered as ``name``, importing its module on first use.

    Parameters
    ----------
    name : str
        A key of :data:`BACKENDS`.

    Raises
    ------
    InvalidInput
        No backend has that name.
    BackendUnavailable
        Its module cannot be imported here, or says in its ``require_available()`` that it cannot
        run; the message has the cause and what to install.

    Examples
    --------
    >>> import numpy as np
    >>> scan = load("sequential")
    >>> scan(np.full((3, 1, 1, 1), 0.5), np.ones((3, 1))).ravel()
    array([1.  , 1.5 , 1.75])
    """
    if name not in BACKENDS:
        known = ", ".join(sorted(BACKENDS))
        raise InvalidInput(f"no backend is called {name!r}; registered are: {known}")
    module, _, attribute = BACKENDS[name].partition(":")
    try:
        found = importlib.import_module(module)
        getattr(found, "require_available", lambda: None)()
        return cast(Scan, getattr(found, attribute))
    except ImportError as cause:
        missing = cause.name or module
        raise BackendUnavailable(
            f"backend {name!r} cannot be imported: {cause}; install {missing!r} "
            f"(for example: pip install {missing.partition('.')[0]}) or choose another backend"
        ) from cause


def availability() -> dict[str, str | None]:
    """Return, for every registered backend, None when it can run or else the reason why not.

    Cost: imports the module of every backend.

    Examples
    --------
    >>> availability()['sequential'] is None
    True
    """

    def reason(name: str) -> str | None:
        try:
            load(name)
        except BackendUnavailable as unavailable:
            return str(unavailable)
        return None

    return {name: reason(name) for name in BACKENDS}


def discover_backends() -> list[str]:
    """Register the backends that installed packages announce, and return their names.

    Reads the entry points of group ``pararnn_solvers.backends``; nothing is imported until
    :func:`load`.

    Raises
    ------
    InvalidInput
        Two places claim one name.

    Examples
    --------
    >>> isinstance(discover_backends(), list)  # names that other packages announce
    True
    """
    names = []
    for entry in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        if BACKENDS.setdefault(entry.name, entry.value) != entry.value:
            raise InvalidInput(
                f"entry point {entry.name!r} names {entry.value!r}, but that backend is already "
                f"{BACKENDS[entry.name]!r}; rename or uninstall one of them"
            )
        names.append(entry.name)
    return names
