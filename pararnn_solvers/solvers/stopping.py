"""When to stop, and what the end is called."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from pararnn_solvers.checks import require_number, require_whole
from pararnn_solvers.typing import Array

FEW_COMPONENTS = 8  # of a norm that are taken one by one


class Status(Enum):
    """How the solve of one sequence ended, from best to worst; the value is the message.

    Examples
    --------
    >>> Status.CONVERGED.success, Status.MAX_ITER.success
    (True, False)
    >>> Status.MAX_ITER.value
    'the iteration limit was reached before the tolerance'
    """

    CONVERGED = "every residual of the returned states meets the tolerance"
    SEQUENTIAL = "computed step by step (rollout), exact to rounding"
    MAX_ITER = "the iteration limit was reached before the tolerance"
    STALLED = "no step reduces the residual any further"
    DIVERGED = "a state became infinite or NaN; the states before it are finite"
    STOPPED = "stopped by the callback"

    @property
    def success(self) -> bool:
        """Whether the states can be used as the trajectory."""
        return self in (Status.CONVERGED, Status.SEQUENTIAL)


@dataclass(frozen=True)
class Stopping:
    """Stop where ``|F_t| <= atol + rtol |h_t|`` in the maximum norm, at every step t.

    Parameters
    ----------
    atol, rtol : float, optional
        In the units of the state, and relative to it. Default ``eps**0.75`` of the dtype: 1.8e-12
        for float64, 6.4e-6 for float32.
    max_iter : int
        Most iterations; for a moving window, since the window last moved. What ``auto`` gives to
        a moving window has as many again.

    Notes
    -----
    The test at one step looks at that step alone, so a huge transient state elsewhere cannot
    loosen it; together the steps imply ``|F| <= atol + rtol |h|`` for the whole sequence.

    Examples
    --------
    >>> import numpy as np
    >>> atol, rtol = Stopping().bounds(np.float64)
    >>> f'{atol:.1e}'
    '1.8e-12'
    """

    atol: float | None = None
    rtol: float | None = None
    max_iter: int = 100

    def __post_init__(self) -> None:
        """Refuse what no residual can be compared with."""
        for name in ("atol", "rtol"):
            value = getattr(self, name)
            if value is not None:
                expected = "a finite number >= 0, or None for the default"
                require_number(name, value, lambda tolerance: tolerance >= 0, expected)
        require_whole("max_iter", self.max_iter, least=0)

    def bounds(self, dtype: Any) -> tuple[float, float]:
        """Return atol and rtol, those of the dtype where none were given."""
        default = float(np.finfo(dtype).eps) ** 0.75
        return (
            default if self.atol is None else float(self.atol),
            default if self.rtol is None else float(self.rtol),
        )

    def tolerance(self, h: Array) -> Array:
        """Return the largest residual allowed at each step, shape (T, batch); -1: none is."""
        return self.allowed(max_norm(h))

    def allowed(self, size: Array) -> Array:
        """Return the largest residual allowed where the states have this maximum norm."""
        atol, rtol = self.bounds(size.dtype)
        with np.errstate(invalid="ignore"):
            tolerance = atol + rtol * size
        return np.where(np.isfinite(tolerance), tolerance, -1)  # no residual of inf is small


def max_norm(v: Array) -> Array:
    """Return the maximum norm over the components, shape (T, batch); NaN if any is NaN.

    Few components are taken one by one: a reduction over a short axis takes several times as long.
    """
    if v.size == 0:
        return np.zeros_like(v, shape=v.shape[:-1])
    norm: Array
    if v.shape[-1] <= FEW_COMPONENTS:
        norm = np.abs(v[..., 0])
        for component in range(1, v.shape[-1]):
            np.maximum(norm, np.abs(v[..., component]), out=norm)
        return norm
    norm = np.abs(v).max(axis=-1)
    return norm
