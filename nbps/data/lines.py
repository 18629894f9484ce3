"""Finding the first bad line of a text file, after the fast reader has rejected the file.

Goes through the file line by line, with the rules of its format written out. Slow (about 1 us per line and field) and
only run on the way to an error.
"""

from __future__ import annotations

import collections
import io
import zlib
from collections.abc import Callable

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


def not_text(line: str) -> str | None:
    """Say that a line is not UTF-8, if it is not."""
    try:
        line.encode()
    except UnicodeEncodeError:
        return f"expected UTF-8 text, found other bytes: {line[:SHOWN_CHARACTERS]!r}"
    return None
