"""
Which derivative, and how fast
==============================

All methods have the same solution, and differ in what they put in place of the derivative. The
exact one (Newton) doubles the digits at every iteration; a frozen one (chord), the diagonal
(quasi-Newton) or none (Jacobi) gain a constant factor; secants (Broyden) are between the two.
"""

import matplotlib.pyplot as plt
import numpy as np

import pararnn_solvers as prs

T, d, rng = 400, 8, np.random.default_rng(0)
W = rng.normal(0, 0.6 / np.sqrt(d), (d, d)) + 0.3 * np.eye(d)
x = rng.standard_normal((T, d))


def step(h, x, W):
    return np.tanh(h @ W + x)


METHODS = {
    "newton": ("Newton", "#0072B2", "o"),
    "broyden": ("Broyden", "#CC79A7", "D"),
    "chord": ("chord", "#009E73", "s"),
    "quasi_newton": ("diagonal quasi-Newton", "#E69F00", "^"),
    "jacobi": ("Jacobi", "#6b6b6b", "."),
}

fig, ax = plt.subplots(figsize=(5.5, 3.4), layout="constrained")
for method, (label, color, marker) in METHODS.items():
    solution = prs.solve(step, x, np.zeros(d), W, method=method)
    norms = solution.residual_norms
    ax.semilogy(norms, color=color, marker=marker, markersize=4, label=label)
ax.set(xlabel="iteration", ylabel="residual, maximum norm", ylim=(1e-16, 10))
ax.spines[["top", "right"]].set_visible(False)
ax.legend(frameon=False)
plt.show()
