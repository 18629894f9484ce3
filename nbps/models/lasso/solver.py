"""A linear model is solved: rounds of scanning columns, choosing a working set, and coordinate descent on it.

`Solver` is one problem, with data and target; it solves for one penalty after the other, and each begins where the one
before ended: coefficients, residual, and what is known of the columns' products with it.
"""

from __future__ import annotations

import functools
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nbps.data.features.features import Features
from nbps.errors import ConvergenceWarning
from nbps.models.lasso.history import Round

Floats = npt.NDArray[np.float64]
Int32s = npt.NDArray[np.int32]

_FEWEST = 100  # columns in the first working set, where nothing is known; 50 and 200 took as long
_MORE = 20  # columns beside those with a coefficient, in the first one of the next penalty
_SHARE = 0.1  # of the gap that is left to the next round: 0.3 took a third longer, 0.03 as long
_STALLED = 0.5  # of the gap before: a working set that did not halve it was too small
_SLACK = 1e-9  # of the penalty: rounding in bounds


@dataclass(frozen=True)
class Penalty:
    """Penalties in units of sums of squares, and whether coefficients below 0 are excluded."""

    l1: float
    l2: float
    positive: bool

    @property
    def arguments(self) -> tuple[float, float, bool]:
        """As kernels take them."""
        return self.l1, self.l2, self.positive


class Scans(Protocol):
    """Who multiplies columns with a residual."""

    def scan(self, solver: Solver, penalty: Penalty, candidates: Int32s, level: float) -> tuple[float, int]:
        """Do what `nbps.kernels.models.lasso_scan.scan` says, for all candidates."""


@functools.cache
def prepare_kernels(dtype: str, is_sparse: bool) -> None:
    """Have the kernels for such columns compiled and loaded, once in a process: a millisecond otherwise, each time."""
    from nbps.kernels.models import lasso
    from nbps.kernels.prepare import prepare

    prepare(lasso.requests(dtype, is_sparse))


class OwnScans:
    """Scans by this process."""

    def scan(self, solver: Solver, penalty: Penalty, candidates: Int32s, level: float) -> tuple[float, int]:
        """Scan all candidates."""
        from nbps.kernels.models.lasso_scan import scan

        largest, computed = scan(
            solver.design, solver.residual, solver.travelled, candidates, 0, candidates.size, solver.coefficients,
            *penalty.arguments, level, solver.correlations, solver.seen,
        )  # fmt: skip
        return float(largest), int(computed)


@dataclass(frozen=True)
class Solution:
    """Coefficients of columns as they are given, and how good they are.

    Attributes
    ----------
    coefficients : float64[p]
    intercept : float
    objective, gap : float
        Value of the objective, and how far above the least it is at most.
    passes : int
        Over the columns of a working set.
    """

    coefficients: Floats
    intercept: float
    objective: float
    gap: float
    passes: int


