"""The attributes and methods that dual arrays share with NumPy's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["ArrayMethods"]


class ArrayMethods:
    """Methods that equal a function of NumPy, and attributes of the ``value``."""

    __slots__ = ()
    value: Any

    @property
    def shape(self) -> Any:
        """Shape of the value."""
        return self.value.shape

    @property
    def ndim(self) -> Any:
        """Rank of the value."""
        return self.value.ndim

    @property
    def dtype(self) -> Any:
        """Type of the value."""
        return self.value.dtype

    @property
    def size(self) -> Any:
        """Number of entries of the value."""
        return self.value.size

    @property
    def T(self: Any) -> Any:
        """The array with its axes reversed."""
        return np.transpose(self)

    @property
    def real(self: Any) -> Any:
        """The array itself: states are real."""
        return np.real(self)

    def flatten(self: Any, order: Any = "C") -> Any:
        """Return a copy of rank 1."""
        return np.ravel(self.copy(), order=order)

    def reshape(self: Any, *shape: Any, order: Any = "C") -> Any:
        """Equal ``np.reshape(self, shape)``."""
        return np.reshape(self, shape[0] if len(shape) == 1 else shape, order=order)

    def transpose(self: Any, *axes: Any) -> Any:
        """Equal ``np.transpose(self, axes)``."""
        return np.transpose(self, axes[0] if len(axes) == 1 else axes or None)


def _method(function: Callable[..., Any]) -> Any:
    def method(self: ArrayMethods, *args: Any, **kwargs: Any) -> Any:
        return function(self, *args, **kwargs)

    method.__name__ = function.__name__
    method.__doc__ = f"Equal ``np.{function.__name__}(self, ...)``."
    return method


for _function in (
    *(np.sum, np.mean, np.prod, np.var, np.std, np.max, np.min, np.cumsum, np.cumprod, np.dot),
    *(np.swapaxes, np.squeeze, np.ravel, np.clip, np.trace, np.diagonal, np.repeat, np.take),
    *(np.argmax, np.argmin, np.argsort, np.all, np.any, np.round, np.conj, np.conjugate),
):
    setattr(ArrayMethods, _function.__name__, _method(_function))
