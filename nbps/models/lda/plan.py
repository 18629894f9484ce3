"""What a training of topics is to do: every option, checked, with its default filled in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nbps.checks import FINITE, real, whole
from nbps.consistency import ASP, BSP, SSP, VAP, Consistency
from nbps.errors import ConfigError
from nbps.models.plan import Plan

_WORD_ACCESS = {"rotate": "exclusive", "cached": "cached"}  # of the table of words, by schedule
_MOST_TOPICS = 2**31 - 32
_PRIOR_SUM = 10.0  # of the default prior of all topics together: few topics for each document
_PRIORS = 1e-12, 1e12  # least and largest: topics are drawn by products of priors and counts in float32
_CLOCKS = 10  # of a pass with copies: a clock was a tenth of the data in Ho et al. 2013
_MOST_SLACK = 15  # clocks; workers of a rotation are never that far apart


@dataclass(frozen=True, kw_only=True)
class TopicsPlan(Plan):
    """The options of a training that its parts share; `LatentDirichletAllocation` says what each means.

    Raises
    ------
    ConfigError
        If one cannot be used, or not with another.
    """

    owner: ClassVar[str] = "LatentDirichletAllocation"

    n_components: int
    doc_topic_prior: Any
    topic_word_prior: float
    max_iter: int
    optimize_every: int | None
    evaluate_every: int | None
    schedule: str

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("n_components", self.n_components, 1, _MOST_TOPICS)
        whole("max_iter", self.max_iter, 1)
        for name in ("optimize_every", "evaluate_every"):
            if getattr(self, name) is not None:
                whole(name, getattr(self, name), 1)
        real("topic_word_prior", self.topic_word_prior, "a finite number > 0", FINITE, positive=True)
        self._check_prior()
        priors = np.append(self.prior, self.topic_word_prior)
        if priors.min() < _PRIORS[0] or priors.max() > _PRIORS[1]:
            raise ConfigError(
                f"doc_topic_prior and topic_word_prior are from {priors.min():g} to {priors.max():g}; expected numbers "
                f"from {_PRIORS[0]:g} to {_PRIORS[1]:g}"
            )
        if self.schedule not in _WORD_ACCESS:
            raise ConfigError(f"schedule is {self.schedule!r}; expected one of {', '.join(_WORD_ACCESS)}")
        if self.schedule == "rotate" and isinstance(self.consistency, ASP | VAP):
            raise ConfigError(
                f"schedule='rotate' with {self.consistency}: a word has one writer only under a staleness bound; "
                f"expected BSP(), SSP(s) or ESSP(s), or schedule='cached'"
            )

    def _check_prior(self) -> None:
        given = self.doc_topic_prior
        if given is None:
            return
        if np.ndim(given) == 0:
            real("doc_topic_prior", given, "a finite number > 0, one for each topic, or None", FINITE, positive=True)
            return
        try:
            found = np.asarray(given, np.float64)
        except (TypeError, ValueError):
            found = np.empty(0)
        if found.shape != (self.n_components,) or not (np.isfinite(found) & (found > 0)).all():
            raise ConfigError(
                f"doc_topic_prior is {given!r}; expected a finite number > 0, {self.n_components} of them, or None"
            )

    @property
    def prior(self) -> npt.NDArray[np.float64]:
        """The prior of each topic in a document, before any of it is learnt: float64[n_components]."""
        given = _PRIOR_SUM / self.n_components if self.doc_topic_prior is None else self.doc_topic_prior
        return np.broadcast_to(np.asarray(given, np.float64), self.n_components).copy()

    @property
    def model(self) -> Consistency:
        """The consistency model: where none was chosen, and words rotate, the one under which runs repeat."""
        if self.consistency is None and self.schedule == "rotate":
            return BSP()
        if self.schedule == "rotate" and isinstance(self.consistency, SSP) and self.consistency.staleness > _MOST_SLACK:
            return type(self.consistency)(_MOST_SLACK)
        return super().model

    @property
    def word_access(self) -> Any:
        """Access mode of the table of words."""
        return _WORD_ACCESS[self.schedule]

    @property
    def blocks_per_worker(self) -> int:
        """How many blocks of words each worker has: as many more than one as the bound lets workers run ahead."""
        if self.schedule == "cached":
            return -(-_CLOCKS // self.all_workers)
        return int(self.model.staleness) + 1

    def is_optimized(self, epoch: int) -> bool:
        """Whether the prior is learnt anew after a pass."""
        return self.optimize_every is not None and epoch % self.optimize_every == 0

    def is_evaluated(self, epoch: int) -> bool:
        """Whether the validation set is measured after a pass: for early stopping after each."""
        if self.early_stopping is not None:
            return True
        return self.evaluate_every is not None and (epoch % self.evaluate_every == 0 or epoch == self.max_iter)
