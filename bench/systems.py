"""The systems that `mf.py` and `mf_scale.py` compare, nbps among them, all called alike."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from peers import Epoch, epochs_from, libmf, ray_actor, torch_hogwild, yardstick

from nbps.data import Ratings
from nbps.models import MatrixFactorization

NBPS = "nbps"  # with the default schedule
YARDSTICK = "yardstick"


@dataclass
class Run:
    """One training: its epochs, and the seconds of everything (own file format, sorting, processes, tests)."""

    epochs: list[Epoch]
    total_seconds: float


@dataclass(frozen=True)
class System:
    """Something that factorizes; `missing` says why it cannot run here, `told` with what options it runs."""

    name: str
    train: Callable[[Ratings, Ratings, int, int, int], list[Epoch]]
    missing: str | None = None
    told: str = ""

    def run(self, train: Ratings, test: Ratings, rank: int, epochs: int, workers: int) -> Run:
        """Train once and time all of it."""
        start = time.perf_counter()
        records = self.train(train, test, rank, epochs, workers)
        return Run(records, time.perf_counter() - start)


def all_systems(arguments: argparse.Namespace) -> dict[str, System]:
    """Return every system by name; `arguments` are a rank and what `libmf.add_arguments` adds."""
    foreign = libmf.Libmf(arguments)
    systems = [
        System(NBPS, lambda *a: train_nbps("rotate", *a)),
        System("nbps-cached", lambda *a: train_nbps("cached", *a)),
        System("nbps-direct", lambda *a: train_nbps("direct", *a)),
        System("libmf", foreign.train, foreign.missing(), foreign.told(arguments.rank)),
        System(YARDSTICK, yardstick.train, yardstick.missing()),
        System("torch", torch_hogwild.train, torch_hogwild.missing()),
        System("ray", ray_actor.train, ray_actor.missing()),
    ]
    return {system.name: system for system in systems}


def train_nbps(
    schedule: str, train: Ratings, test: Ratings | None, rank: int, epochs: int, workers: int
) -> list[Epoch]:
    """Fit nbps' estimator, and check the last error it reports against one computed from its predictions."""
    model = MatrixFactorization(rank=rank, epochs=epochs, workers=workers, schedule=schedule, random_state=0)
    model.fit(train, validation=test)
    if test is not None:
        error = float(np.sqrt(np.mean((predict(model, test) - test.values) ** 2, dtype=np.float64)))
        reported = model.history_[-1].validation_rmse
        if abs(error - reported) > 1e-3:
            raise RuntimeError(f"nbps reports a test RMSE of {reported}, its predictions have {error}")
    seconds = [record.seconds for record in model.history_]
    return epochs_from(seconds, [record.validation_rmse for record in model.history_], len(train))


def predict(model: MatrixFactorization, test: Ratings) -> np.ndarray:
    """Return the model's predictions from its public attributes alone."""
    users, items = model.user_ids_.find(test.user_ids.ids), model.item_ids_.find(test.item_ids.ids)
    u, i = users[test.users], items[test.items]
    products = np.einsum("nk,nk->n", model.user_factors[u], model.item_factors[i])
    return model.mean_ + model.user_biases[u] + model.item_biases[i] + products
