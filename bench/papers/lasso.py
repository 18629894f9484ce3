"""The Lasso as the first paper trains it: coordinate descent, columns dealt out to the workers, with a stale residual.

The objective is ``|y - X b|^2 / (2 n) + alpha |b|_1``. All workers share the residual ``y - X b``; a worker's
coefficients are its alone. It goes through its columns in random order, another one in each epoch (in the same, those
visited first would take up the residual each time, and the others have nothing to do). It moves each coefficient `step`
of the way to its best value beside the residual of its copy, and subtracts from that what the move changes. Several
workers that explain the same residual at once overshoot: the more, the larger their steps and their staleness.

A lost addition to the residual is never made good: there is no Hogwild here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.csv
from numba import njit

import nbps
from papers.application import Application, Values, cuts, deal

Floats = npt.NDArray[np.float64]
ALPHA_SHARE = 0.1  # of the least alpha for which all coefficients are 0


class Regression(NamedTuple):
    """A linear regression, columns compressed (CSC).

    Attributes
    ----------
    values : ndarray of float64, shape (m,)
    rows : ndarray of int32, shape (m,)
    starts : ndarray of int64, shape (columns + 1,)
        Column j has the elements from ``starts[j]`` to ``starts[j + 1]``.
    y : ndarray of float64, shape (n,)
    """

    values: Floats
    rows: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]
    y: Floats


def generate(rows: int, columns: int, nonzeros: int, chosen: int, noise: float = 0.1) -> Regression:
    """Draw columns of `nonzeros` normal elements each, of which `chosen` make y; mean squares are 1."""
    random = np.random.default_rng(0)
    places = np.argsort(random.random((columns, rows)), axis=1)[:, :nonzeros].astype(np.int32)
    values = random.standard_normal((columns, nonzeros))
    values *= np.sqrt(rows / (values**2).sum(axis=1, keepdims=True))
    y = np.zeros(rows)
    for j, weight in zip(random.choice(columns, chosen, replace=False), random.standard_normal(chosen), strict=True):
        y[places[j]] += weight * values[j]
    y += noise * y.std() * random.standard_normal(rows)
    return Regression(values.ravel(), places.ravel(), np.arange(columns + 1) * nonzeros, (y - y.mean()) / y.std())


def read(path: Path) -> Regression:
    """Read a CSV of numbers with a line of names, y first; centre y, standardise the columns."""
    table = pyarrow.csv.read_csv(path)
    y, *columns = (column.to_numpy().astype(np.float64) for column in table.columns)
    standard = np.array([(column - column.mean()) / column.std() for column in columns if column.std() > 0])
    rows = np.tile(np.arange(y.size, dtype=np.int32), len(standard))
    return Regression(standard.ravel(), rows, np.arange(len(standard) + 1) * y.size, y - y.mean())


@dataclass(frozen=True)
class Lasso(Application):
    """Columns, dealt out to workers.

    Attributes
    ----------
    name : str
    data : Regression
        Columns sorted by worker, in random order.
    squares : ndarray of float64, shape (columns,)
        Sum of the squares of each column; columns of zeros keep their coefficient.
    alpha : float
    bounds : ndarray of int64, shape (workers + 1,)
        Worker w has the columns from ``bounds[w]`` to ``bounds[w + 1]``.
    """

    name: str
    data: Regression
    squares: Floats
    alpha: float
    bounds: npt.NDArray[np.int64]

    shared: ClassVar[str] = "residual"
    observed: ClassVar[tuple[str, ...]] = ("coefficients",)
    quantity: ClassVar[str] = "objective"

    @staticmethod
    def of(name: str, data: Regression, workers: int, _: int) -> Lasso:
        """Deal the columns out, so that workers have equally many elements, give or take a column's."""
        random = np.random.default_rng(0)
        sizes = np.diff(data.starts)
        owner = deal(sizes, workers, random)
        order = np.lexsort((random.permutation(sizes.size), owner))
        starts = np.concatenate([[0], np.cumsum(sizes[order])])
        elements = np.arange(starts[-1]) + np.repeat(data.starts[order] - starts[:-1], sizes[order])
        dealt = Regression(data.values[elements], data.rows[elements], starts, data.y)
        column = np.repeat(np.arange(sizes.size), sizes[order])
        squares = np.bincount(column, dealt.values**2, sizes.size)
        products = np.bincount(column, dealt.values * data.y[dealt.rows], sizes.size)
        alpha = ALPHA_SHARE * float(np.abs(products).max()) / data.y.size
        return Lasso(name, dealt, squares, alpha, np.searchsorted(owner[order], np.arange(workers + 1)))

    def tables(self, access: str) -> list[nbps.Table]:
        """Return the residual of coefficients 0, an element a row, and the coefficients."""
        y = self.data.y[:, None]
        return [
            nbps.Table("residual", *y.shape, dtype="float64", access=access, init=y),
            nbps.Table("coefficients", self.squares.size, 1, dtype="float64", access="exclusive"),
        ]

    @staticmethod
    def preload() -> None:
        """Compile the loop for the arrays that workers will give it."""
        numbers, codes, starts = np.zeros(0), np.zeros(0, np.int32), np.zeros(1, np.int64)
        descend(np.zeros(0, np.int64), numbers, codes, starts, numbers, numbers, np.zeros((1, 1)), 1.0, 1.0)

    def share(self, worker: Any, step: float, clocks_per_epoch: int, seed: int) -> _Share:
        """Return a worker's columns."""
        first, last = self.bounds[worker.rank], self.bounds[worker.rank + 1]
        starts = self.data.starts[first : last + 1] - self.data.starts[first]
        elements = slice(self.data.starts[first], self.data.starts[last])
        columns = self.data.values[elements].copy(), self.data.rows[elements].copy(), starts
        coefficients = worker.table("coefficients").kernel.values[first:last, 0]
        penalty = self.alpha * self.data.y.size
        columns = *columns, self.squares[first:last].copy(), coefficients
        return _Share(worker, columns, penalty, step, clocks_per_epoch, seed)

    def residual(self, coefficients: Floats) -> Floats:
        """Return ``y - X b``."""
        column = np.repeat(coefficients, np.diff(self.data.starts))
        return np.asarray(self.data.y - np.bincount(self.data.rows, column * self.data.values, self.data.y.size))

    def objective(self, values: Values) -> float:
        """Return the objective of the coefficients, whatever the shared residual is."""
        coefficients = values["coefficients"][:, 0]
        with np.errstate(over="ignore", invalid="ignore"):  # what diverges
            residual = self.residual(coefficients)
            return float(residual @ residual / (2 * residual.size) + self.alpha * np.abs(coefficients).sum())

    def check(self, values: Values) -> None:
        """Raise unless the shared residual is that of the coefficients, up to rounding."""
        coefficients, shared = values["coefficients"][:, 0], values["residual"][:, 0]
        size = float(np.abs(coefficients).max())
        if size < 1e6:  # what diverged has been rounded at greater sizes
            expected = self.residual(coefficients)
            assert np.allclose(shared, expected, rtol=0, atol=1e-6 * (1 + size)), "the residual misses moves"


