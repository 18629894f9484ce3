"""The ratings that ``nbps train`` trains and tests on: read, generated, split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import typer

from nbps.data import Ratings, generate_ratings, read_test_ratings
from nbps.data.ratings.reading import read_table
from nbps.models.phases import Phases

_DEFAULT_TEST_FRACTION = 0.1


@dataclass(frozen=True)
class DataOptions:
    """What the user said about the data."""

    data: Path | None
    format: str | None
    delimiter: str | None
    columns: str | None
    test: Path | None
    test_fraction: float | None
    seed: int

    def __post_init__(self) -> None:
        if self.data is None:
            for name, value in (
                ("--format", self.format),
                ("--delimiter", self.delimiter),
                ("--columns", self.columns),
                ("--test", self.test),
            ):
                if value is not None:
                    raise typer.BadParameter(f"{name} is about a file, but there is no --data. Give both.")
        if self.test is not None and self.test_fraction is not None:
            raise typer.BadParameter("--test and --test-fraction exclude each other. Give one of them.")

    @property
    def has_test(self) -> bool:
        """Whether there will be ratings to test on."""
        return self.test_fraction != 0.0


@dataclass(frozen=True)
class TrainingData:
    """Ratings to train and to test on, in the codes of one pair of id maps."""

    name: str  # the file, or what was generated
    train: Ratings
    test: Ratings | None
    dropped: int  # ratings of the test file whose user or item is not in the training data
    trained: int  # of the test file's others: those whose pair of user and item the training data has too

    def to_dict(self) -> dict[str, object]:
        """Return names and counts for JSON."""
        return {
            "name": self.name,
            "users": self.train.shape[0],
            "items": self.train.shape[1],
            "train_ratings": len(self.train),
            "test_ratings": 0 if self.test is None else len(self.test),
            "dropped_test_ratings": self.dropped,
            "trained_test_ratings": self.trained,
        }


def load(options: DataOptions, phases: Phases) -> TrainingData:
    """Read or generate the ratings and set the test ratings apart; timed as the phases read, ids and split.

    Raises
    ------
    nbps.errors.DataError
        If a file cannot be read.
    nbps.errors.ConfigError
        If a split leaves nothing to train or to test on.
    """
    columns, delimiter = _columns(options.columns), _delimiter(options.delimiter)
    if options.data is None:
        with phases("read"):
            name, ratings = "generated ratings (MovieLens-shaped)", generate_ratings(seed=options.seed)
    else:
        name = str(options.data)
        with phases("read"):
            table = [read_table(options.data, options.format, columns, delimiter)]
        with phases("ids"):
            ratings = Ratings.from_table(
                table.pop(), in_place=True
            )  # nobody else may hold the table, whose memory it gives back
    if options.test is not None:
        # --format is about both files; a test file in another format is detected by leaving it out.
        with phases("read"):
            test, dropped = read_test_ratings(
                options.test, ratings, format=options.format, columns=columns, delimiter=delimiter
            )
            return TrainingData(name, ratings, test, dropped, _trained(ratings, test))
    fraction = _DEFAULT_TEST_FRACTION if options.test_fraction is None else options.test_fraction
    if fraction == 0.0:
        return TrainingData(name, ratings, None, 0, 0)
    with phases("split"):
        return TrainingData(name, *ratings.split(fraction, options.seed, in_place=True), 0, 0)


def _trained(train: Ratings, test: Ratings) -> int:
    """Return how many ratings of `test` have a pair of user and item that `train`, with the same id maps, has too."""
    pairs, wanted = (pa.array(part.users.astype(np.int64) * part.shape[1] + part.items) for part in (train, test))
    return int(pc.sum(pc.is_in(wanted, pairs)).as_py())


def _delimiter(text: str | None) -> str | None:
    r"""Return what the option's text means; ``\t`` is a tab, as it is in most shells' quotes."""
    return None if text is None else text.replace("\\t", "\t")


def _columns(text: str | None) -> list[str | int] | None:
    """Return the columns named in the option's text; digits are a position."""
    if text is None:
        return None
    return [int(name) if name.isdecimal() else name for name in (part.strip() for part in text.split(","))]
