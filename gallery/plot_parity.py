"""
Parity learned
==============

Whether the number of ones so far is odd depends on every bit. A diagonal GRU of 8 channels,
trained by ``solve``, ``gradients`` and SciPy's L-BFGS on sequences of at most 64 bits, keeps
answering where it was never trained: it has learned the rule. (`parity_numpy.py` beside this
script is the training.)
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

sys.path.insert(0, str(Path.cwd()))
import parity_numpy as parity

rng = np.random.default_rng(0)
untrained = parity.init(rng, channels=8)
trained, _ = parity.fit(untrained, rng)
bits, odd = parity.sequences(rng, 1024, 64)


def right_by_step(model):
    """Return the share of the 64 sequences that are answered right at each step."""
    h = parity.states(model, bits).h
    return ((h @ model.w + model.c > 0) == odd).mean(axis=1)


fig, ax = plt.subplots(figsize=(6, 3), layout="constrained")
steps = np.arange(1, len(bits) + 1)
ax.semilogx(steps, right_by_step(untrained), color="#6b6b6b", linewidth=0.8, label="untrained")
ax.semilogx(steps, right_by_step(trained), color="#0072B2", linewidth=2, label="trained")
ax.axvspan(1, 64, color="#E69F00", alpha=0.15, linewidth=0)
ax.annotate("lengths of training", (1.1, 0.3), color="#6b6b6b", fontsize="small")
ax.set(xlabel="bits read", ylabel="share of right answers", ylim=(0.25, 1.05), xlim=(1, 1024))
ax.spines[["top", "right"]].set_visible(False)
ax.legend(frameon=False, loc=(0.12, 0.55))
plt.show()
