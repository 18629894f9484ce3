"""A table's segment is an Arrow IPC file: complete, aligned, small, and live for readers in other processes."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nbps
from nbps.errors import DataError
from nbps.memory import arrow
from nbps.memory.arrow import create_table_segment, read_table_file
from nbps.memory.segments import attach, shared_memory_usage

DTYPES = ["float32", "float64", "int32", "int64"]
NAMES = st.text(min_size=1, max_size=128, alphabet=st.characters(codec="utf-8"))


@settings(max_examples=40)
@given(NAMES, st.integers(1, 70), st.integers(1, 40), st.sampled_from(DTYPES))
def test_any_table_is_a_complete_aligned_arrow_file(name, rows, width, dtype):
    """Every name, shape and dtype: values 64-byte aligned in the file, under 1 KiB and four names besides, readable."""
    segment, layout, values = create_table_segment(name, rows, width, dtype)
    try:
        values[...] = np.arange(rows * width).reshape(rows, width)
        assert layout.offset % 64 == 0
        assert values.nbytes <= segment.path.stat().st_size < values.nbytes + 1024 + 4 * len(name.encode())
        assert np.array_equal(layout.view(), values)
        batch = pa.ipc.open_file(pa.py_buffer(attach(segment.name))).get_batch(0)
        batch.validate(full=True)
        assert batch.schema.names == [name]
        assert batch.column(0).type == pa.list_(pa.field("item", pa.from_numpy_dtype(dtype)), width)
        assert batch.column(0).to_pylist() == values.tolist()
    finally:
        segment.unlink()


def free_memory_bytes():
    """Return what the system can still give."""
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


_READER = """
import sys
import pyarrow as pa
column = pa.ipc.open_file(pa.memory_map(sys.argv[1])).get_batch(0).column(0)
print("mapped", pa.total_allocated_bytes() < 4096, flush=True)
for line in sys.stdin:
    row = int(line)
    print(column[row].as_py(), flush=True)
