"""The bag-of-words files of the UCI repository: ``docword.kos.txt.gz`` and the like.

Three lines with the numbers of documents, of words and of entries; then an entry a line, ``document word count``,
counted from 1. Documents that are not named are empty.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv

from nbps.data.arrays import flat
from nbps.data.lines import SHOWN_CHARACTERS, first_bad_line, not_text
from nbps.data.memory import check_fits
from nbps.data.source import Source

_HEADER = ("documents", "words", "entries")
_HEADER_LINES = len(_HEADER)
_NAMES = ["document", "word", "count"]
_LARGEST = 2**31 - 1

Entries = tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.int32], int]


def is_bag_of_words(head: bytes) -> bool:
    """Whether a file that begins so is one: three numbers on a line each, then three on one."""
    return re.match(rb"\d+\s*?\n\d+\s*?\n\d+\s*?(\n\d+ \d+|\n?$)", head) is not None


def read_bag_of_words(source: Source) -> Entries:
    """Return starts, words and counts of the documents, and the number of words that the header states.

    Raises
    ------
    DataError
        If a line is wrong, or there are not as many as the header says; names the line.
    """
    lines = source.head.split(b"\n", _HEADER_LINES)[:_HEADER_LINES]
    try:
        documents, size, entries = map(int, lines)
    except ValueError:
        raise first_bad_line(source, _Rules(_LARGEST, _LARGEST)) or source.error(
            f"expected the numbers of documents, words and entries on the first three lines, found {lines}.", line=1
        ) from None
    rules = _Rules(documents, size)
    if max(documents, size) > _LARGEST:
        raise first_bad_line(source, rules) or source.error(f"expected numbers up to {_LARGEST:,}, found {lines}.")
    check_fits(f"{documents:,} documents, as many as the first line says, need", 2 * 8 * documents)  # starts, counts
    try:
        with source.open() as stream:
            table = pyarrow.csv.read_csv(
                stream,
                read_options=pyarrow.csv.ReadOptions(column_names=_NAMES, skip_rows=_HEADER_LINES),
                parse_options=pyarrow.csv.ParseOptions(delimiter=" ", quote_char=False),
                convert_options=pyarrow.csv.ConvertOptions(
                    column_types=dict.fromkeys(_NAMES, pa.int32()), null_values=[]
                ),
            )
    except pa.ArrowInvalid as error:
        if "Empty CSV" not in str(error):
            raise first_bad_line(source, rules) or source.error(f"expected bags of words, found: {error}.") from None
        table = pa.table({name: pa.array([], pa.int32()) for name in _NAMES})
    except OSError as error:
        raise first_bad_line(source, rules) or source.error(f"it cannot be read: {error}.") from None
    document, words, counts = (flat(table[name], np.int32) for name in _NAMES)
    if counts.size and not (
        1 <= document.min() <= document.max() <= documents and 1 <= words.min() <= words.max() <= size
        and counts.min() >= 1
    ):  # fmt: skip
        raise first_bad_line(source, rules) or source.error("expected documents and words as in the header.")
    if counts.size != entries:
        raise source.error(
            f"expected {entries:,} entries as the third line says, found {counts.size:,}. The file may have been cut "
            f"off: copy it again.",
            line=_HEADER_LINES + counts.size,
        )
    if (np.diff(document) < 0).any():
        order = np.argsort(document, kind="stable")
        words, counts = words[order], counts[order]
    starts = np.zeros(documents + 1, np.int64)
    np.cumsum(np.bincount(document - 1, minlength=documents), out=starts[1:])
    return starts, words - np.int32(1), counts, size


class _Rules:
    """What is wrong with a line of a file of so many documents and words."""

    def __init__(self, documents: int, words: int) -> None:
        self._limits = (("document", documents), ("word", words), ("count", _LARGEST))

    def __call__(self, number: int, line: str) -> str | None:
        shown = repr(line[:SHOWN_CHARACTERS])
        if (wrong := not_text(line)) is not None:
            return wrong
        if number <= _HEADER_LINES:
            limit = None if number == _HEADER_LINES else _LARGEST  # entries may be more
            digits = line.strip()
            if digits.isdecimal() and (limit is None or (len(digits) <= len(str(limit)) and int(digits) <= limit)):
                return None
            most = "" if limit is None else f", at most {limit:,}"
            return f"expected the number of {_HEADER[number - 1]}{most}, found {shown}"
        fields = line.split(" ")
        if len(fields) != len(_NAMES):
            return f"expected document, word and count separated by blanks, found {len(fields)} fields: {shown}"
        for field, (name, limit) in zip(fields, self._limits, strict=True):
            if not (re.fullmatch(r"-?\d+", field) and 1 <= int(field) <= limit):
                return f"expected a {name}, a whole number from 1 to {limit:,}, found {field!r}: {shown}"
        return None
