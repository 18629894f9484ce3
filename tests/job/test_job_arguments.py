"""What travels to workers and back: functions from anywhere, large arrays without copies, results, state."""

from __future__ import annotations

import gc
import math
import os
import random
import types
import weakref
from pathlib import Path

import numpy as np
import pytest

import nbps
from nbps.core.worker import Group, Publish
from support import tasks


@pytest.fixture(scope="module")
def job():
    """One running job without tables for all tests here."""
    with nbps.Job([], workers=3) as running:
        yield running


def test_results_come_in_rank_order(job):
    """One result for each worker, whoever ends first, with its rank, the size and its own process."""

    def me(worker):
        import time

        time.sleep(0.05 * (worker.size - worker.rank))
        return worker.rank, worker.size, worker.node, os.getpid()

    results = job.run(me)
    assert [result[:3] for result in results] == [(0, 3, 0), (1, 3, 0), (2, 3, 0)]
    assert len({os.getpid(), *(result[3] for result in results)}) == 4


def test_functions_of_a_notebook_work(job):
    """A function of a module that no file holds, with a global, a closure and a class of its own."""
    cell = types.ModuleType("__notebook__")
    exec(
        "factor = 10\n"
        "class Box:\n    def __init__(self, value): self.value = value\n"
        "def outer(extra):\n"
        "    def inner(worker, *, add): return Box(factor * worker.rank + extra + add)\n"
        "    return inner\n",
        cell.__dict__,
    )
    assert [type(box).__name__ for box in job.run(cell.outer(1), add=2)] == ["Box"] * 3
    assert [box.value for box in job.run(cell.outer(1), add=2)] == [3, 13, 23]


def test_large_arrays_arrive_once_read_only_and_whole(job):
    """One mapping for all uses: the same array given twice is one, and nobody can write."""
    large = np.arange(100_000.0)
    fortran = np.asfortranarray(large.reshape(250, 400))
    strided = large[::3]

    def look(worker, first, second, nested):
        mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if "arguments" in line]
        return (
            first.flags.writeable, first.ctypes.data == second.ctypes.data, first.ctypes.data % 64,
            first.sum(), nested["fortran"].flags.f_contiguous,
            nested["fortran"].sum(), nested["strided"].sum(), len(mapped),
        )  # fmt: skip

    expected = (False, True, 0, large.sum(), True, large.sum(), strided.sum(), 1)
    assert job.run(look, large, large, {"fortran": fortran, "strided": strided}) == [expected] * 3
    assert all(large == np.arange(100_000.0))


@pytest.mark.parametrize("size", [0, 10, 100_000])
def test_all_arrays_arrive_read_only(job, tmp_path, size):
    """Whatever their size and layout, and whether they are arguments or in a closure; the values are the same."""
    plain = np.arange(2.0 * size)
    np.save(tmp_path / "mapped.npy", plain)
    mapped = np.load(tmp_path / "mapped.npy", mmap_mode="r") if size else plain
    arrays = [
        plain, plain[::2], plain.reshape(2, size).T, plain.reshape(2, size)[:, ::-1], mapped, plain.astype("M8[s]"),
        np.zeros(size, [("a", "i1"), ("b", "f8")]), np.ones(()), np.arange(size) % 3 == 0,
    ]  # fmt: skip

    def look(worker, given):
        return [array.flags.writeable for array in (*given, *arrays)], given

    for writable, seen in job.run(look, arrays):
        assert writable == [False] * (2 * len(arrays))
        for found, expected in zip(seen, arrays, strict=True):
            assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
            assert (found == expected).all()


def test_arrays_of_objects_travel_as_well(job):
    """Their elements are pickled; there is no memory that could be shared."""
    assert job.run(lambda worker, array: array[1], np.array(["a", 0, {"b": 1}], object)[::2]) == [{"b": 1}] * 3


def test_read_only_arrays_can_be_used_as_ids_and_deltas():
    """Slices of large arguments go straight into get and inc, and no kernel is compiled anew for them."""

    def use(worker, ids, deltas):
        from nbps.kernels import rows

        table = worker.table("t")
        table.inc(0, 1)
        before = len(rows.inc_rows.signatures), len(rows.get_rows.signatures)
        table.inc(ids[:50], deltas[:50])
        table.get(ids[:50])
        return before, (len(rows.inc_rows.signatures), len(rows.get_rows.signatures))

    with nbps.Job([nbps.Table("t", 10, 4)], workers=1) as job:
        ((before, after),) = job.run(use, np.arange(10_000) % 10, np.ones((10_000, 4)))
        assert before == after
        assert job.table("t").to_numpy().sum() == 204


