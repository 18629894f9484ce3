"""Tables of real jobs against a dict of integers; the dict itself, and its eye for mistakes, on small runs by hand."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

import nbps
from nbps.testing.consistency.machine import tables_machine
from nbps.testing.consistency.model import Barrier, Clock, DictTables, Get, Inc, Put, perform
from support import toy

TABLES = [
    nbps.Table("direct", 3, 2, dtype="int64"),
    nbps.Table("cached", 2, 3, dtype="float64", access="cached"),
    nbps.Table("exclusive", 4, 1, dtype="int32", access="exclusive"),
    nbps.Table("fresh", 2, 1, dtype="float32", access="cached", staleness=0),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "workers"), [(nbps.SSP(1), 3), (nbps.ESSP(2), 2), (nbps.ASP(), 3), (nbps.BSP(), 2)], ids=str
)
def test_tables_of_a_job_are_a_dict_of_integers(model, workers):
    """Programs of random steps: every read is one that the staleness allows, and the end is exact."""
    tables = [table for table in TABLES if table.access == "cached" or not isinstance(model, nbps.BSP)]
    jobs = []  # Hypothesis keeps the machine for good; it must not keep the job

    def values():
        return {table.name: jobs[0].table(table.name).to_numpy() for table in tables}

    machine = tables_machine(lambda program: jobs[0].run(program), values, tables, workers, model.staleness)
    with nbps.Job(tables, workers=workers, consistency=model, clock_timeout_s=60) as job:
        jobs.append(job)
        run_state_machine_as_test(machine, settings=settings(deadline=None))
    jobs.clear()


@pytest.mark.parametrize("bug", ["P1", "P2", "P3", "P4 lost", "P4 doubled"])
def test_the_state_machine_finds_the_bugs_of_the_toy(bug):
    """Planted in a server of a third party: the machine fails, and its message says which read or element."""
    tables = [nbps.Table("cached", 2, 2, dtype="int64", access="cached")]
    last = {}

    def run(program):
        results, last["values"] = toy.run(program, 2, nbps.SSP(0), tables, bug)
        return results

    def values():
        return last.pop("values", {"cached": np.zeros((2, 2), np.int64)})

    machine = tables_machine(run, values, tables, 2, 0)
    with pytest.raises(AssertionError, match="expected"):
        # Without shrinking, which takes ten seconds: thousands of runs of threads.
        run_state_machine_as_test(
            machine, settings=settings(max_examples=300, deadline=None, database=None, phases=[Phase.generate])
        )


def result(programs, staleness=0):
    """Return what a toy server reads and leaves."""
    tables = [nbps.Table("t", 2, 1, dtype="int64", access="cached")]
    reads, values = toy.run(functools.partial(perform, programs=programs), len(programs), nbps.SSP(staleness), tables)
    return reads, values


def test_a_run_is_explained():
    """Repeating ids accumulate, reads of earlier clocks are exact under staleness 0, runs follow each other."""
    one = [Inc("t", (0, 0), ((1,), (2,))), Get("t", (0,)), Clock(), Barrier(), Get("t", (0, 1))]
    two = [Inc("t", (1,), ((5,),)), Clock(), Barrier(), Get("t", (1, 0))]
    reads, values = result([one, two])
    assert reads == [[[[3]], [[3], [5]]], [[[5], [3]]]]
    model = DictTables({}, {"t": 0})
    assert model.mistakes([one, two], reads) == []
    assert model.difference(values) == []
    assert model.values == {("t", 0, 0): 3, ("t", 1, 0): 5}
    assert model.mistakes([[Get("t", (0,))], []], [[[[3]]], []]) == []


@pytest.mark.parametrize(("staleness", "allowed"), [(0, {3}), (1, {1, 3}), (2, {0, 1, 3}), (float("inf"), {0, 1, 3})])
def test_a_read_may_show_any_first_part_that_is_not_too_old(staleness, allowed):
    """Worker 1 adds 1 and then 2 in clocks 0 and 1; worker 0 reads at clock 2."""
    programs = [[Clock(), Clock(), Get("t", (0,))], [Inc("t", (0,), ((1,),)), Clock(), Inc("t", (0,), ((2,),))]]
    for value in range(-1, 5):
        mistakes = DictTables({}, {"t": staleness}).mistakes(programs, [[[[value]]], []])
        assert (mistakes == []) == (value in allowed)


def test_a_put_is_what_its_writer_reads_and_others_may():
    """An exclusive row after put and inc, from values of an earlier run."""
    model = DictTables({"t": np.array([[7]])}, {"t": 0})
    programs = [[Put("t", (0,), ((4,),)), Get("t", (0,)), Inc("t", (0,), ((1,),))], [Get("t", (0,))]]
    for mine, other in [(4, 7), (4, 4), (4, 5)]:
        fresh = DictTables({"t": np.array([[7]])}, {"t": 0})
        assert fresh.mistakes(programs, [[[[mine]]], [[[other]]]]) == []
    assert len(model.mistakes(programs, [[[[7]]], [[[6]]]])) == 2
    assert model.difference({"t": np.array([[5]])}) == []
    assert model.difference({"t": np.array([[6]])}) == ["table 't', row 0, column 0: expected 5, found 6"]
