"""A diagonal GRU learns parity from NumPy alone: ``python gallery/parity_numpy.py``.

Which of two answers is right depends on *every* bit read so far, so a network has to keep a state
that each 1 turns over. A linear recurrence with positive decays, however wide, cannot (Sarrof et
al. 2024, arXiv 2405.17394; Grazzi et al. 2024, arXiv 2411.12537).

All that training takes is in `loss_and_gradient`: `solve` for the states of all steps at once,
`gradients` for the way back. The optimizer is SciPy's.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import numpy as np
from scipy.optimize import OptimizeResult, minimize

import pararnn_solvers as prs
from pararnn_solvers.cells import diagonal_gru as gru

Array = np.ndarray


class Model(NamedTuple):
    """A diagonal GRU, and a linear read-out ``w h + c`` of its n states."""

    theta: gru.Theta
    w: Array
    c: Array


class Fit(NamedTuple):
    """A trained model, and the losses at first and after each iteration, by length."""

    model: Model
    losses: dict[int, list[float]]


def init(rng: np.random.Generator, channels: int) -> Model:
    """Draw a model for one bit a step."""
    theta = gru.init(rng, inputs=1, channels=channels)
    return Model(theta, rng.standard_normal(channels) / np.sqrt(channels), np.zeros(1))


def sequences(rng: np.random.Generator, length: int, count: int) -> tuple[Array, Array]:
    """Return random bits (T, count, 1) and, as 0 or 1, the parity of the bits up to each step."""
    bits = rng.integers(0, 2, size=(length, count))
    return 2.0 * bits[..., None] - 1, np.cumsum(bits, axis=0) % 2


def states(model: Model, x: Array) -> prs.Solution:
    """Return the solved trajectory of the GRU, of all sequences and all steps at once."""
    u = gru.project(x, model.theta)
    return prs.solve(gru.recurrence, u, gru.initial_state(model.theta, x.shape[1:2]), model.theta)


def loss_and_gradient(model: Model, x: Array, parity: Array) -> tuple[float, Model]:
    """Return the mean cross-entropy of the read-out at all steps, and its gradient."""
    solution = states(model, x)
    h, sign = solution.h, 2 * parity - 1
    margin = sign * (h @ model.w + model.c)
    loss = np.logaddexp(0, -margin).mean()

    dlogit = -sign * np.exp(-np.logaddexp(0, margin)) / margin.size
    dh = dlogit[..., None] * model.w
    by_solve = prs.gradients(solution, dh)
    _, by_drives = gru.project_vjp(x, model.theta, by_solve.x)
    dtheta = gru.Theta(*map(np.add, by_solve.theta, by_drives))
    return float(loss), Model(dtheta, np.tensordot(dlogit, h, 2), dlogit.sum(keepdims=True)[0])


def accuracy(model: Model, x: Array, parity: Array) -> float:
    """Return the share of steps at which the sign of the read-out is right."""
    logit = states(model, x).h @ model.w + model.c
    return float(np.mean((logit > 0) == parity))


def flat(model: Model) -> Array:
    """Return all parameters as one vector, which is what an optimizer takes."""
    return np.concatenate([leaf.ravel() for leaf in (*model.theta, model.w, model.c)])


def shaped(vector: Array, like: Model) -> Model:
    """Return the model whose parameters are this vector, in the shapes of another."""
    leaves = (*like.theta, like.w, like.c)
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1]
    parts = [v.reshape(leaf.shape) for v, leaf in zip(np.split(vector, ends), leaves, strict=True)]
    return Model(gru.Theta(*parts[:-2]), *parts[-2:])


def trained(model: Model, x: Array, parity: Array, max_iter: int) -> tuple[Model, list[float]]:
    """Return a model after L-BFGS on these sequences, and the losses at its iterations."""
    losses = [loss_and_gradient(model, x, parity)[0]]

    def objective(vector: Array) -> tuple[float, Array]:
        loss, gradient = loss_and_gradient(shaped(vector, model), x, parity)
        return loss, flat(gradient)

    def watch(intermediate_result: OptimizeResult) -> None:
        losses.append(intermediate_result.fun)

    options = {"maxiter": max_iter, "gtol": 1e-8}
    found = minimize(
        objective, flat(model), jac=True, method="L-BFGS-B", callback=watch, options=options
    )
    return shaped(found.x, model), losses


def fit(
    model: Model,
    rng: np.random.Generator,
    *,
    lengths: tuple[int, ...] = (4, 16, 64),
    count: int = 64,
    max_iter: int = 100,
) -> Fit:
    """Return a model trained on sequences of the first length, then of the next, and so on."""
    losses = {}
    for length in lengths:
        model, losses[length] = trained(model, *sequences(rng, length, count), max_iter)
    return Fit(model, losses)


def main(arguments: list[str] | None = None) -> None:
    """Train a model and print its accuracy at lengths up to 16 times those trained."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    rng = np.random.default_rng(options.seed)
    model, losses = fit(init(rng, options.channels), rng)
    for length, seen in losses.items():
        print(f"trained at length {length:3}: {len(seen) - 1:3} iterations, loss {seen[-1]:.1e}")
    for length in (64, 256, 1024):
        print(f"accuracy at length {length:4}: {accuracy(model, *sequences(rng, length, 64)):.4f}")


if __name__ == "__main__":
    main()
