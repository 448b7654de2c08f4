"""
Shooting: chunk length against iterations and time
==================================================

Multiple shooting keeps only the states at the ends of chunks as unknowns and steps through each
chunk. Longer chunks forget more of a wrong start, so fewer iterations are left to make; a chunk of
all T steps is the plain loop, which needs none. In between is the least time: ``step`` runs here
as it is, in NumPy, on all chunks side by side.
"""

import time

import matplotlib.pyplot as plt
import numpy as np

import pararnn_solvers as prs
from pararnn_solvers.cells import diagonal_gru as gru

T = 2**16
rng = np.random.default_rng(0)
theta = gru.init(rng, inputs=1, channels=1)
u = gru.project(rng.standard_normal((T, 1)), theta)
CHUNKS = [1, 4, 16, 64, 256, 1024, 4096]


def measure(chunk):
    """Return the iterations and the lesser of two times, in milliseconds."""
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        solution = prs.solve(
            gru.recurrence, u, np.zeros(1), theta, method=prs.newton(chunk), compiled=False
        )
        seconds.append(time.perf_counter() - began)
    return solution.n_iter, 1e3 * min(seconds)


iterations, milliseconds = np.transpose([measure(chunk) for chunk in CHUNKS])
fig, (top, bottom) = plt.subplots(2, figsize=(5.5, 4.2), layout="constrained", sharex=True)
top.plot(CHUNKS, iterations, "o-", color="#0072B2")
top.set(ylabel="iterations", xscale="log", ylim=(-0.3, None))
bottom.loglog(CHUNKS, milliseconds, "s-", color="#D55E00")
bottom.set(xlabel="chunk length S", ylabel="time, ms")
for ax in (top, bottom):
    ax.spines[["top", "right"]].set_visible(False)
plt.show()
