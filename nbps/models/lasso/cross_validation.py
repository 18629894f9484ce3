"""`LassoCV` and `ElasticNetCV`: alpha, and the mixture of penalties, chosen by cross-validation along paths."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from nbps.checks import whole
from nbps.data.features.features import Features
from nbps.errors import ConfigError, DataError
from nbps.models.lasso.history import Round
from nbps.models.lasso.linear import LinearModel, read_data
from nbps.models.lasso.path import alpha_grid, check_options, solutions
from nbps.models.lasso.solver import Solution, Solver
from nbps.models.lasso.state import LinearState
from nbps.models.phases import Phases

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class ElasticNetCV(LinearModel):
    """Elastic net whose `alpha`, and maybe `l1_ratio`, have the least mean square error in cross-validation.

    The folds take the same data with other weights of rows: it is not copied for them.

    Parameters
    ----------
    l1_ratio : float or sequence of float
        One, or those to choose from.
    eps, alphas, tol, max_iter, positive, standardize
        As in `nbps.models.enet_path`.
    fit_intercept : bool
    cv : int, splitter or iterable
        Number of folds, each of consecutive rows; something with a method ``split(X, y)``, as scikit-learn has; or
        pairs of row numbers to train and to test on. 5 by default.

    Attributes
    ----------
    alpha_, l1_ratio_ : float
        What was chosen.
    alphas_ : float64[k], or float64[r, k] for r values of `l1_ratio`
    mse_path_ : float64[k, folds], or float64[r, k, folds]
        Mean square errors of the rows left out.
    coef_, intercept_, dual_gap_, n_iter_, n_features_in_, feature_names_in_, history_
        Of the model fitted to all rows, see `nbps.models.ElasticNet`.

    Examples
    --------
    >>> import numpy as np
    >>> from nbps.models import LassoCV
    >>> X = np.random.default_rng(0).standard_normal((60, 100))
    >>> model = LassoCV(alphas=20).fit(X, 3 * X[:, 7] + np.random.default_rng(1).standard_normal(60))
    >>> model.mse_path_.shape, bool(model.coef_[7] > 2)
    ((20, 5), True)
    """

    callbacks = ()
    verbose = False

    def __init__(
        self,
        *,
        l1_ratio: Any = 0.5,
        eps: float = 1e-3,
        alphas: int | npt.ArrayLike = 100,
        fit_intercept: bool = True,
        standardize: bool = False,
        max_iter: int = 10_000,
        tol: float = 1e-4,
        cv: Any = None,
        positive: bool = False,
    ) -> None:
        self.l1_ratio = l1_ratio
        self.eps = eps
        self.alphas = alphas
        self.fit_intercept = fit_intercept
        self.standardize = standardize
        self.max_iter = max_iter
        self.tol = tol
        self.cv = cv
        self.positive = positive

    @property
    def alpha_(self) -> float:
        """The alpha that was chosen."""
        return self._fitted().chosen["alpha"]

    @property
    def l1_ratio_(self) -> float:
        """The share of L1 that was chosen."""
        return self._fitted().chosen["l1_ratio"]

    @property
    def alphas_(self) -> Floats:
        """Alphas that were tried."""
        return self._validated()[0]

    @property
    def mse_path_(self) -> Floats:
        """Mean square error of each on each fold."""
        return self._validated()[1]

    def _validated(self) -> tuple[Floats, Floats]:
        validated = self._fitted().validated
        assert validated is not None
        return validated

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Choose alpha, and fit the model to all rows.

        Parameters and errors are those of `nbps.models.ElasticNet.fit`; weights count in errors, too.
        """
        ratios = [float(ratio) for ratio in np.atleast_1d(np.asarray(self.l1_ratio, np.float64))]
        flags = {name: getattr(self, name) for name in ("fit_intercept", "standardize", "positive")}
        for ratio in ratios:
            check_options(ratio, self.eps, self.tol, self.max_iter, **flags)
        phases = Phases()
        with phases("schedule"):
            features, target, weights = read_data(X, y, sample_weight, self.fit_intercept)
            folds = list(split_rows(self.cv, X, y, target.size))
            whole_data = self._solver(features, target, weights)
            grids = [alpha_grid(whole_data, self.alphas, self.eps, ratio, self.positive) for ratio in ratios]
        errors = np.empty((len(ratios), grids[0].size, len(folds)))
        with phases("evaluate"):
            for fold, (train, test) in enumerate(folds):
                solver = self._solver(features, target, _among(train, weights, target.size))
                for k, (ratio, grid) in enumerate(zip(ratios, grids, strict=True)):
                    solver.begin_with(np.zeros(features.shape[1]))
                    for number, solution in enumerate(self._solutions(solver, grid, ratio)):
                        left = target[test] - features.predict(solution.coefficients, solution.intercept)[test]
                        errors[k, number, fold] = np.average(
                            left**2, weights=None if weights is None else weights[test]
                        )
        means = np.average(errors, axis=2, weights=_fold_weights(folds, weights))
        best = np.unravel_index(np.argmin(means), means.shape)
        alpha, ratio = float(grids[best[0]][best[1]]), ratios[best[0]]
        records: list[Round] = []

        def each(record: Round, _: Any) -> bool:
            records.append(record)
            return False

        with phases("train"):
            penalty = whole_data.penalty(alpha, ratio, self.positive)
            solution = whole_data.solve(penalty, self.tol, self.max_iter, each)
        several = np.ndim(self.l1_ratio) > 0
        validated = (np.array(grids), errors) if several else (grids[0], errors[0])
        self._state = LinearState(
            solution.coefficients, solution.intercept, solution.gap, solution.passes, features.names,
            {"alpha": alpha, "l1_ratio": ratio}, validated,
        )  # fmt: skip
        self.history_, self.best_epoch_ = records, records[-1].epoch
        self.train_seconds_ = sum(record.seconds for record in records)
        self.seconds_ = dict(phases.seconds)
        return self

    def _solver(self, features: Features, target: Floats, weights: Floats | None) -> Solver:
        return Solver(features, target, weights, fit_intercept=self.fit_intercept, standardize=self.standardize)

    def _solutions(self, solver: Solver, grid: Floats, ratio: float) -> Iterator[Solution]:
        return solutions(solver, grid, ratio, self.positive, self.tol, self.max_iter)


