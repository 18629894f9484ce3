"""The application of both papers: matrix factorization by plain stochastic gradient descent, in compiled code.

The objective is the mean over ratings of ``(r - p_u . q_i)^2 + decay (|p_u|^2 + |q_i|^2)``, where ``r`` is centred. The
step goes along half the gradient, with one constant step size. Users are dealt out to the workers; a user's factors are
that worker's alone, the items' factors are shared by all. A worker goes through its ratings in one shuffled order,
the same in each epoch; a clock is a fixed fraction of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from nbps.data import Ratings

DECAY = 0.05
INIT_SD = 0.1  # of the factors at the start: products are then small beside the ratings' deviation of about 1.1
SAMPLE = 200_000  # ratings on which the objective of curves is computed; the same for all runs


@dataclass(frozen=True)
class Problem:
    """Ratings, dealt out to workers.

    Attributes
    ----------
    name : str
    users, items : ndarray of int32, shape (n,)
        Sorted by worker, shuffled within; shared by all workers, read-only.
    values : ndarray of float32, shape (n,)
        Centred ratings.
    bounds : ndarray of int64, shape (workers + 1,)
        Worker w has the ratings from ``bounds[w]`` to ``bounds[w + 1]``.
    shape : (int, int)
        Users and items.
    """

    name: str
    users: npt.NDArray[np.int32]
    items: npt.NDArray[np.int32]
    values: npt.NDArray[np.float32]
    bounds: npt.NDArray[np.int64]
    shape: tuple[int, int]

    @staticmethod
    def of(name: str, ratings: Ratings, workers: int) -> Problem:
        """Deal the users out: in random order, cut so that workers have equally many ratings, give or take a user's."""
        random = np.random.default_rng(0)
        counts = np.bincount(ratings.users, minlength=ratings.shape[0])
        order = random.permutation(counts.size)
        owner = np.empty(counts.size, np.int64)
        middle = np.cumsum(counts[order]) - counts[order] / 2
        owner[order] = np.minimum((middle * workers / len(ratings)).astype(np.int64), workers - 1)
        shuffled = random.permutation(len(ratings))
        by_worker = shuffled[np.argsort(owner[ratings.users[shuffled]], kind="stable")]
        bounds = np.searchsorted(owner[ratings.users[by_worker]], np.arange(workers + 1))
        values = ratings.values[by_worker] - ratings.values.mean(dtype=np.float64).astype(np.float32)
        return Problem(name, ratings.users[by_worker], ratings.items[by_worker], values, bounds, ratings.shape)

    def sample(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Return users, items and values of `SAMPLE` ratings drawn without replacement, or all if there are fewer."""
        # Drawn in an order that does not depend on the number of workers, so that all meet the same sample.
        order = np.lexsort((self.values, self.items, self.users))
        chosen = np.random.default_rng(1).permutation(order)[:SAMPLE]
        return self.users[chosen], self.items[chosen], self.values[chosen]


@njit(nogil=True, fastmath={"reassoc", "contract", "nsz"}, error_model="numpy", cache=True)
def descend(user_table, item_table, users, items, values, step, decay):
    """Go over some ratings once, in order.

    Parameters
    ----------
    user_table, item_table : nbps.kernels.TableKernel
        Float32 factors, shape (users, rank) and (items, rank), changed in place: the caller sees to it that nobody else
        writes these rows, or does not mind.
    users, items : ndarray of int32, shape (n,)
    values : ndarray of float32, shape (n,)
    step, decay : float32
    """
    P, Q = user_table.values, item_table.values
    keep = np.float32(1) - step * decay
    for n in range(users.size):
        p, q = P[users[n]], Q[items[n]]
        error = values[n]
        for k in range(p.size):
            error -= p[k] * q[k]
        error *= step
        for k in range(p.size):
            x, y = p[k], q[k]
            p[k] = keep * x + error * y
            q[k] = keep * y + error * x


@njit(nogil=True, fastmath={"reassoc", "contract", "nsz"}, error_model="numpy", cache=True)
def objective(P, Q, users, items, values, decay):
    """Return the mean objective over the ratings given; infinite or NaN if the factors are."""
    total = 0.0
    for n in range(users.size):
        p, q = P[users[n]], Q[items[n]]
        dot = norm = np.float32(0)
        for k in range(p.size):
            dot += p[k] * q[k]
            norm += p[k] * p[k] + q[k] * q[k]
        error = values[n] - dot
        total += error * error + decay * norm
    return total / users.size
