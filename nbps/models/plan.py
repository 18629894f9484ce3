"""What a training is to do, as far as that is the same for all models: every option, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from nbps.checks import whole
from nbps.consistency import ESSP, Consistency, check_consistency
from nbps.errors import ConfigError
from nbps.job.settings import default_workers
from nbps.nodes.nodes import Nodes


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The options that trainings of all models have; that of a model adds its own and their checks.

    Raises
    ------
    ConfigError
        If one cannot be used, or not with another.
    """

    owner: ClassVar[str]  # the estimator, in errors

    consistency: Consistency | None
    workers: int | None
    seed: int
    nodes: Nodes
    early_stopping: int | None
    checkpoint: str | Path | None

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Self:
        """Make the plan of an estimator with such parameters, on this node."""
        callbacks = parameters["callbacks"]
        if callable(callbacks):
            raise ConfigError(f"callbacks is {callbacks!r}; expected a sequence of callables, as in callbacks=[f]")
        if parameters["checkpoint"] is not None and not isinstance(parameters["random_state"], (int, np.integer)):
            raise ConfigError(
                f"random_state is {parameters['random_state']!r}; expected a number together with checkpoint: a "
                f"training goes on with the random numbers that it began with"
            )
        nodes = Nodes.from_environment()
        seed = seed_of(parameters["random_state"], nodes.count)
        own = {option.name for option in fields(cls)} & set(parameters)
        return cls(nodes=nodes, seed=seed, **{name: parameters[name] for name in own})

    def __post_init__(self) -> None:
        for name in ("workers", "early_stopping"):
            if getattr(self, name) is not None:
                whole(name, getattr(self, name), 1)
        if self.consistency is not None:
            check_consistency(self.consistency, self.owner)
        if self.checkpoint is not None and (not isinstance(self.checkpoint, (str, Path)) or not str(self.checkpoint)):
            raise ConfigError(f"checkpoint is {self.checkpoint!r}; expected a folder, the URI of one, or None")

    def check_validation(self, validation: Any) -> None:
        """Raise `ConfigError` if there is no validation error that `early_stopping` could watch."""
        if self.early_stopping is not None and validation is None:
            raise ConfigError(
                f"early_stopping is {self.early_stopping}, but there is no validation error to watch; "
                f"expected fit(..., validation=...), or early_stopping=None"
            )

    @property
    def model(self) -> Consistency:
        """The consistency model, ``ESSP(2)`` where none was chosen."""
        return ESSP() if self.consistency is None else self.consistency

    @property
    def local_workers(self) -> int:
        """Workers of this node."""
        return default_workers(self.nodes) if self.workers is None else self.workers

    @property
    def all_workers(self) -> int:
        """Workers of all nodes, each of which must have as many."""
        return self.local_workers * self.nodes.count


def seed_of(random_state: Any, nodes: int) -> int:
    """Return the seed that scikit-learn's `random_state` stands for: a number, None for another one each time.

    A `RandomState` or `Generator` is asked for one, so that it gives another one next time.

    Raises
    ------
    ConfigError
        If it is something else, or None on several nodes: each would take another.
    """
    if random_state is None:
        if nodes > 1:
            raise ConfigError(f"random_state is None on {nodes} nodes, each of which would take another; give a number")
        return int(np.random.SeedSequence().generate_state(1)[0])
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31))
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**31))
    try:
        return whole("random_state", random_state, 0)
    except ConfigError as error:
        raise ConfigError(f"{error}, None, or a RandomState or Generator of NumPy") from None
