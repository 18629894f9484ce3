"""What the workers of a job agreed upon: the consistency model as the protocol sees it."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Terms:
    """What workers of a job agreed upon.

    Attributes
    ----------
    staleness : float
        s, a whole number or infinity.
    eager : bool
        Refresh copies at every clock (ESSP), else only those too old (SSP).
    ordered : bool
        Strict BSP.
    v0 : float, optional
        Value bound of VAP.
    checkpoint_every : int
        Clocks between two checkpoints, 0 for none. The gate of such a clock has staleness 0: nobody runs ahead of the
        tables that are saved.
    """

    staleness: float = 0
    eager: bool = True
    ordered: bool = False
    v0: float | None = None
    checkpoint_every: int = 0

    @property
    def replies(self) -> bool:
        """Whether an owner answers every batch with what changed: ASP, where no clock says when."""
        return math.isinf(self.staleness) and self.v0 is None

    @property
    def pushes(self) -> bool:
        """Whether an owner ships what changed whenever its clock rises; else a node that needs it must ask."""
        return self.eager and not self.replies
