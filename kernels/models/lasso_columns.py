"""Columns of a design matrix as coordinate descent sees them: centred, scaled and weighted without being copied.

Column j stands for ``z[i] = (x[i, j] - means[j]) * scales[j]``. A *residual* is a vector of n + 1 float64: the first n
are ``weights * (y - Z b)``, and the last is what is to be added to each of them, times its weight. Dense columns leave
it at 0; centring a sparse column changes it alone, so that a step costs as much as there are non-zeros.

All sums are float64: a scan of float32 columns waits for memory all the same.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba.extending import overload

from ..jit import kernel

_CONSTANT = 64 * float(np.finfo(np.float64).eps)  # of the square of its mean: what varies less is rounding
_FINITE_TOO = {"reassoc", "nsz", "arcp", "contract", "afn"}  # fast, but a number that is not finite shows


def read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a view of an array through which nothing is written: kernels take data of users as such."""
    view = array.view()
    view.flags.writeable = False
    return view


UNWEIGHTED = read_only(np.zeros(0))


class Dense(NamedTuple):
    """Columns of a dense matrix.

    Attributes
    ----------
    values : float32 or float64[p, n], C-contiguous
        The transposed matrix, whose rows are columns.
    """

    values: np.ndarray


class Sparse(NamedTuple):
    """Columns of a sparse matrix, compressed (CSC).

    Attributes
    ----------
    values : float32 or float64[m]
    rows : int32[m]
    starts : int64[p + 1]
        Column j has the elements from ``starts[j]`` to ``starts[j + 1]``.
    """

    values: np.ndarray
    rows: np.ndarray
    starts: np.ndarray


class Design(NamedTuple):
    """Columns, and how each is to be taken.

    Attributes
    ----------
    columns : Dense or Sparse
    weights : float64[n], or float64[0] if all are 1
        Not below 0.
    means, scales : float64[p]
        What is subtracted from a column, and what it is then multiplied with.
    squares : float64[p]
        Weighted sum of the squares of column j so taken; 0 where it is constant, which keeps its coefficient at 0.
    total : float
        Sum of the weights.
    """

    columns: Dense | Sparse
    weights: np.ndarray
    means: np.ndarray
    scales: np.ndarray
    squares: np.ndarray
    total: float


def make_design(columns: Dense | Sparse, weights: npt.NDArray[np.float64], rows: int) -> Design:
    """Make a design whose means, scales and squares are to be filled in (`measure`)."""
    shown = type(columns)(*map(read_only, columns))
    count = columns.values.shape[0] if isinstance(columns, Dense) else columns.starts.size - 1
    total = float(weights.sum()) if weights.size else float(rows)
    return Design(shown, read_only(weights), np.zeros(count), np.ones(count), np.zeros(count), total)


def example_design(dtype: str, is_sparse: bool) -> Design:
    """Return a design of one empty row and column."""
    values = np.zeros((1, 1), dtype)
    sparse = Sparse(values[0, :0], np.zeros(0, np.int32), np.zeros(2, np.int64))
    return make_design(sparse if is_sparse else Dense(values), UNWEIGHTED, 1)


# --------------------------------------------------------------------------- the two operations


def dot(design, j, residual):
    """Return the product of column j with a residual."""
    return (_dot_dense if isinstance(design.columns, Dense) else _dot_sparse)(design, j, residual)


def move(design, j, step, residual):
    """Subtract `step` times column j from what a residual stands for."""
    (_move_dense if isinstance(design.columns, Dense) else _move_sparse)(design, j, step, residual)


@kernel(fastmath=True, inline=True)
def _dot_dense(design, j, residual):
    values, mean, total = design.columns.values, design.means[j], 0.0
    for i in range(values.shape[1]):
        total += (np.float64(values[j, i]) - mean) * residual[i]
    return total * design.scales[j]


@kernel(fastmath=True, inline=True)
def _dot_sparse(design, j, residual):
    values, rows, starts = design.columns
    total = residual[residual.size - 1] * design.total * design.means[j]
    for k in range(starts[j], starts[j + 1]):
        total += np.float64(values[k]) * residual[np.uint64(rows[k])]
    return total * design.scales[j]


@kernel(fastmath=True, inline=True)
def _move_dense(design, j, step, residual):
    values, weights, mean, step = design.columns.values, design.weights, design.means[j], step * design.scales[j]
    if weights.size > 0:
        for i in range(values.shape[1]):
            residual[i] -= step * weights[i] * (np.float64(values[j, i]) - mean)
    else:
        for i in range(values.shape[1]):
            residual[i] -= step * (np.float64(values[j, i]) - mean)


@kernel(fastmath=True, inline=True)
def _move_sparse(design, j, step, residual):
    (values, rows, starts), weights, step = design.columns, design.weights, step * design.scales[j]
    if weights.size > 0:
        for k in range(starts[j], starts[j + 1]):
            i = np.uint64(rows[k])
            residual[i] -= step * weights[i] * np.float64(values[k])
    else:
        for k in range(starts[j], starts[j + 1]):
            residual[np.uint64(rows[k])] -= step * np.float64(values[k])
    residual[residual.size - 1] += step * design.means[j]


