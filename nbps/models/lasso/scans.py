"""Scans by the workers of a job, each of its part of the columns, for a solver in this process."""

from __future__ import annotations

import functools
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from nbps.consistency import SSP
from nbps.data.features.features import Features
from nbps.job.job import Job
from nbps.models.lasso import worker as lasso_worker
from nbps.models.lasso.solver import OwnScans, Penalty, Solver
from nbps.models.lasso.worker import Inputs
from nbps.tables.definition import Table

Ints = npt.NDArray[np.int64]


def columns_of_workers(features: Features, workers: int) -> Ints:
    """Return the first column of each worker, and the number of all: each has as many numbers, nearly."""
    columns = features.shape[1]
    before = np.arange(columns + 1) * features.shape[0] if features.starts is None else features.starts
    shares = before[-1] * np.arange(1, workers) / workers
    return np.concatenate([[0], np.searchsorted(before, shares), [columns]]).astype(np.int64)


def inputs_of(solver: Solver, workers: int, penalty: tuple[float, float, bool]) -> Inputs:
    """Return what workers get of a problem."""
    features, design = solver.features, solver.design
    values = features.values if features.is_sparse else features.values.T
    bounds = columns_of_workers(features, workers)
    moments = design.means, design.scales, design.squares
    return Inputs(values, features.rows, features.starts, design.weights, *moments, solver.y, bounds, penalty)


class JobScans:
    """A job that scans the columns of a solver while it is open; a context manager.

    Products with the residual lie in tables, of which each worker writes its own rows. The residual goes to all of them
    with each scan, after which all wait: a duality gap must be that of one residual.
    """

    def __init__(self, solver: Solver, workers: int) -> None:
        self._solver, self._workers = solver, workers
        columns = solver.coefficients.size
        tables = [Table(name, columns, 1, dtype="float64", access="exclusive") for name in ("correlations", "seen")]
        features = solver.features
        preload = functools.partial(lasso_worker.preload, features.values.dtype.name, features.is_sparse)
        self._job = Job(tables, workers=workers, consistency=SSP(0), preload=preload)

    def __enter__(self) -> Self:
        self._job.__enter__()
        try:
            solver = self._solver
            self._job.run(lasso_worker.begin_scans, inputs_of(solver, self._workers, (0.0, 0.0, False)))
            self._job.run(lasso_worker.forget, solver.correlations)
            solver.scans = self
        except BaseException:
            self._job.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._solver.scans = OwnScans()
        self._job.close()

    def scan(
        self, solver: Solver, penalty: Penalty, candidates: npt.NDArray[np.int32], level: float
    ) -> tuple[float, int]:
        """Scan all columns: what was screened is spared by its bounds, too."""
        columns = solver.known[solver.coefficients[solver.known] != 0]
        found = self._job.run(
            lasso_worker.scan, solver.residual, solver.travelled, columns, solver.coefficients[columns],
            penalty.arguments, level,
        )  # fmt: skip
        for name, target in (("correlations", solver.correlations), ("seen", solver.seen)):
            target[:] = self._job.table(name).to_numpy()[:, 0]
        return max(largest for largest, _ in found), sum(computed for _, computed in found)

    def report(self) -> Any:
        """Return what the job measured so far."""
        return self._job.report()
