"""celer, scikit-learn and skglm behind one interface: a single Lasso, and a path, without an intercept."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

PASSES = 1_000_000  # as good as no limit


@dataclass(frozen=True)
class Peer:
    """A way to solve the Lasso.

    Attributes
    ----------
    name, package : str
    single : callable
        ``single(X, y, alpha, tol)`` returns coefficients.
    path : callable or None
        ``path(X, y, alphas, tol)`` returns those of the last alpha.
    """

    name: str
    package: str
    single: Callable[[Any, Any, float, float], Any]
    path: Callable[[Any, Any, Sequence[float], float], Any] | None

    @property
    def is_installed(self) -> bool:
        """Whether it can be run here."""
        return importlib.util.find_spec(self.package) is not None


def _nbps(X: Any, y: Any, alpha: float, tol: float, workers: int = 1) -> Any:
    from nbps.models import Lasso

    return Lasso(alpha, fit_intercept=False, tol=tol, max_iter=PASSES, workers=workers).fit(X, y).coef_


def _nbps_path(X: Any, y: Any, alphas: Sequence[float], tol: float) -> Any:
    from nbps.models import lasso_path

    return lasso_path(X, y, alphas=alphas, tol=tol, max_iter=PASSES)[1][:, -1]


def _celer(X: Any, y: Any, alpha: float, tol: float) -> Any:
    from celer import Lasso

    return Lasso(alpha, fit_intercept=False, tol=tol, max_iter=1000, max_epochs=PASSES).fit(X, y).coef_


def _celer_path(X: Any, y: Any, alphas: Sequence[float], tol: float) -> Any:
    from celer import celer_path

    given = np.asarray(alphas, X.dtype)  # in float64 it refuses float32 columns
    return celer_path(X, y, "lasso", alphas=given, tol=tol, max_iter=1000, max_epochs=PASSES, prune=1)[1][:, -1]


def _scikit_learn(X: Any, y: Any, alpha: float, tol: float) -> Any:
    from sklearn.linear_model import Lasso

    return Lasso(alpha, fit_intercept=False, tol=tol, max_iter=PASSES, copy_X=False).fit(X, y).coef_


def _scikit_learn_path(X: Any, y: Any, alphas: Sequence[float], tol: float) -> Any:
    from sklearn.linear_model import lasso_path

    return lasso_path(X, y, alphas=alphas, tol=tol, max_iter=PASSES, precompute=False, copy_X=False)[1][:, -1]


def _skglm(X: Any, y: Any, alpha: float, tol: float) -> Any:
    # Its tolerance is that of the optimality conditions: this one, tried on each problem, gives about the same gap.
    from skglm import Lasso

    return Lasso(alpha, fit_intercept=False, tol=alpha * tol**0.5, max_iter=1000, max_epochs=PASSES).fit(X, y).coef_


PEERS = [
    Peer("nbps", "nbps", _nbps, _nbps_path),
    Peer("nbps, 2 workers", "nbps", lambda X, y, alpha, tol: _nbps(X, y, alpha, tol, workers=2), None),
    Peer("celer", "celer", _celer, _celer_path),
    Peer("scikit-learn", "sklearn", _scikit_learn, _scikit_learn_path),
    Peer("skglm", "skglm", _skglm, None),
]


def relative_gap(X: Any, y: Any, coefficients: Any, alpha: float) -> float:
    """Return the duality gap over the mean square of the target, in float64, as all but skglm measure it."""
    y, used = np.asarray(y, np.float64), np.flatnonzero(coefficients)
    b = np.asarray(coefficients, np.float64)[used]
    residual = y - X[:, used].astype(np.float64) @ b
    pulls = max(float(np.abs(part).max()) for part in _products(X, residual))
    theta = residual * min(1.0, alpha * y.size / pulls)
    primal = residual @ residual / 2 + alpha * y.size * np.abs(b).sum()
    return float((primal - (y @ y - (y - theta) @ (y - theta)) / 2) / (y @ y))


def _products(X: Any, residual: Any) -> Any:
    if not isinstance(X, np.ndarray):
        yield X.T @ residual
        return
    for first in range(0, X.shape[1], 20_000):
        yield X[:, first : first + 20_000].T @ residual.astype(X.dtype)


def quietly(work: Callable[[], Any]) -> Any:
    """Return what `work` returns; peers warn where float32 ends above the gap that was asked for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return work()
