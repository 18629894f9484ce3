"""What an estimator records of each epoch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of training.

    Attributes
    ----------
    epoch : int
        From 1.
    train_rmse : float
        Over the epoch, each rating before it was trained on; so a little above the error of the final state.
    validation_rmse : float or None
        After the epoch, on the validation set if there is one.
    seconds : float
        Training time, without evaluation and callbacks.
    ratings_per_second : float
    wait_share : float
        Share of the workers' time in this epoch spent waiting for each other, 0 to 1.
    """

    epoch: int
    train_rmse: float
    validation_rmse: float | None
    seconds: float
    ratings_per_second: float
    wait_share: float
