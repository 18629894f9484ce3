"""``nbps train lda``: a topic model's options, and what it says of its data and results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import typer

from nbps.cli.training import Rows, RunOptions, Training, kept_epoch
from nbps.data import Documents, read_documents
from nbps.models.phases import Phases

_DEFAULT_TEST_FRACTION = 0.1
_SHOWN_TOPICS, _SHOWN_WORDS = 5, 8


@dataclass(frozen=True)
class FileOptions:
    """What the user said about the data."""

    data: Path
    vocabulary: Path | None
    format: str | None
    column: str | None
    test_fraction: float | None
    seed: int


@dataclass(frozen=True)
class ModelOptions:
    """What the user said about the model; None where the default is to be taken."""

    n_components: int
    doc_topic_prior: float | None
    topic_word_prior: float
    max_iter: int
    optimize_every: int | None
    schedule: str


class TopicsTraining(Training):
    """Latent Dirichlet allocation of documents."""

    def __init__(self, data: FileOptions, model: ModelOptions, run: RunOptions) -> None:
        if run.consistency == "asp" and model.schedule == "rotate":
            raise typer.BadParameter(
                "--consistency asp has no bound that keeps the workers of --schedule rotate apart. "
                "Add --schedule cached."
            )
        if run.early_stopping is not None and data.test_fraction == 0:
            raise typer.BadParameter("--early-stopping watches the test perplexity, but --test-fraction is 0.")
        self.epochs = model.max_iter
        self._file, self._options, self._run = data, model, run
        self._train: Documents
        self._test: Documents | None = None
        self._empty = 0

    def build(self, run: RunOptions, callbacks: Sequence[Any]) -> Any:
        """Make the model."""
        from nbps.models import LatentDirichletAllocation

        return LatentDirichletAllocation(**asdict(self._options), **run.parameters, callbacks=callbacks).warm_up()

    def load(self, phases: Phases) -> None:
        """Read the documents, leave out empty ones, and set those apart that are tested on."""
        file = self._file
        with phases("read"):
            found = read_documents(file.data, file.vocabulary, format=file.format, column=file.column)
        with phases("split"):
            has_words = found.lengths > 0
            self._empty = int((~has_words).sum())
            self._train = found.take(has_words) if self._empty else found
            fraction = _DEFAULT_TEST_FRACTION if file.test_fraction is None else file.test_fraction
            if fraction:
                self._train, self._test = self._train.split(fraction, file.seed)

    def fit(self, model: Any) -> None:
        """Sample."""
        model.fit(self._train, validation=self._test)

    def notes(self) -> list[str]:
        """Return what of the documents is allowed but seldom meant."""
        return [f"{self._empty:,} documents without words are left out"] if self._empty else []

    def rows(self, model: Any) -> Rows:
        """Return the perplexities, what they were measured on, and some topics."""
        train, kept, test = self._train, kept_epoch(model), self._test
        tops = model.topics(_SHOWN_WORDS)[:_SHOWN_TOPICS]
        size = f"{len(train):,} documents to train on, {train.tokens:,} tokens, {len(train.vocabulary):,} words"
        return [
            ("data", str(self._file.data)),
            ("size", size),
            ("tested on", "no documents" if test is None else f"{len(test):,} documents, half of each predicted"),
            ("test perplexity", "no test documents" if test is None else f"{kept.validation_perplexity:.1f}"),
            ("train perplexity", f"{kept.train_perplexity:.1f}"),
            ("speed", f"{self._speed(model):,.0f} tokens/s"),
            *((f"topic {number}", " ".join(words)) for number, (words, _) in enumerate(tops)),
        ]

    def summary(self, model: Any) -> dict[str, Any]:
        """Return perplexities, speed, priors and parameters."""
        kept, test = kept_epoch(model), self._test
        return {
            "test_perplexity": kept.validation_perplexity,
            "train_perplexity": kept.train_perplexity,
            "tokens_per_second": self._speed(model),
            "alpha": model.doc_topic_prior_.tolist(),
            "data": {
                "name": str(self._file.data),
                "words": len(self._train.vocabulary),
                "train_documents": len(self._train),
                "train_tokens": self._train.tokens,
                "test_documents": 0 if test is None else len(test),
                "empty_documents": self._empty,
            },
            "parameters": {**asdict(self._options), **self._run.chosen},
        }

    def _speed(self, model: Any) -> float:
        """Return tokens sampled per second of training, all passes together."""
        return self._train.tokens * len(model.history_) / float(model.train_seconds_)
