"""What `LatentDirichletAllocation` records of each pass over the documents."""

from __future__ import annotations

from dataclasses import dataclass

from nbps.models.history import Record


@dataclass(frozen=True, kw_only=True)
class PassRecord(Record):
    """One pass of `LatentDirichletAllocation`, which its `max_iter` counts.

    Attributes
    ----------
    epoch : int
        From 1.
    seconds : float
        Training time, without evaluation and callbacks.
    wait_share : float
        Share of the workers' time in this pass spent waiting for each other, 0 to 1.
    train_perplexity : float
        Of each token given the topics of all others, before it was sampled: as far as its worker knew them then.
    validation_perplexity : float or None
        By document completion, after those passes after which it is measured.
    tokens_per_second : float
    """

    train_perplexity: float
    validation_perplexity: float | None
    tokens_per_second: float

    @property
    def watched(self) -> float | None:
        """The validation perplexity."""
        return self.validation_perplexity

    def __str__(self) -> str:
        found = f"train {self.train_perplexity:.1f}"
        if self.validation_perplexity is not None:
            found += f"  test {self.validation_perplexity:.1f}"
        return f"{found}  {self.tokens_per_second / 1e6:.1f} M/s  waiting {self.wait_share:.0%}"
