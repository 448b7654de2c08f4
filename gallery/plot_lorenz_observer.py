"""
Chaos, and an observer of it
============================

The Lorenz system is chaotic: two trajectories that differ by rounding part within some time units,
and Newton's method for one of them overflows. An *observer* that is told the second component goes
the same way as the system, whatever state it starts from: it contracts, and Newton's method needs
two iterations for all of its steps. What counts is not how wild the trajectory is, but whether it
forgets.
"""

import matplotlib.pyplot as plt
import numpy as np

import pararnn_solvers as prs
from pararnn_solvers import problems

T = 3000
flow, observer = problems.flow("lorenz", length=T), problems.observer("lorenz", length=T)
solution = prs.solve(*observer[:4], method="newton", guess=observer.guess)
try:
    prs.solve(*flow[:4], steps=T, method="newton", guess=flow.guess, max_iter=30)
except prs.ConvergenceError as error:
    print("the flow itself:", error.solution.status.name)

truth = prs.rollout(*flow[:4], steps=T)
nudged = prs.rollout(flow.recurrence, None, flow.h0 + 1e-9, flow.theta, steps=T)
distances = {
    "two trajectories, 1e-9 apart at first": (np.abs(nudged - truth).max(axis=1), "#D55E00"),
    "observer and system": (np.abs(solution.h - truth).max(axis=1), "#0072B2"),
}

fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
left.plot(solution.h[:, 0], solution.h[:, 2], color="#0072B2", linewidth=0.6)
left.set(title=f"the observer: {solution.n_iter} iterations", xlabel="x", ylabel="z")
for label, (distance, color) in distances.items():
    right.semilogy(
        0.01 * np.arange(1, T + 1), np.maximum(distance, 1e-16), color=color, label=label
    )
right.set(title="distance", xlabel="time")
right.legend(frameon=False, fontsize="small")
for ax in (left, right):
    ax.spines[["top", "right"]].set_visible(False)
plt.show()
