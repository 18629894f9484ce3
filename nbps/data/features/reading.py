"""Reading a file of features and a target, whatever its format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from nbps.data.features.arrays import read_npz
from nbps.data.features.features import Features
from nbps.data.features.svmlight import is_svmlight, read_svmlight
from nbps.data.source import Source, open_source
from nbps.errors import ConfigError

Target = npt.NDArray[np.float64]
FORMATS = ("csv", "parquet", "arrow", "svmlight", "npz")
_MAGIC = {b"PAR1": "parquet", b"ARROW1": "arrow", b"\xff\xff\xff\xff": "arrow", b"PK": "npz"}
_WITH_TARGET: dict[str, Callable[[Source], tuple[Features, Target]]] = {"svmlight": read_svmlight, "npz": read_npz}
_SEPARATORS = (",", "\t", ";", "|")


def read_features(
    path: str | Path,
    target: str | int | None = None,
    *,
    format: str | None = None,  # noqa: A002
) -> tuple[Features, Target]:
    """Read a file of features and a target.

    Parameters
    ----------
    path : str or pathlib.Path
        The file; it may be compressed with gzip, bzip2 or Zstandard, under any name.
    target : str or int, optional
        Name or position, from 0, of the column of the target, where there are columns: the first one by default. All
        others are features.
    format : str, optional
        One of

        - ``"csv"``: a line of names, then numbers, separated by commas, tabs, semicolons or bars
        - ``"parquet"``, ``"arrow"``: columns of numbers
        - ``"svmlight"``: lines ``target column:value ...``, with columns from 1, or from 0 where there is one
        - ``"npz"``: NumPy's, with the arrays ``y``, and ``X`` or what ``scipy.sparse.save_npz`` writes of a CSR or CSC
          matrix (``data``, ``indices``, ``indptr``, ``shape``, ``format``)

        By default it is found from the content.

    Returns
    -------
    features : Features
    target : float64[n]

    Raises
    ------
    DataError
        If the file is missing, empty, damaged or not in the format, or something is not a number; the message has its
        line or row, from 1, and column.
    ConfigError
        If `format` or `target` cannot be used.
    """
    if format is not None and format not in FORMATS:
        raise ConfigError(f"format: expected one of {', '.join(FORMATS)}, found {format!r}.")
    source = open_source(path, "features")
    found = _detected(source) if format is None else format
    if found in _WITH_TARGET:
        if target is not None:
            raise ConfigError(f"target is {target!r}; {found} files say themselves what it is: leave it out.")
        return _WITH_TARGET[found](source)
    try:
        table = _read_csv(source) if found == "csv" else _read_columns(source, found)
    except (pa.ArrowException, OSError, EOFError) as error:
        if found == "csv":
            error = _with_row(source, error)
        raise source.damage(error) or source.error(f"expected a whole {found} file, found: {error}.") from None
    return _divided(source, table, target)


def _detected(source: Source) -> str:
    for magic, name in _MAGIC.items():
        if source.head.startswith(magic):
            return name
    return "svmlight" if is_svmlight(source.head) else "csv"


def _with_row(source: Source, error: Exception) -> Exception:
    """Return the error of reading once more by one thread, which pyarrow needs to count rows."""
    try:
        _read_csv(source, use_threads=False)
    except (pa.ArrowException, OSError, EOFError) as counted:
        return counted
    return error


def _read_csv(source: Source, use_threads: bool = True) -> pa.Table:
    import pyarrow.csv

    first = source.head.split(b"\n", 1)[0].decode("utf-8-sig", "replace")
    separator = max(_SEPARATORS, key=first.count)
    size = max(1 << 20, 2 * len(first.encode()))  # a block holds whole lines
    with source.open() as stream:
        return pyarrow.csv.read_csv(
            stream,
            read_options=pyarrow.csv.ReadOptions(block_size=size, use_threads=use_threads),
            parse_options=pyarrow.csv.ParseOptions(delimiter=separator),
        )


def _read_columns(source: Source, found: str) -> pa.Table:
    content = source.read_all()
    if found == "parquet":
        import pyarrow.parquet

        return pyarrow.parquet.read_table(pa.BufferReader(content))
    opened = pa.ipc.open_file if source.head.startswith(b"ARROW1") else pa.ipc.open_stream
    return opened(content).read_all()


def _divided(source: Source, table: pa.Table, target: str | int | None) -> tuple[Features, Target]:
    """Return the columns of a table but one as features, and that one."""
    names = table.column_names
    place = _place(source, names, 0 if target is None else target)
    if table.num_rows == 0 or len(names) < 2:
        raise source.error(f"expected rows with a target and features, found {table.num_rows} rows of {len(names)}.")
    columns = [k for k in range(len(names)) if k != place]
    kinds = {table.column(k).type for k in columns}
    dtype = np.float32 if kinds == {pa.float32()} else np.float64
    values = np.empty((table.num_rows, len(columns)), dtype, order="F")
    for number, k in enumerate(columns):
        values[:, number] = _numbers(source, table.column(k), names[k])
    y = _numbers(source, table.column(place), names[place]).astype(np.float64)
    return Features(values, None, None, values.shape, tuple(names[k] for k in columns)), y


def _place(source: Source, names: list[str], target: str | int) -> int:
    if isinstance(target, str) and names.count(target) == 1:
        return names.index(target)
    if not isinstance(target, str) and 0 <= target < len(names):
        return int(target)
    shown = ", ".join(map(repr, names[:8])) + (", ..." if len(names) > 8 else "")
    twice = " It is there twice." if isinstance(target, str) and target in names else ""
    raise ConfigError(
        f"target is {target!r}; expected a column of {str(source.path)!r}, by name or by position from 0: "
        f"{shown}.{twice}"
    )


def _numbers(source: Source, column: pa.ChunkedArray, name: str) -> npt.NDArray[Any]:
    if column.null_count:
        row = pc.index(pc.is_null(column), True).as_py() + 1
        raise source.error(f"column {name!r} has no value there; fill it in, or remove the row.", row=row)
    kind = column.type
    if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return np.asarray(column)
    row = None
    if pa.types.is_string(kind):
        wrong = pc.invert(pc.match_substring_regex(column, r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"))
        row = pc.index(wrong, True).as_py() + 1
    found = "" if not row else f", found {column[row - 1].as_py()!r}"
    raise source.error(f"expected numbers in column {name!r} of {kind}{found}. Leave it out, or encode it.", row=row)
