"""Checks of recurrences, methods and backends that others wrote.

Each check says what it promises; a failure names the entry that breaks the promise, both values,
and what to do. Importing this module imports none of the checks.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "recurrences": ["check_recurrence", "parametrize_with_checks", "recurrence_checks"],
    "backends": ["backend_checks", "check_backend"],
    "methods": ["check_method", "method_checks"],
    "results": [
        "CheckFailed",
        "CheckFailures",
        "CheckResult",
        "CheckWarning",
        "Inapplicable",
    ],
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
