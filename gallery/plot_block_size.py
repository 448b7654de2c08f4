"""
Blocks of the Jacobian against iterations
=========================================

Quasi-Newton keeps only blocks on the diagonal of each A, which saves work and memory: k numbers
for each of the d units in place of d. What the blocks leave out has to be made up by iterations.
Here units couple strongly in groups of four, and weakly with all others: blocks of four see most
of it. Where all couple alike, only the whole matrix helps, and that is Newton's method.
"""

import matplotlib.pyplot as plt
import numpy as np

import pararnn_solvers as prs

T, d, SIZES = 300, 16, [1, 2, 4, 8, 16]
rng = np.random.default_rng(0)
x, h0 = rng.standard_normal((T, d)), np.zeros(d)
noise = rng.standard_normal((d, d))
same_group = np.equal.outer(np.arange(d) // 4, np.arange(d) // 4)


def step(h, x, W):
    return np.tanh(h @ W + x)


def iterations(k, W):
    """States are component-major: block i holds the places i, i + d/k, i + 2 d/k, ..."""
    order = np.arange(d).reshape(d // k, k).T.ravel()  # neighbours share a block
    method = prs.quasi_newton(prs.block_diagonal(k))
    return prs.solve(step, x[:, order], h0, W[np.ix_(order, order)], method=method).n_iter


fig, ax = plt.subplots(figsize=(5, 3.2), layout="constrained")
for label, coupling, color, marker in (
    ("all units couple alike", noise, "#D55E00", "s"),
    ("groups of four couple", np.where(same_group, noise, 0.02 * noise), "#0072B2", "o"),
):
    W = coupling * 0.7 / np.linalg.norm(coupling, 2)
    ax.plot(SIZES, [iterations(k, W) for k in SIZES], marker=marker, color=color, label=label)
ax.set_xscale("log", base=2)
ax.set_xticks(SIZES, SIZES)
ax.set(xlabel="block size k", ylabel="iterations", ylim=(0, None))
ax.spines[["top", "right"]].set_visible(False)
ax.legend(frameon=False)
plt.show()
