"""What is recorded of a linear model's training."""

from __future__ import annotations

from dataclasses import dataclass

from nbps.models.history import Record


@dataclass(frozen=True, kw_only=True)
class Round(Record):
    """One round: of working sets, or over all coordinates.

    Attributes
    ----------
    objective : float
        Before it, with working sets; after it, where coordinates are dealt to workers.
    gap : float
        How far that is above the least value at most.
    nonzeros : int
        Coefficients that are not 0.
    scanned : int
        Columns whose products with the residual were computed for it.
    """

    objective: float
    gap: float
    nonzeros: int
    scanned: int

    def __str__(self) -> str:
        """Return what progress shows of it."""
        return f"objective {self.objective:.6g}  gap {self.gap:.1e}  {self.nonzeros:,} non-zeros"
