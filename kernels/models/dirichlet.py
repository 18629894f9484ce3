"""The prior of documents' topics, learnt from their counts."""

from __future__ import annotations

import math

import numpy as np

from ..jit import Request, kernel
from .lda_layout import LANES
from .topic_lists import count_of, topic_of


@kernel
def _digamma_step(alpha, count):
    """Return ``digamma(alpha + count) - digamma(alpha)``, for a whole count."""
    total, x = 0.0, alpha
    # Up to 8 its recurrence is exact and quicker; from there on the asymptotic series has 12 digits.
    steps = min(count, 8)
    for _ in range(steps):
        total += 1.0 / x
        x += 1.0
    if count > steps:
        low, high = x, alpha + count
        total += math.log(high / low) - 0.5 / high + 0.5 / low
        for z, sign in ((high, 1.0), (low, -1.0)):
            square = 1.0 / (z * z)
            total -= sign * square * (1 / 12 - square * (1 / 120 - square * (1 / 252 - square * (1 / 240))))
    return total


@kernel
def prior_gains(list_starts, list_sizes, lists, alpha, gains):
    """Add to `gains` what Minka's fixed point needs of the topics of documents; return what it needs of their lengths.

    The next alpha of topic k is ``alpha[k] * gains[k] / returned``, with sums over all documents (Minka, "Estimating a
    Dirichlet distribution", 2000, eq. 55).

    Parameters
    ----------
    list_starts, list_sizes, lists
        See `nbps.kernels.models.topic_lists`.
    alpha : float64[width]
        0 for padding.
    gains : float64[width]
    """
    alpha_sum, total = 0.0, 0.0
    for k in range(alpha.size):
        alpha_sum += alpha[k]
    for d in range(list_sizes.size):
        length = 0
        for j in range(list_starts[d], list_starts[d] + list_sizes[d]):
            k, count = topic_of(lists[j]), np.int64(count_of(lists[j]))
            length += count
            gains[k] += _digamma_step(alpha[k], count)
        total += _digamma_step(alpha_sum, length)
    return total


def requests(wide: bool) -> list[Request]:
    """Kernels that learn the prior, with entries of 64 bits if `wide`."""
    lists = np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.uint64 if wide else np.uint32)
    return [(prior_gains, (*lists, np.ones(LANES), np.zeros(LANES)))]
