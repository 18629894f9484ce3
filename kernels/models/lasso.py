"""Coordinate descent on a working set of columns, for the Lasso and the elastic net.

It lowers ``1/2 |y - Z b|^2 + l1 |b|_1 + l2/2 |b|^2``, weighted over rows: the penalties here are those of the model
times the sum of the weights. Its dual value at the residual times s is ``s y'r - s^2/2 (|r|^2 + l2 |b|^2)``, for every
s for which ``s |Z'r - l2 b|`` is at most l1 in every column.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..jit import Request, kernel
from .lasso_columns import distance, dot, example_design, measure, move, product_sum, read_only, square_sum
from .lasso_scan import choose, scan, screen, slope

DEPTH = 5  # differences between iterates that Anderson's acceleration combines: 8 and 10 gained nothing on paths


@kernel(inline=True)
def _target(value, square, l1, l2, positive):
    """Coefficient that minimises the objective of its column alone, where `value` is what it would be without L1."""
    if value > l1:
        return (value - l1) / (square + l2)
    if value < -l1 and not positive:
        return (value + l1) / (square + l2)
    return 0.0


@kernel
def descend(design, columns, count, l1, l2, positive, coefficients, residual):
    """Minimise the objective over one coefficient after the other; return how much it fell at least.

    Parameters
    ----------
    design : Design
    columns : int32[c]
        The first `count` are visited.
    count : int
    l1, l2 : float
    positive : bool
    coefficients : float64[p]
    residual : float64[n + 1]
        Of these coefficients, before and after.
    """
    fall = 0.0
    for k in range(count):
        j = columns[k]
        square, old = design.squares[j], coefficients[j]
        new = _target(dot(design, j, residual) + old * square, square, l1, l2, positive)
        if new != old:
            move(design, j, new - old, residual)
            coefficients[j] = new
            fall += 0.5 * (square + l2) * (new - old) * (new - old)
    return fall


@kernel(inline=True)
def _copy(source, target):
    for i in range(target.size):
        target[i] = source[i]


@kernel
def rebuild(design, columns, coefficients, start, residual):
    """Compute the residual of coefficients anew, which are 0 outside `columns`; `start` is that of none."""
    _copy(start, residual)
    for k in range(columns.size):
        j = columns[k]
        if coefficients[j] != 0.0:
            move(design, j, coefficients[j], residual)


@kernel
def weigh(square, product, ones, squares, largest, l1, l2):
    """Return the objective, the best dual value along the residual, and the factor s that gives it.

    Parameters
    ----------
    square, product : float
        Sums of the squares of the residual, and of its products with the target.
    ones, squares : float
        Sums of the coefficients' sizes, and of their squares.
    largest : float
        The strongest pull of all columns.
    """
    primal, length = 0.5 * square + l1 * ones + 0.5 * l2 * squares, square + l2 * squares
    shrink = 0.0
    if product > 0.0 and length > 0.0:
        shrink = product / length
        if largest * shrink > l1:
            shrink = l1 / largest
    return primal, shrink * product - 0.5 * shrink * shrink * length, shrink


@kernel
def values(design, y, columns, coefficients, residual, largest, l1, l2):
    """Do what `weigh` says, for coefficients that are 0 outside `columns`; `y` is centred, where columns are."""
    ones, squares = 0.0, 0.0
    for k in range(columns.size):
        coefficient = coefficients[columns[k]]
        ones += abs(coefficient)
        squares += coefficient * coefficient
    return weigh(square_sum(design, residual), product_sum(design, y, residual), ones, squares, largest, l1, l2)


@kernel
def _weights_of_iterates(steps, products, mixture):
    """Fill `mixture` with weights, of sum 1, of the combination of `steps` that is shortest; return whether it could.

    Parameters
    ----------
    steps : float64[DEPTH, c]
    products : float64[DEPTH, DEPTH]
        Scratch.
    mixture : float64[DEPTH]
    """
    trace = 0.0
    for a in range(DEPTH):
        for b in range(a + 1):
            total = 0.0
            for k in range(steps.shape[1]):
                total += steps[a, k] * steps[b, k]
            products[a, b] = products[b, a] = total
        trace += products[a, a]
    if not 0.0 < trace < np.inf:
        return False
    for a in range(DEPTH):
        products[a, a] += 1e-12 * trace
        mixture[a] = 1.0
    for a in range(DEPTH):  # Cholesky's way, without roots: the matrix is positive definite
        if products[a, a] <= 0.0:
            return False
        for b in range(a + 1, DEPTH):
            factor = products[b, a] / products[a, a]
            for c in range(a, DEPTH):
                products[b, c] -= factor * products[a, c]
            mixture[b] -= factor * mixture[a]
    total = 0.0
    for a in range(DEPTH - 1, -1, -1):
        for b in range(a + 1, DEPTH):
            mixture[a] -= products[a, b] * mixture[b]
        mixture[a] /= products[a, a]
        total += mixture[a]
    if not abs(total) > 0.0:
        return False
    for a in range(DEPTH):
        mixture[a] /= total
    return True


class Scratch(NamedTuple):
    """Memory in which a working set of up to w columns and n rows is solved.

    Attributes
    ----------
    active : int32[w]
    iterates : float64[DEPTH + 1, w]
    steps : float64[DEPTH, w]
    residuals : float64[DEPTH + 1, n + 1]
    products, mixture : float64[DEPTH, DEPTH], float64[DEPTH]
    """

    active: np.ndarray
    iterates: np.ndarray
    steps: np.ndarray
    residuals: np.ndarray
    products: np.ndarray
    mixture: np.ndarray


def make_scratch(columns: int, rows: int) -> Scratch:
    """Make the memory for working sets of up to so many columns."""
    several, one_more = np.empty((DEPTH, columns)), np.empty((DEPTH + 1, columns))
    products, mixture = np.empty((DEPTH, DEPTH)), np.empty(DEPTH)
    return Scratch(np.empty(columns, np.int32), one_more, several, np.empty((DEPTH + 1, rows + 1)), products, mixture)


@kernel
def _record(coefficients, active, count, residual, iterates, residuals, number):
    for k in range(count):
        iterates[number, k] = coefficients[active[k]]
    _copy(residual, residuals[number])


@kernel
def _accelerate(design, count, l1, l2, positive, coefficients, residual, scratch):
    """Go from the last iterates to their best combination, if that lowers the objective; return whether it did.

    Residuals are linear in coefficients, so those of the combination are the combination of theirs.
    """
    active, iterates, steps, residuals, products, mixture = scratch
    for a in range(DEPTH):
        for k in range(count):
            steps[a, k] = iterates[a + 1, k] - iterates[a, k]
    if not _weights_of_iterates(steps[:, :count], products, mixture):
        return False
    ones, squares, new_ones, new_squares = 0.0, 0.0, 0.0, 0.0
    for k in range(count):
        old, new = iterates[DEPTH, k], 0.0
        for a in range(DEPTH):
            new += mixture[a] * iterates[a + 1, k]
        if positive and new < 0.0:
            return False
        steps[0, k] = new
        ones, squares = ones + abs(old), squares + old * old
        new_ones, new_squares = new_ones + abs(new), new_squares + new * new
    before = 0.5 * square_sum(design, residual) + l1 * ones + 0.5 * l2 * squares
    mixed = residuals[0]
    for i in range(mixed.size):
        total = 0.0
        for a in range(DEPTH):
            total += mixture[a] * residuals[a + 1, i]
        mixed[i] = total
    if not 0.5 * square_sum(design, mixed) + l1 * new_ones + 0.5 * l2 * new_squares < before:
        return False
    for k in range(count):
        coefficients[active[k]] = steps[0, k]
    _copy(mixed, residual)
    return True


@kernel
def solve(design, y, working, l1, l2, positive, gap_limit, pass_limit, coefficients, residual, scratch):
    """Minimise over the coefficients of a working set, until their duality gap is at most `gap_limit`.

    A round is a pass over all columns, and five over those that have a coefficient then, from which Anderson's
    acceleration extrapolates (Bertrand and Massias, AISTATS 2021).

    Parameters
    ----------
    design : Design
    y : float64[n]
        Centred, where columns are.
    working : int32[w]
        All columns with a coefficient are among them.
    l1, l2 : float
    positive : bool
    gap_limit : float
    pass_limit : int
        Passes after which it ends in any case.
    coefficients : float64[p]
    residual : float64[n + 1]
        Of these coefficients, before and after.
    scratch : Scratch

    Returns
    -------
    int
        Passes over all columns or some.
    """
    active, iterates, _, residuals, _, _ = scratch
    passes, best = 0, -np.inf
    while passes < pass_limit:
        fall = descend(design, working, working.size, l1, l2, positive, coefficients, residual)
        count = 0
        for k in range(working.size):
            if coefficients[working[k]] != 0.0:
                active[count] = working[k]
                count += 1
        _record(coefficients, active, count, residual, iterates, residuals, 0)
        for number in range(1, DEPTH + 1):
            descend(design, active, count, l1, l2, positive, coefficients, residual)
            _record(coefficients, active, count, residual, iterates, residuals, number)
        _accelerate(design, count, l1, l2, positive, coefficients, residual, scratch)
        passes += DEPTH + 1
        if fall > gap_limit:
            continue  # so much was missing before the pass: a look at the gap would not pay yet
        largest = 0.0
        for k in range(working.size):
            j = working[k]
            largest = max(largest, slope(dot(design, j, residual), coefficients[j], l2, positive))
        primal, dual, _ = values(design, y, working, coefficients, residual, largest, l1, l2)
        best = max(best, dual)
        if primal - best <= gap_limit:
            break
    return passes


def requests(dtype: str, is_sparse: bool) -> list[Request]:
    """Kernels that fit columns of `dtype`; the data and targets that they are given are read-only."""
    design, y = example_design(dtype, is_sparse), read_only(np.zeros(1))
    residual, vector, columns = np.zeros(2), np.zeros(1), np.zeros(0, np.int32)
    penalties, known = (1.0, 0.0, False), (vector, vector)
    scratch = make_scratch(0, 1)
    return [
        (measure, (design, 0, 0, False, False, residual, vector)),
        (square_sum, (design, residual)),
        (distance, (design, residual, residual)),
        (scan, (design, residual, 0.0, columns, 0, 0, vector, *penalties, 1.0, *known)),
        (screen, (design, 0.0, columns, 0, vector, *penalties, 0.0, 0.0, *known)),
        (choose, (design, 0.0, columns, 0, vector, *penalties, 0.0, 0, *known, vector, columns)),
        (rebuild, (design, columns, vector, residual, residual)),
        (product_sum, (design, y, residual)),
        (weigh, (0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0)),
        (values, (design, y, columns, vector, residual, 0.0, *penalties[:2])),
        (descend, (design, columns, 0, *penalties, vector, residual)),
        (solve, (design, y, columns, *penalties, 1.0, 0, vector, residual, scratch)),
    ]
