"""Paths: the coefficients for one alpha after the other, each solved from the one before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nbps.checks import FINITE, real, whole
from nbps.errors import ConfigError
from nbps.models.lasso.linear import read_data
from nbps.models.lasso.plan import check_flags, check_penalty
from nbps.models.lasso.solver import Solution, Solver

Floats = npt.NDArray[np.float64]


def lasso_path(X: Any, y: Any, **options: Any) -> Any:
    """Compute the coefficients of the Lasso for falling alphas: `enet_path` with an `l1_ratio` of 1.

    Examples
    --------
    >>> import numpy as np
    >>> from nbps.models import lasso_path
    >>> X = np.random.default_rng(0).standard_normal((50, 200))
    >>> alphas, coefs, dual_gaps = lasso_path(X, 3 * X[:, 7] - 2 * X[:, 80], alphas=5, eps=0.1)
    >>> alphas.shape, coefs.shape, np.count_nonzero(coefs, axis=0).tolist()
    ((5,), (200, 5), [0, 2, 2, 2, 2])
    """
    return enet_path(X, y, l1_ratio=1.0, **options)


def enet_path(
    X: Any,
    y: Any,
    *,
    l1_ratio: float = 0.5,
    eps: float = 1e-3,
    alphas: int | npt.ArrayLike = 100,
    sample_weight: Any = None,
    fit_intercept: bool = False,
    standardize: bool = False,
    positive: bool = False,
    tol: float = 1e-4,
    max_iter: int = 10_000,
    coef_init: npt.ArrayLike | None = None,
    return_n_iter: bool = False,
) -> Any:
    """Compute the coefficients of the elastic net for falling alphas.

    Parameters
    ----------
    X, y, sample_weight, l1_ratio, standardize, positive, tol, max_iter
        As in `nbps.models.ElasticNet`.
    eps : float
        The least alpha over the greatest, under which all coefficients are 0.
    alphas : int or array_like
        How many, evenly spaced in their logarithms, or which.
    fit_intercept : bool
        False, as in scikit-learn: it takes data for centred.
    coef_init : array_like, shape (p,), optional
        What the first solution begins with.
    return_n_iter : bool
        Return passes, too.

    Returns
    -------
    alphas : float64[k]
        Falling.
    coefs : float64[p, k]
    dual_gaps : float64[k]
        In units of the objective.
    n_iters : int64[k]
        With `return_n_iter`.

    Raises
    ------
    ConfigError, DataError
        As `ElasticNet.fit`.
    """
    check_options(l1_ratio, eps, tol, max_iter, fit_intercept=fit_intercept, standardize=standardize, positive=positive)
    features, target, weights = read_data(X, y, sample_weight, fit_intercept)
    solver = Solver(features, target, weights, fit_intercept=fit_intercept, standardize=standardize)
    grid = alpha_grid(solver, alphas, eps, l1_ratio, positive)
    if coef_init is not None:
        first = np.asarray(coef_init, np.float64)
        if first.shape != (features.shape[1],):
            raise ConfigError(f"coef_init: expected shape ({features.shape[1]},), found {first.shape}")
        solver.begin_with(first)
    coefficients = np.zeros((features.shape[1], grid.size), order="F")
    gaps, passes = np.empty(grid.size), np.empty(grid.size, np.int64)
    for k, solution in enumerate(solutions(solver, grid, l1_ratio, positive, tol, max_iter)):
        used = np.flatnonzero(solution.coefficients)
        coefficients[used, k] = solution.coefficients[used]
        gaps[k], passes[k] = solution.gap, solution.passes
    return (grid, coefficients, gaps, passes) if return_n_iter else (grid, coefficients, gaps)


def check_options(l1_ratio: Any, eps: Any, tol: Any, max_iter: Any, **flags: Any) -> None:
    """Raise `ConfigError` if an option of a path cannot be used."""
    check_penalty(1.0, l1_ratio)
    if real("eps", eps, "a number between 0 and 1", 1.0, positive=True) == 1.0:
        raise ConfigError(f"eps is {eps!r}; expected a number between 0 and 1")
    real("tol", tol, "a finite number >= 0", FINITE)
    whole("max_iter", max_iter, 1)
    check_flags(**flags)


def alpha_grid(solver: Solver, alphas: int | npt.ArrayLike, eps: float, l1_ratio: float, positive: bool) -> Floats:
    """Return falling alphas: those that are given, or so many down to `eps` times that under which nothing is left.

    Raises
    ------
    ConfigError
        If one is not a finite number > 0.
    """
    if np.ndim(alphas) == 0:
        count = whole("alphas", alphas, 1)
        largest = solver.largest_alpha(l1_ratio, positive)
        if largest == 0:
            raise ConfigError(
                "alphas: no column is correlated with the target, which any alpha leaves out; give alphas, or "
                "--alpha in a shell"
            )
        return np.asarray(np.geomspace(largest, largest * eps, count), np.float64)
    grid = np.asarray(alphas)
    if grid.ndim != 1 or grid.dtype.kind not in "fiu" or grid.size == 0:
        raise ConfigError(f"alphas is {alphas!r}; expected a number of them, or a sequence of numbers > 0")
    grid = np.sort(grid.astype(np.float64))[::-1]
    for alpha in grid:
        check_penalty(float(alpha), l1_ratio)
    return grid


def solutions(
    solver: Solver, alphas: Sequence[float] | Floats, l1_ratio: float, positive: bool, tol: float, max_iter: int
) -> Iterator[Solution]:
    """Yield the solution for each alpha."""
    for alpha in alphas:
        yield solver.solve(solver.penalty(float(alpha), l1_ratio, positive), tol, max_iter)
