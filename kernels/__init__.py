"""Compiled kernels on tables and clocks, for use in jitted code of your own.

``table.kernel`` of a worker's table is a `TableKernel`; hand it to your own ``@njit(nogil=True)`` function and call
`get_row`, `inc_row`, ... there: a training loop without a Python call for each row. `table_like` gives one to compile
such a function with before there are workers.

``kernel.values`` of a ``direct`` table of width 2 or more is read-only: Numba refuses to compile a store to it, which
would lose what others add. Additions go through `inc_row` and `inc_rows`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .rows import TableKernel, get_row, get_rows, inc_row, inc_rows, put_row, put_rows, table_like

__all__ = ["TableKernel", "get_row", "get_rows", "inc_row", "inc_rows", "put_row", "put_rows", "table_like"]


def __getattr__(name: str) -> Any:
    # Importing Numba takes half a second: only a process that uses a kernel pays for it.
    if name in __all__:
        from . import rows

        return getattr(rows, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
