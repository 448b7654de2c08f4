"""A recurrence ``h_t = step(h_{t-1}, x_t, theta)``: one function, and what is known of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pararnn_solvers import arrays, tree
from pararnn_solvers.autodiff import DERIVATIVES
from pararnn_solvers.autodiff.trace.explanation import Explanation, explain
from pararnn_solvers.bidiagonal import block_matvec
from pararnn_solvers.checks import require_one_place, require_whole
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.typing import Array


@dataclass(frozen=True)
class Recurrence:
    """The recurrence ``h_t = step(h_{t-1}, x_t, theta)``.

    Parameters
    ----------
    step : callable
        ``step(h, x, theta)`` maps states ``h (..., d)`` and inputs ``x (..., m)`` to the next
        states ``(..., d)``, in NumPy, for any leading axes: states are never mixed across them.
        Without input ``x`` is None. NumPy's functions act on CuPy arrays, too; an array made out of
        nothing must be made like one of them, as by ``np.zeros_like(h)``, or be part of theta.
    block_size : int, optional
        ``k``: the state is ``d/k`` channels of ``k`` components, component-major
        (``h.reshape(..., k, n)``), and channels do not couple. 1 is a diagonal Jacobian; None
        makes no assumption (one dense block, ``k = d``).
    jacobian : callable or {"cs", "2-point", "3-point"}, optional
        ``jacobian(h, x, theta)`` returns df/dh as a diagonal ``(..., d)``, as matrices
        ``(..., d, d)`` or as blocks ``(..., k, k, n)``. The names ask for the complex step or for
        finite differences. None differentiates `step` exactly by dual arrays.
    vjp : callable, optional
        ``vjp(h, x, theta, lam)`` returns the products ``(lam^T df/dh, lam^T df/dx,
        lam^T df/dtheta)``: shapes of h, of x, and of theta (summed over the leading axes).
    fast_math : bool
        Whether kernels on a device may use the hardware's approximations in `step` and its
        derivatives: of ``tanh`` to a relative error of 2**-11, of ``exp`` to ``2 + 1.2 |a|`` units
        in the last place, and of ``sigmoid`` made of that. Of float32 only; on the host, or in
        float64, solvers refuse it. Where `step` itself runs it changes nothing.

    Notes
    -----
    Cost of the derivatives: ``k`` tangent directions beside one evaluation of `step`; with
    ``"cs"`` or ``"2-point"`` k more evaluations, with ``"3-point"`` 2k.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> cell = prs.Recurrence(lambda h, x, a: np.tanh(a * h + x), block_size=1)
    >>> f, blocks = cell.linearize(np.zeros(3), np.zeros(3), 0.5)
    >>> blocks.ravel()
    array([0.5, 0.5, 0.5])
    """

    step: Callable[..., Any]
    block_size: int | None = None
    jacobian: Callable[..., Any] | str | None = None
    vjp: Callable[..., Any] | None = None
    fast_math: bool = False

    def __post_init__(self) -> None:
        """Refuse what can be refused without data."""
        if not callable(self.step):
            raise InvalidInput(f"step is {type(self.step).__name__}; expected step(h, x, theta)")
        if self.block_size is not None:
            require_whole("block_size", self.block_size)
        names, jacobian = list(DERIVATIVES), self.jacobian
        named = isinstance(jacobian, str) and jacobian in names
        if not (jacobian is None or callable(jacobian) or named):
            raise InvalidInput(
                f"jacobian is {jacobian!r}; expected a function jacobian(h, x, theta), "
                f"one of {names}, or None"
            )
        if not (self.vjp is None or callable(self.vjp)):
            raise InvalidInput(
                f"vjp is {self.vjp!r}; expected a function vjp(h, x, theta, lam), or None"
            )
        if not isinstance(self.fast_math, (bool, np.bool_)):
            raise InvalidInput(f"fast_math is {self.fast_math!r}; expected True or False")

    def structure(self, d: int) -> tuple[int, int]:
        """Return (k, n) with ``k * n == d``: the size and number of blocks of a state of size d."""
        k = d if self.block_size is None else self.block_size
        if d % k:
            divisors = ", ".join(str(i) for i in range(1, d + 1) if d % i == 0)
            raise InvalidInput(
                f"h0 has trailing size {d}, not a multiple of block_size {k}; "
                f"pass block_size in {{{divisors}}}"
            )
        return k, d // k

    def require_fast_math(self, h0: Array) -> None:
        """Raise InvalidInput if `fast_math` is asked for where no kernel could have it."""
        if not self.fast_math:
            return
        if not arrays.is_device_array(h0):
            why = "arrays on a CUDA device, and h0 is on the host"
        elif h0.dtype != np.float32:
            why = f"float32, and h0 is {h0.dtype}: the hardware approximates nothing else"
        else:
            return
        raise InvalidInput(f"fast_math=True is for {why}; leave it out")

    @property
    def agreement(self) -> float:
        """The share of a dtype's digits to which kernels agree with `step`.

        Of float32 a half, 3e-4; with `fast_math` 0.3, 8e-3, some 16 errors of its ``tanh``.
        """
        return 0.3 if self.fast_math else 0.5

    @property
    def derivative(self) -> Callable[..., tuple[Array, Array]]:
        """The way `step` is differentiated where no callable is given: see ``DERIVATIVES``."""
        return DERIVATIVES[self.jacobian if isinstance(self.jacobian, str) else "dual"]

    def linearize(self, h: Array, x: Array | None, theta: Any) -> tuple[Array, Array]:
        """Return ``f(h, x)`` and its blocks ``df/dh``.

        Parameters
        ----------
        h : array, shape (..., d)
        x : array, shape (..., m), or None

        Returns
        -------
        f : array, shape (..., d)
        blocks : array, shape (..., k, k, n)
        """
        d = h.shape[-1]
        if callable(self.jacobian):
            f = self.step(h, x, theta)
            return f, as_blocks(self.jacobian(h, x, theta), h)
        k, n = self.structure(d)
        # Component j of every channel at once: k directions reveal all n blocks.
        directions = np.repeat(arrays.identity(k, h), n, axis=1)
        f, tangent = self.derivative(lambda state: self.step(state, x, theta), h, directions)
        columns = tangent.reshape(k, *h.shape[:-1], k, n)
        return f, np.ascontiguousarray(np.moveaxis(columns, 0, -2), like=h)

    def tangent(
        self, directions: Array, h: Array, x: Array | None, theta: Any
    ) -> tuple[Array, Array]:
        """Return ``f(h, x)`` and ``df/dh v`` for each direction v.

        Parameters
        ----------
        directions : array, shape (p, d) or (p, ..., d)
            The same for all states, or one for each.
        h : array, shape (..., d)

        Returns
        -------
        f : array, shape (..., d)
        products : array, shape (p, ..., d)
        """
        if callable(self.jacobian):
            blocks = as_blocks(self.jacobian(h, x, theta), h)
            along = [block_matvec(blocks, np.broadcast_to(v, h.shape)) for v in directions]
            return self.step(h, x, theta), np.stack(along)
        return self.derivative(lambda state: self.step(state, x, theta), h, directions)

    def explain(self, h0: Any, x: Any = None, theta: Any = None) -> Explanation:
        """Tell whether `step` can be traced, and so be compiled, and what it compiles to.

        Parameters
        ----------
        h0 : array_like, shape (..., d)
            float32 or float64; only the shape and the dtype matter, also of arrays of CuPy.
        x : array_like, shape (..., m), or None
        theta : nested containers
            Only shapes matter, except of leaves that are not floats.

        Returns
        -------
        Explanation
            Prints as: traced or not, the reason, the operations, which kernels there are, the
            source.

        Examples
        --------
        >>> print(Recurrence(lambda h, x, a: np.sort(h)).explain(np.zeros(2)))
        not traced: step calls numpy.sort, which has no rule for traced arrays
        """
        h0, x, theta = stand_ins((h0, x, theta))
        h0, x = np.asarray(h0), None if x is None else np.atleast_1d(x)
        if h0.ndim == 0 or h0.dtype.kind != "f":
            raise InvalidInput(
                f"h0 is {h0.dtype} of shape {h0.shape}; expected float32 or float64, shape (..., d)"
            )
        from pararnn_solvers.compiled.explanation import describe_kernels  # imports Numba

        k, _ = self.structure(h0.shape[-1])
        found = explain(self.step, h0, x, theta, k)
        kernels = describe_kernels(self.step, h0, x, theta, k, found.traced)
        return replace(found, kernels=kernels)


def stand_ins(nested: Any) -> Any:
    """Return nested containers with host arrays for those on a device: what a trace looks at.

    Floats are zeros there, and not moved.
    """

    def stand_in(leaf: Any) -> Any:
        leaf = arrays.imported(leaf)
        if arrays.is_device_array(leaf) and tree.is_differentiable(leaf):
            return np.zeros(leaf.shape, leaf.dtype)
        return arrays.on_host(leaf)

    leaves, rebuild = tree.flatten(nested)
    return rebuild([stand_in(leaf) for leaf in leaves])


def as_blocks(jacobian: Array, h: Array) -> Array:
    """View a diagonal (..., d), matrices (..., d, d) or blocks (..., k, k, n) as blocks."""
    jacobian = arrays.from_any(jacobian)
    require_one_place({"what jacobian returned": jacobian, "h": h})
    lead, d = h.shape[:-1], h.shape[-1]
    shape = jacobian.shape
    if shape == (*lead, d):
        return jacobian[..., None, None, :]
    if shape == (*lead, d, d):
        return jacobian[..., None]
    if len(shape) == h.ndim + 2 and shape[: h.ndim - 1] == lead and shape[-3] == shape[-2]:
        if shape[-2] * shape[-1] == d:
            return jacobian
    raise InvalidInput(
        f"jacobian returned shape {shape} for states {h.shape}; expected {(*lead, d)} (diagonal), "
        f"{(*lead, d, d)} (matrices) or {(*lead, 'k', 'k', 'n')} with k*n = {d} (blocks)"
    )
