"""Ratings in columns: of Arrow and Parquet files, of JSON lines, of tables in memory; checked before they are used."""

from __future__ import annotations

import errno
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from nbps.buffers import numbers, over
from nbps.data.ratings.columns import ROLES, Columns, Fail, locate
from nbps.data.ratings.formats import ARROW_FILE_MAGIC
from nbps.data.ratings.ids import as_type, is_text, type_name
from nbps.data.source import Source

_BATCH_ROWS = 1 << 18  # of a Parquet file: what is decoded at a time, in some 5 MiB, before it is put into less memory


def read_columnar(source: Source, format_name: str, columns: Columns | None) -> pa.Table:
    """Table with the columns user, item (each integers or strings) and rating (float32), without nulls.

    Raises
    ------
    DataError
        If the file is damaged, a column is missing or has another type, or a value is missing or not finite;
        the message has the row's number where there is one.
    """
    try:
        content = source.read_all()
        table = _read_parquet(source, content, columns) if format_name == "parquet" else None
        if table is None:
            table = _read_arrow(source, content, columns)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, MemoryError):
            raise
        if getattr(error, "errno", None) == errno.ENOMEM:
            raise MemoryError(error.strerror) from None
        raise source.error(
            f"expected a whole {format_name} file, found damaged data: {error}. Write it again."
        ) from None
    return checked(source.error, table)


def checked(fail: Fail, table: pa.Table) -> pa.Table:
    """Return the three columns of `table` as user, item (each int32, int64 or string) and rating (float32).

    Raises
    ------
    DataError
        If there is no row, a column has another type, or a value is missing or not finite; made by `fail`.
    """
    if table.num_rows == 0:
        raise fail("expected ratings, found a table without rows.")
    names = table.column_names
    arrays = [checked_ids(fail, table.column(i), role, names[i]) for i, role in enumerate(ROLES[:2])]
    return pa.table([*arrays, _values(fail, table.column(2), names[2])], names=list(ROLES))


def checked_ids(fail: Fail, column: pa.ChunkedArray, role: str, name: str) -> pa.ChunkedArray:
    """Return the column called `name` of the ids of `role` as int32, int64 or string, without nulls."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if pa.types.is_int32(kind) and not column.null_count:
        return column
    is_missing = pc.is_null(column, nan_is_null=pa.types.is_floating(kind))
    _refuse_row(fail, is_missing, f"expected the {role}'s id in column {name!r}, found a missing value (null or NaN)")
    if not (pa.types.is_integer(kind) or is_text(kind)):
        raise fail(
            f"expected integers or strings in the {role} column {name!r}, found {type_name(kind)}. "
            "Convert it or use another."
        )
    is_integer = pa.types.is_integer(kind)
    try:
        ids = as_type(column, pa.int64() if is_integer else pa.string())
    except pa.ArrowInvalid as error:
        raise fail(f"the {role} column {name!r} does not fit 64-bit integers: {error}.") from None
    if not is_integer:
        _refuse_row(fail, pc.equal(ids, ""), f"expected the {role}'s id in column {name!r}, found an empty string")
    return ids


def _read_parquet(source: Source, content: pa.Buffer, columns: Columns | None) -> pa.Table:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(pa.BufferReader(content)) as file:
        schema = file.schema_arrow
        wanted = [schema.names[position] for position in locate(source.error, schema.names, columns)]
        rows = file.metadata.num_rows
        source.check_fits(rows)
        filled = [_Filled(schema.field(name).type, rows, is_id=n < 2) for n, name in enumerate(wanted)]
        with ThreadPoolExecutor(len(wanted)) as pool:  # which fill, mostly new memory, while the next batch is decoded
            taken: list[Future[None]] = []
            for batch in file.iter_batches(_BATCH_ROWS, columns=wanted):
                for one in taken:
                    one.result()
                found = pa.Table.from_batches([batch]).select(wanted).columns
                taken = [pool.submit(column.add, part.chunk(0)) for column, part in zip(filled, found, strict=True)]
            for one in taken:
                one.result()
        return pa.table([column.chunks for column in filled], names=wanted)


class _Filled:
    """A column that is read batch by batch: in one array of 4 bytes an entry while that holds them."""

    def __init__(self, kind: pa.DataType, rows: int, is_id: bool) -> None:
        # Of other integers int32 may be a part; with uint64 it has no type in common.
        is_usual = pa.types.is_integer(kind) and not pa.types.is_uint64(kind) if is_id else pa.types.is_floating(kind)
        self._kind = kind
        self._values: npt.NDArray[Any] = np.empty(rows * is_usual, np.int32 if is_id else np.float32)
        self._end = 0
        self._later: list[pa.Array] = []

    def add(self, batch: pa.Array) -> None:
        """Take the next entries."""
        end = self._end + len(batch)
        if self._later or end > self._values.size or batch.null_count or not self._fits(numbers(batch)):
            self._later.append(batch)
            return
        with np.errstate(over="ignore"):  # an infinite rating is refused when all are there
            self._values[self._end : end] = numbers(batch)
        self._end = end

    def _fits(self, found: npt.NDArray[Any]) -> bool:
        if self._values.dtype != np.int32 or not found.size:
            return True
        bounds = np.iinfo(np.int32)
        return bool(bounds.min <= found.min() and found.max() <= bounds.max)

    @property
    def chunks(self) -> pa.ChunkedArray:
        """The column."""
        first = over(self._values[: self._end])
        if not self._later:
            return pa.chunked_array([first])
        return pa.chunked_array([first.cast(self._kind), *self._later] if self._end else self._later)


def _read_arrow(source: Source, content: pa.Buffer, columns: Columns | None) -> pa.Table:
    import pyarrow.ipc

    is_file = source.head.startswith(ARROW_FILE_MAGIC)
    with pyarrow.ipc.open_file(content) if is_file else pyarrow.ipc.open_stream(content) as reader:
        positions = locate(source.error, reader.schema.names, columns)
        table = reader.read_all().select(positions)
    source.check_fits(table.num_rows)  # until here it is the mapped file, if that is not compressed
    table.validate(full=True)  # offsets of a damaged file would be followed out of its buffers
    return table


def _values(fail: Fail, column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise fail(f"expected numbers in the rating column {name!r}, found {kind}. Convert it or use another.")
    _refuse_row(fail, pc.is_null(column), f"expected the rating in column {name!r}, found a missing value (null)")
    values = column
    if not pa.types.is_float32(kind):
        # Whole numbers beyond 2**24 are rounded, as everywhere in float32.
        values = as_type(column, pa.float64(), safe=False).cast(pa.float32(), safe=False)
    is_bad = pc.invert(pc.is_finite(values))
    _refuse_row(fail, is_bad, f"expected a finite rating in column {name!r}, found NaN, infinity or beyond float32")
    return values


def _refuse_row(fail: Fail, is_bad: pa.ChunkedArray, what: str) -> None:
    if pc.any(is_bad).as_py():  # which takes a hundredth of the time of looking for the first
        row, count = pc.index(is_bad, True).as_py(), pc.sum(is_bad).as_py()
        more = f", and {count - 1:,} more" if count > 1 else ""
        raise fail(f"{what}{more}. Correct or remove the row.", row=row + 1)