"""


def test_an_arrow_reader_in_another_process_sees_live_values():
    """It maps the file once, with plain pyarrow, and reads what workers add while they run, without copying."""

    def train(worker):
        if worker.rank == 0:
            with subprocess.Popen(
                [sys.executable, "-c", _READER, worker.state["path"]],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            ) as reader:
                seen = [reader.stdout.readline().strip()]
                for _ in range(3):
                    worker.table("t").inc(9_999, [1, 2, 4])
                    worker.barrier()
                    worker.barrier()
                    reader.stdin.write("9999\n")
                    reader.stdin.flush()
                    seen.append(reader.stdout.readline().strip())
                reader.stdin.close()
            return seen
        for _ in range(3):
            worker.barrier()
            worker.table("t").inc(9_999, 10)
            worker.barrier()
        return None

    def remember(worker, path):
        worker.state["path"] = path

    with nbps.Job([nbps.Table("t", 10_000, 3, dtype="int64")], workers=2) as job:
        job.run(remember, job.table("t").path)
        seen, _ = job.run(train)
    assert seen == ["mapped True", "[11, 12, 14]", "[22, 24, 28]", "[33, 36, 42]"]


def test_a_batch_may_have_more_elements_than_32_bits_count():
    """2^31 elements in one record batch; none of them is looked at here."""
    values = np.zeros((1 << 28, 8), np.int8)  # address space only: nobody writes to it
    sink = pa.MockOutputStream()
    arrow._write(arrow._batch("t", values, 0), sink)
    assert sink.size() > values.nbytes


class _Sparse(io.FileIO):
    """A file in which zeros, written in large pieces, take no room."""

    def write(self, data):
        size = memoryview(data).nbytes
        if size < 1 << 20:
            return super().write(data)
        self.seek(size, os.SEEK_CUR)
        return size


def test_a_file_may_have_more_elements_than_32_bits_count(tmp_path):
    """One batch of 2^31 elements is read where it is mapped, whole, and without memory for it."""
    path = tmp_path / "large.arrow"
    with _Sparse(path, "w") as file:
        arrow._write(arrow._batch("t", np.zeros((1 << 28, 8), np.int8), 0), pa.PythonFile(file, "w"))
    assert path.stat().st_blocks * 512 < 1 << 20 < path.stat().st_size
    (values,) = read_table_file(path)
    assert values.shape == (1 << 28, 8)
    assert values[[0, 1, -1]].tolist() == [[0] * 8] * 3


@pytest.mark.skipif(
    shared_memory_usage().free_bytes < 9 << 30 or free_memory_bytes() < 10 << 30,
    reason="needs 9 GiB of shared memory, and as much of memory",
)
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_table_of_2_to_the_31_elements(tmp_path):
    """It is trained on, and read as a live file, as a saved one, and as initial values."""

    def train(worker):
        table = worker.table("t")
        table.inc([0, table.shape[0] - 1], 1 + worker.rank)
        worker.clock()

    table = nbps.Table("t", 1 << 28, 8, dtype="int32")
    with nbps.Job([table], workers=2) as job:
        job.run(train)
        batch = pa.ipc.open_file(pa.memory_map(job.table("t").path)).get_batch(0)
        assert batch.num_rows == 1 << 28
        assert [batch.column(0)[row].as_py() for row in (0, 1, (1 << 28) - 1)] == [[3] * 8, [0] * 8, [3] * 8]
        assert job.table("t").rows(np.array([0, 1, (1 << 28) - 1])).sum(axis=1).tolist() == [24, 0, 24]


def test_a_copy_for_arrow_comes_in_chunks_of_any_size():
    """What every writer takes: none has more elements than it may have."""
    values = np.arange(30, dtype=np.float32).reshape(10, 3)
    for limit in (3, 7, 8, 9, 29, 30, 31):
        lists = arrow.to_lists(values, limit)
        assert all(len(chunk.flatten()) <= limit for chunk in lists.chunks)
        assert lists.to_pylist() == values.tolist()
    assert arrow.to_lists(values).num_chunks == 1


@pytest.mark.parametrize("lengths", [[0], [], [5], [2, 0, 3]])
def test_a_file_of_several_batches_is_read_as_it_is(tmp_path, lengths):
    """Each batch is an array over the mapped file; together they are initial values."""
    values = np.arange(sum(lengths) * 2, dtype=np.int64).reshape(-1, 2)
    schema = pa.schema([("t", pa.list_(pa.int64(), 2))])
    with pa.ipc.new_file(tmp_path / "file.arrow", schema) as writer:
        for number, length in enumerate(lengths):
            part = values[sum(lengths[:number]) :][:length].reshape(-1)
            writer.write_batch(pa.record_batch([pa.FixedSizeListArray.from_arrays(pa.array(part), 2)], schema=schema))
    parts = read_table_file(tmp_path / "file.arrow")
    assert np.array_equal(np.concatenate(parts), values)
    if lengths and sum(lengths):
        out = np.zeros_like(values)
        nbps.init.from_file(tmp_path / "file.arrow")(out, np.random.default_rng(0))
        assert np.array_equal(out, values)


@pytest.mark.parametrize("content", [b"", b"ARROW1\0\0", b"not arrow at all" * 100])
def test_a_file_that_is_no_table_is_named(tmp_path, content):
    """Empty, cut off or foreign: an error with the path, never a crash."""
    path = tmp_path / "file.arrow"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"file\.arrow: expected an Arrow IPC file with a table, found"):
        read_table_file(path)


def test_a_saved_table_that_was_cut_off_is_refused(tmp_path):
    """At any length a shortened file is an error of ours, never values."""
    segment, _, values = create_table_segment("t", 5, 3, "float32")
    values[...] = 1
    whole = segment.path.read_bytes()
    segment.unlink()
    for length in range(0, len(whole), 7):
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(DataError):
            read_table_file(tmp_path / "cut")


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1.0, 2.0]),
        pa.array([[1.0], None], pa.list_(pa.float32(), 1)),
        pa.array([[1], [2]]),
        pa.array([["1"], ["2"]], pa.list_(pa.string(), 1)),
        pa.array([[True], [False]], pa.list_(pa.bool_(), 1)),
    ],
)
def test_another_column_is_refused(tmp_path, column):
    """Plain numbers, nulls, lists of free length and of what is not a number are not a table."""
    path = tmp_path / "file.arrow"
    with pa.ipc.new_file(path, pa.schema([("a", column.type)])) as writer:
        writer.write_batch(pa.record_batch([column], names=["a"]))
    with pytest.raises(DataError, match="expected a first column of fixed-size lists of numbers without nulls"):
        read_table_file(path)
