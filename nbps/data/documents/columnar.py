"""Documents in a column of Arrow and Parquet files, and of tables in memory: texts, or lists of words."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nbps.buffers import numbers
from nbps.data.documents.text import Counted, collected, counted
from nbps.data.ratings.ids import is_text
from nbps.data.source import Source
from nbps.errors import ConfigError, DataError

_USUAL = ("text", "words", "tokens", "document")
_COUNTS = "counts"
_ARROW_FILE_MAGIC = b"ARROW1"

Fail = Callable[..., DataError]


def read_columnar(
    source: Source, format_name: str, column: str | None, tokenizer: Callable[[str], Iterable[str]]
) -> Counted:
    """Read a Parquet or Arrow file; arguments and errors as of `documents_of`."""
    try:
        content = source.read_all()
        if format_name == "parquet":
            import pyarrow.parquet

            table = pyarrow.parquet.read_table(pa.BufferReader(content))
        else:
            import pyarrow.ipc

            is_file = source.head.startswith(_ARROW_FILE_MAGIC)
            with pyarrow.ipc.open_file(content) if is_file else pyarrow.ipc.open_stream(content) as reader:
                table = reader.read_all()
            table.validate(full=True)  # offsets of a damaged file would be followed out of its buffers
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, MemoryError):
            raise
        raise source.error(
            f"expected a whole {format_name} file, found damaged data: {error}. Write it again."
        ) from None
    return documents_of(table, column, tokenizer, source.error)


def documents_of(table: Any, column: str | None, tokenizer: Callable[[str], Iterable[str]], fail: Fail) -> Counted:
    """Return starts, words, counts and vocabulary of the documents in a table.

    Parameters
    ----------
    table : pyarrow.Table, or what has ``__arrow_c_stream__``
    column : str or None
        Of texts or of lists of words. With lists of words a column ``counts`` may say how often each occurs.
    tokenizer : callable
    fail : callable
        Makes the error about the table.

    Raises
    ------
    DataError
        If there is no such column, or a value is missing or a count cannot be.
    """
    if not isinstance(table, pa.Table):
        if not hasattr(table, "__arrow_c_stream__"):
            raise ConfigError(
                f"table: expected a frame or table (of pandas, Polars, Arrow or what exports Arrow streams), found "
                f"{type(table).__name__}; Documents.from_texts takes lists"
            )
        table = pa.RecordBatchReader.from_stream(table).read_all()
    name = _located(table.schema, column, fail)
    found = table[name].combine_chunks()
    if isinstance(found, pa.ChunkedArray):  # an empty one, or too large for one array
        found = pa.concat_arrays(found.chunks) if found.num_chunks else pa.array([], found.type)
    _refuse_missing(found, name, fail)
    if not len(found):
        raise fail("expected documents, found a table without rows.")
    if is_text(found.type):
        return counted(found.to_pylist(), tokenizer, None, 1, 1.0)
    words = found.flatten()
    _refuse_missing(words, f"{name} (within a list)", fail)
    lengths = numbers(pc.list_value_length(found)).astype(np.int64)
    document = np.repeat(np.arange(len(found)), lengths)
    coded = words if pa.types.is_dictionary(words.type) else words.cast(pa.string()).dictionary_encode()
    counts = None
    if _COUNTS in table.column_names:
        counts = _counts(table[_COUNTS].combine_chunks(), lengths, fail)
    return collected(coded, document, len(found), counts=counts)


def _located(schema: pa.Schema, column: str | None, fail: Fail) -> str:
    """Return the name of the column to read."""
    names = [field.name for field in schema if is_text(field.type) or _is_list_of_words(field.type)]
    if column is not None:
        if column not in names:
            raise fail(
                f"expected texts or lists of words in the column {column!r}, found the columns {_shown(schema)}."
            )
        return column
    usual = [name for name in _USUAL if name in names]
    if len(names) != 1 and not usual:
        raise fail(
            f"expected a column of texts or of lists of words, found the columns {_shown(schema)}. Say which to use: "
            f"column=, or --column in a shell."
        )
    return usual[0] if usual else names[0]


def _shown(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name!r} ({field.type})" for field in schema) or "none"


def _is_list_of_words(kind: pa.DataType) -> bool:
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return False
    inner = kind.value_type
    return is_text(inner.value_type if pa.types.is_dictionary(inner) else inner)


def _refuse_missing(column: pa.Array, name: str, fail: Fail) -> None:
    if column.null_count:
        row = pc.index(pc.is_null(column), True).as_py()
        raise fail(f"expected no missing values in the column {name!r}, found a null. Remove the row.", row=row + 1)


def _counts(column: pa.Array, lengths: np.ndarray[Any, Any], fail: Fail) -> np.ndarray[Any, Any]:
    """Return the counts that go with lists of words of such lengths."""
    kind = column.type
    if not ((pa.types.is_list(kind) or pa.types.is_large_list(kind)) and pa.types.is_integer(kind.value_type)):
        raise fail(f"expected lists of whole numbers in the column {_COUNTS!r}, found {kind}.")
    _refuse_missing(column, _COUNTS, fail)
    own = numbers(pc.list_value_length(column))
    if not np.array_equal(own, lengths):
        row = int(np.argmax(own != lengths))
        raise fail(f"expected {lengths[row]} counts, one for each word, found {own[row]}.", row=row + 1)
    found = numbers(column.flatten())
    if found.size and found.min() < 1:
        row = int(np.searchsorted(np.cumsum(lengths), np.argmax(found < 1), side="right"))
        raise fail(f"expected counts of at least 1, found {found.min()}.", row=row + 1)
    return found.astype(np.int64)
