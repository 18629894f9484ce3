"""A Hypothesis state machine that compares tables with `.model.DictTables`. Needs Hypothesis."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

import nbps
from nbps.testing.consistency.model import Array, Barrier, Clock, DictTables, Get, Inc, Put, Reads, Step, perform

_SMALL = st.integers(-9, 9)


# Long because the class that it returns closes over what it was given.
def tables_machine(
    run: Callable[[Callable[[Any], Reads]], Sequence[Reads]],
    values: Callable[[], Mapping[str, Array]],
    tables: Sequence[nbps.Table],
    workers: int,
    staleness: float,
) -> type[RuleBasedStateMachine]:
    """Return the state machine for a system with these tables.

    Parameters
    ----------
    run : callable
        Calls the program that it is given in every worker, with that worker; returns the results in rank order.
    values : callable
        Returns the values of all tables by name, between runs.
    tables, workers, staleness
        What the system was started with.

    Examples
    --------
    ::

        with nbps.Job(tables, workers=2, consistency=nbps.SSP(1)) as job:
            values = lambda: {table.name: job.table(table.name).to_numpy() for table in tables}
            hypothesis.stateful.run_state_machine_as_test(tables_machine(job.run, values, tables, 2, staleness=1))
    """
    bounds = {table.name: staleness if table.staleness is None else table.staleness for table in tables}
    some_worker, some_table = st.integers(0, workers - 1), st.sampled_from(list(tables))

    class Tables(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.model = DictTables(values(), bounds)
            self.programs: list[list[Step]] = [[] for _ in range(workers)]

        @rule(rank=some_worker, table=some_table, data=st.data())
        def inc(self, rank: int, table: nbps.Table, data: st.DataObject) -> None:
            ids = data.draw(_rows(table, rank, workers))
            self.programs[rank].append(Inc(table.name, ids, data.draw(_matrix(len(ids), table.width))))

        @rule(rank=some_worker, table=some_table, data=st.data())
        def put(self, rank: int, table: nbps.Table, data: st.DataObject) -> None:
            if table.access == "exclusive":
                ids = data.draw(_rows(table, rank, workers))
                self.programs[rank].append(Put(table.name, ids, data.draw(_matrix(len(ids), table.width))))

        @rule(rank=some_worker, table=some_table, fresher=st.none() | st.integers(0, 2), data=st.data())
        def get(self, rank: int, table: nbps.Table, fresher: int | None, data: st.DataObject) -> None:
            ids = data.draw(st.lists(st.integers(0, table.rows - 1), min_size=1, max_size=3))
            self.programs[rank].append(Get(table.name, tuple(ids), fresher))

        @rule(rank=some_worker, wait=st.booleans())
        def clock(self, rank: int, wait: bool) -> None:
            self.programs[rank].append(Clock(wait))

        @rule()
        def barrier(self) -> None:
            # All have to be in one clock: who runs ahead would wait for the commits of those that wait for it.
            clocks = [sum(isinstance(step, Clock) for step in program) for program in self.programs]
            for program, clock in zip(self.programs, clocks, strict=True):
                program += [Clock()] * (max(clocks) - clock)
                program.append(Barrier())

        @rule()
        def run(self) -> None:
            programs, self.programs = self.programs, [[] for _ in range(workers)]
            results = run(functools.partial(perform, programs=programs))
            mistakes = self.model.mistakes(programs, results)
            mistakes += self.model.difference(values())
            assert not mistakes, "\n".join(mistakes)

        def teardown(self) -> None:
            if any(self.programs):
                self.run()

    return Tables


def _rows(table: nbps.Table, rank: int, workers: int) -> st.SearchStrategy[tuple[int, ...]]:
    """Row numbers that worker `rank` may change, and that may repeat; an exclusive row has one writer."""
    mine = range(rank, table.rows, workers) if table.access == "exclusive" else range(table.rows)
    return st.lists(st.sampled_from(mine), min_size=1, max_size=4).map(tuple)


def _matrix(rows: int, width: int) -> st.SearchStrategy[tuple[tuple[int, ...], ...]]:
    return st.tuples(*[st.tuples(*[_SMALL] * width)] * rows)
