"""How the kernels of this package are compiled."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from numba import njit

# Fused multiply-add is allowed; anything that would drop NaN or Inf is not. Sums in any order
# are, where a kernel says so.
jitted = partial(njit, nogil=True, error_model="numpy", fastmath={"contract"})

# A part is never called from Python or C: without the wrappers it compiles faster.
_part = partial(jitted, forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)

inlined: Callable[[Callable[..., Any]], Any] = _part()
"""Decorator of a part of a kernel."""

inlined_any_order: Callable[[Callable[..., Any]], Any] = _part(fastmath={"contract", "reassoc"})
"""Decorator of a part of a kernel in which LLVM may reorder sums, to fill a vector."""


def compiled(function: Callable[..., None]) -> Any:
    """Decorate a kernel: compiled on first call, releasing the GIL, and kept on disk.

    The code goes to ``__pycache__``, or to the user's cache directory where that is read-only, or
    nowhere where neither can be written.
    """
    try:
        return jitted(cache=True)(function)
    except RuntimeError:
        return jitted()(function)