class _Share:
    """The columns of a worker."""

    def __init__(
        self, worker: Any, columns: tuple[Any, ...], penalty: float, step: float, clocks_per_epoch: int, seed: int
    ) -> None:
        self._residual, self._columns, self._penalty, self._step = worker.table("residual"), columns, penalty, step
        self._cuts, self._seed = cuts(columns[-1].size, clocks_per_epoch), [seed, worker.rank]
        self._order = np.zeros(0, np.int64)

    def advance(self, clock: int) -> None:
        """Go over the columns of a clock."""
        epoch, part = divmod(clock, self._cuts.size - 1)
        if part == 0:
            self._order = np.random.default_rng([*self._seed, epoch]).permutation(self._columns[-1].size)
        order = self._order[self._cuts[part] : self._cuts[part + 1]]
        descend(order, *self._columns, self._residual.kernel.values, self._penalty, self._step)


@njit(nogil=True, error_model="numpy", cache=True)
def descend(order, values, rows, starts, squares, coefficients, residual, penalty, step):
    """Move the coefficients of some columns once, in order.

    As in ``nbps.kernels.models.lasso``, but steps may be shorter than to the best value.

    Parameters
    ----------
    order : ndarray of int64, shape (m,)
        The columns.
    values, rows : ndarray of float64 and int32
        Elements.
    starts : ndarray of int64, shape (n + 1,)
        Where those of each column begin.
    squares, coefficients : ndarray of float64, shape (n,)
        Coefficients are changed.
    residual : ndarray of float64, shape (rows, 1)
        A copy, changed.
    penalty : float
        alpha times the number of rows.
    step : float
        Of the way to the best value, more than 0, at most 1.
    """
    for j in order:
        if squares[j] == 0.0:
            continue
        pull = coefficients[j] * squares[j]
        for n in range(starts[j], starts[j + 1]):
            pull += values[n] * residual[rows[n], 0]
        best = max(abs(pull) - penalty, 0.0) / squares[j]
        move = step * (np.copysign(best, pull) - coefficients[j])
        if move != 0.0:
            coefficients[j] += move
            for n in range(starts[j], starts[j + 1]):
                residual[rows[n], 0] -= move * values[n]