def _is_dense(design):
    return design.types[design.fields.index("columns")].instance_class is Dense


@overload(dot, inline="always")
def _(design, j, residual):
    if _is_dense(design):
        return lambda design, j, residual: _dot_dense(design, j, residual)
    return lambda design, j, residual: _dot_sparse(design, j, residual)


@overload(move, inline="always")
def _(design, j, step, residual):
    if _is_dense(design):
        return lambda design, j, step, residual: _move_dense(design, j, step, residual)
    return lambda design, j, step, residual: _move_sparse(design, j, step, residual)


# --------------------------------------------------------------------------- what residuals add up to


@kernel(fastmath=True)
def square_sum(design, residual):
    """Return the weighted sum of the squares of what a residual stands for."""
    n, weights = residual.size - 1, design.weights
    shift, total = residual[n], 0.0
    if weights.size > 0:
        for i in range(n):
            if weights[i] > 0:
                element = residual[i] + shift * weights[i]
                total += element * element / weights[i]
    else:
        for i in range(n):
            total += (residual[i] + shift) * (residual[i] + shift)
    return total


@kernel(fastmath=True)
def distance(design, residual, before):
    """Return the weighted norm of the difference between what two residuals stand for."""
    n, weights = residual.size - 1, design.weights
    shift, total = residual[n] - before[n], 0.0
    if weights.size > 0:
        for i in range(n):
            if weights[i] > 0:
                element = residual[i] - before[i] + shift * weights[i]
                total += element * element / weights[i]
    else:
        for i in range(n):
            element = residual[i] - before[i] + shift
            total += element * element
    return np.sqrt(total)


@kernel(fastmath=True)
def product_sum(design, y, residual):
    """Return the sum of the products of `y`, float64[n], with a residual."""
    n, weights = residual.size - 1, design.weights
    shift, total = residual[n], 0.0
    if weights.size > 0:
        for i in range(n):
            total += y[i] * (residual[i] + shift * weights[i])
    else:
        for i in range(n):
            total += y[i] * (residual[i] + shift)
    return total


# --------------------------------------------------------------------------- looking at columns for the first time


@kernel(fastmath=_FINITE_TOO, inline=True)
def _moments_dense(columns, weights, total, j, is_centred):
    values, n = columns.values, columns.values.shape[1]
    # Differences from the first element: a mean that is large beside what varies would swallow it.
    origin, first, second = np.float64(values[j, 0]), 0.0, 0.0
    if not is_centred:
        origin = 0.0
    if weights.size > 0:
        for i in range(n):
            element = np.float64(values[j, i]) - origin
            first += weights[i] * element
            second += weights[i] * element * element
    else:
        for i in range(n):
            element = np.float64(values[j, i]) - origin
            first += element
            second += element * element
    return origin, first, second


@kernel(fastmath=_FINITE_TOO, inline=True)
def _moments_sparse(columns, weights, total, j, is_centred):
    values, rows, starts = columns
    first, second = 0.0, 0.0
    for k in range(starts[j], starts[j + 1]):
        element = np.float64(values[k])
        weighted = element if weights.size == 0 else element * weights[np.uint64(rows[k])]
        first += weighted
        second += weighted * element
    return 0.0, first, second


def _moments(columns, weights, total, j, is_centred):
    chosen = _moments_dense if isinstance(columns, Dense) else _moments_sparse
    return chosen(columns, weights, total, j, is_centred)


@overload(_moments, inline="always")
def _(columns, weights, total, j, is_centred):
    if columns.instance_class is Dense:
        return lambda columns, weights, total, j, is_centred: _moments_dense(columns, weights, total, j, is_centred)
    return lambda columns, weights, total, j, is_centred: _moments_sparse(columns, weights, total, j, is_centred)


@kernel
def measure(design, first, last, is_centred, is_scaled, residual, correlations):
    """Fill in means, scales and squares of columns `first` to `last` - 1, and their products with a residual.

    Parameters
    ----------
    design : Design
    first, last : int
    is_centred, is_scaled : bool
        Whether columns are to have mean 0, and mean square 1 besides.
    residual : float64[n + 1]
    correlations : float64[p]

    Returns
    -------
    int
        The first column with a number that is not finite, or squares beyond float64; -1 if there is none.
    """
    total = design.total
    for j in range(first, last):
        origin, linear, square = _moments(design.columns, design.weights, total, j, is_centred)
        if not np.isfinite(square):
            return j
        mean = linear / total if is_centred else 0.0
        square -= mean * linear
        if square <= _CONSTANT * mean * linear:
            square = 0.0
        scale = np.sqrt(total / square) if is_scaled and square > 0 else 1.0
        design.means[j] = origin + mean
        design.scales[j] = scale
        design.squares[j] = square * scale * scale
        correlations[j] = dot(design, j, residual) if square > 0 else 0.0
    return -1
