"""What training a linear model gives, as a saved model holds it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nbps.buffers import over
from nbps.errors import DataError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LinearState:
    """A linear model: ``X @ coefficients + intercept``.

    Attributes
    ----------
    coefficients : float64[p]
    intercept : float
    gap : float
        Duality gap, in units of the objective.
    passes : int
        Iterations that it took.
    names : tuple of str, or None
        Of the columns.
    chosen : dict of str to number
        What cross-validation chose: alpha, l1_ratio.
    validated : tuple of float64[...], or None
        Alphas of a cross-validation, and the mean square error of each on each fold.
    """

    coefficients: Floats
    intercept: float
    gap: float
    passes: int
    names: tuple[str, ...] | None = None
    chosen: dict[str, float] = field(default_factory=dict)
    validated: tuple[Floats, Floats] | None = None

    def to_file(self) -> tuple[dict[str, pa.Table], dict[str, Any]]:
        """Return the tables, and numbers for the manifest, that a saved model consists of."""
        used = np.flatnonzero(self.coefficients)
        tables = {"coefficients": pa.table({"column": over(used), "coefficient": over(self.coefficients[used])})}
        if self.names is not None:
            tables["names"] = pa.table({"name": pa.array(self.names, pa.string())})
        shapes = None
        if self.validated is not None:
            flat = [np.ascontiguousarray(array.ravel()) for array in self.validated]
            tables["alphas"], tables["errors"] = (pa.table({"value": over(array)}) for array in flat)
            shapes = [list(array.shape) for array in self.validated]
        numbers = {
            "columns": self.coefficients.size, "intercept": self.intercept, "gap": self.gap, "passes": self.passes,
            "chosen": self.chosen, "shapes": shapes,
        }  # fmt: skip
        return tables, numbers

    @classmethod
    def from_file(cls, tables: dict[str, pa.Table], manifest: dict[str, Any]) -> LinearState:
        """Inverse of `to_file`."""
        coefficients = np.zeros(int(manifest["columns"]))
        used = np.asarray(tables["coefficients"]["column"], np.int64)
        if used.size and not 0 <= used.min() <= used.max() < coefficients.size:
            raise DataError(f"coefficients.arrow: names columns beyond the {coefficients.size} of the manifest")
        coefficients[used] = np.asarray(tables["coefficients"]["coefficient"], np.float64)
        names = tuple(tables["names"]["name"].to_pylist()) if "names" in tables else None
        validated = None
        if manifest["shapes"] is not None:
            alphas, errors = (
                np.asarray(tables[name]["value"], np.float64).reshape(shape)
                for name, shape in zip(("alphas", "errors"), manifest["shapes"], strict=True)
            )
            validated = alphas, errors
        numbers = float(manifest["intercept"]), float(manifest["gap"]), int(manifest["passes"])
        return cls(coefficients, *numbers, names, dict(manifest["chosen"]), validated)