def test_a_mapped_argument_outlives_its_run(job):
    """What a function keeps of an argument in ``worker.state`` is still valid in the next run."""

    def keep(worker, array):
        worker.state["kept"] = array[1::2]

    job.run(keep, np.arange(1 << 16))
    assert job.run(lambda worker: int(worker.state["kept"].sum())) == [(1 << 30)] * 3


def test_a_huge_result_returns_whole(job):
    """A result of 200 MB from one worker, nothing from the others."""
    results = job.run(lambda worker: np.full(25_000_000, 7.0) if worker.rank == 1 else None)
    assert results[0] is results[2] is None
    assert results[1].sum() == 175_000_000.0


def test_random_numbers_differ_between_workers_and_repeat_with_the_seed():
    """``worker.random`` is decided by seed and rank alone."""

    def draw(seed):
        with nbps.Job([], workers=2, seed=seed) as running:
            return running.run(lambda worker: worker.random.random())

    first, again, other = draw(1), draw(1), draw(2)
    assert first == again
    assert len({*first, *other}) == 4


def test_global_generators_differ_between_workers_and_repeat_with_the_seed():
    """NumPy's and Python's: what libraries draw unasked is decided by seed and rank alone."""

    def draw(worker):
        return np.random.random(), random.random()  # noqa: NPY002

    def drawn(seed):
        with nbps.Job([], workers=3, seed=seed) as running:
            return running.run(draw) + running.run(draw)

    first, again, other = drawn(1), drawn(1), drawn(2**70)
    assert first == again
    for numbers in zip(*first, *other, strict=True):
        assert len(set(numbers)) == 12


def test_clocks_start_at_zero_in_every_run(job):
    """Many runs of one job, with different numbers of clocks and barriers for each: none disturbs the next."""

    def work(worker, run):
        assert worker.current_clock == 0
        for _ in range((run * 7 + worker.rank) % 3):
            worker.clock(wait=bool(run % 2))
        worker.barrier()
        return worker.current_clock

    for run in range(20):  # the bound of the default model is 2, so nobody needs those who are in barrier()
        assert job.run(work, run) == [(run * 7 + rank) % 3 for rank in range(3)]


def test_eight_workers_on_few_cores():
    """More workers than cores make progress, under the strictest model."""
    with nbps.Job([nbps.Table("t", 3, 5, dtype="int64", access="cached")], workers=8, consistency=nbps.BSP()) as job:
        job.run(tasks.add_ones, 20, ["t"], [0, 1, 2, 2])
        assert job.table("t").to_numpy().tolist() == [[160] * 5, [160] * 5, [320] * 5]


def test_huge_clocks_work():
    """Clocks near the end of what a program could ever reach keep the bound."""

    def jump(worker, start):
        clock = worker._clock
        clock.core.now = clock.core.visible = start
        clock._publish(Publish(Group.COMMITTED, start))
        worker.barrier()
        for _ in range(5):
            worker.clock()
        return worker.current_clock

    with nbps.Job([], workers=2, consistency=nbps.SSP(1)) as job:
        assert job.run(jump, 2**61) == [2**61 + 5] * 2


def test_a_job_inside_a_worker():
    """A worker may run a job of its own."""

    def outer(worker):
        with nbps.Job([nbps.Table("inner", 1, 1)], workers=2) as inner:
            inner.run(tasks.add_ones, 2, ["inner"], [0])
            return float(inner.table("inner").to_numpy()[0, 0])

    with nbps.Job([nbps.Table("outer", 1, 1)], workers=2) as job:
        assert job.run(outer) == [4.0, 4.0]


def test_a_dropped_job_is_collected():
    """Without close(), a job that nobody refers to ends its workers and gives its memory back."""
    job = nbps.Job([nbps.Table("t", 1, 1)], workers=1).__enter__()
    path, supervisor, dropped = Path(job.table("t").path), job._open.group._supervisor, weakref.ref(job)
    del job
    gc.collect()
    assert dropped() is None
    assert not path.exists()
    assert supervisor.wait(0) == 0


def test_a_preload_is_called_once_before_the_workers_are_forked():
    """What it makes is in every worker."""

    def load():
        nbps.preloaded = os.getpid()

    with nbps.Job([], workers=2, preload=load) as job:
        assert job.run(lambda worker: nbps.preloaded == os.getppid()) == [True, True]
    assert not hasattr(nbps, "preloaded")


def test_infinite_staleness_never_waits():
    """A worker runs a thousand clocks ahead of one that has not begun, under ASP, SSP(inf) and ESSP(inf)."""

    def work(worker):
        if worker.rank == 0:
            for _ in range(1000):
                worker.clock()
            lead = worker.current_clock - tasks.slowest(worker)
            worker.barrier()
            return lead
        worker.barrier()
        return None

    for model in (nbps.ASP(), nbps.SSP(math.inf), nbps.ESSP(math.inf)):
        with nbps.Job([], workers=2, consistency=model) as job:
            assert job.run(work) == [1000, None]
