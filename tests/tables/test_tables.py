"""What tables hold: exact sums, initial values, files, memory, and loops of the user's own that are compiled."""

from __future__ import annotations

from pathlib import Path

import numba
import numpy as np
import pyarrow as pa
import pytest

import nbps
from nbps.kernels import get_row, inc_row, put_row
from support import tasks

ACCESS = ["direct", "cached", "exclusive"]
DTYPES = ["float32", "float64", "int32", "int64"]


@pytest.mark.parametrize("model", [nbps.BSP(), nbps.SSP(2), nbps.ESSP(1), nbps.ASP(), nbps.VAP(9)], ids=str)
def test_sums_over_workers_are_exact(model):
    """Ones from four workers, with ids that repeat, arrive each exactly once, in every dtype and lossless mode."""
    modes = ["cached"] if model == nbps.BSP() else ["cached", "direct"]
    tables = [nbps.Table(f"{mode} {dtype}", 5, 7, dtype=dtype, access=mode) for mode in modes for dtype in DTYPES]
    with nbps.Job(tables, workers=4, consistency=model) as job:
        names = [table.name for table in tables]
        job.run(tasks.add_ones, 20, names, [4, 0, 0, 2, 4, 4])
        expected = np.repeat(np.array([[2], [0], [1], [0], [3]]) * 80, 7, axis=1)
        for name in names:
            assert np.array_equal(job.table(name).to_numpy(), expected), name


def test_rows_that_are_saved_are_copied_only_where_some_are_left_out():
    """A checkpoint between runs of a table that takes most of the memory needs no second one."""
    with nbps.Job([nbps.Table("t", 6, 2, init=np.arange(12).reshape(6, 2))], workers=1) as job:
        table = job.table("t")
        for ids, is_live in [([0, 1, 2, 3, 4, 5], True), ([2, 3], True), ([5], True), ([1, 3], False), ([], False)]:
            rows = table.live(np.array(ids, np.int64))
            assert rows.tolist() == table.rows(np.array(ids, np.int64)).tolist()
            assert np.shares_memory(rows, table.live(np.arange(6))) == is_live


