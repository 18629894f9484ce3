"""Tables as a dict of integers, and what a read may show of it; knows nothing of memory, clocks' boards or processes.

A run is one program for each worker: a list of `Inc`, `Put`, `Get`, `Clock` and `Barrier`. `perform` carries one out on
any object with the worker's API. `DictTables` says afterwards whether what was read, and the end, can have come about:
the end exactly, a read as one of all states that the staleness allows.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Element = tuple[str, int, int]  # table, row, column


class Inc(NamedTuple):
    """Add ``deltas[n]`` to row ``ids[n]``; ids may repeat."""

    table: str
    ids: tuple[int, ...]
    deltas: tuple[tuple[int, ...], ...]


class Put(NamedTuple):
    """Overwrite row ``ids[n]`` with ``values[n]``; the last of equal ids stays."""

    table: str
    ids: tuple[int, ...]
    values: tuple[tuple[int, ...], ...]


class Get(NamedTuple):
    """Read rows, maybe under a staleness of the read's own."""

    table: str
    ids: tuple[int, ...]
    staleness: int | None = None


class Clock(NamedTuple):
    """End a unit of work."""

    wait: bool = True


class Barrier(NamedTuple):
    """Meet all others; all have to be in the same clock."""


Step = Inc | Put | Get | Clock | Barrier
Reads = list[list[list[float]]]  # one matrix for each `Get`


def perform(worker: Any, programs: Sequence[Sequence[Step]]) -> Reads:
    """Carry out the program of ``worker.rank`` and return what its gets returned."""
    reads = []
    for step in programs[worker.rank]:
        match step:
            case Inc(table, ids, deltas):
                worker.table(table).inc(np.array(ids, np.int64), np.array(deltas, np.int32))
            case Put(table, ids, values):
                worker.table(table).put(np.array(ids, np.int64), np.array(values, np.int32))
            case Get(table, ids, None):
                reads.append(worker.table(table).get(list(ids)).tolist())
            case Get(table, ids, staleness):
                reads.append(worker.table(table).get(list(ids), staleness=staleness).tolist())
            case Clock(wait):
                worker.clock(wait=wait)
            case Barrier():
                worker.barrier()
    return reads


class _Written(NamedTuple):
    """What one worker did to one element: sums after each change, from what it found, and the clocks of the changes."""

    sums: list[int]
    clocks: list[int]


class DictTables:
    """Tables of a job between runs.

    Attributes
    ----------
    values : dict of (str, int, int) to int
        By table, row and column; what is not there is 0.
    staleness : dict of str to float
        Of each table.
    """

    def __init__(self, values: Mapping[str, Array], staleness: Mapping[str, float]) -> None:
        self.values = {
            (table, row, column): int(value)
            for table, matrix in values.items()
            for (row, column), value in np.ndenumerate(matrix)
            if value != 0
        }
        self.staleness = dict(staleness)

    def mistakes(self, programs: Sequence[Sequence[Step]], results: Sequence[Reads]) -> list[str]:
        """Say what of the reads in `results` no schedule of `programs` explains, and take over the end."""
        written = [self._written(program) for program in programs]
        found = []
        for rank, (program, reads) in enumerate(zip(programs, results, strict=True)):
            found += self._read_mistakes(rank, program, reads, written)
        for one in written:
            for element, changes in one.items():
                start = changes.sums[0]
                self.values[element] = self.values.get(element, 0) + changes.sums[-1] - start
        return found

    def difference(self, values: Mapping[str, Array]) -> list[str]:
        """Say where `values`, of all tables after a run, differ from these."""
        return [
            f"table {table!r}, row {row}, column {column}: expected {expected}, found {value}"
            for table, matrix in values.items()
            for (row, column), value in np.ndenumerate(matrix)
            if value != (expected := self.values.get((table, row, column), 0))
        ]

    def _written(self, program: Sequence[Step]) -> dict[Element, _Written]:
        done: dict[Element, _Written] = {}
        clock = 0
        for step in program:
            if isinstance(step, Clock):
                clock += 1
            elif isinstance(step, (Inc, Put)):
                for row, numbers in zip(step.ids, step[2], strict=True):
                    for column, number in enumerate(numbers):
                        element = (step.table, row, column)
                        start = self.values.get(element, 0) if isinstance(step, Put) else 0
                        changes = done.setdefault(element, _Written([0], []))
                        # A put in an exclusive row, whose only writer this is, adds what leads to the new value.
                        changes.sums.append(number - start if isinstance(step, Put) else changes.sums[-1] + number)
                        changes.clocks.append(clock)
        return done

    def _read_mistakes(
        self, rank: int, program: Sequence[Step], reads: Reads, written: Sequence[dict[Element, _Written]]
    ) -> list[str]:
        found = []
        remaining = iter(reads)
        for n, step in enumerate(program):
            if not isinstance(step, Get):
                continue
            own = self._written(program[:n])
            clock = sum(isinstance(earlier, Clock) for earlier in program[:n])
            staleness = self.staleness[step.table]
            needed = clock - (staleness if step.staleness is None else min(staleness, step.staleness))
            for row, numbers in zip(step.ids, next(remaining), strict=True):
                for column, number in enumerate(numbers):
                    element = (step.table, row, column)
                    mine = own[element].sums[-1] if element in own else 0
                    allowed = self._allowed(element, mine, needed, [*written[:rank], *written[rank + 1 :]])
                    if number not in allowed:
                        found.append(
                            f"worker {rank}, step {n}, {step}: row {row}, column {column} is {number}; "
                            f"expected one of {sorted(allowed)}"
                        )
        return found

    def _allowed(
        self, element: Element, mine: int, needed: float, others: Sequence[dict[Element, _Written]]
    ) -> set[int]:
        """Every value that own changes and, of each other worker, a first part of its own may give."""
        parts = []
        for other in others:
            if element in other:
                sums, clocks = other[element]
                least = sum(clock < needed for clock in clocks)
                parts.append(sums[least:])
        start = self.values.get(element, 0) + mine
        return {start + sum(part) for part in itertools.product(*parts)}
