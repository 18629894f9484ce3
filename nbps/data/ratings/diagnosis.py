"""Finding the first bad line of a text file, after the fast reader has rejected the file.

Goes through the file line by line with the rules of `nbps.data.ratings.text` written out. Slow (about 1 us per line
and field) and only run on the way to an error.
"""

from __future__ import annotations

import collections
import io
import re
import zlib
from collections.abc import Callable, Sequence

import numpy as np

from nbps.data.ratings.columns import ROLES
from nbps.data.ratings.layout import MISSING, NOT_FINITE, NUMBER, Layout
from nbps.data.source import Source
from nbps.errors import DataError

SHOWN_CHARACTERS = 80


def first_bad_line(source: Source, what_is_wrong: Callable[[int, str], str | None]) -> DataError | None:
    """Make the error that names the first line, counted from 1, with which something is wrong; None if all are good."""
    number = 0
    try:
        with source.open_python() as stream:
            # pyarrow ends lines at \n, \r\n and \r as well.
            lines = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline=None)
            for number, line in enumerate(lines, 1):
                wrong = what_is_wrong(number, line.removesuffix("\n"))
                if wrong is not None:
                    if source.compression:  # to the end, where the checksum is: damage explains any bad line
                        collections.deque(lines, maxlen=0)
                    return source.error(f"{wrong}. Correct or remove the line.", line=number)
    except (EOFError, OSError, zlib.error) as error:
        what = error.strerror if isinstance(error, OSError) else None
        damage = source.damage(error, line=number + 1)
        return damage or source.error(f"it cannot be read: {what or error}.", line=number + 1)
    return None


def what_is_wrong(number: int, line: str, layout: Layout, lacks: Sequence[bool]) -> str | None:
    """Say what is wrong with line `number` of a file of this layout; None if nothing is.

    `lacks` says whether the ids of users, and of items, are numbers of which some are missing.
    """
    if number <= layout.header_lines or not (line.strip() if layout.format == "libmf" else line):
        return None
    shown = repr(line[:SHOWN_CHARACTERS])
    if (wrong := not_text(line)) is not None:
        return wrong
    fields = layout.split(line)
    if len(fields) != layout.field_count:
        mark = "blanks" if layout.format == "libmf" else repr(layout.separator)
        return f"expected {layout.field_count} fields separated by {mark}, found {len(fields)}: {shown}"
    for role, position, lacks_some in zip(ROLES, layout.positions, lacks, strict=False):
        if not fields[position]:
            return f"expected the {role}'s id, found an empty field: {shown}"
        if "\0" in fields[position]:
            return f"expected the {role}'s id, found a NUL byte in it: {shown}"
        if lacks_some and re.fullmatch(MISSING, fields[position]):
            return f"expected the {role}'s id, found a missing value, {fields[position]!r} among numbers: {shown}"
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


def not_text(line: str) -> str | None:
    """Say that a line is not UTF-8, if it is not."""
    try:
        line.encode()
    except UnicodeEncodeError:
        return f"expected UTF-8 text, found other bytes: {line[:SHOWN_CHARACTERS]!r}"
    return None


def _float32(text: str) -> np.float32:
    with np.errstate(over="ignore"):
        return np.float32(float(text))
