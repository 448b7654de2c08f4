"""Solvers of linear recurrences."""
