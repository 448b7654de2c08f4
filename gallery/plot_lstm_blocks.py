"""
An LSTM as blocks of two by two
===============================

The matrix of one Newton step is ``I - S A``: the identity, and the blocks A just below the
diagonal. A diagonal LSTM has two numbers a channel, which couple only with each other. Sorted by
channel, the matrix falls apart into one narrow band for each; that is why its solve costs O(T d),
and not O(T d²).
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap

from pararnn_solvers.cells import diagonal_lstm as lstm
from pararnn_solvers.system import System

T, n = 5, 3
rng = np.random.default_rng(0)
theta = lstm.init(rng, inputs=2, channels=n)
u = lstm.project(rng.standard_normal((T, 2)), theta)
system = System(lstm.recurrence, u, np.zeros(2 * n), theta)
blocks = system.linearize(rng.standard_normal((T, 2 * n)))  # (T, 2, 2, n)

matrix = np.eye(T * 2 * n)
for t in range(1, T):
    for i in range(2):
        for j in range(2):
            for c in range(n):
                matrix[t * 2 * n + i * n + c, (t - 1) * 2 * n + j * n + c] = -blocks[t, i, j, c]
order = np.arange(T * 2 * n).reshape(T, 2, n).transpose(2, 0, 1).ravel()  # channel by channel

fig, axes = plt.subplots(1, 2, figsize=(7, 3.6), layout="constrained")
titles = "as it is stored: time first", "sorted by channel"
for ax, title, rows in zip(axes, titles, (np.arange(len(order)), order), strict=True):
    pattern = np.where(matrix[np.ix_(rows, rows)] == 0, 0, 2)
    np.fill_diagonal(pattern, 1)
    ax.imshow(pattern, cmap=ListedColormap(["#ffffff", "#0072B2", "#D55E00"]))
    lines = np.arange(0, len(order) + 1, 2 * n if title.startswith("as") else 2 * T) - 0.5
    ax.set_xticks(lines, [])
    ax.set_yticks(lines, [])
    ax.grid(color="#bbbbbb", linewidth=0.8)
    ax.set_title(title, fontsize=10)
    ax.tick_params(length=0)
axes[0].set_xlabel("blue: the identity; orange: -A")
axes[1].set_xlabel(f"{n} channels, {T} steps, 2 numbers each")
plt.show()
