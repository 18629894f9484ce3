"""`ElasticNet` and `Lasso`: the estimators."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from nbps.consistency import Consistency
from nbps.models.estimator import Callback
from nbps.models.file import parameters_to_json
from nbps.models.lasso.history import Round
from nbps.models.lasso.linear import LinearModel, read_data
from nbps.models.lasso.plan import LinearPlan
from nbps.models.lasso.scans import JobScans
from nbps.models.lasso.solver import Solution, Solver, warn_of_gap
from nbps.models.lasso.state import LinearState
from nbps.models.lasso.training import CyclicTrainer
from nbps.models.phases import Phases


class ElasticNet(LinearModel):
    """Linear model with L1 and L2 penalties, solved to a duality gap.

    It minimises, with W the sum of the weights of rows,
    ``1 / (2 W) * sum(weight * (y - X b - intercept)²) + alpha * l1_ratio * |b|_1 + alpha * (1 - l1_ratio) / 2 * |b|²``.

    Parameters
    ----------
    alpha : float
        Strength of the penalties.
    l1_ratio : float
        Share of L1, more than 0 and at most 1.
    fit_intercept : bool
        Centres columns and target; data is neither copied nor made dense for it.
    standardize : bool
        Divide columns by their standard deviations, so that a penalty means the same for all; `coef_` are those of the
        columns as they are given.
    max_iter : int
        Passes after which it ends in any case, with a `nbps.errors.ConvergenceWarning`.
    tol : float
        It ends when the duality gap is at most `tol` times the mean square of the (centred) target.
    warm_start : bool
        Begin with the coefficients of the last fit.
    positive : bool
        Exclude coefficients below 0.
    schedule : {"working_sets", "cyclic"}
        ``working_sets``: coordinate descent on the columns that matter, with Anderson's acceleration; bounds and
        gap-safe screening spare most products with the others, and with several workers each looks through its part of
        them. ``cyclic``: columns are dealt to workers, each of which visits its own in random order, and sees the
        others' progress as late as the consistency model allows; as in the papers on SSP.
    clocks : int
        Of ``cyclic``: so often workers tell each other of their steps in a pass over all columns.
    consistency : BSP, SSP, ESSP, ASP, VAP, optional
        Of ``cyclic``; ``ESSP(2)`` by default.
    workers : int, optional
        Processes. By default ``working_sets`` are solved in this one, which spares starting a job and copying the data
        to shared memory; ``cyclic`` has all usable cores.
    random_state : int, None, RandomState or Generator
        Of ``cyclic``: the order of columns.
    callbacks : sequence of callable
        Called as ``callback(model, record)`` in each round; one that returns True ends training. Where all have an
        attribute ``needs_model`` that is False, `model` is left as it was before.
    verbose : bool
        Print a line for each round.
    checkpoint : str or Path, optional
        Of ``cyclic``: folder in which training is saved after each pass, and from which it goes on.

    Attributes
    ----------
    coef_ : float64[p]
    intercept_ : float
    dual_gap_ : float
        How far the objective is above its least value at most.
    n_iter_ : int
        Passes over the columns of a working set, or over all.
    n_features_in_ : int
    feature_names_in_ : object[p]
        Where it was fitted to a frame.
    history_ : list of Round
        Objective, duality gap, non-zeros and seconds of each round.

    Notes
    -----
    Columns that are all 0 or, with an intercept, constant have the coefficient 0.

    Massias, Gramfort and Salmon, ICML 2018 (working sets); Fercoq, Gramfort and Salmon, ICML 2015 (screening); Bertrand
    and Massias, AISTATS 2021 (acceleration); Ho et al., NIPS 2013 (stale coordinate descent).

    Examples
    --------
    >>> import numpy as np
    >>> from nbps.models import Lasso
    >>> X = np.random.default_rng(0).standard_normal((50, 200))
    >>> model = Lasso(alpha=0.1).fit(X, 3 * X[:, 7] - 2 * X[:, 80])
    >>> np.flatnonzero(model.coef_).tolist(), bool(model.dual_gap_ < 1e-3)
    ([7, 80], True)
    """

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        l1_ratio: float = 0.5,
        fit_intercept: bool = True,
        standardize: bool = False,
        max_iter: int = 10_000,
        tol: float = 1e-4,
        warm_start: bool = False,
        positive: bool = False,
        schedule: str = "working_sets",
        clocks: int = 10,
        consistency: Consistency | None = None,
        workers: int | None = None,
        random_state: int | np.random.RandomState | np.random.Generator | None = 0,
        callbacks: Sequence[Callback] = (),
        verbose: bool = False,
        checkpoint: str | Path | None = None,
    ) -> None:
        self.alpha = alpha
        self.l1_ratio = l1_ratio
        self.fit_intercept = fit_intercept
        self.standardize = standardize
        self.max_iter = max_iter
        self.tol = tol
        self.warm_start = warm_start
        self.positive = positive
        self.schedule = schedule
        self.clocks = clocks
        self.consistency = consistency
        self.workers = workers
        self.random_state = random_state
        self.callbacks = callbacks
        self.verbose = verbose
        self.checkpoint = checkpoint

    def _plan(self) -> LinearPlan:
        return LinearPlan.of({"l1_ratio": 1.0, **self.get_params(), "early_stopping": None})

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Solve for `X` and `y`.

        Parameters
        ----------
        X : array_like, frame or sparse matrix, shape (n, p)
            Fortran order and CSC of float32 or float64 are used as they are; others are copied.
        y : array_like, shape (n,)
        sample_weight : array_like, shape (n,), or number, optional
            Not below 0.

        Returns
        -------
        self

        Raises
        ------
        ConfigError
            If a parameter, a shape or a dtype cannot be used; the model is unchanged.
        DataError
            If a number is not finite, the target does not vary, or training diverges.
        """
        plan, phases = self._plan(), Phases()
        with phases("schedule"):
            features, target, weights = read_data(X, y, sample_weight, plan.fit_intercept)
            solver = Solver(features, target, weights, fit_intercept=plan.fit_intercept, standardize=plan.standardize)
            if self.warm_start and self.__sklearn_is_fitted__() and self.coef_.size == features.shape[1]:
                solver.begin_with(self.coef_)
        if plan.schedule == "cyclic":
            self._pass_by(plan, solver, phases)
        elif plan.workers is None or plan.workers == 1:
            vars(self).pop("report_", None)  # of an earlier fit with workers
            self._solve(plan, solver, phases)
        else:
            with contextlib.ExitStack() as stack:
                with phases("start"):
                    scans = stack.enter_context(JobScans(solver, plan.workers))
                self._solve(plan, solver, phases)
                self.report_ = scans.report()
        return self

    def _solve(self, plan: LinearPlan, solver: Solver, phases: Phases) -> None:
        """Solve with working sets."""
        records: list[Round] = []

        def each(record: Round, current: Any) -> bool:
            records.append(record)
            if self.verbose:
                print(f"round {record.epoch:3}  {record}")  # noqa: T201
            if self._is_shown:
                self._take(solver, current(), records, phases)
            return any([callback(self, record) is True for callback in self.callbacks])  # noqa: C419  (all are called)

        penalty = solver.penalty(plan.alpha, plan.l1_ratio, plan.positive)
        with phases("train"):
            solution = solver.solve(penalty, plan.tol, plan.max_iter, each)
        self._take(solver, solution, records, phases)

    def _pass_by(self, plan: LinearPlan, solver: Solver, phases: Phases) -> None:
        """Have workers visit all columns, pass by pass."""
        with phases("schedule"):
            trainer = CyclicTrainer(plan, solver, self._is_watched, phases)
            if plan.checkpoint is not None:
                trainer.save_to(plan.checkpoint, parameters_to_json(self.get_params()))
        self._limit = trainer.limit
        self._run(trainer, [None] * plan.max_iter)
        if not self._is_solved(self.history_[-1]) and len(self.history_) == plan.max_iter:
            warn_of_gap(self.dual_gap_, self._limit, self.n_iter_)

    def _is_solved(self, record: Round) -> bool:
        """Whether the duality gap is small enough."""
        return record.gap <= self._limit

    def _become(self, state: LinearState, records: Sequence[Round], epoch: int, trainer: Any) -> None:
        super()._become(replace(state, gap=records[-1].gap, passes=len(records)), records, epoch, trainer)

    def _take(self, solver: Solver, solution: Solution, records: list[Round], phases: Phases) -> None:
        """Take over what solving gave."""
        self._state = LinearState(
            solution.coefficients, solution.intercept, solution.gap, solution.passes, solver.features.names
        )
        self.history_, self.best_epoch_ = list(records), records[-1].epoch
        self.train_seconds_ = sum(record.seconds for record in records)
        self.seconds_ = dict(phases.seconds)


