"""What workers added and read, and whether it keeps the promises.

A `History` is recorded while workers run, by a probe or a simulator, on any transport; `check` reads it afterwards and
needs nothing of the system that made it. Every worker adds only to its own column of the rows of probe tables, so a
read says how much of each worker it shows.

The ideas are those of Jepsen's checkers. *counter*: a read lies between what must have arrived and what was begun, and
the end is the exact sum. *set*: every addition is accounted for once; additions of different sizes are told apart
by their sums. *queue*: per worker and row the order is kept, so whoever sees an addition sees all earlier ones.

Standard library only, and linear in the number of entries: the simulator checks millions of them.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from operator import attrgetter, contains, gt, lt
from typing import NamedTuple


class Add(NamedTuple):
    """Worker `worker` at clock `clock` adds `count` >= 1 to its column; recorded before the addition begins.

    One entry for each addition to a row: an ``inc`` in which a row occurs twice is two of them.
    """

    worker: int
    clock: int
    table: str
    row: int
    count: int  # type: ignore[assignment]  # hides tuple.count
    time: float


class Read(NamedTuple):
    """Worker `worker` at clock `clock` has read a row.

    Attributes
    ----------
    worker, clock : int
    table : str
    row : int
    values : tuple of int
        What was added by each worker, as read.
    staleness : float
        The bound of this read; `math.inf` for none.
    time : float
        When the read had ended.
    visible : int, optional
        The clock up to which the system said the read is complete.
    began : float, optional
        When the read began; else the time of this worker's entry before. Needed for value bounds only.
    """

    worker: int
    clock: int
    table: str
    row: int
    values: tuple[int, ...]
    staleness: float
    time: float
    visible: int | None = None
    began: float | None = None


class Torn(NamedTuple):
    """Worker `worker` has read an element that no number of additions of `unit` gives; -1: found after the end."""

    worker: int
    clock: int
    table: str
    row: int
    column: int
    value: float
    unit: float
    time: float


class Passed(NamedTuple):
    """Worker `worker` was let into `clock`; recorded after that, and never for a clock whose gate it has not passed.

    With ``clock(wait=False)`` that is after the first read of the clock, or not at all.
    """

    worker: int
    clock: int
    time: float


Entry = Add | Read | Torn | Passed
RowKey = tuple[str, int]  # a table's name and a row


@dataclass
class History:
    """What happened in one run.

    Attributes
    ----------
    workers : int
        Their number, and that of the columns of a row.
    entries : list of Entry
        Those of one worker in its program's order, with times that never fall; workers mixed in any way.
    final : dict of (str, int) to tuple of int, optional
        What rows held after the end; None if that is not known.
    staleness : float
        The bound of the clock's gate; `math.inf` for none.
    value_bound : float, optional
        v0 of VAP, in counts.
    lost : set of int
        Workers that did not come to their end: what they added last may or may not be there.
    """

    workers: int
    entries: list[Entry] = field(default_factory=list)
    final: dict[RowKey, tuple[int, ...]] | None = None
    staleness: float = math.inf
    value_bound: float | None = None
    lost: set[int] = field(default_factory=set)


class Violation(NamedTuple):
    """A promise that was broken.

    Attributes
    ----------
    property : str
        ``P1`` staleness bound, ``P2`` read-my-writes, ``P3`` monotone reads, ``P4`` nothing lost, doubled, invented or
        out of order, ``P5`` no tearing, ``drift`` between workers, ``visible`` (a read lacks what the system says it
        holds), ``VAP`` value bound.
    message : str
        What, which, expected and found.
    entry : Entry, optional
        The entry at which it shows; None for the state after the end.
    """

    property: str
    message: str
    entry: Entry | None


def check(history: History) -> list[Violation]:
    """Return every promise that `history` shows broken; empty if none.

    Only what the times allow is concluded: an `Add` begins after its time, a `Read` ends before its own.

    Raises
    ------
    ValueError
        If an entry names a worker, or has a number of values, that does not fit the number of workers.
    """
    return _Checker(history).violations()


class _Row:
    """What is known of one row: all additions, and in time order what was added so far and read last."""

    __slots__ = ("added", "clocks", "floors", "last", "sums", "times", "totals")

    def __init__(self, workers: int) -> None:
        self.clocks: list[list[int]] = [[] for _ in range(workers)]  # of every addition of a worker
        self.times: list[list[float]] = [[] for _ in range(workers)]
        self.totals: list[list[int]] = [[0] for _ in range(workers)]  # before its first addition, after it, ...
        self.sums: list[set[int]] = [{0} for _ in range(workers)]  # the same as a set
        self.floors: dict[float, tuple[int, ...]] = {}
        self.added = [0] * workers
        self.last: dict[int, tuple[int, ...]] = {}  # by reader

    def before(self, worker: int, clock: float) -> int:
        """Return the sum of what `worker` added in clocks < `clock`."""
        return self.totals[worker][bisect_left(self.clocks[worker], clock)]

    def floor(self, clock: float) -> tuple[int, ...]:
        """Return the sums of what all workers added in clocks < `clock`."""
        found = self.floors.get(clock)
        if found is None:
            found = self.floors[clock] = tuple(self.before(worker, clock) for worker in range(len(self.clocks)))
        return found


class _Checker:
    """One pass over the entries to know all additions, one in time order to judge."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.workers = history.workers
        # Stable: the program's order of a worker stays. Entries that are in order already cost one look each.
        self.entries = sorted(history.entries, key=attrgetter("time"))
        self.rows: dict[RowKey, _Row] = {}
        self.passes: list[tuple[list[float], list[int]]] = [([], []) for _ in range(self.workers)]
        self.reached = [0] * self.workers  # the last clock of each worker
        self.previous = [-math.inf] * (self.workers + 1)  # time of each worker's entry before; the last is nobody's
        self.active: list[tuple[int, Entry]] = []  # clocks, rising, and the last entry of any worker up to that clock
        self.found: list[Violation] = []
        self._collect()

    def violations(self) -> list[Violation]:
        """Judge all entries in the order of their times, then the state after the end."""
        judge: dict[type, Callable[..., None]] = {
            Add: self._add,
            Read: self._read,
            Torn: self._torn,
            Passed: self._passed,
        }
        for entry in self.entries:
            judge[type(entry)](entry)
            self.previous[entry.worker] = entry.time
        self.found += self._final_violations()
        return self.found

    def _collect(self) -> None:
        workers = range(self.workers)
        rows, reached = self.rows, self.reached
        last: dict[int, Entry] = {}
        for entry in self.entries:
            kind = type(entry)
            if entry.worker not in workers and (kind is not Torn or entry.worker != -1):
                raise ValueError(f"{entry}: expected workers 0 to {self.workers - 1}")
            if kind is Add:
                worker, clock, table, row, count, time = entry  # type: ignore[misc]
                state = rows.get((table, row))
                if state is None:
                    state = rows[table, row] = _Row(self.workers)
                state.clocks[worker].append(clock)
                state.times[worker].append(time)
                total = state.totals[worker][-1] + count
                state.totals[worker].append(total)
                state.sums[worker].add(total)
            elif kind is Passed:
                times, clocks = self.passes[entry.worker]
                times.append(entry.time)
                clocks.append(entry.clock)
            if entry.worker >= 0:
                last[entry.clock] = entry
                reached[entry.worker] = entry.clock
        latest: Entry | None = None
        for clock in sorted(last):
            if latest is None or last[clock].time > latest.time:
                latest = last[clock]
            self.active.append((clock, latest))

    def _row(self, table: str, row: int) -> _Row:
        state = self.rows.get((table, row))
        if state is None:
            state = self.rows[table, row] = _Row(self.workers)
        return state

    # ----------------------------------------------------------------- entries

    def _add(self, entry: Add) -> None:
        self.rows[entry.table, entry.row].added[entry.worker] += entry.count

    def _read(self, entry: Read) -> None:
        worker, clock, table, row, values, staleness, _, visible, _ = entry
        if len(values) != self.workers:
            raise ValueError(f"{entry}: expected {self.workers} values, one for each worker")
        state = self._row(table, row)
        added = state.added
        needed = clock - staleness
        if visible is not None and visible > needed:
            needed = visible
        last = state.last.get(worker, values)
        # Nearly every read is right: first whether anything at all is wrong, in few steps.
        if (
            values[worker] != added[worker]
            or any(map(gt, values, added))
            or any(map(lt, values, state.floor(needed)))
            or any(map(lt, values, last))
            or not all(map(contains, state.sums, values))
        ):
            self.found += self._read_violations(entry, state, last)
        if self.history.value_bound is not None:
            self.found += self._value_violations(entry, state, self.history.value_bound)
        state.last[worker] = values

    def _torn(self, entry: Torn) -> None:
        text = f"{_where(entry)} has {entry.value!r} in column {entry.column}; expected a multiple of {entry.unit!r}"
        self.found.append(Violation("P5", text, entry))

    def _passed(self, entry: Passed) -> None:
        needed = entry.clock - self.history.staleness
        n = bisect_left(self.active, needed, key=lambda found: found[0])
        if n == 0:
            return
        # Whoever did something in an earlier clock committed that clock only later.
        late = self.active[n - 1][1]
        if late.time > entry.time:
            text = (
                f"worker {entry.worker} was let into clock {entry.clock} by {entry.time!r} under staleness "
                f"{self.history.staleness}; expected all workers to have committed {needed:.0f} clocks, found worker "
                f"{late.worker} in clock {late.clock} at {late.time!r}"
            )
            self.found.append(Violation("drift", text, entry))

    # ----------------------------------------------------------------- what exactly is wrong

    def _read_violations(self, entry: Read, state: _Row, last: tuple[int, ...]) -> Iterator[Violation]:
        me, values, where = entry.worker, entry.values, _where(entry)
        if values[me] != state.added[me]:
            text = f"{where} shows {values[me]} of its own; expected exactly {state.added[me]}, what it added so far"
            yield Violation("P2", text, entry)
        for worker, value in enumerate(values):
            if value < (expected := state.before(worker, entry.clock - entry.staleness)):
                clocks = f"clocks < {entry.clock - entry.staleness}, staleness {entry.staleness}"
                text = f"{where} shows {value} of worker {worker}; expected at least {expected}, from its {clocks}"
                yield Violation("P1", text, entry)
            if entry.visible is not None and value < (expected := state.before(worker, entry.visible)):
                text = (
                    f"{where} shows {value} of worker {worker}, and was reported to hold all from clocks < "
                    f"{entry.visible}; expected at least {expected}"
                )
                yield Violation("visible", text, entry)
            if value < last[worker]:
                text = (
                    f"{where} shows {value} of worker {worker}; expected at least {last[worker]}, what it read before"
                )
                yield Violation("P3", text, entry)
            # Additions with the very time of the read may lie behind it in the list.
            times = state.times[worker]
            begun = state.totals[worker][bisect_left(times, True, key=lambda time: time > entry.time)]
            if worker != me and value > begun:
                text = f"{where} shows {value} of worker {worker}; expected at most {begun}, what it had begun to add"
                yield Violation("P4", text, entry)
            elif worker != me and value not in state.sums[worker]:
                n = bisect_left(state.totals[worker], value)
                around = f"{state.totals[worker][n - 1]} or {state.totals[worker][n]}" if n else "0"
                text = f"{where} shows {value} of worker {worker}; expected a sum of its first additions, as {around}"
                yield Violation("P4", text, entry)

    def _value_violations(self, entry: Read, state: _Row, v0: float) -> Iterator[Violation]:
        began = self.previous[entry.worker] if entry.began is None else entry.began
        for worker, (times, clocks) in enumerate(self.passes):
            n = bisect_left(times, began)
            if worker == entry.worker or n == 0 or (clock := clocks[n - 1]) < 1:
                continue
            # The clock entered last has the most additions before it and the lowest bound: it stands for all.
            missing = state.before(worker, clock) - entry.values[worker]
            if missing > v0 / math.sqrt(clock):
                text = (
                    f"{_where(entry)} lacks {missing} of what worker {worker} had committed when it was let into clock "
                    f"{clock}; expected at most v0 / sqrt({clock}) = {v0 / math.sqrt(clock):g}"
                )
                yield Violation("VAP", text, entry)

    def _final_violations(self) -> Iterator[Violation]:
        final = self.history.final
        if final is None:
            return
        for table, row in dict.fromkeys([*self.rows, *final]):
            state = self._row(table, row)
            where = f"after the end row {row} of table {table!r}"
            values = final.get((table, row))
            if values is None:
                yield Violation("P4", f"{where} is missing", None)
                continue
            for worker, value in enumerate(values):
                total = state.totals[worker][-1]
                if worker in self.history.lost:
                    # Its clocks before the last one it was seen in were committed.
                    least = state.before(worker, self.reached[worker])
                    wrong = not least <= value <= total or value not in state.sums[worker]
                    expected = f"a sum of its first additions from {least} to {total}, committed and added"
                else:
                    wrong, expected = value != total, f"exactly {total}, the sum of its additions"
                if wrong:
                    text = f"{where} has {value} of worker {worker}; expected {expected}"
                    yield Violation("P4", text, None)


def _where(entry: Read | Torn) -> str:
    who = "after the end" if entry.worker < 0 else f"worker {entry.worker} at clock {entry.clock}"
    return f"{who}: row {entry.row} of table {entry.table!r}"
