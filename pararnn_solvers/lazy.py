"""Properties that are computed when they are first asked for."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar

# ruff: noqa: N801 - called like the one that it replaces

Value = TypeVar("Value")


class cached_property(functools.cached_property[Value]):
    """The standard library's, without the lock of Python 3.11.

    That lock is one for all instances, and held while a value is computed: threads would wait for
    one another's, and for ever if ranks exchange messages in between. Two threads that ask one
    instance at once may both compute.
    """

    if not TYPE_CHECKING:

        def __get__(self, instance: Any, owner: Any = None) -> Any:
            if instance is None:
                return self
            value = instance.__dict__[self.attrname] = self.func(instance)
            return value
