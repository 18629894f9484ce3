"""What estimators record of each epoch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Record:
    """One epoch of training, of any model.

    Attributes
    ----------
    epoch : int
        From 1.
    seconds : float
        Training time, without evaluation and callbacks.
    wait_share : float
        Share of the workers' time in this epoch spent waiting for each other, 0 to 1.
    """

    epoch: int
    seconds: float
    wait_share: float

    @property
    def watched(self) -> float | None:
        """What early stopping watches, the less the better; None if it was not measured."""
        return None

    def __str__(self) -> str:
        """Return what progress shows of it, without the epoch: short enough for a terminal."""
        return f"{self.seconds:.2f} s  waiting {self.wait_share:.0%}"
