"""
The speed of a recurrence against the speed of a map
====================================================

Applying ``step`` once to T given states is a map: no step waits for another. No solver that
evaluates every step can be faster. Compiled stepping waits for each state before the next; a solve
in chunks comes near the map once there are steps enough. One channel of a GRU in float32, on the
machine that built this page.
"""

import time

import matplotlib.pyplot as plt
import numpy as np

import pararnn_solvers as prs
from pararnn_solvers.cells import diagonal_gru as gru

LENGTHS = [2**k for k in range(12, 21, 2)]
rng = np.random.default_rng(0)
theta = gru.init(rng, inputs=1, channels=1, dtype=np.float32)
h0 = np.zeros(1, np.float32)


def least(call):
    """Return the least of three times in seconds, after a first call that may compile."""
    call()
    times = []
    for _ in range(3):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)


def measure(T):
    u = gru.project(rng.standard_normal((T, 1)).astype(np.float32), theta)
    problem = (gru.recurrence, u, h0, theta)
    solved = prs.solve(*problem, compiled=True)
    before = solved.system.previous(solved.h)
    calls = {
        "step by step, compiled": lambda: prs.rollout(*problem, compiled=True),
        "solve": lambda: prs.solve(*problem, compiled=True),
        "the map": lambda: solved.system.evaluate(before),
    }
    return {name: 1e9 * least(call) / T for name, call in calls.items()}


found = [measure(T) for T in LENGTHS]
fig, ax = plt.subplots(figsize=(5.5, 3.4), layout="constrained")
for name, color, marker in zip(found[0], ("#D55E00", "#0072B2", "#6b6b6b"), "os.", strict=True):
    ax.loglog(LENGTHS, [row[name] for row in found], marker=marker, color=color, label=name)
ax.set(xlabel="steps T", ylabel="time, ns a step")
ax.spines[["top", "right"]].set_visible(False)
fig.legend(frameon=False, loc="outside upper center", ncols=3, fontsize="small")
plt.show()
