"""The words of documents, by code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from nbps.data.memory import check_fits
from nbps.data.source import open_source
from nbps.errors import ConfigError

_NUMBER_BYTES = 80  # of a number as a string of Python's, its place in a list, and both in the array


def checked_vocabulary(vocabulary: Any, name: str = "vocabulary") -> pa.Array:
    """Return `vocabulary` if it is an Arrow array of different strings, without nulls.

    Raises
    ------
    ConfigError
        Otherwise.
    """
    if not isinstance(vocabulary, pa.Array) or not pa.types.is_string(vocabulary.type) or vocabulary.null_count:
        kind = vocabulary.type if isinstance(vocabulary, pa.Array) else type(vocabulary).__name__
        raise ConfigError(f"{name}: expected an Arrow array of strings without nulls, found {kind}.")
    if (twice := _first_twice(vocabulary)) is not None:
        raise ConfigError(f"{name}: expected different words, found {vocabulary[twice].as_py()!r} twice.")
    return vocabulary


def as_vocabulary(words: Any, size: int) -> pa.Array:
    """Return `words`, of which there must be `size`, as an Arrow array; the numbers from 0 if it is None.

    Raises
    ------
    ConfigError
        If there are more or fewer, they are not different strings, or something else than words.
    OutOfMemoryError
        If memory does not hold that many numbers.
    """
    if words is None:
        check_fits(
            f"a vocabulary of {size:,} numbers, as many as the data say there are words, needs", _NUMBER_BYTES * size
        )
        return pa.array(list(map(str, range(size))), pa.string())
    if isinstance(words, pa.ChunkedArray):
        words = words.combine_chunks()
    try:
        found = words.cast(pa.string()) if isinstance(words, pa.Array) else pa.array(list(words), pa.string())
    except (pa.ArrowException, TypeError) as error:
        raise ConfigError(f"vocabulary: expected a sequence of words, found something else: {error}") from None
    if len(found) != size:
        raise ConfigError(f"vocabulary: expected {size} words, one for each column, found {len(found)}.")
    return checked_vocabulary(found)


def read_vocabulary(path: str | Path) -> pa.Array:
    """Read a file with a word on each line, compressed or not.

    Raises
    ------
    DataError
        If the file cannot be read, is not UTF-8, or a line is empty or repeats another one.
    """
    source = open_source(path, "words")
    lines = source.read_lines()
    words = pa.array([line.strip() for line in lines], pa.string())
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise source.error("expected a word, found an empty line. Correct or remove it.", line=number)
    if (twice := _first_twice(words)) is not None:
        what = f"expected different words, found {words[twice].as_py()!r} for the second time"
        raise source.error(f"{what}. Correct or remove the line.", line=twice + 1)
    return words


def _first_twice(words: pa.Array) -> int | None:
    """Return where the first word that was there before is."""
    if len(words.unique()) == len(words):
        return None
    codes = np.asarray(words.dictionary_encode().indices)
    return int(np.argmax(codes < np.arange(codes.size)))
