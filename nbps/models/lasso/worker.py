"""A linear model inside workers, each of which has a range of the columns: scans of them, and cyclic descent.

The driver imports this, too; workers need no Arrow. So functions import what they need.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from nbps.job.worker import Worker

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def preload(dtype: str, is_sparse: bool) -> None:
    """Prepare kernels for columns of `dtype`, before the workers are forked."""
    from nbps.kernels.models import lasso
    from nbps.kernels.prepare import prepare

    prepare(lasso.requests(dtype, is_sparse))


@dataclass(frozen=True)
class Inputs:
    """What all workers get, once; arrays arrive in shared memory, and each worker looks at its part of them.

    Attributes
    ----------
    values, rows, starts
        Of `nbps.data.features.Features`; a dense matrix transposed.
    weights : float64[n] or float64[0]
    means, scales, squares : float64[p]
        As in `nbps.kernels.models.lasso_columns.Design`.
    y : float64[n]
        Centred, where columns are.
    bounds : int64[workers + 1]
        Worker k has the columns from ``bounds[k]`` to ``bounds[k + 1]``.
    penalty : (l1, l2, positive)
    """

    values: npt.NDArray[Any]
    rows: npt.NDArray[np.int32] | None
    starts: Ints | None
    weights: Floats
    means: Floats
    scales: Floats
    squares: Floats
    y: Floats
    bounds: Ints
    penalty: tuple[float, float, bool]

    @property
    def nbytes(self) -> int:
        """Bytes of all its arrays."""
        return sum(value.nbytes for value in vars(self).values() if isinstance(value, np.ndarray))


class Share:
    """A worker's columns.

    Attributes
    ----------
    first, last : int
        Their range among all.
    design : Design
    live : int32[c]
        Those that vary, counted from `first`.
    coefficients : float64[last - first]
    """

    def __init__(self, inputs: Inputs, worker: int, coefficients: Floats | None = None) -> None:
        from nbps.kernels.models.lasso_columns import Dense, Sparse, make_design

        self.first, self.last = (int(bound) for bound in inputs.bounds[worker : worker + 2])
        own = slice(self.first, self.last)
        if inputs.rows is None or inputs.starts is None:
            columns: Any = Dense(inputs.values[own])
        else:
            columns = Sparse(inputs.values, inputs.rows, inputs.starts[self.first : self.last + 1])
        self.design = make_design(columns, inputs.weights, inputs.y.size)
        for name in ("means", "scales", "squares"):
            getattr(self.design, name)[:] = getattr(inputs, name)[own]
        self.live = np.flatnonzero(self.design.squares).astype(np.int32)
        self.coefficients = np.zeros(self.last - self.first) if coefficients is None else coefficients[own]


# --------------------------------------------------------------------------- scans for a solver in the driver


def begin_scans(worker: Worker, inputs: Inputs) -> None:
    """Take this worker's columns."""
    worker.state["share"] = Share(inputs, worker.rank)


def forget(worker: Worker, correlations: Floats) -> None:
    """Take products with a residual that has not come any way."""
    share: Share = worker.state["share"]
    own = slice(share.first, share.last)
    _flat(worker, "correlations")[own] = correlations[own]
    _flat(worker, "seen")[own] = 0.0


def scan(
    worker: Worker,
    residual: Floats,
    travelled: float,
    columns: npt.NDArray[np.int32],
    coefficients: Floats,
    penalty: tuple[float, float, bool],
    level: float,
) -> tuple[float, int]:
    """Do what `nbps.kernels.models.lasso_scan.scan` says for this worker's columns.

    `columns` are those of all workers that have a coefficient, in ascending order, and `coefficients` theirs.
    """
    from nbps.kernels.models.lasso_scan import scan

    share: Share = worker.state["share"]
    own = slice(*np.searchsorted(columns, (share.first, share.last)))
    share.coefficients[:] = 0.0
    share.coefficients[columns[own] - share.first] = coefficients[own]
    part = slice(share.first, share.last)
    largest, computed = scan(
        share.design, residual.copy(), travelled, share.live, 0, share.live.size, share.coefficients, *penalty, level,
        _flat(worker, "correlations")[part], _flat(worker, "seen")[part],
    )  # fmt: skip
    return float(largest), int(computed)


def _flat(worker: Worker, table: str) -> Floats:
    values: Floats = worker.table(table).kernel.values
    return values.reshape(values.size)


# --------------------------------------------------------------------------- cyclic descent


def set_up(worker: Worker, inputs: Inputs, seed: int, clocks: int) -> None:
    """Take this worker's columns; coefficients are in a table."""
    share = Share(inputs, worker.rank, _flat(worker, "coefficients"))
    scratch = np.empty(share.coefficients.size), np.zeros(share.coefficients.size)
    worker.state.update(inputs=inputs, share=share, seed=seed, clocks=clocks, scratch=scratch)


def train_epoch(worker: Worker, epoch: int) -> None:
    """Visit each of this worker's columns once in random order, and tell of the steps so many times."""
    from nbps.kernels.models.lasso import descend

    inputs, share = worker.state["inputs"], worker.state["share"]
    residual = _residual(worker)
    order = np.random.default_rng([worker.state["seed"], worker.rank, epoch]).permutation(share.live)
    rows = worker.table("residual").shape[0]
    for columns in np.array_split(order, worker.state["clocks"]):
        descend(share.design, columns, columns.size, *inputs.penalty, share.coefficients, residual)
        worker.table("residual").mark(0, rows)
        worker.table("coefficients").mark(share.first, share.last)
        worker.clock()


def weigh(worker: Worker, epoch: int) -> tuple[float, float, int]:
    """Return the objective and the best dual value along the residual, and the number of non-zeros; all the same."""
    from nbps.kernels.models.lasso import weigh
    from nbps.kernels.models.lasso_columns import product_sum, square_sum
    from nbps.kernels.models.lasso_scan import scan

    inputs, share = worker.state["inputs"], worker.state["share"]
    residual, b = _residual(worker), share.coefficients
    correlations, seen = worker.state["scratch"]
    correlations[:] = 0.0
    largest, _ = scan(
        share.design,
        residual,
        float(epoch),
        share.live,
        0,
        share.live.size,
        b,
        *inputs.penalty,
        0.0,
        correlations,
        seen,
    )
    all_largest = np.zeros(worker.size)
    all_largest[worker.rank] = largest
    sums = worker.sum(np.concatenate([all_largest, [np.abs(b).sum(), b @ b, np.count_nonzero(b)]]))
    squares = square_sum(share.design, residual), product_sum(share.design, inputs.y, residual)
    l1, l2, _ = inputs.penalty
    primal, dual, _ = weigh(*squares, float(sums[-3]), float(sums[-2]), float(sums[:-3].max()), l1, l2)
    return primal, dual, int(sums[-1])


def _residual(worker: Worker) -> Floats:
    return _flat(worker, "residual")[: worker.state["inputs"].y.size + 1]
