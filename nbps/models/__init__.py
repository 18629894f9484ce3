"""Models trained on nbps, with scikit-learn's habits."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbps.models.lasso.cross_validation import ElasticNetCV, LassoCV
    from nbps.models.lasso.elastic_net import ElasticNet, Lasso
    from nbps.models.lasso.path import enet_path, lasso_path
    from nbps.models.lda.allocation import LatentDirichletAllocation
    from nbps.models.lda.history import PassRecord
    from nbps.models.mf.factorization import MatrixFactorization
    from nbps.models.mf.history import EpochRecord

# Workers import parts of this package, and need neither the estimators nor Arrow.
_PLACES = {
    "ElasticNet": "lasso.elastic_net",
    "ElasticNetCV": "lasso.cross_validation",
    "EpochRecord": "mf.history",
    "Lasso": "lasso.elastic_net",
    "LassoCV": "lasso.cross_validation",
    "LatentDirichletAllocation": "lda.allocation",
    "MatrixFactorization": "mf.factorization",
    "PassRecord": "lda.history",
    "enet_path": "lasso.path",
    "lasso_path": "lasso.path",
}
__all__ = [
    "ElasticNet", "ElasticNetCV", "EpochRecord", "Lasso", "LassoCV", "LatentDirichletAllocation", "MatrixFactorization",
    "PassRecord", "enet_path", "lasso_path",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(importlib.import_module(f"nbps.models.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
