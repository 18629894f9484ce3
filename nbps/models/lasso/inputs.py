"""What a linear model is trained on and asked about: matrices, frames, sparse matrices; targets; weights of rows."""

from __future__ import annotations

import numbers
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nbps.data.features.features import Features
from nbps.data.memory import check_fits
from nbps.errors import ConfigError, DataError

Floats = npt.NDArray[np.float64]
_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_MOST_ROWS = 2**31 - 1


def as_features(X: Any) -> Features:
    """Return what estimators accept as `X`.

    Raises
    ------
    ConfigError
        If it is not a matrix of numbers.
    DataError
        If a column of a frame is not.
    OutOfMemoryError
        If it must be copied and there is no memory for that.
    """
    if isinstance(X, Features):
        return X
    if isinstance(X, (str, Path)):
        raise ConfigError(
            f"X is {str(X)!r}; expected a matrix, not the name of a file: nbps.data.read_features reads it"
        )
    if hasattr(X, "tocsc"):
        return _sparse(X)
    names = None
    if hasattr(X, "columns") or hasattr(X, "column_names"):
        X, names = _frame(X)
    try:
        array = np.asarray(X)
        if array.dtype == object:
            array = array.astype(np.float64)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"X: expected a matrix of numbers, found {type(X).__name__}: {error}") from None
    if array.ndim != 2 or 0 in array.shape:
        raise ConfigError(
            f"X: expected an array of shape (rows, columns), found shape {array.shape}; one column is "
            f"X.reshape(-1, 1), one row X.reshape(1, -1)"
        )
    array = _as_floats(array)
    if not array.flags.f_contiguous:
        check_fits(
            f"bringing {array.shape[0]:,} x {array.shape[1]:,} numbers into the order of columns needs", array.nbytes
        )
        array = np.asfortranarray(array)
    return Features(array, None, None, array.shape, names)


def _as_floats(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if array.dtype in _FLOATS and array.dtype.isnative:
        return array
    if array.dtype.kind not in "fiub":
        raise ConfigError(f"X: expected numbers, found dtype {array.dtype}")
    return array.astype(np.float32 if array.dtype == np.float16 else np.float64, order="K")


def _sparse(X: Any) -> Features:
    if len(X.shape) != 2 or 0 in X.shape or X.shape[0] > _MOST_ROWS:
        raise ConfigError(f"X: expected rows (at most {_MOST_ROWS:,}) and columns, found shape {X.shape}")
    csc = X.tocsc()
    if not csc.has_canonical_format:  # entries that repeat are meant as their sum
        csc = csc.copy()
        csc.sum_duplicates()
    rows = np.ascontiguousarray(csc.indices, np.int32)
    return Features(_as_floats(csc.data), rows, np.ascontiguousarray(csc.indptr, np.int64), csc.shape, None)


def _frame(X: Any) -> tuple[npt.NDArray[Any], tuple[str, ...] | None]:
    """Return the numbers of a frame of pandas or Polars, or of an Arrow table, and the names of its columns."""
    names = tuple(X.column_names if hasattr(X, "column_names") else X.columns)
    try:
        if hasattr(X, "column_names"):
            columns = [X.column(k).to_numpy() for k in range(len(names))]
            array = np.asarray(columns).T if columns else np.empty((0, 0))
        else:
            array = np.asarray(X.to_numpy())
        if array.dtype == object:
            array = array.astype(np.float64)
    except (ValueError, TypeError, NotImplementedError):
        array = np.empty(0, object)
    if array.dtype.kind not in "fiub":
        for name in names:
            column = np.asarray(X[name] if not hasattr(X, "column_names") else X.column(name))
            try:
                column.astype(np.float64)
            except (ValueError, TypeError):
                raise DataError(
                    f"X: column {name!r} holds {column.dtype}; expected numbers. Leave it out, or encode it"
                ) from None
        raise DataError(f"X: the columns {', '.join(map(repr, names[:5]))} cannot be taken as numbers")
    return array, names if all(isinstance(name, str) for name in names) else None


def as_target(y: Any, rows: int) -> Floats:
    """Return the target as float64[n].

    Raises
    ------
    ConfigError
        If it is not a number for each row.
    DataError
        If one is not finite.
    """
    return _vector("y", y, rows, "a number for each row of X")


def as_weights(sample_weight: Any, rows: int) -> Floats | None:
    """Return the weights of rows as float64[n]; None if all are 1.

    Raises
    ------
    ConfigError
        If they are not a number >= 0 for each row, or all are 0.
    """
    if sample_weight is None:
        return None
    if isinstance(sample_weight, numbers.Real):
        sample_weight = np.full(rows, float(sample_weight))
    weights = _vector("sample_weight", sample_weight, rows, "a number >= 0 for each row of X")
    if (weights < 0).any() or not weights.any():
        row = int(np.argmin(weights))
        raise ConfigError(f"sample_weight: row {row} is {weights[row]:g}; expected numbers >= 0, not all 0")
    return weights


def _vector(name: str, given: Any, rows: int, expected: str) -> Floats:
    try:
        vector = np.asarray(given)
        if vector.dtype.kind not in "fiub":
            vector = vector.astype(np.float64)
    except (ValueError, TypeError):
        raise ConfigError(f"{name}: expected {expected}, found {type(given).__name__} of other things") from None
    if vector.shape != (rows,):
        advice = f"; {name}.ravel() makes it so" if vector.shape == (rows, 1) else ""
        raise ConfigError(f"{name}: expected shape ({rows},), {expected}; found {vector.shape}{advice}")
    vector = vector.astype(np.float64)
    if not np.isfinite(vector).all():
        row = int(np.flatnonzero(~np.isfinite(vector))[0])
        raise DataError(f"{name}: row {row} is {vector[row]}; expected finite numbers")
    return vector
