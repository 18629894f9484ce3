"""Files of lda-c (Blei) and of R's lda package: a document a line, ``N word:count ... word:count``, words from 0."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from nbps.data.lines import SHOWN_CHARACTERS, first_bad_line, not_text
from nbps.data.source import Source

_LARGEST = 2**31 - 1
_FIRST = re.compile(rb"\d+(\s+\d+:\d+)*\s*?(\n|$)")

Entries = tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.int32], int]


def is_lda_c(head: bytes) -> bool:
    """Whether a file that begins so is one."""
    first = head.partition(b"\n")[0]
    return re.match(rb"\d+ \S*:", first) is not None or _FIRST.fullmatch(first) is not None


def read_lda_c(source: Source) -> Entries:
    """Return starts, words and counts of the documents, and the largest code of a word plus 1.

    Raises
    ------
    DataError
        If a line is wrong; names it.
    """
    lines = source.read_content().splitlines()
    stated, found = np.empty(len(lines), np.int64), np.empty(len(lines), np.int64)
    pairs: list[npt.NDArray[np.int64]] = []
    try:
        for number, line in enumerate(lines):
            fields = line.split()
            stated[number], found[number] = int(fields[0]), len(fields) - 1
            pairs.append(_pairs(fields[1:]))
    except (IndexError, ValueError):
        raise _bad(source) from None
    every = np.concatenate(pairs) if pairs else np.empty((0, 2), np.int64)
    if not np.array_equal(stated, found) or (every < (0, 1)).any() or (every > _LARGEST).any():
        raise _bad(source)
    starts = np.concatenate([[0], np.cumsum(found)]).astype(np.int64)
    words, counts = every.astype(np.int32).T
    return starts, np.ascontiguousarray(words), np.ascontiguousarray(counts), int(words.max(initial=-1)) + 1


def _pairs(fields: list[bytes]) -> npt.NDArray[np.int64]:
    """Return the numbers of fields ``a:b``, int64[n, 2]."""
    return np.array([field.split(b":") for field in fields], np.int64).reshape(len(fields), 2)


def _bad(source: Source) -> Exception:
    return first_bad_line(source, _what_is_wrong) or source.error("expected the lda-c format, found something else.")


def _what_is_wrong(number: int, line: str) -> str | None:
    shown = repr(line[:SHOWN_CHARACTERS])
    if (wrong := not_text(line)) is not None:
        return wrong
    fields = line.split()
    if not fields or not fields[0].isdecimal():
        return f"expected the number of words of a document, then word:count for each, found {shown}"
    if len(fields) - 1 != int(fields[0]):
        return f"expected {fields[0]} words as the line says, found {len(fields) - 1}: {shown}"
    for field in fields[1:]:
        word, colon, count = field.partition(":")
        if not (colon and re.fullmatch(r"-?\d+", word) and 0 <= int(word) < _LARGEST):
            return f"expected word:count, with a word from 0, found {field!r}: {shown}"
        if not (re.fullmatch(r"-?\d+", count) and 1 <= int(count) <= _LARGEST):
            return f"expected word:count, with a whole count of at least 1, found {field!r}: {shown}"
    return None