class Lasso(ElasticNet):
    """Linear model with an L1 penalty, solved to a duality gap.

    It minimises, with W the sum of the weights of rows,
    ``1 / (2 W) * sum(weight * (y - X b - intercept)²) + alpha * |b|_1``: `ElasticNet` with an `l1_ratio` of 1, which
    says what parameters and attributes mean.

    Examples
    --------
    >>> import numpy as np
    >>> from nbps.models import Lasso
    >>> X = np.random.default_rng(0).standard_normal((50, 200))
    >>> model = Lasso(alpha=0.1).fit(X, 3 * X[:, 7] - 2 * X[:, 80])
    >>> bool(model.score(X, 3 * X[:, 7] - 2 * X[:, 80]) > 0.99)
    True
    """

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        fit_intercept: bool = True,
        standardize: bool = False,
        max_iter: int = 10_000,
        tol: float = 1e-4,
        warm_start: bool = False,
        positive: bool = False,
        schedule: str = "working_sets",
        clocks: int = 10,
        consistency: Consistency | None = None,
        workers: int | None = None,
        random_state: int | np.random.RandomState | np.random.Generator | None = 0,
        callbacks: Sequence[Callback] = (),
        verbose: bool = False,
        checkpoint: str | Path | None = None,
    ) -> None:
        super().__init__(
            alpha, l1_ratio=1.0, fit_intercept=fit_intercept, standardize=standardize, max_iter=max_iter, tol=tol,
            warm_start=warm_start, positive=positive, schedule=schedule, clocks=clocks, consistency=consistency,
            workers=workers, random_state=random_state, callbacks=callbacks, verbose=verbose, checkpoint=checkpoint,
        )  # fmt: skip
