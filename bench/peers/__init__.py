"""What nbps is compared with on matrix factorization, each behind one interface.

A peer is a module with ``missing(command)``, which returns why it cannot run here or None, and::

    train(train, test, rank, epochs, workers) -> list[Epoch]

that fits `train` (`nbps.data.Ratings`) and measures the test error after each epoch, outside the time it counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nbps.data import Ratings


@dataclass(frozen=True)
class Epoch:
    """One pass over the ratings.

    Attributes
    ----------
    epoch : int
        From 1 on.
    train_seconds : float
        Training time until its end, from the first epoch on; no evaluation, reading or sorting.
    test_rmse : float or None
    ratings_per_second : float
        Of this epoch.
    """

    epoch: int
    train_seconds: float
    test_rmse: float | None
    ratings_per_second: float


def epochs_from(seconds: list[float], errors: list[float], ratings: int) -> list[Epoch]:
    """Make the records from the training seconds and test errors of each epoch."""
    return [Epoch(n + 1, sum(seconds[: n + 1]), error, ratings / seconds[n]) for n, error in enumerate(errors)]


def rmse(
    test: Ratings,
    user_rows: npt.NDArray[np.float32],
    item_rows: npt.NDArray[np.float32],
    constant: float,
    user_biases: npt.NDArray[np.float32] | None = None,
    item_biases: npt.NDArray[np.float32] | None = None,
) -> float:
    """Root mean square error of ``constant + biases + p_u . q_i`` on `test`."""
    predicted = constant + np.einsum("nk,nk->n", user_rows[test.users], item_rows[test.items])
    if user_biases is not None:
        predicted = predicted + user_biases[test.users]
    if item_biases is not None:
        predicted = predicted + item_biases[test.items]
    return float(np.sqrt(np.mean((test.values - predicted) ** 2, dtype=np.float64)))
