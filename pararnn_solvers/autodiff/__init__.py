"""Exact derivatives of plain NumPy code."""
