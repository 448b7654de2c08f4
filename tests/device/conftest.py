"""Tests of this folder run on the double of CuPy, and on a GPU where there is one."""

from tests.cuda_on_cpu.fixtures import pytest_generate_tests  # noqa: F401
