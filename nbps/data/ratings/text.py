"""Reading the text formats with pyarrow's CSV reader, in blocks on all cores.

The reader knows one separator of one character. Files where that is not enough (``::``, runs of blanks) are
rewritten block by block on their way to it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any, BinaryIO, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from nbps.data.lines import first_bad_line
from nbps.data.ratings.columns import ROLES
from nbps.data.ratings.diagnosis import what_is_wrong
from nbps.data.ratings.formats import is_quoted
from nbps.data.ratings.layout import MISSING, WHOLE_NUMBER, Layout
from nbps.data.source import Source

# ASCII's own field separator: no id contains it.
_FIELD_MARK = "\x1f"
_READ_BYTES = 1 << 20
_LONG = re.compile(r"'-?\d{10,19}'")  # in pyarrow's words about what it could not read: an integer that takes 64 bits


def read_text(source: Source, layout: Layout) -> pa.Table:
    """Table with the columns user, item (each int32, int64 or string) and rating (float32), without nulls.

    Raises
    ------
    DataError
        If a line is not as `layout` says, or a rating is not finite; the message has the line's number.
    """
    rewrite = len(layout.separator.encode()) > 1 or layout.is_irregular
    short, long = ([kind if whole else pa.string() for whole in layout.is_integer] for kind in (pa.int32(), pa.int64()))
    try:
        try:
            table = _narrow(_read(source, layout, short, rewrite))
        except pa.ArrowInvalid as error:
            if not _LONG.search(str(error)):
                raise
            table = _narrow(_read(source, layout, long, rewrite))
    except (pa.ArrowInvalid, OSError):
        # An id that is not an integer after a sample that had only integers, or blanks after none.
        try:
            table = _narrow(_read(source, layout, [pa.string()] * 2, rewrite or layout.format == "libmf"))
        except (pa.ArrowInvalid, OSError) as error:
            raise _explained(source, layout, error) from None
    if table.num_rows == 0:
        raise source.error("expected ratings, found only a header line.")
    if not pc.all(pc.is_finite(table["rating"])).as_py() or _has_bad_ids(table):
        raise _explained(source, layout, None)
    lacks = [_lacks_numbers(table[role]) for role in ROLES[:2]]
    if any(lacks):
        raise _explained(source, layout, None, lacks)
    return table


def _read(source: Source, layout: Layout, id_types: list[pa.DataType], rewrite: bool) -> pa.Table:
    names = [f"f{i}" for i in range(layout.field_count)]
    wanted = [names[position] for position in layout.positions]
    with source.open() as stream:
        file: Any = _Rewritten(cast(BinaryIO, stream), layout) if rewrite else stream
        table = pyarrow.csv.read_csv(
            file,
            read_options=pyarrow.csv.ReadOptions(column_names=names, skip_rows=layout.header_lines),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=_FIELD_MARK if rewrite else layout.separator,
                quote_char='"' if is_quoted(layout.separator) else False,
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict(zip(wanted, [*id_types, pa.float32()], strict=True)),
                include_columns=wanted,
                null_values=[],  # an empty or "NA" field is an error, never a missing value
            ),
        )
    return table.rename_columns(list(ROLES))


def _narrow(table: pa.Table) -> pa.Table:
    """Return the table with integer ids wherever all ids of a column are whole numbers, 1.0 as 1."""
    for position, role in enumerate(ROLES[:2]):
        column = table[role]
        if pa.types.is_string(column.type) and _all_match(column, WHOLE_NUMBER):
            try:
                column = pc.replace_substring_regex(column, r"\..*", "").cast(pa.int64())
            except pa.ArrowInvalid:
                continue  # more digits than 64 bits hold
            table = table.set_column(position, role, column)
    return table


def _lacks_numbers(ids: pa.ChunkedArray) -> bool:
    """Whether ids would all be whole numbers, were not some of them missing."""
    if not (pa.types.is_string(ids.type) and _all_match(ids, f"{WHOLE_NUMBER}|{MISSING}")):
        return False
    return not _all_match(ids, WHOLE_NUMBER) and not _all_match(ids, MISSING)


def _all_match(column: pa.ChunkedArray, pattern: str) -> bool:
    """Whether all strings of a column match; the first few, which mostly tell, are looked at first."""
    parts = (column.slice(0, 100), column)
    return all(pc.all(pc.match_substring_regex(part, f"^({pattern})$")).as_py() for part in parts)


def _has_bad_ids(table: pa.Table) -> bool:
    """Whether there are empty ids, or some with a NUL byte."""
    columns = [table[role] for role in ROLES[:2] if pa.types.is_string(table[role].type)]
    return any(pc.any(pc.equal(c, "")).as_py() or _has_nul(c) for c in columns)


def _has_nul(column: pa.ChunkedArray) -> bool:
    # Arrow's search takes 50 ns a string; all bytes of a chunk at once take 1.
    suspects = [
        chunk for chunk in column.chunks if (data := chunk.buffers()[2]) and not np.frombuffer(data, "u1").all()
    ]
    return any(pc.any(pc.match_substring(chunk, "\0")).as_py() for chunk in suspects)


def _explained(
    source: Source, layout: Layout, error: Exception | None, lacks: Sequence[bool] = (False, False)
) -> Exception:
    """Make the error with the number of the first bad line, or with pyarrow's words where none is found.

    `lacks` says whether the ids of users, and of items, are numbers of which some are missing.
    """
    found = first_bad_line(source, functools.partial(what_is_wrong, layout=layout, lacks=lacks))
    return found or source.error(f"expected the {layout.format} format, found: {error}.")


class _Rewritten:
    """File object whose fields are separated by `_FIELD_MARK`, as pyarrow's reader takes it."""

    def __init__(self, stream: BinaryIO, layout: Layout) -> None:
        self._stream = stream
        self._separator = layout.separator.encode()
        self._is_blank = layout.format == "libmf"
        self._rest = b""  # what follows the last line end read so far
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        """Return the next block, empty at the end; it ends where a line ends, so its size is not `size`."""
        while True:
            block = self._stream.read(_READ_BYTES)
            cut = block.rfind(b"\n") + 1
            if cut or not block:
                lines = self._rest + block[:cut]
                self._rest = block[cut:]
                return self._rewrite(lines)
            self._rest += block

    def _rewrite(self, lines: bytes) -> bytes:
        mark = _FIELD_MARK.encode()
        if not self._is_blank:
            return lines.replace(self._separator, mark)
        lines = re.sub(rb"(?m)^[ \t]+|[ \t\r]+$", b"", lines)
        return re.sub(rb"[ \t]+", mark, lines)

    def readable(self) -> bool:
        """Whether it can be read: always."""
        return True

    def close(self) -> None:
        """Nothing: the stream belongs to the caller."""
        self.closed = True
