"""
A Markov chain, all steps at once
=================================

Langevin dynamics in a density of two wells is a recurrence once its noise is drawn. Newton's
method finds the whole chain from a guess that is nothing but noise. Within a well neighbouring
paths come together, so that the chain forgets where it started; crossings are found last.
"""

import matplotlib.pyplot as plt
import numpy as np

import pararnn_solvers as prs
from pararnn_solvers import problems

T = 4000
problem = problems.two_well_langevin(length=T, seed=0)
iterates = []
solution = prs.solve(
    *problem[:4], method="newton", guess=problem.guess, atol=1e-8,
    callback=lambda state: iterates.append(state.h[:, 0, 0].copy()),
)  # fmt: skip
shown = [0, 1, 3, 6, len(iterates) - 1]

fig, axes = plt.subplots(len(shown), figsize=(6, 5.4), layout="constrained", sharex=True)
for ax, i in zip(axes, shown, strict=True):
    ax.plot(solution.h[:, 0], color="#E69F00", linewidth=2.5)
    ax.plot(np.clip(iterates[i], -4, 4), color="#0072B2", linewidth=0.7)
    ax.set(ylim=(-4, 4), ylabel="$s_1$")
    ax.set_title(f"iterate {i}", loc="right", fontsize=8, pad=2)
    ax.spines[["top", "right"]].set_visible(False)
axes[-1].set(xlabel="step", xlim=(0, T))
fig.suptitle(f"Iterates (blue) and the chain (orange): {solution.n_iter} iterations", fontsize=10)
plt.show()
print("exact to", np.abs(solution.h - prs.rollout(*problem[:4])).max())
