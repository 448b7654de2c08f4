"""The benchmark on a GPU: the kernels of this package and its solves, beside what others have.

Organised as the CPU's, whose recurrences and data it takes: `cases` says what is computed,
`targets` what is asked for, `contestants` by whom; `work` holds the data and knows what is right;
`timing` checks every answer and then takes times by CUDA events, `report` and `picture` show them.
No module here imports CuPy, PyTorch or JAX before it is asked to compute.
"""
