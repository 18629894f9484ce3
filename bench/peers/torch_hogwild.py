"""torch Hogwild: processes that train embeddings in shared tensors, without locks, by mini-batches (Recht et al. 2011).

Row-wise AdaGrad as the yardstick has it, written with gathers and ``index_add_`` instead of autograd. Updates of two
processes to one row may get lost; that is Hogwild.
"""

from __future__ import annotations

import importlib.util
import time
from typing import Any

import numpy as np

from nbps.data import Ratings
from peers import Epoch, epochs_from, rmse

_BATCH, _STEP, _DECAY, _SIZE, _START = 2048, 0.1, 0.04, 0.05, 4.0


def missing() -> str | None:
    """Return why it cannot run here, or None."""
    return None if importlib.util.find_spec("torch") else "torch is not installed"


def train(train: Ratings, test: Ratings, rank: int, epochs: int, workers: int) -> list[Epoch]:
    """Fit with `workers` processes."""
    import torch
    from torch import multiprocessing

    context = multiprocessing.get_context("spawn")
    generator = torch.Generator().manual_seed(0)
    factors = [torch.randn(rows, rank, generator=generator) * _SIZE for rows in train.shape]
    squares = [torch.full((rows,), _START) for rows in train.shape]
    mean = float(train.values.mean())
    order = np.random.default_rng(0).permutation(len(train))
    columns = [
        torch.from_numpy(c[order])
        for c in (train.users.astype(np.int64), train.items.astype(np.int64), train.values - mean)
    ]
    for tensor in (*factors, *squares, *columns):
        tensor.share_memory_()
    barrier = context.Barrier(workers + 1)
    processes = [
        context.Process(target=_work, args=(rank_, workers, epochs, factors, squares, columns, barrier), daemon=True)
        for rank_ in range(workers)
    ]
    for process in processes:
        process.start()
    seconds, errors = [], []
    barrier.wait(timeout=120)
    for _ in range(epochs):
        start = time.perf_counter()
        barrier.wait()
        barrier.wait()
        seconds.append(time.perf_counter() - start)
        errors.append(rmse(test, factors[0].numpy(), factors[1].numpy(), mean))
    for process in processes:
        process.join()
    return epochs_from(seconds, errors, len(train))


def _work(
    rank: int, workers: int, epochs: int, factors: list[Any], squares: list[Any], columns: list[Any], barrier: Any
) -> None:
    """Train on every `workers`-th batch of the ratings, an epoch between two barriers."""
    import torch

    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    users, items, ratings = (column.split(_BATCH)[rank::workers] for column in columns)
    for batch in zip(users[:1], items[:1], ratings[:1], strict=True):
        _step(batch, [f.clone() for f in factors], [s.clone() for s in squares])  # warms up
    barrier.wait()
    for _ in range(epochs):
        barrier.wait()
        for batch in zip(users, items, ratings, strict=True):
            _step(batch, factors, squares)
        barrier.wait()


def _step(batch: tuple[Any, Any, Any], factors: list[Any], squares: list[Any]) -> None:
    """One mini-batch: every rating takes the step it would take alone; those of one row add up.

    Two thirds of the time of a form with full gradients and their squares.
    """
    import torch

    users, items, ratings = batch
    p, q = factors[0].index_select(0, users), factors[1].index_select(0, items)
    error = ratings - torch.linalg.vecdot(p, q)
    square = error.square().div_(p.shape[1])
    squares[0].index_add_(0, users, torch.linalg.vecdot(q, q).mul_(square))
    squares[1].index_add_(0, items, torch.linalg.vecdot(p, p).mul_(square))
    for side, rows, mine, other in ((0, users, p, q), (1, items, q, p)):
        step = squares[side].index_select(0, rows).rsqrt_().mul_(_STEP)
        change = (mine * (-_DECAY * step)[:, None]).addcmul_(other, (step * error)[:, None])
        factors[side].index_add_(0, rows, change)
