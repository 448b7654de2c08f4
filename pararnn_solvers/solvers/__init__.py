"""Nonlinear solvers."""
