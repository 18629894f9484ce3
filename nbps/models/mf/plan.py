"""What a factorization is to do: every option, checked, with its default filled in."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nbps.checks import FINITE, real, whole
from nbps.consistency import ASP, BSP, VAP
from nbps.errors import ConfigError
from nbps.models.mf.constants import Constants
from nbps.models.plan import Plan

_STEPS = {"adagrad": 0.1, "sgd": 0.04}  # default learning rates, chosen as `Constants` are
_ITEM_ACCESS = {"rotate": "exclusive", "cached": "cached", "direct": "direct"}  # of the item tables, by schedule


@dataclass(frozen=True, kw_only=True)
class TrainingPlan(Plan):
    """The options of a training that its parts share; `MatrixFactorization` says what each means.

    Raises
    ------
    ConfigError
        If one cannot be used, or not with another.
    """

    owner: ClassVar[str] = "MatrixFactorization"

    rank: int
    epochs: int
    learning_rate: float | None
    regularization: float
    optimizer: str
    schedule: str
    constants: Constants = field(default_factory=Constants)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("rank", "epochs"):
            whole(name, getattr(self, name), 1)
        if self.learning_rate is not None:
            real("learning_rate", self.learning_rate, "a finite number > 0", FINITE, positive=True)
        real("regularization", self.regularization, "a finite number >= 0", FINITE)
        for name, choices in (("optimizer", _STEPS), ("schedule", _ITEM_ACCESS)):
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(choices)}")
        if self.schedule == "rotate" and isinstance(self.consistency, ASP | VAP):
            raise ConfigError(
                f"schedule='rotate' with {self.consistency}: a block has one writer only under a staleness bound; "
                f"expected BSP(), SSP(s) or ESSP(s), or schedule='cached' or 'direct'"
            )
        if self.schedule == "direct" and isinstance(self.consistency, VAP):
            raise ConfigError(
                f"schedule='direct' with {self.consistency}: item rows that all workers add to are seen at once, so "
                f"there is nothing to bound; expected schedule='cached', or ASP(), which has no bound"
            )
        if self.schedule == "direct" and isinstance(self.consistency, BSP):
            raise ConfigError(
                f"schedule='direct' with {self.consistency}: item rows that all workers add to show updates of the "
                f"running clock; expected SSP(0), which bounds the rest, or schedule='cached' or 'rotate', which are "
                f"reproducible"
            )

    @property
    def item_access(self) -> Any:
        """Access mode of the item tables."""
        return _ITEM_ACCESS[self.schedule]

    @property
    def adapts(self) -> bool:
        """Whether steps adapt to each row."""
        return self.optimizer == "adagrad"

    @property
    def first_step(self) -> float:
        """Step of the first epoch."""
        return _STEPS[self.optimizer] if self.learning_rate is None else self.learning_rate

    @property
    def last_step(self) -> float:
        """Step that `steps` comes near to in the last epoch, and of training that goes on afterwards."""
        return self.first_step * self.constants.final_step

    @property
    def steps(self) -> list[float]:
        """The falling step of each epoch."""
        final = self.constants.final_step
        return [self.first_step * (1 - (1 - final) * epoch / self.epochs) for epoch in range(self.epochs)]

    @property
    def first_accumulator(self) -> float:
        """First value of the accumulators; they grow."""
        return self.constants.accumulator if self.adapts else 1.0

    @property
    def bias_damping(self) -> float:
        """How many average ratings count beside those of each row in the means that biases begin as."""
        return self.constants.bias_prior * self.regularization

    def decay(self, counts: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return the L2 weights, per rating, of rows with so many ratings, float32[n, 2]."""
        # A kernel takes four ratings of a user at once: all of them together may shrink a row to nothing, not turn it
        # round. The defaults stay below this for rows of two ratings and more; a large `regularization` would diverge.
        largest = math.sqrt(self.first_accumulator) / (4 * self.first_step)
        return self.constants.decay(counts, self.regularization, largest)
