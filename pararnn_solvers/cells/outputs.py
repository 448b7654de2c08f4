"""What a layer above sees of a state, where that is the state or its last component.

All take inputs x and parameters theta, which cells of this kind do not read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pararnn_solvers.typing import Array

Output = Callable[..., Any]


def whole_state(h: Any, x: Any = None, theta: Any = None) -> Any:
    """Return the states (..., n) themselves."""
    return h


def whole_state_vjp(
    dy: Array, h: Array, x: Any = None, theta: Any = None
) -> tuple[Any, None, None]:
    """Return dy times the derivatives of the outputs by h, by x and by theta (None: zero)."""
    return dy, None, None


def last_of(k: int) -> tuple[Output, Output]:
    """Return the output that is the last of k components, and its products.

    Examples
    --------
    >>> output, _ = last_of(2)
    >>> output(np.array([1.0, 2.0, 3.0, 4.0]))
    array([3., 4.])
    """

    def output(h: Any, x: Any = None, theta: Any = None) -> Any:
        """Return the last component (..., n) of states (..., k n)."""
        return h[..., h.shape[-1] // k * (k - 1) :]

    def output_vjp(
        dy: Array, h: Array, x: Any = None, theta: Any = None
    ) -> tuple[Array, None, None]:
        """Return dy times the derivatives of `output` by h, by x and by theta (None: zero)."""
        dh = np.zeros((*dy.shape[:-1], k * dy.shape[-1]), dy.dtype)
        dh[..., (k - 1) * dy.shape[-1] :] = dy
        return dh, None, None

    return output, output_vjp
