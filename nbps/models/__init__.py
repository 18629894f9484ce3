"""Models trained on nbps, with scikit-learn's habits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbps.models.mf.factorization import MatrixFactorization
    from nbps.models.mf.history import EpochRecord

__all__ = ["EpochRecord", "MatrixFactorization"]


def __getattr__(name: str) -> Any:
    # Workers import parts of this package, and need neither the estimators nor Arrow.
    if name == "MatrixFactorization":
        from nbps.models.mf.factorization import MatrixFactorization

        return MatrixFactorization
    if name == "EpochRecord":
        from nbps.models.mf.history import EpochRecord

        return EpochRecord
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
