"""
The exact prefix grows
======================

After i full steps the first i states are exact, whatever stands for the derivative: the error can
only be found to the right of the diagonal. With ``A = 0`` (Jacobi) nothing more is promised, and
an iteration settles one step or a few. With the exact A the whole trajectory comes into place at
once.
"""

import matplotlib.pyplot as plt
import numpy as np

import pararnn_solvers as prs

T, rng = 60, np.random.default_rng(0)
x, h0 = rng.standard_normal((T, 1)), np.zeros(1)


def step(h, x, a):
    return np.tanh(a * h + x)


truth = prs.rollout(step, x, h0, 1.2)


def errors(method):
    """Return the error of every iterate at every step, one row an iterate."""
    rows = []
    prs.solve(
        step, x, h0, 1.2, method=method, guess="repeat_h0",
        callback=lambda state: rows.append(np.abs(state.h[:, 0, 0] - truth[:, 0])),
    )  # fmt: skip
    return np.array(rows)


fig, axes = plt.subplots(1, 2, figsize=(7, 3), layout="constrained", sharey=True)
for ax, (name, method) in zip(axes, {"Jacobi": "jacobi", "Newton": "newton"}.items(), strict=True):
    found = np.log10(np.maximum(errors(method)[:24], 1e-16))
    shown = ax.imshow(found, aspect="auto", vmin=-16, vmax=0, cmap="cividis")
    ax.plot(range(len(found)), range(len(found)), color="white", linestyle="--", linewidth=1)
    ax.set(title=f"{name}: {len(errors(method)) - 1} iterations", xlabel="step t")
axes[0].set(ylabel="iteration", ylim=(24, -0.5))
fig.colorbar(shown, ax=axes, label="log10 of the error")
plt.show()
