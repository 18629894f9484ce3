"""Cyclic coordinate descent in a job: columns dealt to workers, the residual in a table that each sees late."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from nbps.errors import DataError
from nbps.models.lasso import worker as lasso_worker
from nbps.models.lasso.history import Round
from nbps.models.lasso.plan import LinearPlan
from nbps.models.lasso.scans import inputs_of
from nbps.models.lasso.solver import Solver
from nbps.models.lasso.state import LinearState
from nbps.models.phases import Phases
from nbps.models.saved import checksum
from nbps.models.trainer import Trainer, Values
from nbps.tables.definition import Table

_WIDTH = 64  # elements of the residual in a row: workers that add to it at the same time are seldom at the same one
_DIVERGED = 100.0  # times the objective of no coefficients: steps that workers did not know of made it so


class CyclicTrainer(Trainer[LinearState, Round]):
    """A job that passes over all columns in each epoch.

    Each worker lowers the objective over one of its coefficients after the other, as far as it knows the residual: its
    own steps are in it at once, those of others as the consistency model says. With one worker, or where columns of
    different workers are not correlated, this is coordinate descent; else late steps may overshoot.
    """

    record = Round

    def __init__(self, plan: LinearPlan, solver: Solver, watched: bool, phases: Phases) -> None:
        self._solver = solver
        self._penalty = solver.penalty(plan.alpha, plan.l1_ratio, plan.positive)
        self._clocks, self._seed, self._tol = plan.clocks, plan.seed, plan.tol
        self._inputs = inputs_of(solver, plan.all_workers, self._penalty.arguments)
        solver.follow()
        size = solver.residual.size
        rows = np.zeros((-(-size // _WIDTH), _WIDTH))
        rows.reshape(-1)[:size] = solver.residual
        local = plan.local_workers
        # A column is visited by one worker only: its coefficient stays on that node.
        firsts = [int(first) for first in self._inputs.bounds[local : plan.all_workers : local]]
        tables = [
            Table("residual", *rows.shape, dtype="float64", access="cached", init=rows),
            Table(
                "coefficients", solver.coefficients.size, 1, dtype="float64", access="exclusive", sharding=firsts,
                replicate="run", init=solver.coefficients[:, None],
            ),
        ]  # fmt: skip
        features = solver.features
        preload = functools.partial(lasso_worker.preload, features.values.dtype.name, features.is_sparse)
        super().__init__(plan, tables, plan.model, preload, watched, phases)

    @property
    def limit(self) -> float:
        """Duality gap at which training ends."""
        return self._tol * self._solver.square_sum / self._solver.design.total

    @property
    def task(self) -> str:
        """Size of the problem."""
        rows, columns = self._solver.features.shape
        return f"training on {rows:,} rows of {columns:,} columns"

    @property
    def input_bytes(self) -> int:
        """Of the data, which all workers look at."""
        return self._inputs.nbytes

    def deal(self) -> None:
        """Have every worker take its columns."""
        self._job.run(lasso_worker.set_up, self._inputs, self._seed, self._clocks)

    def train(self, epoch: int, setting: None) -> int:
        """Visit every column once."""
        self._job.run(lasso_worker.train_epoch, epoch)
        return epoch

    def measure(self, found: int, **timing: Any) -> Round:
        """Measure objective and duality gap."""
        with self.phases("evaluate"):
            primal, dual, nonzeros = self._job.run(lasso_worker.weigh, found)[0]
        total = self._solver.design.total
        if not math.isfinite(primal) or primal > _DIVERGED * self._solver.square_sum:
            raise DataError(
                f"training diverged in pass {found}: the objective is {primal / total:g}; have workers tell each other "
                f"of their steps more often (clocks, now {self._clocks}; staleness), take fewer of them, or "
                f"schedule='working_sets'"
            )
        return Round(
            **timing, objective=primal / total, gap=max(primal - dual, 0.0) / total, nonzeros=nonzeros,
            scanned=self._solver.features.shape[1],
        )  # fmt: skip

    def state(self, values: Values | None = None) -> LinearState:
        """Return the model as it is now."""
        places = np.arange(self._solver.coefficients.size)
        solver = self._solver
        solver.coefficients[:] = self.rows(values, "coefficients", places)[:, 0]
        solution = solver.solution(math.nan, math.nan, 0)
        return LinearState(solution.coefficients, solution.intercept, math.nan, 0, solver.features.names)

    def digest(self) -> dict[str, Any]:
        """Return sizes and checksums of data, target and weights of rows."""
        inputs = self._inputs
        parts = [np.ascontiguousarray(part) for part in (inputs.values, inputs.rows, inputs.starts) if part is not None]
        return {
            "data": f"{self._solver.features.shape} with checksum {checksum(*parts)}",
            "y": checksum(inputs.y),
            "sample_weight": checksum(inputs.weights),
        }
