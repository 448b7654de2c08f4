"""The one array type of the annotations: NumPy's, of any dtype and shape."""

from __future__ import annotations

from typing import Any, TypeAlias

from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
