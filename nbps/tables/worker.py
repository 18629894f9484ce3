"""A worker's view of one table: `get`, `inc`, `put`, and the arrays for kernels; live rows or a copy."""

from __future__ import annotations

import operator
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from nbps.consistency import check_staleness
from nbps.errors import TableError
from nbps.kernels import copies, rows
from nbps.memory.segments import attach
from nbps.runtime.clock import Clock
from nbps.tables.dense import whole_copy
from nbps.tables.placed import PlacedTable
from nbps.tables.shared import SharedRows

Array = npt.NDArray[Any]


class WorkerTable:
    """A table as a worker reads and changes it.

    Attributes
    ----------
    definition : TableDefinition
    name : str
    shape : (int, int)
        Rows and width.
    dtype : numpy.dtype
    kernel : nbps.kernels.TableKernel
        What jitted code hands to `nbps.kernels.get_row`, `inc_row`, ...; valid until the job ends. It reads what the
        worker's clock let in; ids are not checked there. Rows of ``direct`` tables of width 2 or more are read by
        `get_row`: ``kernel.values`` may lack what this worker has put aside for a moment, as another one was adding.
    """

    def __init__(self, clock: Clock, placed: PlacedTable, shared: SharedRows, kernel: rows.TableKernel) -> None:
        self.definition = definition = placed.definition
        self.name = definition.name
        self.shape = shared.values.shape
        self.dtype = shared.values.dtype
        self.kernel = kernel
        self._shared = shared
        self._clock = clock
        if shared.aside is not None:
            clock.add_aside(self.name, shared.aside)
        self._copy: int | None = None  # the clock's number of this table's copy, if it has one
        self._check_finite = definition.check_finite
        self._states = None if placed.states is None else attach(placed.states)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        """Return a copy of all rows, as `get` reads them: this is what ``numpy.asarray(table)`` is."""
        return whole_copy(self.name, self.get(np.arange(self.shape[0])), dtype, copy)

    def __getitem__(self, ids: object) -> NoReturn:
        """Refuse; what a read costs and shows is to be seen in the program."""
        raise TableError(
            f"table {self.name!r}: a WorkerTable takes no indices; use get(ids) to read rows and inc(ids, deltas) to "
            f"add to them"
        )

    def __setitem__(self, ids: object, values: object) -> NoReturn:
        """Refuse, as reading by index."""
        self.__getitem__(ids)

    def __repr__(self) -> str:
        return f"<WorkerTable {self.name!r}: {self.shape[0]} x {self.shape[1]} {self.dtype}, {self.definition.access}>"

    def get(self, ids: npt.ArrayLike, staleness: float | None = None) -> Array:
        """Return a copy of rows.

        Parameters
        ----------
        ids : int or array_like of int, shape (n,)
            Row numbers; they may repeat.
        staleness : int, optional
            Staleness of this read where it must be fresher than the table's; waits for it.

        Returns
        -------
        ndarray, shape (n, width), or (width,) for a single id

        Raises
        ------
        TableError
            If an id is out of range or not an integer.

        Notes
        -----
        *Consistency.* At clock c the result holds every update of every worker from clocks < c - s, all of this
        worker's own, and maybe later ones (SSP, Ho et al. 2013).
        """
        if staleness is not None:
            staleness = check_staleness(staleness, f"table {self.name!r}.get")
        numbers = self._checked_ids(ids)
        if self._states is not None:
            self._clock.fetch(self._states, numbers)
        self._clock.read(staleness, self._copy)
        out = np.empty((numbers.size, self.shape[1]), self.dtype)
        rows.get_rows(self.kernel, numbers, out)
        return out[0] if np.ndim(ids) == 0 else out

    def fetch(self, ids: npt.ArrayLike) -> None:
        """Have rows here, for kernels that read them; `get` does so by itself.

        In a table with ``replicate="read"`` rows of other nodes come when they are asked for and are kept fresh as long
        as `get` or `fetch` names them now and then; in other tables all rows are here.

        Parameters
        ----------
        ids : int or array_like of int, shape (n,)
        """
        numbers = self._checked_ids(ids)
        if self._states is not None:
            self._clock.fetch(self._states, numbers)

    def inc(self, ids: npt.ArrayLike, deltas: npt.ArrayLike) -> None:
        """Add `deltas` to rows; ids that repeat accumulate. Published by the worker's next ``clock()``.

        Parameters
        ----------
        ids : int or array_like of int, shape (n,)
        deltas : array_like, shape (n, width); (width,) or a number for every row; (n,) where the width is 1
            Cast to the table's dtype where that keeps the kind (no floats into integers).

        Raises
        ------
        TableError
            If an id or the shape, dtype or (with ``check_finite``) a value of `deltas` is wrong; nothing was added.
        """
        numbers = self._checked_ids(ids)
        rows.inc_rows(self.kernel, numbers, self._checked_deltas(numbers, deltas))

    def mark(self, first: int, last: int) -> None:
        """Say that rows `first` to `last` - 1 were changed by kernels that write to ``kernel.values`` themselves.

        `inc`, `put` and the kernels of `nbps.kernels` say so themselves. Changes that nobody marked do not reach other
        nodes; on a single box this does nothing.

        Raises
        ------
        TableError
            If there are no such rows.
        """
        try:
            inside = 0 <= operator.index(first) <= operator.index(last) <= self.shape[0]
        except TypeError:
            inside = False
        if not inside:
            raise TableError(
                f"table {self.name!r}: mark({first!r}, {last!r}); expected whole numbers, 0 <= first <= last <= "
                f"{self.shape[0]}"
            )
        rows.mark_rows(self.kernel, first, last)

    def put(self, ids: npt.ArrayLike, values: npt.ArrayLike) -> None:
        """Overwrite rows of an ``exclusive`` table; shapes as in `inc`.

        Raises
        ------
        TableError
            If the table is not ``exclusive``: others add to its rows, and overwriting would lose that.
        """
        raise TableError(
            f"table {self.name!r}: put() overwrites what other workers add; use inc(), or access='exclusive'"
        )

    def _checked_ids(self, ids: npt.ArrayLike) -> npt.NDArray[np.int64]:
        given = np.asarray(ids)
        if given.size == 0 and given.ndim == 1:
            return np.empty(0, np.int64)
        if given.dtype.kind not in "iu" or given.ndim > 1:
            raise TableError(
                f"table {self.name!r}: expected an integer id or a one-dimensional array of them, "
                f"found dtype {given.dtype} and shape {given.shape}"
            )
        # Kernels are compiled for one array type: a read-only array, as large arguments are, would compile them anew.
        numbers = np.require(given.reshape(-1), np.int64, ["C", "A", "W"])
        bad = rows.first_bad_id(numbers, self.shape[0])
        if bad >= 0:
            raise TableError(
                f"table {self.name!r}: id {given.reshape(-1)[bad]} at position {bad} is out of range; "
                f"expected 0 <= id < {self.shape[0]}"
            )
        return numbers

    def _checked_deltas(self, numbers: npt.NDArray[np.int64], deltas: npt.ArrayLike) -> Array:
        given = np.asarray(deltas)
        if not np.can_cast(given.dtype, self.dtype, "same_kind"):
            raise TableError(f"table {self.name!r}: deltas have dtype {given.dtype}; expected {self.dtype}")
        shape = (numbers.size, self.shape[1])
        if shape[1] == 1 and given.shape == numbers.shape:
            given = given[:, None]  # a number for each row of a table of width 1
        fits = given.ndim == 0 or given.shape in (shape[1:], shape)
        if not fits:
            raise TableError(
                f"table {self.name!r}: deltas have shape {given.shape}; expected {shape}, {shape[1:]} or a number"
            )
        if self.dtype.kind == "i" and given.size and given.dtype != self.dtype:
            limits = np.iinfo(self.dtype)
            low, high = int(given.min()), int(given.max())
            if low < limits.min or high > limits.max:
                raise TableError(
                    f"table {self.name!r}: deltas from {low} to {high}; expected numbers that fit {self.dtype}"
                )
        full = np.require(np.broadcast_to(given, shape), self.dtype, ["C", "A", "W"])
        if self._check_finite and self.dtype.kind == "f":
            bad = rows.first_not_finite(full)
            if bad >= 0:
                n, column = divmod(bad, shape[1])
                raise TableError(
                    f"table {self.name!r}: delta for row {numbers[n]}, column {column} is {full[n, column]}; "
                    f"expected finite numbers (check_finite is on)"
                )
        return full


