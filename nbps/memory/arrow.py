"""A table's segment is a complete Arrow IPC file with one record batch, its values 64-byte aligned.

So any Arrow reader in any language can map ``/dev/shm/<segment>`` while training runs and read the live values
without a copy, and a saved table is the same bytes in a file. The batch stays one where the table has 2**31 elements or
more, so that the values stay one array: its lengths then take 64 bits, as the format has them, which a reader that
counts in 32 bits refuses.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nbps.buffers import numbers, over
from nbps.errors import DataError
from nbps.memory.layout import Layout
from nbps.memory.segments import Segment, attach, check_free

CHUNK_ELEMENTS = 2**31 - 1  # what every Arrow writer takes in one piece
ALIGNMENT = 64  # bytes; a cache line, and enough for every SIMD load and the 16-byte compare-and-swap


def _batch(name: str, values: npt.NDArray[np.generic], padding: int) -> pa.RecordBatch:
    width = values.shape[1]
    column = pa.FixedSizeListArray.from_arrays(over(values), width)
    # Arrow aligns the values within the body, not the body in the file: the padding moves the body.
    metadata = {"nbps.table": name, "nbps.padding": " " * padding}
    schema = pa.schema([pa.field(name, column.type, nullable=False)], metadata=metadata)
    return pa.record_batch([column], schema=schema)


def _write(batch: pa.RecordBatch, sink: pa.NativeFile) -> None:
    options = pa.ipc.IpcWriteOptions(allow_64bit=True)
    with pa.ipc.new_file(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)


def _file(batch: pa.RecordBatch) -> npt.NDArray[np.uint8]:
    sink = pa.BufferOutputStream()
    _write(batch, sink)
    return np.frombuffer(sink.getvalue(), np.uint8)


def _filled(size: int) -> int:
    return -(-size // 8) * 8


def _values_offset(memory: npt.NDArray[np.uint8]) -> int:
    batch = pa.ipc.open_file(pa.py_buffer(memory)).get_batch(0)
    return int(batch.column(0).values.buffers()[1].address) - int(memory.ctypes.data)


def create_table_segment(
    name: str, rows: int, width: int, dtype: str
) -> tuple[Segment, Layout, npt.NDArray[np.generic]]:
    """Create the segment of a dense table, all zeros.

    Returns
    -------
    segment, layout, values
        `values` is the live array, shape (rows, width).

    Raises
    ------
    SharedMemoryError
        If ``/dev/shm`` is too small.
    """
    check_free(name, rows * width * np.dtype(dtype).itemsize)  # before one row takes memory of its own
    one_row = np.zeros((1, width), dtype)
    smallest = _file(_batch(name, one_row, 0))
    padding = -_values_offset(smallest) % ALIGNMENT
    smallest = _file(_batch(name, one_row, padding))
    offset = _values_offset(smallest)
    # Only the length of the values differs from the file of one row; Arrow fills them up to 8 bytes.
    size = smallest.size + _filled(rows * one_row.nbytes) - _filled(one_row.nbytes)

    segment = Segment(name, size)
    try:
        layout = Layout(segment.name, offset, rows, width, dtype)
        memory = attach(segment.name)
        values = layout.values(memory)
        # The values are written onto themselves: a second array of that size is never needed.
        sink = pa.FixedSizeBufferWriter(pa.py_buffer(memory))
        _write(_batch(name, values, padding), sink)
        if (sink.tell(), _values_offset(memory), offset % ALIGNMENT) != (size, offset, 0):
            raise AssertionError(f"table {name!r}: wrote {sink.tell()} bytes of {size}, values at {offset}")
        return segment, layout, values
    except BaseException:
        segment.unlink()
        raise


def to_lists(values: npt.NDArray[np.generic], chunk_elements: int = CHUNK_ELEMENTS) -> pa.ChunkedArray:
    """Return rows as fixed-size lists over the memory of `values`, at most `chunk_elements` elements in a chunk."""
    rows, width = values.shape
    step = max(1, chunk_elements // width)
    parts = [over(values[first : first + step]) for first in range(0, rows, step)]
    return pa.chunked_array([pa.FixedSizeListArray.from_arrays(part, width) for part in parts])


def read_table_file(path: Path) -> list[npt.NDArray[np.generic]]:
    """Read the first column of Arrow IPC file `path`, fixed-size lists of numbers without nulls.

    Returns
    -------
    list of ndarray, shape (rows of a batch, width)
        Over the mapped file, at least one.

    Raises
    ------
    DataError
        If it is not such a file.
    """
    try:
        column = pa.ipc.open_file(pa.memory_map(str(path))).read_all().column(0)
    except (OSError, pa.ArrowInvalid, IndexError) as error:
        raise DataError(f"{path}: expected an Arrow IPC file with a table, found: {error}") from error
    chunks = column.chunks or [pa.array([], column.type)]
    kind = column.type
    are_rows = pa.types.is_fixed_size_list(kind) and (
        pa.types.is_integer(kind.value_type) or pa.types.is_floating(kind.value_type)
    )
    if not are_rows or any(part.null_count or part.values.null_count for part in chunks):
        raise DataError(f"{path}: expected a first column of fixed-size lists of numbers without nulls, found {kind}")
    return [numbers(part.flatten()).reshape(len(part), kind.list_size) for part in chunks]