class LassoCV(ElasticNetCV):
    """Lasso whose `alpha` has the least mean square error in cross-validation; see `ElasticNetCV`."""

    def __init__(
        self,
        *,
        eps: float = 1e-3,
        alphas: int | npt.ArrayLike = 100,
        fit_intercept: bool = True,
        standardize: bool = False,
        max_iter: int = 10_000,
        tol: float = 1e-4,
        cv: Any = None,
        positive: bool = False,
    ) -> None:
        super().__init__(
            l1_ratio=1.0, eps=eps, alphas=alphas, fit_intercept=fit_intercept, standardize=standardize,
            max_iter=max_iter, tol=tol, cv=cv, positive=positive,
        )  # fmt: skip


def split_rows(cv: Any, X: Any, y: Any, rows: int) -> Iterator[tuple[Ints, Ints]]:
    """Yield the rows to train and to test on, for each fold.

    Raises
    ------
    ConfigError
        If `cv` is something else than `ElasticNetCV` says, or there are more folds than rows.
    """
    if hasattr(cv, "split") and not isinstance(cv, str):
        pairs: Iterable[Any] = cv.split(X, y)
    elif cv is None or isinstance(cv, (int, np.integer)):
        count = whole("cv", 5 if cv is None else cv, 2, rows)
        numbers, folds = np.arange(rows), np.array_split(np.arange(rows), count)
        pairs = ((np.setdiff1d(numbers, fold, assume_unique=True), fold) for fold in folds)
    elif isinstance(cv, Iterable) and not isinstance(cv, str):
        pairs = cv
    else:
        raise ConfigError(f"cv is {cv!r}; expected a number of folds, a splitter, or pairs of row numbers")
    for fold, pair in enumerate(pairs):
        try:
            train, test = (np.asarray(part) for part in pair)
            train, test = (np.flatnonzero(part) if part.dtype == bool else part for part in (train, test))
        except (TypeError, ValueError):
            raise ConfigError(f"cv: fold {fold} is {pair!r}; expected rows to train and rows to test on") from None
        for part in (train, test):
            if (
                part.ndim != 1
                or not part.size
                or part.dtype.kind not in "iu"
                or not 0 <= part.min() <= part.max() < rows
            ):
                raise ConfigError(f"cv: fold {fold} has {part!r}; expected row numbers from 0 to {rows - 1}")
        yield train, test


def _among(train: Ints, weights: Floats | None, rows: int) -> Floats:
    """Return weights of all rows, 0 for those that a fold is not trained on."""
    found = np.zeros(rows)
    found[train] = 1.0 if weights is None else weights[train]
    if not found.any():
        raise DataError("sample_weight: all rows that a fold is trained on have the weight 0")
    return found


def _fold_weights(folds: list[tuple[Ints, Ints]], weights: Floats | None) -> Floats | None:
    """Return how much each fold counts."""
    return None if weights is None else np.array([weights[test].sum() for _, test in folds])
