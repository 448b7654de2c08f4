"""Kernels compiled for the processor at hand, and what they are made of."""
