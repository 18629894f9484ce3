"""Models trained on nbps, with scikit-learn's habits."""

from nbps.models.factorization import MatrixFactorization
from nbps.models.history import EpochRecord

__all__ = ["EpochRecord", "MatrixFactorization"]
