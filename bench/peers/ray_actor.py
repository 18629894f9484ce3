"""A Ray actor as parameter server: NumPy tables in one actor, workers that pull rows and push changes by the batch.

This is the parameter server of Ray's own documentation, with rows instead of whole models and AdaGrad steps. Each
worker pulls the rows of the next batch while it works on one.
"""

from __future__ import annotations

import importlib.util
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from nbps.data import Ratings
from peers import Epoch, epochs_from, rmse

_BATCH, _STEP, _DECAY, _SIZE, _START = 16384, 0.1, 0.04, 0.05, 4.0
_EPOCHS = 3  # of some seconds each: enough for a speed


def missing() -> str | None:
    """Return why it cannot run here, or None."""
    return None if importlib.util.find_spec("ray") else "ray is not installed"


class Server:
    """The tables: factors and AdaGrad sums of users (0) and items (1)."""

    def __init__(self, shape: tuple[int, int], rank: int) -> None:
        random = np.random.default_rng(0)
        self.factors = [random.standard_normal((rows, rank), np.float32) * np.float32(_SIZE) for rows in shape]
        self.squares = [np.full(rows, _START, np.float32) for rows in shape]

    def pull(self, users: Any, items: Any) -> Any:
        """Return copies of rows of users and of items."""
        return self.factors[0][users], self.factors[1][items]

    def push(self, users: Any, user_gradients: Any, items: Any, item_gradients: Any) -> None:
        """Take an AdaGrad step for each row; ids are distinct."""
        for side, rows, gradients in ((0, users, user_gradients), (1, items, item_gradients)):
            self.squares[side][rows] += np.square(gradients).mean(1)
            self.factors[side][rows] += _STEP * gradients / np.sqrt(self.squares[side][rows])[:, None]

    def tables(self) -> Any:
        """Return all factors."""
        return self.factors


class Worker:
    """Trains on its part of the ratings."""

    def __init__(self, server: Any, users: Any, items: Any, ratings: Any) -> None:
        self.server = server
        self.batches = []
        for start in range(0, len(users), _BATCH):
            part = slice(start, start + _BATCH)
            self.batches.append((*_distinct(users[part]), *_distinct(items[part]), ratings[part]))

    def epoch(self) -> None:
        """Go over the part once."""
        import ray

        ahead = None
        pushed = None
        for n, (users, user_of, items, item_of, ratings) in enumerate(self.batches):
            pulled = ahead or self.server.pull.remote(users, items)
            following = self.batches[n + 1] if n + 1 < len(self.batches) else None
            P, Q = ray.get(pulled)
            ahead = following and self.server.pull.remote(following[0], following[2])
            p, q = P[user_of], Q[item_of]
            error = (ratings - np.einsum("nk,nk->n", p, q))[:, None]
            gradients = [
                _sum_by_row(error * q - np.float32(_DECAY) * p, user_of, len(users)),
                _sum_by_row(error * p - np.float32(_DECAY) * q, item_of, len(items)),
            ]
            if pushed is not None:
                ray.get(pushed)  # at most one push under way
            pushed = self.server.push.remote(users, gradients[0], items, gradients[1])
        ray.get(pushed)


def _distinct(ids: Any) -> tuple[Any, Any]:
    return np.unique(ids, return_inverse=True)


def _sum_by_row(gradients: Any, row_of: Any, rows: int) -> Any:
    order = np.argsort(row_of, kind="stable")
    starts = np.searchsorted(row_of[order], np.arange(rows))
    return np.add.reduceat(gradients[order], starts, axis=0)


def train(train: Ratings, test: Ratings, rank: int, epochs: int, workers: int) -> list[Epoch]:
    """Fit with `workers` workers and the server, at most `_EPOCHS` epochs."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    here = str(Path(__file__).parents[1])
    ray.init(
        num_cpus=workers + 1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": {"PYTHONPATH": here, "OMP_NUM_THREADS": "1"}},
    )
    try:
        server = ray.remote(Server).remote(train.shape, rank)
        mean = np.float32(train.values.mean())
        order = np.random.default_rng(0).permutation(len(train))
        parts = [order[k::workers] for k in range(workers)]
        actor = ray.remote(Worker)
        crew = [actor.remote(server, train.users[p], train.items[p], train.values[p] - mean) for p in parts]
        ray.get(server.tables.remote())
        ray.get([worker.__ray_ready__.remote() for worker in crew])
        seconds, errors = [], []
        for _ in range(min(epochs, _EPOCHS)):
            start = time.perf_counter()
            ray.get([worker.epoch.remote() for worker in crew])
            seconds.append(time.perf_counter() - start)
            errors.append(rmse(test, *ray.get(server.tables.remote()), float(mean)))
    finally:
        ray.shutdown()
    return epochs_from(seconds, errors, len(train))
