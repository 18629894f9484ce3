"""How the lines of one text file are laid out, found from its first lines."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nbps.data.ratings.columns import NO_RATINGS, Columns, is_known_header, locate
from nbps.data.ratings.formats import separator_of, split
from nbps.data.source import HEAD_BYTES, Source, data_error

# The numbers that both pyarrow and Python read, in the same way.
NUMBER = re.compile(r"[ \t]*-?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?[ \t]*", re.ASCII)
NOT_FINITE = re.compile(r"[ \t]*[+-]?(nan|inf|infinity)[ \t]*", re.ASCII | re.IGNORECASE)
# Integers as `str` writes them: an id 007 or +7 is a string, because 7 would be another id.
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}", re.ASCII)
WHOLE_NUMBER = r"-?(0|[1-9][0-9]*)(\.0*)?"  # an integer, as programs write it that hold it as a float, too
MISSING = r"nan|NaN|NA|N/A|<NA>|null|NULL|None"  # what programs write that have no number
# Formats that the data sets publish with a header line.
_WITH_HEADER = ("csv", "tsv")


@dataclass(frozen=True)
class Layout:
    """What every line of a file must look like."""

    format: str
    separator: str  # what is between two fields
    field_count: int  # at least 3, the same in every line
    header_lines: int  # lines up to and with the header; 0 where there is none
    positions: tuple[int, int, int]  # of user, item and rating, each < field_count
    is_integer: tuple[bool, bool]  # whether the ids of the sampled users and items are all integers
    is_irregular: bool  # libmf only: the sample has runs of blanks, or blanks at a line's end

    def split(self, line: str) -> list[str]:
        """Return the fields of one line, without its end."""
        return split(line, self.separator)


def find_layout(
    source: Source, format_name: str, columns: Columns | None = None, delimiter: str | None = None
) -> Layout:
    """Find the layout of a text file in a known format, with its usual separators or `delimiter`.

    Raises
    ------
    DataError
        If the first line has fewer than three fields, or a column is missing.
    """
    lines = _sample(source)
    number, first = next(((n, line) for n, line in enumerate(lines, 1) if line.strip()), (0, ""))
    if not number:
        raise data_error(source.path, "expected ratings, found only empty lines.")
    separator = separator_of(format_name, first) if delimiter is None else delimiter
    names = [name.strip() for name in split(first, separator)]
    if len(names) < 3:
        what = f"{len(names)} field{'s' * (len(names) != 1)}: {first[:80]!r}"
        raise data_error(
            source.path,
            f"expected user, item and rating separated by {separator!r} ({format_name} format), found {what}. "
            + (NO_RATINGS if len(names) == 2 else "Name the right format."),
            line=number,
        )
    if _has_header(format_name, names, columns):
        positions = locate(source.error, names, columns)
    else:
        number = 0
        positions = locate(source.error, [f"column {i}" for i in range(len(names))], columns or (0, 1, 2))
    sample = [split(line, separator) for line in lines[number:] if line.strip()]
    ids = [[fields[p].strip() for fields in sample if len(fields) > p] for p in positions[:2]]
    users, items = (all(map(_INTEGER.fullmatch, column)) for column in ids)
    return Layout(
        format=format_name,
        separator=separator,
        field_count=len(names),
        header_lines=number,
        positions=positions,
        is_integer=(users, items),
        is_irregular=format_name == "libmf" and any(line != " ".join(line.split()) for line in lines),
    )


def _has_header(format_name: str, names: list[str], columns: Columns | None) -> bool:
    if format_name not in _WITH_HEADER:
        return False
    if columns is not None and any(isinstance(column, str) for column in columns):
        return True
    if is_known_header(names):
        return True
    if format_name == "tsv":
        return False  # tab-separated sets come without one; a bad first rating is reported as such
    position = columns[2] if columns is not None else 2
    rating = names[position] if isinstance(position, int) and position < len(names) else ""
    # A decimal comma is refused as a rating, not taken for a header.
    return not (NUMBER.fullmatch(rating.replace(",", ".")) or NOT_FINITE.fullmatch(rating))


def _sample(source: Source) -> list[str]:
    """Return the whole lines of the file's head."""
    lines = re.split(r"\r\n|\r|\n", source.head.decode("utf-8-sig", errors="replace"))
    if len(source.head) == HEAD_BYTES and len(lines) > 1:
        lines.pop()  # cut off by the sample's end
    return lines
