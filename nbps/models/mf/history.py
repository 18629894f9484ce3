"""What `MatrixFactorization` records of each epoch."""

from __future__ import annotations

from dataclasses import dataclass

from nbps.models.history import Record


@dataclass(frozen=True, kw_only=True)
class EpochRecord(Record):
    """One epoch of `MatrixFactorization`.

    Attributes
    ----------
    epoch : int
        From 1.
    seconds : float
        Training time, without evaluation and callbacks.
    wait_share : float
        Share of the workers' time in this epoch spent waiting for each other, 0 to 1.
    train_rmse : float
        Over the epoch, each rating before it was trained on; so a little above the error of the final state.
    validation_rmse : float or None
        After the epoch, on the validation set if there is one.
    ratings_per_second : float
    """

    train_rmse: float
    validation_rmse: float | None
    ratings_per_second: float

    @property
    def watched(self) -> float | None:
        """The validation error."""
        return self.validation_rmse

    def __str__(self) -> str:
        errors = f"train {self.train_rmse:.4f}"
        if self.validation_rmse is not None:
            errors += f"  test {self.validation_rmse:.4f}"
        return f"{errors}  {self.ratings_per_second / 1e6:.1f} M/s  waiting {self.wait_share:.0%}"
