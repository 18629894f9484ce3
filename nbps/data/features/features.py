"""`Features`: a matrix by columns, dense or sparse, as linear models are trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nbps.errors import DataError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Features:
    """A matrix whose columns are explained with; not copied where it is already as kernels take it.

    Attributes
    ----------
    values : float32 or float64[n, p] in Fortran order, or [m] of a sparse matrix
    rows, starts : int32[m], int64[p + 1]; or None
        Of a sparse matrix: the row of each value, and where the values of each column begin.
    shape : (int, int)
    names : tuple of str, or None
        Of the columns, where a frame names them all.
    """

    values: npt.NDArray[Any]
    rows: npt.NDArray[np.int32] | None
    starts: npt.NDArray[np.int64] | None
    shape: tuple[int, int]
    names: tuple[str, ...] | None

    @property
    def is_sparse(self) -> bool:
        """Whether zeros are left out."""
        return self.rows is not None

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        return sum(array.nbytes for array in (self.values, self.rows, self.starts) if array is not None)

    def refuse(self, column: int) -> DataError:
        """Make the error for a column with a number that is not finite, or whose squares are not."""
        if self.rows is None or self.starts is None:
            values, rows = self.values[:, column], np.arange(self.shape[0], dtype=np.int32)
        else:
            part = slice(int(self.starts[column]), int(self.starts[column + 1]))
            values, rows = self.values[part], self.rows[part]
        where = f"column {column}" + ("" if self.names is None else f" ({self.names[column]!r})")
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            return DataError(
                f"X: row {rows[bad[0]]}, {where} is {values[bad[0]]}; expected finite numbers. Remove or fill in such "
                f"rows"
            )
        return DataError(f"X: the squares of {where} overflow float64; divide it")

    def predict(self, coefficients: Floats, intercept: float) -> Floats:
        """Return ``X @ coefficients + intercept``, from the columns with a coefficient.

        Raises
        ------
        DataError
            If X has a number there that is not finite.
        """
        used = np.flatnonzero(coefficients)
        out = np.full(self.shape[0], intercept)
        if self.rows is None or self.starts is None:
            out += self.values[:, used] @ coefficients[used]
        else:
            for column in used:
                part = slice(self.starts[column], self.starts[column + 1])
                out[self.rows[part]] += coefficients[column] * self.values[part]
        if not np.isfinite(out).all():
            for column in used:
                self._check_column(int(column))
            raise DataError("X: a prediction overflows float64; expected numbers as large as those of the training")
        return out

    def _check_column(self, column: int) -> None:
        part = slice(None) if self.starts is None else slice(self.starts[column], self.starts[column + 1])
        if not np.isfinite(self.values[:, column] if self.starts is None else self.values[part]).all():
            raise self.refuse(column)