class LiveTable(WorkerTable):
    """Rows in shared memory: access modes ``direct`` and ``exclusive``."""

    def __init__(self, clock: Clock, placed: PlacedTable, shared: SharedRows) -> None:
        super().__init__(clock, placed, shared, shared.kernel)

    def put(self, ids: npt.ArrayLike, values: npt.ArrayLike) -> None:
        """Overwrite rows of an ``exclusive`` table; shapes as in `inc`."""
        if self.kernel.atomic:
            super().put(ids, values)
        numbers = self._checked_ids(ids)
        rows.put_rows(self.kernel, numbers, self._checked_deltas(numbers, values))


class CachedTable(WorkerTable):
    """A private copy, sent and refreshed at clocks: access mode ``cached``; that of the table `before`, if any."""

    def __init__(
        self,
        clock: Clock,
        placed: PlacedTable,
        shared: SharedRows,
        staleness: float,
        first: int,
        before: CachedTable | None = None,
    ) -> None:
        parent = shared.values
        # What is in a copy is marked when it is sent.
        kernel = rows.TableKernel(parent.copy(), 0) if before is None else before.kernel
        super().__init__(clock, placed, shared, kernel)
        self._parent = shared.kernel
        self._base: Array = kernel.values.copy() if before is None else before._base
        self._first = first
        self._scratch = np.empty(parent.shape[1], parent.dtype)
        self._peaks = np.empty(parent.shape[1] if clock.core.terms.v0 is not None else 0)
        self._copy = clock.add_copy(self, staleness)

    def flush(self) -> tuple[int, float]:
        """Add what this worker changed to the shared rows; return how many rows that were, and their norm."""
        rows_sent, norm = copies.flush(
            self.kernel.values, self._base, self._parent, self._first, self._scratch, self._peaks
        )
        return rows_sent, norm

    def refresh(self) -> None:
        """Take in the shared rows."""
        copies.refresh(self.kernel.values, self._base, self._parent)
