"""Derivatives of a trajectory: in reverse by `adjoint`, along one direction by `tangent`."""

from __future__ import annotations

from pararnn_solvers.sensitivities.adjoint import Gradients, gradients
from pararnn_solvers.sensitivities.tangent import jvp

__all__ = ["Gradients", "gradients", "jvp"]
