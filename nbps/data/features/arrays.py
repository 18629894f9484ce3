"""Reading features from files of NumPy arrays; and sparse columns from what is stored by rows."""

from __future__ import annotations

import io
import zipfile
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from nbps.data.features.features import Features
from nbps.data.source import Source

_SPARSE = ("data", "indices", "indptr", "shape", "format")


def read_npz(source: Source) -> tuple[Features, npt.NDArray[np.float64]]:
    """Read ``y``, and ``X`` or the parts of a sparse matrix.

    Raises
    ------
    DataError
        If one lacks, or does not fit the others.
    """
    try:
        with np.load(io.BytesIO(source.read_all()), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, KeyError) as error:
        raise source.error(f"expected NumPy arrays, found: {error}. Write it again, without objects.") from None
    found = ", ".join(arrays) or "nothing"
    if "y" not in arrays:
        raise source.error(f"expected an array 'y' with the target, found {found}.")
    y = arrays["y"]
    if y.ndim != 1 or y.dtype.kind not in "fiub":
        raise source.error(f"expected one number for each row in 'y', found {y.dtype} of shape {y.shape}.")
    if "X" in arrays:
        X = arrays["X"]
        if X.ndim != 2 or X.dtype.kind not in "fiub" or 0 in X.shape or X.shape[0] != y.size:
            raise source.error(f"expected {y.size} rows of numbers in 'X', found {X.dtype} of shape {X.shape}.")
        dtype = X.dtype if X.dtype in (np.dtype(np.float32), np.dtype(np.float64)) else np.float64
        return Features(np.asfortranarray(X, dtype), None, None, X.shape, None), y.astype(np.float64)
    if not set(_SPARSE) <= set(arrays):
        raise source.error(f"expected an array 'X', or {', '.join(map(repr, _SPARSE))}; found {found}.")
    return _sparse(source, arrays, y.size), y.astype(np.float64)


def _sparse(source: Source, arrays: dict[str, npt.NDArray[Any]], rows: int) -> Features:
    values, indices, starts = arrays["data"], arrays["indices"], arrays["indptr"]
    form, shape = str(np.asarray(arrays["format"]).astype(str)), tuple(int(n) for n in arrays["shape"])
    lines = {"csr": 0, "csc": 1}.get(form)
    if lines is None or len(shape) != 2 or shape[0] != rows or 0 in shape:
        raise source.error(f"expected a CSR or CSC matrix of {rows} rows, found {form} of shape {shape}.")
    sizes = np.diff(starts)
    if starts.shape != (shape[lines] + 1,) or (sizes < 0).any() or starts[0] != 0 or starts[-1] != indices.size:
        raise source.error("expected ascending starts in 'indptr', one for each line and the end.")
    if values.shape != indices.shape or not ((indices >= 0) & (indices < shape[1 - lines])).all():
        raise source.error(f"expected a number in 'data' and a place below {shape[1 - lines]} in 'indices' for each.")
    where = np.repeat(np.arange(shape[lines]), sizes)
    row_of, column_of = (where, indices) if lines == 0 else (indices, where)
    return by_columns(values, row_of, column_of, shape)


def by_columns(
    values: npt.NDArray[Any], rows: npt.NDArray[Any], columns: npt.NDArray[Any], shape: tuple[int, int]
) -> Features:
    """Return sparse features made of elements in any order; those of one place are added up."""
    order = np.lexsort((rows, columns))
    rows, columns = rows[order], columns[order]
    values = values[order].astype(np.float32 if values.dtype == np.float32 else np.float64)
    first = np.ones(rows.size, bool)
    first[1:] = (rows[1:] != rows[:-1]) | (columns[1:] != columns[:-1])
    if not first.all():
        values = np.add.reduceat(values, np.flatnonzero(first))
        rows, columns = rows[first], columns[first]
    starts = np.concatenate([[0], np.cumsum(np.bincount(columns, minlength=shape[1]))]).astype(np.int64)
    return Features(values, rows.astype(np.int32), starts, shape, None)
