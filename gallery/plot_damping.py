"""
Damping on the Van der Pol oscillator
=====================================

Far from the solution a full Newton step can be much too long. Here it overflows in the first
iteration. Backtracking and Levenberg-Marquardt take shorter steps that reduce the residual, and
creep or stall; a window of 32 steps is always close to the solution at its beginning, and arrives.
"""

import matplotlib.pyplot as plt
import numpy as np

import pararnn_solvers as prs
from pararnn_solvers import problems

problem = problems.van_der_pol(length=512)
METHODS = {
    "newton": (prs.newton(), "#6b6b6b", "x"),
    "damped_newton": (prs.damped_newton(), "#E69F00", "s"),
    "levenberg_marquardt": (prs.levenberg_marquardt(), "#009E73", "^"),
    "windowed(length=32)": (prs.windowed(length=32), "#0072B2", "."),
}

fig, ax = plt.subplots(figsize=(6, 3.4), layout="constrained")
for label, (method, color, marker) in METHODS.items():
    try:
        solution = prs.solve(*problem[:4], steps=512, method=method, max_iter=40, atol=1e-8)
    except prs.ConvergenceError as error:
        solution = error.solution
    norms = np.where(np.isfinite(solution.residual_norms), solution.residual_norms, np.nan)
    label = f"{label}: {solution.status.name}"
    ax.semilogy(np.minimum(norms, 1e4), color=color, marker=marker, markersize=4, label=label)
ax.set(xlabel="iteration", ylabel="residual, maximum norm", ylim=(1e-11, 1e4))
ax.spines[["top", "right"]].set_visible(False)
ax.legend(frameon=False, fontsize="small")
plt.show()
