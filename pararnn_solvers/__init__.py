"""Parallel solution of nonlinear recurrences."""
