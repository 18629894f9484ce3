"""The application of both papers: matrix factorization by plain stochastic gradient descent, in compiled code.

The objective is the mean over ratings of ``(r - p_u . q_i)^2 + decay (|p_u|^2 + |q_i|^2)``, where ``r`` is centred. The
step goes along half the gradient, with one constant step size. Users are dealt out to the workers; a user's factors are
that worker's alone, the items' factors are shared by all. A worker goes through its ratings in one shuffled order.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from numba import njit

import nbps
from nbps.data import Ratings
from nbps.kernels import TableKernel
from papers.application import Application, Values, cuts, deal

DECAY = 0.05
INIT_SD = 0.1  # of the factors at the start: products are then small beside the ratings' deviation of about 1.1
SAMPLE = 200_000  # ratings on which the objective of curves is computed; the same for all runs


@dataclass(frozen=True)
class Factorization(Application):
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
    rank : int
        Columns of the factors.
    """

    shared: ClassVar[str] = "items"
    observed: ClassVar[tuple[str, ...]] = ("users", "items")
    quantity: ClassVar[str] = "training objective"

    name: str
    users: npt.NDArray[np.int32]
    items: npt.NDArray[np.int32]
    values: npt.NDArray[np.float32]
    bounds: npt.NDArray[np.int64]
    shape: tuple[int, int]
    rank: int

    @staticmethod
    def of(name: str, ratings: Ratings, workers: int, rank: int) -> Factorization:
        """Deal the users out, so that workers have equally many ratings, give or take a user's."""
        random = np.random.default_rng(0)
        owner = deal(np.bincount(ratings.users, minlength=ratings.shape[0]), workers, random)
        shuffled = random.permutation(len(ratings))
        by_worker = shuffled[np.argsort(owner[ratings.users[shuffled]], kind="stable")]
        bounds = np.searchsorted(owner[ratings.users[by_worker]], np.arange(workers + 1))
        values = ratings.values[by_worker] - ratings.values.mean(dtype=np.float64).astype(np.float32)
        return Factorization(
            name, ratings.users[by_worker], ratings.items[by_worker], values, bounds, ratings.shape, rank
        )

    def tables(self, access: str) -> list[nbps.Table]:
        """Return the factors' tables."""
        kinds = {"users": "exclusive", "items": access}
        init = nbps.init.normal(0.0, INIT_SD)
        return [
            nbps.Table(name, rows, self.rank, access=kinds[name], init=init)
            for name, rows in zip(kinds, self.shape, strict=True)
        ]

    @staticmethod
    def preload() -> None:
        """Compile the loop for the arrays that workers will give it."""
        table = TableKernel(np.zeros((1, 2), np.float32), 0)
        codes = np.zeros(0, np.int32)
        descend(table, table, codes, codes, np.zeros(0, np.float32), np.float32(0), np.float32(0))

    def share(self, worker: Any, step: float, clocks_per_epoch: int, seed: int) -> _Share:
        """Return a worker's ratings; nothing is drawn at random."""
        own = slice(self.bounds[worker.rank], self.bounds[worker.rank + 1])
        ratings = [column[own].copy() for column in (self.users, self.items, self.values)]
        tables = worker.table("users"), worker.table("items")
        # A step of size 0 without decay changes nothing.
        descend(*(table.kernel for table in tables), *ratings, np.float32(0), np.float32(0))
        return _Share(*tables, ratings, np.float32(step), clocks_per_epoch)

    def objective(self, values: Values) -> float:
        """Return the mean over a sample of the ratings; infinite or NaN if the factors are."""
        return float(objective(values["users"], values["items"], *self.sample, DECAY))

    def check(self, values: Values) -> None:
        """Factors of whatever values fit each other."""

    @functools.cached_property
    def sample(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Users, items and values of `SAMPLE` ratings drawn without replacement, or all if there are fewer."""
        # Drawn in an order that does not depend on the number of workers, so that all meet the same sample.
        order = np.lexsort((self.values, self.items, self.users))
        chosen = np.random.default_rng(1).permutation(order)[:SAMPLE]
        return self.users[chosen], self.items[chosen], self.values[chosen]


class _Share:
    """The ratings of a worker."""

    def __init__(self, users: Any, items: Any, ratings: list[Any], step: np.float32, clocks_per_epoch: int) -> None:
        self._users, self._items, self._step = users, items, step
        places = itertools.pairwise(cuts(ratings[0].size, clocks_per_epoch))
        self._parts = [[column[first:last] for column in ratings] for first, last in places]

    def advance(self, clock: int) -> None:
        """Go over the ratings of a clock."""
        part = self._parts[clock % len(self._parts)]
        descend(self._users.kernel, self._items.kernel, *part, self._step, np.float32(DECAY))


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
