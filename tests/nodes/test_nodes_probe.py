"""The promises to the worker (P1 to P5, drift) on several nodes: what every worker of every node saw, in one history.

Nodes that carry out many jobs are started once for each transport; every job has runs of the probe with and without
naps, then others that count. The tests judge what came of it.
"""

from __future__ import annotations

import collections
from functools import reduce
from operator import add

import numpy as np
import pytest

import nbps
from nbps.testing.chaos.nodes import NodeJob, ProbeRun, run_on_nodes
from nbps.testing.consistency.history import Read
from nbps.testing.consistency.probe import UNITS, Plan
from support import planted_nodes, probing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # the first test waits for all jobs
TCP = [nbps.SSP(1), nbps.ESSP(2), nbps.ASP(), nbps.BSP(), nbps.VAP(40.0 * UNITS["int64"][0])]
SHM = [nbps.SSP(2), nbps.ESSP(0), nbps.BSP()]
CASES = [("tcp", n) for n in range(len(TCP))] + [("shm", n) for n in range(len(SHM))]
NAMES = [f"{transport} {(TCP if transport == 'tcp' else SHM)[n]}" for transport, n in CASES]
NAPS = Plan(clocks=15, operations=3, sleep_s=0.003, seed=1)
HASTE = Plan(clocks=25, operations=4, no_wait=0.5, barriers=0.05, seed=2)


def job(model, workers):
    """Return a job with runs of the probe on all kinds of tables, then of programs that count."""
    everybody = sum(workers)
    tables = probing.node_tables(everybody, access=probing.modes(model))
    if model == nbps.SSP(1):  # one that is stricter than its job, and other element types
        tables += probing.renamed(probing.node_tables(everybody, 2, ("cached",), ("block",), staleness=0), "strict")
        for dtype in ("float32", "int32"):
            tables += probing.renamed(probing.node_tables(everybody, 2, shardings=("hash",), dtype=dtype), dtype)
    names = tuple(table.name for table in tables)
    runs = [ProbeRun(NAPS, names), ProbeRun(HASTE, names), probing.add_much, probing.add_up]
    tables += probing.counted_tables(model)
    if isinstance(model, nbps.BSP):
        tables += probing.LEARNED
        runs += [probing.learn_first, probing.learn_again]
    return NodeJob(model, tables, workers, runs)


@pytest.fixture(scope="module")
def outcomes():
    """Carry out all jobs, by transport: on 2 nodes with 2 workers and 1, and on 3 nodes with 1 each."""
    return {
        "tcp": run_on_nodes([job(model, [2, 1]) for model in TCP], 2, transport="tcp"),
        "shm": run_on_nodes([job(model, [1, 1, 1]) for model in SHM], 3, transport="shm"),
    }


@pytest.fixture(params=CASES, ids=NAMES)
def outcome(request, outcomes):
    """Return what came of one job."""
    transport, number = request.param
    return outcomes[transport][number]


def test_every_read_on_every_node_keeps_the_promises(outcome):
    """P1 to P5, drift and under VAP the value bound, over all workers, in every access mode and sharding."""
    assert [error for error in outcome.errors if error is not None] == []
    shown = "\n".join(f"{found.property}: {found.message}" for found in outcome.violations[:10])
    assert outcome.violations == [], f"{len(outcome.violations)} violations in {outcome.job}\n{shown}"
    for run in outcome.runs[:2]:
        read = collections.Counter(entry.table for entry in run.entries if isinstance(entry, Read))
        assert len({entry.worker for entry in run.entries}) == sum(outcome.job.workers)
        assert sum(read.values()) > 200
        assert len(read) >= len(probing.modes(outcome.job.model))


def test_sums_are_exact_and_the_same_on_all_nodes(outcome):
    """Workers of all nodes add to the same rows without a pause: integers are exact, floats equal to the bit."""
    run = outcome.runs[2]
    assert len(run.results) == sum(outcome.job.workers)
    for name in run.results[0]:
        expected = sum(result[name] for result in run.results)
        for end in run.ends:
            np.testing.assert_array_equal(end[name], expected)
    for table in outcome.job.tables:
        first, *others = [end[table.name].tobytes() for end in run.ends]
        assert others == [first] * len(others)


def test_workers_of_all_nodes_add_up_to_the_same_bits(outcome):
    """`Worker.sum` gives every worker of every node what adding in the order of ranks gives."""
    results = outcome.runs[3].results
    workers = sum(outcome.job.workers)
    assert len(results) == workers
    assert all(result == results[0] for result in results)
    numbers = [np.random.default_rng(rank) for rank in range(workers)]
    *small, large = results[0]
    for number, array in zip(small[::2], small[1::2], strict=True):
        assert number == reduce(
            add, (draw.random() for draw in numbers)
        )  # sum() corrects its rounding from Python 3.12 on
        assert array == sum(draw.integers(-9, 9, (2, 3)) for draw in numbers).tolist()
    assert large == sum(draw.random(6000) for draw in numbers).tobytes()


@pytest.mark.parametrize("transport", ["tcp", "shm"])
def test_bsp_has_the_same_bits_whatever_the_timing(outcomes, transport):
    """Under BSP two runs with other naps read the same bits in every clock, on all nodes, and end with them."""
    (outcome,) = [found for found in outcomes[transport] if found.job.model == nbps.BSP()]
    first, again = outcome.runs[4:]
    assert len({*first.results, *again.results}) == 1
    assert len(first.results) == sum(outcome.job.workers)
    for dtype in ("float32", "float64"):
        ends = {end[f"learned first {dtype}"].tobytes() for end in first.ends}
        ends |= {end[f"learned again {dtype}"].tobytes() for end in again.ends}
        assert len(ends) == 1


def test_planted_faults_are_found():
    """Of each fault in agents or workers, alone in a run, the history shows something; without one it shows nothing."""
    faults = list(planted_nodes.FAULTS)
    tables = [probing.renamed(probing.node_tables(3, 3, ("direct", "cached")), fault) for fault in faults]
    plan = Plan(clocks=15, operations=3, sleep_s=0.004)
    runs = [ProbeRun(plan, tuple(table.name for table in own)) for own in tables]
    planted = NodeJob(
        nbps.ESSP(1), [table for own in tables for table in own], [1, 1, 1], runs, preload=planted_nodes.plant
    )
    found: dict[str, set[str]] = {fault: set() for fault in faults}
    for _ in range(3):  # some are races
        (outcome,) = run_on_nodes([planted], 3)
        assert outcome.errors == [None] * 3
        for fault, run in zip(faults, outcome.runs, strict=True):
            found[fault] |= {violation.property for violation in run.violations}
        missed = [fault for fault in faults if not found[fault]]
        if missed == ["no fault"]:
            break
    assert missed == ["no fault"], found
