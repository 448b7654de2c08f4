"""The methods by name: each is a short constructor of one generic iteration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pararnn_solvers.checks import require_whole
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.solvers import linearization as A
from pararnn_solvers.solvers import load
from pararnn_solvers.solvers.newton import Newton
from pararnn_solvers.solvers.step_length import (
    StepLength,
    Tuned,
    anderson_mixing,
    backtracking,
    full_step,
    relaxed,
    require_armijo,
)
from pararnn_solvers.solvers.trust_region import require_damping, trust_region

Method = Newton | str | Callable[[], Newton]


def newton(
    chunk: int = 1,
    *,
    window: int | None = None,
    linearization: A.Linearization = A.exact,
    step_length: StepLength = full_step,
) -> Newton:
    """Newton's method; with ``chunk > 1`` multiple shooting on chunks of so many steps.

    Converges quadratically near the solution, in at most T iterations from anywhere if no iterate
    overflows. Known as DEER (arXiv 2309.12252) and ParaRNN (arXiv 2510.21450). The other arguments
    are the choices of :class:`Newton` that the constructors below have names for.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> x = np.sin(np.arange(50.0))[:, None]
    >>> step = lambda h, x, a: np.tanh(a * h + x)
    >>> [prs.solve(step, x, np.zeros(1), 0.5, method=prs.newton(S)).n_iter for S in (1, 10)]
    [4, 1]
    """
    return Newton(linearization, step_length, chunk, window)


def damped_newton(c: float = 1e-4, shrink: float = 0.5) -> Newton:
    """Newton's method with backtracking on ``|F|^2 / 2`` until the Armijo condition holds.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> x = np.sin(np.arange(50.0))[:, None]
    >>> step = lambda h, x, a: np.tanh(a * h + x)
    >>> prs.solve(step, x, np.zeros(1), 0.5, method=prs.damped_newton()).n_iter
    4
    """
    require_armijo(c, shrink)
    return Newton(step_length=Tuned(backtracking, (("c", c), ("shrink", shrink))))


def levenberg_marquardt(damping: float = 1e-2) -> Newton:
    """Damped least squares in a trust region: never leaves a better point for a worse one.

    Known as ELK (arXiv 2407.19115), with ``damping = 1/sigma^2``.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> x = np.sin(np.arange(50.0))[:, None]
    >>> step = lambda h, x, a: np.tanh(a * h + x)
    >>> prs.solve(step, x, np.zeros(1), 0.5, method=prs.levenberg_marquardt()).n_iter
    5
    """
    require_damping("damping", damping)
    return Newton(step_length=Tuned(trust_region, (("initial", damping),)))


def relaxation(omega: float, linearization: A.Linearization = A.exact) -> Newton:
    """Take the fraction omega of every step; the error falls by ``1 - omega`` at best.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> x = np.sin(np.arange(50.0))[:, None]
    >>> step = lambda h, x, a: np.tanh(a * h + x)
    >>> prs.solve(step, x, np.zeros(1), 0.5, method=prs.relaxation(0.5)).n_iter
    38
    """
    return Newton(linearization=linearization, step_length=relaxed(omega))


def quasi_newton(linearization: A.Linearization = A.diagonal) -> Newton:
    """Newton's method with a cheaper Jacobian, by default its diagonal: O(T d) memory.

    Known as quasi-DEER (arXiv 2407.19115).

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> x = np.sin(np.arange(50.0))[:, None] * np.ones(2)
    >>> W = np.array([[0.5, 0.1], [0.1, 0.5]])
    >>> method = prs.quasi_newton()
    >>> prs.solve(lambda h, x, W: np.tanh(h @ W + x), x, np.zeros(2), W, method=method).n_iter
    10
    """
    return Newton(linearization=linearization)


def chord(linearization: A.Linearization = A.exact) -> Newton:
    """Linearize once, at the guess (the simplified Newton method).

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> x = np.sin(np.arange(50.0))[:, None]
    >>> step = lambda h, x, a: np.tanh(a * h + x)
    >>> prs.solve(step, x, np.zeros(1), 0.5, method=prs.chord()).n_iter
    8
    """
    return Newton(linearization=A.frozen(linearization))


def broyden(linearization: A.Linearization = A.exact) -> Newton:
    """Update the Jacobian by secants within its blocks, without further derivatives.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> x = np.sin(np.arange(50.0))[:, None]
    >>> step = lambda h, x, a: np.tanh(a * h + x)
    >>> prs.solve(step, x, np.zeros(1), 0.5, method=prs.broyden()).n_iter
    4
    """
    return Newton(linearization=A.secant(linearization))


def picard() -> Newton:
    """Take ``A = I``: a running sum of residuals, for steps that hardly change the state.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> step = lambda h, x, _: h - 0.01 * h**3
    >>> prs.solve(step, None, np.ones(1), steps=50, method=prs.picard()).n_iter
    13
    """
    return Newton(linearization=A.identity)


def jacobi() -> Newton:
    """Take ``A = 0``: apply `step` everywhere at once, for recurrences that forget fast.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> x = np.sin(np.arange(50.0))[:, None]
    >>> step = lambda h, x, a: np.tanh(a * h + x)
    >>> prs.solve(step, x, np.zeros(1), 0.5, method=prs.jacobi()).n_iter
    21
    """
    return Newton(linearization=A.zero)


def anderson(m: int = 5, method: Method = "picard") -> Newton:
    """Accelerate a method, by default Picard's, by combining its last m + 1 iterates.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> step = lambda h, x, _: h - 0.01 * h**3
    >>> prs.solve(step, None, np.ones(1), steps=50, method=prs.anderson(5)).n_iter
    10
    """
    method = load_newton(method)
    return replace(method, step_length=anderson_mixing(m, method.step_length))


def windowed(method: Method = "newton", length: int = 128) -> Newton:
    """Iterate on a window of `length` steps that moves on past the converged prefix.

    The most robust choice, in bounded memory: with full steps every iteration settles at least
    one step, whatever the guess, unless the recurrence itself overflows.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> x = np.sin(np.arange(50.0))[:, None]
    >>> step = lambda h, x, a: np.tanh(a * h + x)
    >>> prs.solve(step, x, np.zeros(1), 0.5, method=prs.windowed(length=10)).n_iter
    16
    """
    require_whole("length", length)
    return replace(load_newton(method), window=length)


def load_newton(method: Method) -> Newton:
    """Return the method that a name, a constructor or a value stands for, if it is a Newton."""
    loaded = load(method)
    if not isinstance(loaded, Newton):
        raise InvalidInput(
            f"method is {loaded}; expected a Newton-type method to modify, such as newton(), "
            "'quasi_newton' or Newton(...)"
        )
    return loaded
