"""Reading a file of ratings, whatever its format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from nbps.data.ratings.columns import Columns, check_columns
from nbps.data.ratings.formats import SEPARATORS, check_format, detect_format
from nbps.data.ratings.ids import IdMap
from nbps.data.ratings.layout import find_layout
from nbps.data.ratings.ratings import Ratings
from nbps.data.source import Source, data_error, open_source
from nbps.errors import OutOfMemoryError


def read_ratings(
    path: str | Path,
    *,
    format: str | None = None,  # noqa: A002
    columns: Columns | None = None,
    delimiter: str | None = None,
) -> Ratings:
    """Read a file of ratings.

    Parameters
    ----------
    path : str or pathlib.Path
        The file; it may be compressed with gzip, bzip2 or Zstandard, under any name.
    format : str, optional
        One of

        - ``"tsv"``: separated by tabs, three or more columns, as MovieLens 100K's ``u.data``
        - ``"dat"``: separated by ``::``, as MovieLens 1M's and 10M's ``ratings.dat``
        - ``"csv"``: separated by commas or semicolons, with or without a header line, as MovieLens' ``ratings.csv``
        - ``"libmf"``: separated by blanks, as LIBMF's and FilmTrust's files
        - ``"jsonl"``: JSON lines, an object on each
        - ``"parquet"``
        - ``"arrow"``: Arrow IPC file or stream

        By default it is found from the content, and from the name where that leaves a choice.
    columns : sequence of three str or int, optional
        The columns of user, item and rating: names in the header, or positions from 0. By default the first
        three, or where there is a header those with usual names (``userId``, ``user_id``, ``item``, ...).
    delimiter : str, optional
        What separates the columns of a text file, where it is nothing usual, as ``"|"``; its rules are those of
        ``"csv"`` otherwise.

    Returns
    -------
    Ratings
        In file order. Pairs (user, item) that occur more than once are kept. Ids are integers where all ids
        of the column are, otherwise strings; ``1.0`` is the integer 1 there. Whether ``007`` is an integer or a string
        is decided by the first 64 KiB: a leading zero there makes the column strings.

    Raises
    ------
    DataError
        If the file is missing, empty, damaged or not in the format, a column is missing, or a line is bad
        (the message has its number, from 1).
    OutOfMemoryError
        If the ratings do not fit the memory that is free: 16 bytes for each.
    ConfigError
        If `format`, `columns` or `delimiter` cannot be used.
    """
    return Ratings.from_table(read_table(path, format, columns, delimiter), in_place=True)


def read_table(path: str | Path, format: str | None, columns: Columns | None, delimiter: str | None) -> pa.Table:  # noqa: A002
    """Read a file as `read_ratings` does: a table as `Ratings.from_table` takes it, with the ids of the file."""
    check_columns(columns)
    requested = check_format(format, delimiter)
    source = open_source(path)
    try:
        return _read(source, requested, columns, delimiter)
    except MemoryError as error:
        if isinstance(error, OutOfMemoryError):
            raise
        raise OutOfMemoryError(f"cannot read ratings from {str(source.path)!r}: {error}") from None


def _read(source: Source, requested: str | None, columns: Columns | None, delimiter: str | None) -> pa.Table:
    found = detect_format(source, requested)
    if found in SEPARATORS:
        from nbps.data.ratings.text import read_text  # readers of formats that are not read need not be imported

        source.check_fits(source.estimated_lines(), known=False)
        return read_text(source, find_layout(source, found, columns, delimiter))
    if found == "jsonl":
        from nbps.data.ratings.json_lines import read_json_lines

        source.check_fits(source.estimated_lines(), known=False)
        return read_json_lines(source, columns)
    from nbps.data.ratings.columnar import read_columnar

    return read_columnar(source, found, columns)


def read_test_ratings(
    path: str | Path,
    train: Ratings,
    *,
    format: str | None = None,  # noqa: A002
    columns: Columns | None = None,
    delimiter: str | None = None,
) -> tuple[Ratings, int]:
    """Read ratings to test with, in the codes of the training ratings.

    Parameters
    ----------
    path, format, columns, delimiter
        As for `read_ratings`.
    train : Ratings
        Whose id maps to use.

    Returns
    -------
    ratings : Ratings
        Those whose user and item both occur in the maps of `train`.
    dropped : int
        How many do not.

    Raises
    ------
    DataError
        As for `read_ratings`, and if no rating is left.
    """
    own = read_ratings(path, format=format, columns=columns, delimiter=delimiter)
    test, dropped = own.recode(train.user_ids, train.item_ids)
    if not len(test):
        raise data_error(
            Path(path),
            f"expected ratings of users and items of the training data, found none among {dropped}. The ids "
            f"here begin with user {_first(own.user_ids)!r} and item {_first(own.item_ids)!r}, those of the "
            f"training data with user {_first(train.user_ids)!r} and item {_first(train.item_ids)!r}.",
        )
    return test, dropped


def _first(ids: IdMap) -> Any:
    return ids.ids[0].as_py()
