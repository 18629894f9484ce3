"""Ratings from the frames of other libraries, by way of Arrow; none of these libraries is needed."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from nbps.data.ratings.columnar import checked, checked_ids
from nbps.data.ratings.columns import ROLES, Columns, check_columns, is_known_header, known_position, locate
from nbps.errors import ConfigError, DataError


def is_frame(value: Any) -> bool:
    """Whether `value` is a frame or table: it hands its columns out by Arrow's C stream interface, or is of pandas."""
    return hasattr(value, "__arrow_c_stream__") or _is_pandas(value)


def rating_columns(frame: Any, columns: Columns | None) -> pa.Table:
    """Table with the columns user, item (each int64 or string) and rating (float32) of a frame.

    Raises
    ------
    DataError
        If a column is missing, has another type, or a value is missing or not finite.
    ConfigError
        If it is not a frame, or `columns` cannot be used.
    """
    check_columns(columns)
    frame, names = _opened(frame)
    if columns is None and not is_known_header(names) and _are_in_order(names, 3):
        columns = (0, 1, 2)
    maker = "from_pandas" if _is_pandas(frame) else "from_arrow"
    advice = f"Say which to use: nbps.data.Ratings.{maker}(frame, columns=(user, item, rating))."
    return checked(_fail, _select(frame, locate(_fail, names, columns, advice)))


def id_columns(frame: Any) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Columns of the users and items of a frame, which may have others: each int64 or string.

    Raises
    ------
    DataError
        As `rating_columns`.
    """
    frame, names = _opened(frame)
    if _are_in_order(names, 2):
        positions = [0, 1]
    else:
        positions = [p for p in (known_position(names, 0), known_position(names, 1)) if p is not None]
        if len(positions) < 2:
            raise _fail(f"expected columns of users and items, found the columns {', '.join(map(repr, names))}.")
    table = _select(frame, positions)
    users, items = (checked_ids(_fail, table.column(n), role, names[positions[n]]) for n, role in enumerate(ROLES[:2]))
    return users, items


def _are_in_order(names: list[str], roles: int) -> bool:
    """Whether there are just the columns of so many roles, and known names do not say another order."""
    return len(names) == roles and all(known_position(names, role) in (None, role) for role in range(roles))


def _opened(frame: Any) -> tuple[Any, list[str]]:
    """Return a frame of pandas as it is, any other as a table; and the names of its columns."""
    if not is_frame(frame):
        raise ConfigError(
            f"ratings: expected a frame or table (of pandas, Polars, Arrow or what exports Arrow streams), "
            f"found {type(frame).__name__}; Ratings.from_columns takes columns"
        )
    if _is_pandas(frame):
        return frame, [str(name) for name in frame.columns]
    table = frame if isinstance(frame, pa.Table) else pa.RecordBatchReader.from_stream(frame).read_all()
    return table, list(table.column_names)


def _select(frame: Any, positions: Any) -> pa.Table:
    """Return some columns; only they are converted."""
    try:
        if _is_pandas(frame):
            return pa.Table.from_pandas(frame.iloc[:, list(positions)], preserve_index=False)
        return frame.select(list(positions))
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise _fail(f"a column cannot be converted: {error}. Convert it to integers, strings or numbers.") from None


def _is_pandas(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "pandas" and hasattr(value, "iloc") and hasattr(value, "columns")


def _fail(what: str, row: int | None = None) -> DataError:
    place = "" if row is None else f", row {row}"
    return DataError(f"cannot take ratings from the table{place}: {what}")
