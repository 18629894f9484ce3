"""A table as the driver of a job sees it: read, copied and saved while the job is open."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nbps.errors import JobClosedError
from nbps.memory.files import write_files
from nbps.memory.layout import Layout
from nbps.memory.segments import Segment, attach
from nbps.tables.definition import Table
from nbps.tables.dense import whole_copy

if TYPE_CHECKING:
    import pyarrow as pa


_SHOWN_ROWS, _SHOWN_COLUMNS = 10, 12  # in a notebook


class JobTable:
    """A table as the driver sees it.

    It may be read at any time while the job is open; during a run its values are live.
    """

    def __init__(self, table: Table, segment: Segment, layout: Layout, values: npt.NDArray[Any]) -> None:
        self.table = table
        self.layout = layout
        self._segment = segment
        self._values: npt.NDArray[Any] | None = values

    @property
    def path(self) -> str:
        """The live table as an Arrow IPC file that any program can memory-map while the job is open."""
        self._live()
        return str(self._segment.path)

    def to_numpy(self) -> npt.NDArray[Any]:
        """Return a copy of the values, shape (rows, width)."""
        return self._live().copy()

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Return what `to_numpy` does: this is what ``numpy.asarray(table)`` is."""
        return whole_copy(self.table.name, self.to_numpy(), dtype, copy)

    def __repr__(self) -> str:
        closed = "" if self._values is not None else "; its job was closed"
        return f"<JobTable {self._title()}{closed}>"

    def _repr_html_(self) -> str:
        """Return the first rows and columns for a notebook."""
        table, values = self.table, self._live()[:_SHOWN_ROWS, :_SHOWN_COLUMNS]
        more = "<td>...</td>" if table.width > _SHOWN_COLUMNS else ""
        lines = [
            f"<tr><th>{row}</th>{''.join(f'<td>{value:g}</td>' for value in each)}{more}</tr>"
            for row, each in enumerate(values)
        ]
        left = table.rows - len(values)
        note = f"<p>and {left:,} more rows</p>" if left else ""
        return f"<p>{html.escape(self._title())}</p><table>{''.join(lines)}</table>{note}"

    def _title(self) -> str:
        table = self.table
        return f"{table.name!r}: {table.rows} x {table.width} {table.dtype}, {table.access}"

    def rows(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Return a copy of rows `ids`, shape (ids.size, width)."""
        return self._live()[ids]

    def live(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Return rows `ids`, which rise: where none is left out between them without a copy, which may not fit."""
        if ids.size and ids[-1] - ids[0] == ids.size - 1:
            return self._live()[ids[0] : ids[-1] + 1]
        return self._live()[ids]

    def to_arrow(self) -> pa.Table:
        """Return a copy as an Arrow table with one column, named as the table, of fixed-size lists."""
        import pyarrow as pa

        from nbps.memory.arrow import to_lists

        return pa.table({self.table.name: to_lists(self.to_numpy())})

    def save(self, path: str | Path) -> None:
        """Write the table to `path` as an Arrow IPC file; `nbps.init.from_file` and any Arrow reader read it."""
        self._live()
        write_files({Path(path): attach(self._segment.name, writable=False)})

    def _live(self) -> npt.NDArray[Any]:
        if self._values is None:
            raise JobClosedError(
                f"table {self.table.name!r}: the job was closed and its memory given back; copy it with to_numpy() or "
                f"save() before the `with` block ends"
            )
        return self._values

    def close(self) -> None:
        """Let go of the memory, which the job gives back."""
        self._values = None
