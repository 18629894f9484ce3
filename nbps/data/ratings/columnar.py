"""Reading the Arrow and Parquet formats."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet

from nbps.data.ratings.columns import ROLES, Columns, locate
from nbps.data.ratings.formats import ARROW_FILE_MAGIC
from nbps.data.ratings.ids import type_name
from nbps.data.source import Source, data_error


def read_columnar(source: Source, format_name: str, columns: Columns | None) -> pa.Table:
    """Table with the columns user, item (each int64 or string) and rating (float32), without nulls.

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
        raise data_error(
            source.path, f"expected a whole {format_name} file, found damaged data: {error}. Write it again."
        ) from None
    if table.num_rows == 0:
        raise data_error(source.path, "expected ratings, found a table without rows.")
    arrays = [_ids(source, table.column(i), role) for i, role in enumerate(ROLES[:2])]
    return pa.table([*arrays, _values(source, table.column(2))], names=list(ROLES))


def _read_parquet(source: Source, content: pa.Buffer, columns: Columns | None) -> pa.Table:
    with pyarrow.parquet.ParquetFile(pa.BufferReader(content)) as file:
        names = file.schema_arrow.names
        wanted = [names[position] for position in locate(source, names, columns)]
        return file.read(columns=wanted).select(wanted)


def _read_arrow(source: Source, content: pa.Buffer, columns: Columns | None) -> pa.Table:
    is_file = source.head.startswith(ARROW_FILE_MAGIC)
    with pyarrow.ipc.open_file(content) if is_file else pyarrow.ipc.open_stream(content) as reader:
        positions = locate(source, reader.schema.names, columns)
        table = reader.read_all().select(positions)
    table.validate(full=True)  # offsets of a damaged file would be followed out of its buffers
    return table


def _ids(source: Source, column: pa.ChunkedArray, role: str) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    _refuse_missing(source, column, f"the {role}'s id")
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise data_error(
            source.path,
            f"expected integers or strings in the {role} column, found {type_name(kind)}. Convert it or use another.",
        )
    is_integer = pa.types.is_integer(kind)
    try:
        ids = column.cast(pa.int64() if is_integer else pa.string())
    except pa.ArrowInvalid as error:
        raise data_error(source.path, f"the {role} column does not fit 64-bit integers: {error}.") from None
    if not is_integer:
        _refuse_row(source, pc.equal(ids, ""), f"expected the {role}'s id, found an empty string.")
    return ids


def _values(source: Source, column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise data_error(
            source.path,
            f"expected numbers in the rating column, found {kind}. Convert it or use another.",
        )
    _refuse_missing(source, column, "the rating")
    # Whole numbers beyond 2**24 are rounded, as everywhere in float32.
    values = column.cast(pa.float64(), safe=False).cast(pa.float32(), safe=False)
    _refuse_row(source, pc.invert(pc.is_finite(values)), "expected a finite rating, found NaN or infinity.")
    return values


def _refuse_missing(source: Source, column: pa.ChunkedArray, what: str) -> None:
    if column.null_count:
        _refuse_row(source, pc.is_null(column), f"expected {what}, found a missing value.")


def _refuse_row(source: Source, is_bad: pa.ChunkedArray, what: str) -> None:
    row = pc.index(is_bad, True).as_py()
    if row >= 0:
        raise data_error(source.path, f"{what} Correct or remove the row.", row=row + 1)
