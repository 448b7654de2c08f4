"""
A window that moves
===================

Iterating on a window and moving it past what has converged bounds the memory and keeps the
iteration from running away: the start of the window is always right. On the Van der Pol oscillator
plain Newton overflows. Windows of all lengths get there; long ones need fewer iterations, and
evaluate more states that are thrown away again.
"""

import matplotlib.pyplot as plt
import numpy as np

import pararnn_solvers as prs
from pararnn_solvers import problems

T = 512
LENGTHS = [4, 8, 16, 32, 64, 128]
problem = problems.van_der_pol(length=T)
options = {"steps": T, "atol": 1e-8, "rtol": 0.0}
solutions = [prs.solve(*problem[:4], method=prs.windowed(length=n), **options) for n in LENGTHS]
truth = prs.rollout(*problem[:4], steps=T)
print("greatest error", max(np.abs(s.h - truth).max() for s in solutions))

fig, (left, right) = plt.subplots(1, 2, figsize=(7, 3), layout="constrained")
left.plot(LENGTHS, [s.n_iter for s in solutions], "o-", color="#0072B2")
left.set(ylabel="iterations", title="how often")
right.plot(LENGTHS, [s.n_step_evaluations / T for s in solutions], "s-", color="#D55E00")
right.set(ylabel="evaluations of each step", title="how much")
for ax in (left, right):
    ax.set(xlabel="window length", ylim=(0, None))
    ax.set_xscale("log", base=2)
    ax.set_xticks(LENGTHS, LENGTHS)
    ax.spines[["top", "right"]].set_visible(False)
plt.show()
