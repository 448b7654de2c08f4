"""What is under each picture: texts that can be pasted into a paper as they are."""

from __future__ import annotations

CAPTIONS: dict[str, str] = {
    "plot_convergence": "Residual |F(h)| in the maximum norm, over all steps of time, against the "
    "iteration. A cross marks the end of an iteration that did not converge.",
    "plot_errors": "Error of each iterate (rows) at each step of time (columns) against the "
    "sequential rollout, in the maximum norm over the components of the state. The line bounds "
    "the exact prefix: steps that all agree with the rollout.",
    "plot_iterates": "Iterates of the whole trajectory, from the guess (faint) to the last "
    "(strong), and the sequential rollout (dotted).",
    "plot_iterations": "Iterations until the residual meets the tolerance at every step. A cross "
    "at the upper edge marks a solve that did not converge.",
    "plot_sparsity": "Entries of the Jacobian I - S A of the system F(h) = 0 for the first steps "
    "of time: the identity on the diagonal and -A_t, the derivative of step t by the state "
    "before it, below. Everything else is zero.",
    "plot_lyapunov": "Running estimate of the largest Lyapunov exponent per step: the mean "
    "logarithm of the growth of a perturbation that follows the linearized recurrence. The strip "
    "shows the growth in each single step, contraction in blue and expansion in red.",
    "plot_speed": "Time of a solve against the number of steps T. Medians; bands reach from the "
    "first to the third quartile.",
    "plot_times": "Time of a solve by method and backend. Medians; bars reach from the first to "
    "the third quartile. Open marks did not converge.",
    "plot_bench": "Time per step and channel by implementation. Medians; bars reach from the "
    "first to the third quartile.",
}
"""Name of each function -> its caption."""
