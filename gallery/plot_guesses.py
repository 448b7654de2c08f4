"""
Where to start
==============

The first guess decides how many digits are there before the first iteration. ``f(0, x)`` is the
default: one evaluation, and right where the state matters little. Jacobi sweeps are more such
evaluations. Best is the solution of a similar problem, as in training, where weights change a
little at a time.
"""

import matplotlib.pyplot as plt
import numpy as np

import pararnn_solvers as prs
from pararnn_solvers.cells import diagonal_gru as gru

T, n = 2000, 8
rng = np.random.default_rng(0)
theta = gru.init(rng, inputs=2, channels=n)
x = rng.standard_normal((T, 2))


def solve(theta, **options):
    u = gru.project(x, theta)
    return prs.solve(gru.recurrence, u, np.zeros(n), theta, method="newton", **options)


nudged = theta._replace(a=theta.a * 1.001)
GUESSES = {
    "repeat h0": ("repeat_h0", "#6b6b6b", "x"),
    "f(0, x), the default": (None, "#0072B2", "o"),
    "3 Jacobi sweeps": (prs.jacobi_sweeps(3), "#E69F00", "s"),
    "weights 0.1 % apart": (solve(nudged).h, "#009E73", "^"),
}
fig, ax = plt.subplots(figsize=(5, 3.4), layout="constrained")
for label, (guess, color, marker) in GUESSES.items():
    norms = solve(theta, guess=guess).residual_norms
    ax.semilogy(norms, color=color, marker=marker, markersize=5, label=label)
ax.set(xlabel="iteration", ylabel="residual, maximum norm", xticks=range(6))
ax.spines[["top", "right"]].set_visible(False)
ax.legend(frameon=False)
plt.show()
