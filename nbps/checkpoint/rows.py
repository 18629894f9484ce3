"""The data files of a checkpoint: rows of a table with their numbers, Arrow IPC files written and read in pieces.

A piece holds whole messages of the Arrow file: a record batch of up to `PIECE_BYTES`, the first one also the schema,
the last one the footer. Each is verified before Arrow parses it, so reading needs one pass and a piece of memory per
thread, and the order in which pieces come does not matter.

SHA-256, because nobody has to ask what it misses: 1.6 GB/s on one core with SHA instructions, CRC-32 does 2.3.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures  # not ThreadPoolExecutor: a handler of atexit, which may open a job, cannot import it
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nbps.buffers import numbers, over
from nbps.checkpoint.format import DataFile, Piece, Shape, sha256
from nbps.checkpoint.store import Sink, Store
from nbps.errors import CheckpointError

PIECE_BYTES = 16 << 20
_MAGIC_BYTES = 8  # "ARROW1" and two zeros; a stream of messages follows, then the footer
_SMALL_BYTES = 256 << 10  # below, the threads' hand-over costs more than it saves
_THREADS = min(4, os.cpu_count() or 1)

_Use = Callable[[pa.Buffer, str, bool], int]  # a piece, its file for messages, whether it is the first one


def _schema(shape: Shape) -> pa.Schema:
    element = pa.field("item", pa.from_numpy_dtype(np.dtype(shape.dtype)), nullable=False)
    values = pa.field("values", pa.list_(element, shape.width), nullable=False)
    return pa.schema([pa.field("row", pa.int64(), nullable=False), values])


class _Pieces:
    """A file-like object for Arrow that writes to a sink and sums up what goes through."""

    closed = False

    def __init__(self, sink: Sink, pool: futures.ThreadPoolExecutor) -> None:
        self._sink = sink
        self._pool = pool
        self._position = 0
        self._start = 0
        self._sha256 = hashlib.sha256()
        self.found: list[Piece] = []

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        if size < _SMALL_BYTES:
            self._sink.write(data)
            self._sha256.update(data)
        else:  # both take about as long, and neither holds the interpreter
            summing = self._pool.submit(self._sha256.update, data)
            self._sink.write(data)
            summing.result()
        self._position += size
        return size

    def tell(self) -> int:
        return self._position

    def flush(self) -> None:
        """Do nothing: the sink is synced when it is left."""

    def close(self) -> None:
        """Do nothing: whatever opened the sink closes it."""

    def cut(self) -> None:
        """End a piece."""
        self.found.append(Piece(self._position - self._start, self._sha256.hexdigest()))
        self._start = self._position
        self._sha256 = hashlib.sha256()


def needed_bytes(rows: npt.NDArray[np.int64], values: npt.NDArray[Any]) -> int:
    """Return about how many bytes a file with these rows takes: under 1 KiB for each piece besides the rows."""
    data = int(rows.nbytes + values.nbytes)
    return data + 1024 * (1 + data // PIECE_BYTES)


def write_rows(
    store: Store, path: str, shape: Shape, rows: npt.NDArray[np.int64], values: npt.NDArray[Any]
) -> DataFile:
    """Write row numbers `rows` and their `values`, shape (len(rows), width), to the file `path`."""
    schema = _schema(shape)
    step = max(1, PIECE_BYTES // (8 + shape.width * np.dtype(shape.dtype).itemsize))
    with futures.ThreadPoolExecutor(1, "nbps-checksum") as pool, store.create(path) as sink:
        pieces = _Pieces(sink, pool)
        writer = pa.ipc.new_file(pieces, schema)
        for low in range(0, len(rows), step):
            some = np.ascontiguousarray(values[low : low + step])
            lists = pa.FixedSizeListArray.from_arrays(over(some), type=schema.field(1).type)
            ids = over(np.ascontiguousarray(rows[low : low + step]))
            writer.write_batch(pa.record_batch([ids, lists], schema=schema))
            pieces.cut()
        writer.close()
        pieces.cut()
    return DataFile(path.rpartition("/")[2], len(rows), tuple(pieces.found))


def _messages(data: pa.Buffer, is_first: bool) -> Iterator[pa.ipc.Message]:
    reader = pa.ipc.MessageReader.open_stream(data[_MAGIC_BYTES:] if is_first else data)
    while True:
        try:
            yield reader.read_next_message()
        except StopIteration:
            return


def _fill(
    message: pa.ipc.Message, shape: Shape, values: npt.NDArray[Any], seen: npt.NDArray[np.bool_], where: str
) -> int:
    """Copy the rows in `message` to their places; return how many."""
    batch = pa.ipc.read_record_batch(message, _schema(shape))
    batch.validate(full=True)
    ids, lists = batch.columns
    if ids.null_count or lists.null_count or lists.values.null_count:
        raise CheckpointError(f"{where}: found nulls; expected a number in every place")
    rows = numbers(ids)
    if len(rows) == 0:
        return 0
    first, last = int(rows.min()), int(rows.max())
    if first < 0 or last >= shape.rows:
        raise CheckpointError(f"{where}: found rows {first} to {last}; expected 0 to {shape.rows - 1}")
    # Rows one after the other are copied four times as fast as rows anywhere.
    is_range = last - first == len(rows) - 1 and bool((np.diff(rows) == 1).all())
    place = slice(first, last + 1) if is_range else rows
    values[place] = numbers(lists.flatten()).reshape(len(rows), shape.width)
    seen[place] = True
    return len(rows)


def _verified(file: pa.NativeFile, where: str, offset: int, piece: Piece) -> pa.Buffer:
    """Return the bytes of the piece at `offset`."""
    data = pa.py_buffer(file.read_at(piece.size, offset))
    if data.size != piece.size or sha256(data) != piece.sha256:
        raise CheckpointError(
            f"{where}: bytes {offset:,} to {offset + piece.size:,} are not what was written: the file is damaged"
        )
    return data


def _read_piece(
    shape: Shape, values: npt.NDArray[Any], seen: npt.NDArray[np.bool_], data: pa.Buffer, where: str, is_first: bool
) -> int:
    """Copy the rows in a piece, of whose file it is the first or not, to their places; return how many."""
    rows = 0
    for message in _messages(data, is_first):
        if message.type == "record batch":
            rows += _fill(message, shape, values, seen, where)
        elif message.type != "schema" or not pa.ipc.read_schema(message).equals(_schema(shape)):
            raise CheckpointError(f"{where}: found a {message.type} that does not fit; expected rows of {shape}")
    return rows


def _read_file(pool: futures.ThreadPoolExecutor, file: pa.NativeFile, entry: DataFile, where: str, use: _Use) -> int:
    """Have `use` take every piece, in the pool if that is worth it; return the sum of what it returns."""

    def read(offset: int, piece: Piece) -> int:
        return use(_verified(file, where, offset, piece), where, offset == 0)

    offsets = itertools.accumulate((piece.size for piece in entry.pieces[:-1]), initial=0)
    if entry.size < _SMALL_BYTES:
        return sum(map(read, offsets, entry.pieces))
    jobs = [pool.submit(read, *place) for place in zip(offsets, entry.pieces, strict=True)]
    try:
        return sum(job.result() for job in jobs)
    finally:
        for job in jobs:
            job.cancel()
        futures.wait(jobs)  # nobody reads the file or writes the values once this has failed


def _read_files(store: Store, folder: str, files: Iterable[DataFile], use: _Use) -> Iterator[tuple[DataFile, str, int]]:
    """Have `use` take every piece, verified, of one file after the other; yield what it returned in sum."""
    with futures.ThreadPoolExecutor(_THREADS, "nbps-load") as pool:
        for entry in files:
            path = f"{folder}/{entry.name}"
            where = store.show(path)
            with store.errors(f"cannot read {where}"), store.open(path) as file:
                if file.size() != entry.size:
                    raise CheckpointError(f"{where} has {file.size():,} bytes; expected {entry.size:,}")
                taken = _read_file(pool, file, entry, where, use)
            yield entry, where, taken


def verify_files(store: Store, folder: str, files: Iterable[DataFile]) -> None:
    """Raise `CheckpointError` if one of `files` is not what was written."""
    for _ in _read_files(store, folder, files, lambda data, where, is_first: 0):
        pass


def read_rows(store: Store, folder: str, files: list[DataFile], shape: Shape, values: npt.NDArray[Any]) -> None:
    """Fill all of `values`, shape (rows, width), from `files` in `folder`; every row must come exactly once.

    Raises
    ------
    CheckpointError
        If a file is not what was written, or the rows are not complete; `values` may then hold anything.
    """
    seen = np.zeros(shape.rows, np.bool_)
    for entry, where, found in _read_files(store, folder, files, functools.partial(_read_piece, shape, values, seen)):
        if found != entry.rows:
            raise CheckpointError(f"{where} has {found:,} rows; expected {entry.rows:,}")
    # The files have as many rows as the table: if one came twice, another is missing.
    if not seen.all():
        missing = int(np.argmin(seen))
        raise CheckpointError(f"{store.show(folder)}: row {missing} is missing, and another row is there twice")
