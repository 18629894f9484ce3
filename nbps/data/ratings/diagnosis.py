"""Finding the first bad line of a text file, after the fast reader has rejected the file.

Goes through the file line by line with the rules of `nbps.data.ratings.text` written out. Slow (about 1 us per line
and field) and only run on the way to an error.
"""

from __future__ import annotations

import collections
import gzip
import io
import zlib

import numpy as np

from nbps.data.ratings.columns import ROLES
from nbps.data.ratings.layout import NOT_FINITE, NUMBER, Layout
from nbps.data.source import Source, broken_gzip, data_error
from nbps.errors import DataError

_SHOWN_CHARACTERS = 80


def first_bad_line(source: Source, layout: Layout) -> DataError | None:
    """Make the error that names the first line that is not as `layout` says; None if every line is."""
    number = 0
    try:
        with source.open_python() as stream:
            # pyarrow ends lines at \n, \r\n and \r as well.
            lines = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline=None)
            for number, line in enumerate(lines, 1):
                line = line.removesuffix("\n")
                is_blank = not (line.strip() if layout.format == "libmf" else line)
                wrong = None if is_blank or number <= layout.header_lines else _what_is_wrong(line, layout)
                if wrong is not None:
                    if source.is_gzip:  # to the end, where the checksum is: damage explains any bad line
                        collections.deque(lines, maxlen=0)
                    return data_error(source.path, f"{wrong}. Correct or remove the line.", line=number)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        return broken_gzip(source.path, error, line=number + 1)
    except OSError as error:
        return data_error(source.path, f"it cannot be read: {error.strerror or error}.", line=number + 1)
    return None


def _what_is_wrong(line: str, layout: Layout) -> str | None:
    shown = repr(line[:_SHOWN_CHARACTERS])
    if not line.isascii():
        try:
            line.encode()
        except UnicodeEncodeError:
            return f"expected UTF-8 text, found other bytes: {shown}"
    fields = layout.split(line)
    if len(fields) != layout.field_count:
        mark = "blanks" if layout.format == "libmf" else repr(layout.separator)
        return f"expected {layout.field_count} fields separated by {mark}, found {len(fields)}: {shown}"
    for role, position in zip(ROLES[:2], layout.positions, strict=False):
        if not fields[position]:
            return f"expected the {role}'s id, found an empty field: {shown}"
    rating = fields[layout.positions[2]]
    if NUMBER.fullmatch(rating):
        if np.isfinite(_float32(rating)):
            return None
        return f"expected a rating that float32 holds, found {rating!r}: {shown}"
    if NOT_FINITE.fullmatch(rating):
        return f"expected a finite rating, found {rating!r}: {shown}"
    if NUMBER.fullmatch(rating.replace(",", ".")):
        return f"expected a rating with a decimal point, found {rating!r}: {shown}"
    return f"expected a number as rating, found {rating!r}: {shown}"


def _float32(text: str) -> np.float32:
    with np.errstate(over="ignore"):
        return np.float32(float(text))
