"""Counts in a matrix of documents and words: sparse, of SciPy, or dense."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nbps.errors import ConfigError, DataError

_LARGEST = 2**31 - 1


def entries_of(matrix: Any) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.int32], int]:
    """Return starts, words and counts of the rows of a matrix without its zeros, and how many columns it has.

    Raises
    ------
    DataError
        If a count is negative, not whole, or does not fit 32 bits; names row and column.
    ConfigError
        If it is not such a matrix.
    """
    if hasattr(matrix, "tocsr"):
        csr = matrix.tocsr()
        starts, words, counts = np.asarray(csr.indptr, np.int64), np.asarray(csr.indices), np.asarray(csr.data)
        width = int(csr.shape[1])
    else:
        dense = np.asarray(matrix)
        if dense.ndim != 2 or dense.dtype.kind not in "biuf":
            raise ConfigError(
                f"matrix: expected counts of documents x words, found {dense.dtype} of shape {dense.shape}"
            )
        rows, words = np.nonzero(dense)  # NaN is not zero
        counts, width = dense[rows, words], int(dense.shape[1])
        starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=dense.shape[0]))]).astype(np.int64)
    if width == 0:
        raise ConfigError("matrix: expected at least one column, found none")
    with np.errstate(invalid="ignore"):
        good = (counts >= 0) & (counts <= _LARGEST) & (counts == np.floor(counts))
    if not good.all():
        entry = int(np.argmin(good))
        row = int(np.searchsorted(starts, entry, side="right")) - 1
        raise DataError(
            f"the count in row {row}, column {words[entry]} is {counts[entry]}; expected a whole number from 0 to "
            f"{_LARGEST:,}. LDA counts words: do not weigh (tf-idf) or scale them"
        )
    kept = counts > 0
    starts = np.concatenate([[0], np.cumsum(kept)])[starts].astype(np.int64)
    return starts, words[kept].astype(np.int32), counts[kept].astype(np.int32), width
