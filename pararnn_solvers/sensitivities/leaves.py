"""Arrays that must be like others, and parameters nested like others."""

from __future__ import annotations

from typing import Any

from pararnn_solvers import arrays, tree
from pararnn_solvers.checks import require_one_place
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.typing import Array


def matching_leaves(theta: Any, dtheta: Any, name: str = "dtheta") -> list[Any]:
    """Return a change, or None, for every leaf of theta."""
    if theta is None and dtheta is not None:
        raise InvalidInput(f"{name} is given where theta is None; expected None there too")
    if dtheta is None:
        return [None] * len(tree.flatten(theta)[0])
    keys, children, build = tree.open_container(theta)
    if build is None:
        return [like(name, dtheta, theta)]
    other_keys, others, _ = tree.open_container(dtheta)
    if keys != other_keys:
        raise InvalidInput(f"{name} has entries {other_keys}; expected those of theta, {keys}")
    pairs = zip(children, others, strict=True)
    return [change for child, other in pairs for change in matching_leaves(child, other, name)]


def like(name: str, array: Any, reference: Any) -> Array:
    """Return an array after checking that it has the shape, dtype and place of a reference."""
    array, reference = arrays.from_any(array), arrays.from_any(reference)
    require_one_place({name: array, "the solution": reference})
    checked: Array = array
    if array.shape != reference.shape or array.dtype != reference.dtype:
        raise InvalidInput(
            f"{name} has shape {array.shape} and dtype {array.dtype}; expected {reference.shape} "
            f"and {reference.dtype}"
        )
    return checked
