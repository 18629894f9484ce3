"""Compiled kernels on tables and clocks, for use in jitted code of your own.

``table.kernel`` of a worker's table is a `TableKernel`; hand it to your own ``@njit(nogil=True)`` function and call
`get_row`, `inc_row`, ... there: a training loop without a Python call for each row.
"""

from .rows import TableKernel, get_row, get_rows, inc_row, inc_rows, put_row, put_rows

__all__ = ["TableKernel", "get_row", "get_rows", "inc_row", "inc_rows", "put_row", "put_rows"]