class Solver:
    """A problem: columns, target and weights of rows.

    Parameters
    ----------
    features : Features
    y : float64[n]
    weights : float64[n] or None
    fit_intercept, standardize : bool

    Attributes
    ----------
    scans : Scans
        Who multiplies columns with the residual: this process, or workers.
    computed : int
        How many products were computed so far.
    design : Design
        The columns, as they are taken.
    y : float64[n]
        The target, centred if there is an intercept.
    coefficients : float64[p]
        Of the columns as they are taken; those of the last solution, or what the next solution begins with.
    known : int32[c]
        All that have a coefficient, in ascending order, and maybe others.
    residual : float64[n + 1]
        Of them, as `nbps.kernels.models.lasso_columns` has it.
    correlations, seen : float64[p]
        Products of columns with a residual, and how far it had come.
    travelled : float
        Way of the residual from scan to scan.
    square_sum : float
        Weighted sum of the squares of the target, centred if there is an intercept.

    Raises
    ------
    DataError
        If a column has a number that is not finite, or squares beyond float64.
    """

    def __init__(
        self, features: Features, y: Floats, weights: Floats | None, *, fit_intercept: bool, standardize: bool
    ) -> None:
        from nbps.kernels.models import lasso
        from nbps.kernels.models.lasso_columns import UNWEIGHTED, make_design, measure, read_only, square_sum

        prepare_kernels(features.values.dtype.name, features.is_sparse)
        rows, count = features.shape
        self.scans: Scans = OwnScans()
        self.features, self.computed = features, count
        self.design = make_design(_columns(features), UNWEIGHTED if weights is None else weights, rows)
        self._y_mean = float(np.average(y, weights=weights)) if fit_intercept else 0.0
        self.y = read_only(y - self._y_mean)
        self.start = np.append(self.y if weights is None else weights * self.y, 0.0)
        self.residual, self._scanned = self.start.copy(), self.start.copy()
        self.correlations, self.seen, self.travelled = np.empty(count), np.zeros(count), 0.0
        bad = measure(self.design, 0, count, fit_intercept, standardize, self.residual, self.correlations)
        if bad >= 0:
            raise features.refuse(bad)
        self._live = np.flatnonzero(self.design.squares).astype(np.int32)
        self.coefficients = np.zeros(count)
        self.known: Int32s = np.empty(0, np.int32)
        self.square_sum = float(square_sum(self.design, self.start))
        self._scratch: Any = lasso.make_scratch(0, rows)
        self._distances, self._chosen = np.empty(0), np.empty(0, np.int32)

    def largest_alpha(self, l1_ratio: float, positive: bool) -> float:
        """Return the least alpha for which all coefficients are 0; to be asked before the first solution."""
        products = self.correlations[self._live]
        if not products.size:
            return 0.0
        return max(0.0, float(products.max() if positive else np.abs(products).max())) / (self.design.total * l1_ratio)

    def begin_with(self, coefficients: Floats) -> None:
        """Have the next solution begin with these coefficients of columns as they are given."""
        self.coefficients = np.where(self.design.squares > 0, coefficients / self.design.scales, 0.0)
        self.known = np.flatnonzero(self.coefficients).astype(np.int32)

    def penalty(self, alpha: float, l1_ratio: float, positive: bool) -> Penalty:
        """Return the penalty of a model with such parameters."""
        total = self.design.total
        return Penalty(float(alpha * l1_ratio * total), float(alpha * (1.0 - l1_ratio) * total), bool(positive))

    def solve(
        self,
        penalty: Penalty,
        tol: float,
        max_iter: int,
        each: Callable[[Round, Callable[[], Solution]], bool] = lambda *_: False,
    ) -> Solution:
        """Solve until the duality gap is at most `tol` times the mean square of the target.

        Parameters
        ----------
        penalty : Penalty
        tol : float
        max_iter : int
            Passes after which it ends in any case, with a `ConvergenceWarning`.
        each : callable
            Is told of each round, and can ask for the solution so far; returns whether to end.
        """
        from nbps.kernels.models import lasso, lasso_scan

        design, b, known = self.design, self.coefficients, (self.correlations, self.seen)
        limit, total = tol * self.square_sum, design.total
        candidates = self._live.copy()
        size, passes, best, before, number = 0, 0, -math.inf, math.inf, 0
        begin = time.perf_counter()
        while True:
            number += 1
            self.follow()
            largest, computed = self.scans.scan(self, penalty, candidates, penalty.l1 * (1.0 - _SLACK))
            self.computed += computed
            primal, dual, shrink = lasso.values(
                design, self.y, self.known, b, self.residual, largest, penalty.l1, penalty.l2
            )
            best = max(best, dual)
            gap = primal - best
            nonzeros = int(np.count_nonzero(b[self.known]))
            record = Round(
                epoch=number, seconds=time.perf_counter() - begin, wait_share=0.0, objective=primal / total,
                gap=max(gap, 0.0) / total, nonzeros=nonzeros, scanned=computed,
            )  # fmt: skip
            found = functools.partial(self.solution, record.objective, record.gap, passes)
            if each(record, found) or gap <= limit:
                return found()
            if passes >= max_iter:
                warn_of_gap(gap / total, limit / total, passes)
                return found()
            begin = time.perf_counter()
            state = b, *penalty.arguments, float(shrink)
            radius = math.sqrt(2.0 * max(primal - dual, 0.0))
            left = lasso_scan.screen(design, self.travelled, candidates, candidates.size, *state, radius, *known)
            candidates = candidates[:left]
            size = self._size(number, nonzeros, gap, before, size, left)
            before = gap
            self.known = self._choose(candidates, state, size)
            goal = 0.5 * limit if self.known.size == left else max(_SHARE * gap, 0.5 * limit)
            passes += lasso.solve(
                design, self.y, self.known, *penalty.arguments, goal, max_iter - passes, b, self.residual,
                self._scratch,
            )  # fmt: skip

    def follow(self) -> None:
        """Compute the residual anew, without the rounding of its steps, and add up its way."""
        from nbps.kernels.models.lasso import rebuild
        from nbps.kernels.models.lasso_columns import distance

        rebuild(self.design, self.known, self.coefficients, self.start, self.residual)
        self.travelled += float(distance(self.design, self.residual, self._scanned))
        self._scanned[:] = self.residual

    def _size(self, number: int, nonzeros: int, gap: float, before: float, size: int, left: int) -> int:
        """Return how many columns the next working set has."""
        if number == 1:
            size = max(nonzeros + max(_MORE, nonzeros // 4), _FEWEST if nonzeros == 0 else 0)
        elif gap < _STALLED * before:
            size = max(2 * nonzeros, _FEWEST)
        else:
            size = 2 * max(size, nonzeros)
        return min(size, left)

    def _choose(self, candidates: Int32s, state: tuple[Any, ...], size: int) -> Int32s:
        from nbps.kernels.models.lasso import make_scratch
        from nbps.kernels.models.lasso_scan import choose

        if size > self._chosen.size:
            self._chosen, self._distances = np.empty(2 * size, np.int32), np.empty(2 * size)
            self._scratch = make_scratch(2 * size, self.start.size - 1)
        found = choose(
            self.design, self.travelled, candidates, candidates.size, *state, size, self.correlations, self.seen,
            self._distances, self._chosen,
        )  # fmt: skip
        return np.sort(self._chosen[:found])

    def solution(self, objective: float, gap: float, passes: int) -> Solution:
        """Return the coefficients of now as a solution."""
        coefficients = self.coefficients * self.design.scales
        used = np.flatnonzero(coefficients)
        intercept = self._y_mean - float(self.design.means[used] @ coefficients[used])
        return Solution(coefficients, intercept, objective, gap, passes)


def _columns(features: Features) -> Any:
    """Return the columns as kernels take them."""
    from nbps.kernels.models.lasso_columns import Dense, Sparse

    if features.rows is None or features.starts is None:
        return Dense(features.values.T)
    return Sparse(features.values, features.rows, features.starts)


def warn_of_gap(gap: float, limit: float, passes: int) -> None:
    """Warn of a duality gap that is larger than was asked for."""
    warnings.warn(
        f"the duality gap is {gap:.3g} after {passes} passes, more than the {limit:.3g} that tol allows; raise "
        f"max_iter, or tol, or alpha, or standardise the columns",
        ConvergenceWarning,
        stacklevel=4,
    )
