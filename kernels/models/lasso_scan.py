"""Which columns matter: products with the residual, where bounds do not do, and the working set that follows."""

from __future__ import annotations

import numpy as np

from ..jit import kernel
from .lasso_columns import dot


@kernel(inline=True)
def slope(correlation, coefficient, l2, positive):
    """Return how strongly a column pulls: it stays at 0 if that is at most the L1 penalty."""
    pull = correlation - l2 * coefficient
    return pull if positive else abs(pull)


@kernel
def scan(
    design, residual, travelled, candidates, first, last, coefficients, l1, l2, positive, level, correlations, seen
):
    """Multiply columns with the residual, but for those whose product is known to lie below `level`.

    The residual has come a way of `travelled` since the first scan, step by step. A product can have changed by the
    norm of its column times the way since it was last computed.

    Parameters
    ----------
    design : Design
    residual : float64[n + 1]
    travelled : float
    candidates : int32[c]
        Of these the columns from `first` to `last` - 1 are looked at.
    first, last : int
    coefficients : float64[p]
    l1, l2 : float
        Penalties in units of sums of squares.
    positive : bool
        Whether coefficients below 0 are excluded.
    level : float
        At most `l1`.
    correlations : float64[p]
        Products, as they were last computed.
    seen : float64[p]
        What `travelled` then was.

    Returns
    -------
    largest : float
        The strongest pull (`slope`) of all columns looked at if it is above `level`; else at least its value.
    computed : int
        How many columns were multiplied.
    """
    largest, computed = level, 0
    for k in range(first, last):
        j = candidates[k]
        pull = slope(correlations[j], coefficients[j], l2, positive)
        if seen[j] != travelled:
            bound = pull + np.sqrt(design.squares[j]) * (travelled - seen[j])
            if bound < level and coefficients[j] == 0.0:
                continue
            correlations[j] = dot(design, j, residual)
            seen[j] = travelled
            computed += 1
            pull = slope(correlations[j], coefficients[j], l2, positive)
        largest = max(largest, pull)
    return largest, computed


@kernel
def screen(design, travelled, candidates, count, coefficients, l1, l2, positive, shrink, radius, correlations, seen):
    """Take columns from the candidates that are 0 in every solution (gap-safe: Fercoq et al., ICML 2015).

    The solution's residual lies within `radius` of the residual times `shrink`.

    Returns
    -------
    int
        How many candidates are left; they are the first ones.
    """
    left = 0
    for k in range(count):
        j = candidates[k]
        norm = np.sqrt(design.squares[j])
        pull = slope(correlations[j], coefficients[j], l2, positive) + norm * (travelled - seen[j])
        if coefficients[j] != 0.0 or shrink * pull + np.sqrt(design.squares[j] + l2) * radius >= l1:
            candidates[left] = j
            left += 1
    return left


@kernel
def choose(
    design, travelled, candidates, count, coefficients, l1, l2, positive, shrink, limit, correlations, seen,
    distances, working,
):  # fmt: skip
    """Choose the working set: columns with a coefficient, and those nearest to getting one.

    Near is what a small step of the residual brings to the penalty: ``(l1 - shrink * pull) / norm``.

    Parameters
    ----------
    limit : int
        How many; at least as many as have a coefficient, at most `count`.
    distances : float64[limit]
        Scratch: a heap, the farthest column first.
    working : int32[limit]
        The columns, in no order.

    Returns
    -------
    int
        How many there are.
    """
    size = 0
    for k in range(count):
        j = candidates[k]
        norm = np.sqrt(design.squares[j])
        pull = slope(correlations[j], coefficients[j], l2, positive) + norm * (travelled - seen[j])
        distance = (l1 - shrink * pull) / np.sqrt(design.squares[j] + l2)
        if coefficients[j] != 0.0:
            distance = -np.inf
        if size < limit:
            place = size
            size += 1
            while place > 0 and distances[(place - 1) // 2] < distance:
                parent = (place - 1) // 2
                distances[place], working[place] = distances[parent], working[parent]
                place = parent
            distances[place], working[place] = distance, j
        elif distance < distances[0]:
            place = 0
            while True:
                child = 2 * place + 1
                if child >= size:
                    break
                if child + 1 < size and distances[child + 1] > distances[child]:
                    child += 1
                if distances[child] <= distance:
                    break
                distances[place], working[place] = distances[child], working[child]
                place = child
            distances[place], working[place] = distance, j
    return size
