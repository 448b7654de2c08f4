"""
Gradients are as accurate as the states
=======================================

The adjoint solve is exact at the states it is given: its error is that of the states, and no more.
Loosen the tolerance of the forward solve, and the error of states and gradients grows in
proportion.
"""

import matplotlib.pyplot as plt
import numpy as np

import pararnn_solvers as prs
from pararnn_solvers.cells import diagonal_gru as gru

T, n = 2000, 4
TOLERANCES = 10.0 ** np.arange(-13, 0)
rng = np.random.default_rng(0)
theta = gru.init(rng, inputs=2, channels=n)
u = gru.project(rng.standard_normal((T, 2)), theta)
exact = prs.solve(gru.recurrence, u, np.zeros(n), theta, method="sequential")
best = prs.gradients(exact, exact.h)


def flat(gradients):
    return np.concatenate([np.ravel(g) for g in (*gradients.theta, gradients.x) if g is not None])


def measure(tolerance):
    """Jacobi's iteration gains few digits each time, so that it ends near the tolerance."""
    solution = prs.solve(
        gru.recurrence, u, np.zeros(n), theta, method="jacobi", atol=tolerance, rtol=0.0
    )
    found, scale = prs.gradients(solution, solution.h), np.abs(flat(best)).max()
    states = np.abs(solution.h - exact.h).max()
    return states, np.abs(flat(found) - flat(best)).max() / scale


states, slopes = np.transpose([measure(tolerance) for tolerance in TOLERANCES])
fig, ax = plt.subplots(figsize=(5, 3.4), layout="constrained")
ax.loglog(TOLERANCES, TOLERANCES, color="#6b6b6b", linestyle="--", linewidth=1, label="tolerance")
ax.loglog(TOLERANCES, states, "o-", color="#0072B2", markersize=4, label="error of the states")
ax.loglog(TOLERANCES, slopes, "s-", color="#D55E00", markersize=4, label="error of the gradients")
ax.set(xlabel="tolerance atol", ylabel="error (gradients: relative)")
ax.spines[["top", "right"]].set_visible(False)
ax.legend(frameon=False)
plt.show()
