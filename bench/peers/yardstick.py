"""The yardstick: AdaGrad matrix factorization as a plain Numba loop over shuffled ratings, on one core.

It is what a good Numba programmer writes in twenty lines, for telling how fast a machine is: times are also given in
its epochs. Sorting the ratings by user, blocks for the cache or explicit vectors would make it faster; it has none of
them on purpose.
"""

from __future__ import annotations

import time

import numpy as np
from numba import njit

from nbps.data import Ratings
from peers import Epoch, epochs_from, rmse

_STEP, _DECAY, _SIZE, _START = 0.1, 0.04, 0.05, 4.0


def missing() -> str | None:
    """Return why it cannot run here: never."""
    return None


@njit(fastmath=True, error_model="numpy")
def epoch(users, items, ratings, P, Q, user_squares, item_squares, step, decay):
    """Go over the ratings once.

    The rank is read from the array on purpose: as a compile-time constant it makes LLVM unroll the first loop
    completely before it is vectorised, and the sums then run in scalars (18 instead of 31 M ratings/s
    at rank 32 on Zen 3).
    """
    one, rank = np.float32(1), P.shape[1]
    for n in range(users.size):
        u, i = users[n], items[n]
        p, q = P[u], Q[i]
        dot = pp = qq = np.float32(0)
        for k in range(rank):
            dot += p[k] * q[k]
            pp += p[k] * p[k]
            qq += q[k] * q[k]
        error = ratings[n] - dot
        user_step, item_step = step / np.sqrt(user_squares[u]), step / np.sqrt(item_squares[i])
        square = error * error / np.float32(rank)
        user_squares[u] += square * qq
        item_squares[i] += square * pp
        user_keep, item_keep = one - user_step * decay, one - item_step * decay
        user_step, item_step = user_step * error, item_step * error
        for k in range(rank):
            x, y = p[k], q[k]
            p[k] = user_keep * x + user_step * y
            q[k] = item_keep * y + item_step * x


def train(train: Ratings, test: Ratings, rank: int, epochs: int, workers: int = 1) -> list[Epoch]:
    """Fit on one core, whatever `workers` says."""
    random = np.random.default_rng(0)
    order = random.permutation(len(train))
    mean = np.float32(train.values.mean())
    # Unsigned: Numba then needs no code for negative indices.
    users, items = train.users[order].astype(np.uint32), train.items[order].astype(np.uint32)
    ratings = train.values[order] - mean
    P, Q = (random.standard_normal((rows, rank), np.float32) * np.float32(_SIZE) for rows in train.shape)
    squares = [np.full(rows, _START, np.float32) for rows in train.shape]
    arguments = (P, Q, *squares, np.float32(_STEP), np.float32(_DECAY))
    epoch(users[:0], items[:0], ratings[:0], *arguments)  # compiles
    seconds, errors = [], []
    for _ in range(epochs):
        start = time.perf_counter()
        epoch(users, items, ratings, *arguments)
        seconds.append(time.perf_counter() - start)
        errors.append(rmse(test, P, Q, float(mean)))
    return epochs_from(seconds, errors, len(train))
