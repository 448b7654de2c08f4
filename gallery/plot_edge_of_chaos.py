"""
Iterations at the edge of chaos
===============================

A network of tanh units with random weights of size g forgets its past while g is small, and is
chaotic when g is large. Newton's method feels the same border: a handful of iterations where the
largest Lyapunov exponent is negative, in proportion to the steps where it is positive. The problem
is that of Gonzalez et al. (2025, arXiv 2508.16817), with fewer units and steps.
"""

import matplotlib.pyplot as plt
import numpy as np

import pararnn_solvers as prs
from pararnn_solvers import diagnostics, problems

GAINS, T, D = [0.4, 0.6, 0.8, 1.0, 1.1, 1.2, 1.3, 1.5, 1.8, 2.2], 250, 50


def measure(gain, seed):
    problem = problems.mean_field_rnn(gain, length=T, D=D, seed=seed)
    solution = prs.solve(
        *problem[:4], method="newton", guess=problem.guess, atol=1e-6, rtol=0.0, max_iter=T,
    )  # fmt: skip
    return diagnostics.lyapunov_exponent(*problem[:4]), solution.n_iter


found = np.array([[measure(gain, seed) for gain in GAINS] for seed in (0, 1)])
fig, (left, right) = plt.subplots(1, 2, figsize=(7, 3), layout="constrained", sharey=True)
for exponents, counts in found.transpose(0, 2, 1):
    left.semilogy(GAINS, counts, "o-", color="#0072B2", markersize=4)
    right.semilogy(exponents, counts, "o", color="#D55E00", markersize=4)
left.set(xlabel="gain g", ylabel="Newton iterations")
right.axvline(0, color="#6b6b6b", linestyle="--", linewidth=1)
right.set(xlabel="largest Lyapunov exponent, per step")
for ax in (left, right):
    ax.axhline(T, color="#6b6b6b", linewidth=1)
    ax.spines[["top", "right"]].set_visible(False)
left.annotate("as many as steps", (GAINS[0], 0.8 * T), va="top", color="#6b6b6b", fontsize="small")
plt.show()
