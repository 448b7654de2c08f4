"""PyTorch's RNN, GRU and LSTM as its documentation writes them, one step, gate, layer at a time.

The gates are cut out of the matrices by name, so that their order is said here a second time.
"""

import numpy as np

from tests.cells.common import sigma

GATES = {"RNN": ("h",), "GRU": ("r", "z", "n"), "LSTM": ("i", "f", "g", "o")}


def random_state(kind, rng, inputs, n, layers=1, directions=1, dtype=np.float64, bias=True):
    """Return a state dict as PyTorch makes it, of arrays."""
    rows, state = len(GATES[kind]) * n, {}
    for layer in range(layers):
        m = directions * n if layer else inputs
        for suffix in ("", "_reverse")[:directions]:
            shapes = {"weight_ih": (rows, m), "weight_hh": (rows, n)}
            if bias:
                shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
            for name, shape in shapes.items():
                value = rng.uniform(-1, 1, shape) / np.sqrt(n)
                state[f"{name}_l{layer}{suffix}"] = value.astype(dtype)
    return state


def one_step(kind, weights, x, h, c, nonlinearity=np.tanh):
    """Return the next h and c."""
    W, U, b, d = weights
    if kind == "RNN":
        return nonlinearity(W["h"] @ x + b["h"] + U["h"] @ h + d["h"]), c
    if kind == "GRU":
        r = sigma(W["r"] @ x + b["r"] + U["r"] @ h + d["r"])
        z = sigma(W["z"] @ x + b["z"] + U["z"] @ h + d["z"])
        n = np.tanh(W["n"] @ x + b["n"] + r * (U["n"] @ h + d["n"]))
        return (1 - z) * n + z * h, c
    i, f, o = (sigma(W[k] @ x + b[k] + U[k] @ h + d[k]) for k in "ifo")
    g = np.tanh(W["g"] @ x + b["g"] + U["g"] @ h + d["g"])
    c = f * c + i * g
    return o * np.tanh(c), c


def cut(kind, state, suffix):
    """Return W, U, b, d by the names of their gates; absent biases are zero."""
    parts = []
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        rows = len(state[f"weight_hh{suffix}"])
        value = state.get(f"{name}{suffix}", np.zeros(rows))
        gates = GATES[kind]
        size = rows // len(gates)
        parts.append({g: value[i * size : (i + 1) * size] for i, g in enumerate(gates)})
    return parts


def run(kind, state, x, h0, c0, **options):
    """Return y, h_n, c_n of a sequence x (T, m) from h0 and c0 (layers * directions, n)."""
    layers = 1 + max(int(name.split("_l")[1][0]) for name in state)
    directions = 1 + any(name.endswith("reverse") for name in state)
    h_n, c_n = [], []
    for layer in range(layers):
        outputs = []
        for r in range(directions):
            weights = cut(kind, state, f"_l{layer}{'_reverse' if r else ''}")
            h, c, made = h0[len(h_n)], c0[len(c_n)], []
            for x_t in x[::-1] if r else x:
                h, c = one_step(kind, weights, x_t, h, c, **options)
                made.append(h)
            outputs.append(made[::-1] if r else made)
            h_n.append(h)
            c_n.append(c)
        x = np.concatenate(outputs, axis=-1)
    return x, np.stack(h_n), np.stack(c_n)
