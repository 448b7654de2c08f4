"""The same solves in PyTorch: an operator with exact gradients, and a layer like ``torch.nn.GRU``.

``solve(recurrence, x, h0, theta)`` takes and gives tensors and is differentiable; ``ParallelRNN``
is a module around it. Needs PyTorch: ``pip install "pararnn_solvers[torch]"``.

Names are imported from their modules on first use, so that this package can be listed, and its
documentation read, without PyTorch.
"""

from __future__ import annotations

import importlib
from typing import Any

_MODULE_OF = {"ParallelRNN": "layer", "solve": "operator", "Statistics": "problem"}
__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f"{__name__}.{_MODULE_OF[name]}")
    except ModuleNotFoundError as cause:
        if cause.name != "torch":
            raise
        raise ImportError(
            f"{__name__}.{name} needs PyTorch, which cannot be imported: {cause}; "
            'pip install "pararnn_solvers[torch]"'
        ) from cause
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
