"""Cases that take no time."""

from dataclasses import replace

from pararnn_solvers.bench.cases import CASES, Case

SMALL = {
    name: replace(CASES[name], steps=60, channels=min(CASES[name].channels, 16))
    for name in (
        "one-channel", "64-channels", "batch", "lstm", "float64", "long-memory", "dense-128",
        "gradient-1", "gradient-64", "newton", "expansive",
    )
}  # fmt: skip
TINY = Case("tiny", "a small one", "gru", 40, 2)