def test_every_form_of_ids_and_deltas_adds_the_same():
    """Scalars, lists, read-only and strided arrays, other dtypes and byte orders: all mean the same numbers."""

    def add(worker):
        table = worker.table("t")
        frozen = np.arange(6, dtype=np.float32).reshape(2, 3)
        frozen.flags.writeable = False
        ids = np.array([1, 3])
        for form in (
            ids,
            ids.tolist(),
            ids.astype(np.uint8),
            ids.astype(">i4"),
            np.array([1, 0, 3, 0])[::2],
            range(1, 4, 2),
        ):
            table.inc(form, frozen)
            table.inc(form, np.asfortranarray(frozen))
            table.inc(form, np.arange(12).reshape(2, 6)[:, ::2] // 2 - np.array([[0], [0]]))
        table.inc(0, 1)
        table.inc(np.int16(0), [1, 2, 3])
        table.inc([0, 0], np.float64(0.5))

    with nbps.Job([nbps.Table("t", 4, 3)], workers=1) as job:
        job.run(add)
        assert job.table("t").to_numpy().tolist() == [
            [3, 4, 5], [0 * 18, 18, 36], [0, 0, 0], [54, 72, 90]
        ]  # fmt: skip


@pytest.mark.slow
def test_initial_values_do_not_depend_on_the_number_of_workers():
    """Seed and name decide: equal for 1 and 3 workers, different for another seed or name."""

    def values(workers, seed, name):
        table = nbps.Table(name, 300, 7, init=nbps.init.normal(1, 2))
        with nbps.Job([table], workers=workers, seed=seed) as job:
            return job.table(name).to_numpy().tobytes()

    assert values(1, 5, "a") == values(3, 5, "a")
    assert len({values(1, 5, "a"), values(1, 6, "a"), values(1, 5, "b")}) == 3


def test_initialisers_fill_what_they_say(tmp_path):
    """Zeros, constants, ranges, normal numbers, arrays and files, in the table's dtype."""
    array = np.arange(6.0).reshape(3, 2)
    tables = [
        nbps.Table("zeros", 3, 2),
        nbps.Table("constant", 3, 2, dtype="int32", init=nbps.init.constant(-7.0)),
        nbps.Table("uniform", 70_000, 2, dtype="float64", init=nbps.init.uniform(-1, 3)),
        nbps.Table("dice", 70_000, 1, dtype="int64", init=nbps.init.uniform(1, 7)),
        nbps.Table("normal", 70_000, 2, init=nbps.init.normal(5, 2)),
        nbps.Table("array", 3, 2, dtype="int32", init=array),
    ]
    with nbps.Job(tables, workers=1) as job:
        assert not job.table("zeros").to_numpy().any()
        assert (job.table("constant").to_numpy() == -7).all()
        uniform = job.table("uniform").to_numpy()
        assert -1 <= uniform.min() < -0.99 < 2.99 < uniform.max() < 3
        assert np.unique(job.table("dice").to_numpy()).tolist() == [1, 2, 3, 4, 5, 6]
        normal = job.table("normal").to_numpy()
        assert abs(normal.mean() - 5) < 0.1
        assert abs(normal.std() - 2) < 0.1
        assert job.table("array").to_numpy().tolist() == array.tolist()
        job.table("array").save(tmp_path / "saved.arrow")
    again = nbps.Table("again", 3, 2, dtype="float32", init=nbps.init.from_file(tmp_path / "saved.arrow"))
    with nbps.Job([again], workers=1) as job:
        assert job.table("again").to_numpy().tolist() == array.tolist()


def test_to_arrow_and_save_hold_the_values(tmp_path):
    """A copy as an Arrow table, and a file that any Arrow reader reads; neither changes when the table does."""
    with nbps.Job([nbps.Table("t", 3, 2, init=[[1, 2], [3, 4], [5, 6]])], workers=1) as job:
        copy = job.table("t").to_arrow()
        job.table("t").save(tmp_path / "t.arrow")
        job.run(tasks.add_ones, 1, ["t"], [0, 1, 2])
        assert copy["t"].to_pylist() == [[1, 2], [3, 4], [5, 6]]
    assert pa.ipc.open_file(tmp_path / "t.arrow").read_all()["t"].to_pylist() == copy["t"].to_pylist()
    assert [path.name for path in tmp_path.iterdir()] == ["t.arrow"]


@numba.njit(nogil=True)
def count(table, scratch, first, rounds):
    """Train without a Python call per row: read, compute, add."""
    rows, width = table.values.shape
    for n in range(rounds):
        row = (first + n) % rows
        get_row(table, row, scratch)
        for j in range(width):
            scratch[j] = j + 1
        inc_row(table, row, scratch)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_loops_in_compiled_code_add_exactly(dtype):
    """The user's own jitted loop over ``table.kernel``: three workers, exact sums, in both lossless modes."""

    def train(worker):
        for mode in ("direct", "cached"):
            table = worker.table(mode)
            for _ in range(4):
                count(table.kernel, np.empty(5, table.dtype), worker.rank, 300)
                worker.clock()

    with nbps.Job(
        [nbps.Table(mode, 3, 5, dtype=dtype, access=mode) for mode in ("direct", "cached")], workers=3
    ) as job:
        job.run(train)
        for mode in ("direct", "cached"):
            assert job.table(mode).to_numpy().tolist() == [[1200 * (j + 1) for j in range(5)]] * 3


def test_exclusive_rows_rotate_between_workers():
    """Each clock every worker overwrites and adds to rows that are its own for that clock: nothing is lost."""

    @numba.njit
    def double(table, row, scratch):
        get_row(table, row, scratch)
        put_row(table, row, scratch * 2)

    def rotate(worker):
        table = worker.table("t")
        for clock in range(9):
            row = (worker.rank + clock) % worker.size
            table.inc(row, 1)
            double(table.kernel, row, np.empty(2, np.int64))
            table.put(row, table.get(row) + 1)
            worker.clock()

    expected = 0
    for _ in range(9):
        expected = (expected + 1) * 2 + 1
    with nbps.Job([nbps.Table("t", 3, 2, dtype="int64", access="exclusive")], workers=3, consistency=nbps.BSP()) as job:
        job.run(rotate)
        assert job.table("t").to_numpy().tolist() == [[expected] * 2] * 3


@pytest.mark.parametrize(("access", "copies"), [("direct", 0), ("exclusive", 0), ("cached", 2)])
def test_a_table_costs_its_bytes_once_and_cached_copies_twice_per_worker(access, copies):
    """Shared memory holds the values and under 1 KiB besides; workers hold nothing, or values and base."""
    used = []
    for rows in (1, 1, 250_000):  # the first one may compile kernels, and forks workers that have done so
        table = nbps.Table("t", rows, 16, access=access)
        with nbps.Job([table], workers=2) as job:
            assert table.nbytes <= Path(job.table("t").path).stat().st_size < table.nbytes + 1024
            used.append(job.run(tasks.anonymous))
    for small, large in zip(*used[1:], strict=True):
        assert abs(large - small - copies * table.nbytes) < 4 << 20  # of 16 MB; an allocator's slack
