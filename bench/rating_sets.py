"""Sets of ratings of many sizes and shapes, each with a test part, for judging the defaults of the factorization."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nbps.data import Ratings, generate_ratings, read_ratings, read_test_ratings

Split = tuple[Ratings, Ratings]
_PART, _SEED = 0.1, 0
_ENOUGH = 20_000  # held-out ratings of all validation parts together; errors on fewer differ by chance
_MOST_PARTS = 10


@dataclass(frozen=True)
class RatingSet:
    """A set of ratings.

    Attributes
    ----------
    name : str
    real : bool
        Whether people gave the ratings.
    train, test : Ratings
        Nothing is chosen by the error on `test`.
    """

    name: str
    real: bool
    train: Ratings
    test: Ratings

    def validation_splits(self) -> list[Split]:
        """Return splits of the training part, each with another tenth to validate on; more of a small set."""
        parts = int(np.clip(_ENOUGH / (_PART * len(self.train)), 2, _MOST_PARTS))
        return [self.train.split(_PART, 100 + part) for part in range(parts)]


def generated(smoke: bool) -> Iterator[RatingSet]:
    """Make sets of the shapes of MovieLens' latest small set, of ml-1m, and of others; two tiny ones in a smoke run."""
    shapes = [
        (300, 200, 8_000, {}),
        (200, 100, 1_500, {}),
        (610, 9_724, 100_836, {"step": 0.5}),
        (6_000, 1_000, 40_000, {}),
        (3_000, 800, 120_000, {"rank": 3, "noise": 0.5}),
        (6_040, 3_706, 1_000_209, {}),
    ]
    for seed, (users, items, ratings, more) in enumerate(shapes[: 2 if smoke else None]):
        data = generate_ratings(users, items, ratings, seed=seed, **more)
        told = "".join(f", {name} {value}" for name, value in more.items())
        yield RatingSet(f"{users:,} x {items:,}{told}", False, *data.split(_PART, _SEED))


def real(folder: Path) -> Iterator[RatingSet]:
    """Read the sets in `folder`, each as its authors publish it; one that is not there is left out.

    The split of ml-100k is its authors' u1, that of LIBMF's demonstration set theirs; of the others a random tenth is
    the test part.
    """
    for name, files in (
        ("ml-1m", ("ratings.dat", "ratings_notime.tsv.gz")),
        ("filmtrust", ("ratings.txt",)),
    ):
        for path in (folder / name / file for file in files):
            if path.exists():
                yield RatingSet(name, True, *read_ratings(path).split(_PART, _SEED))
                break
    for path in (folder / "ml-100k" / file for file in ("u.data", "u.data.gz")):
        if path.exists():
            yield RatingSet("ml-100k, u1", True, *_u1(path))
            break
    if (folder / "libmf-demo").is_dir():
        train = read_ratings(folder / "libmf-demo" / "real_matrix.tr.txt")
        test, _ = read_test_ratings(folder / "libmf-demo" / "real_matrix.te.txt", train)
        yield RatingSet("libmf-demo", True, train, test)


def _u1(path: Path) -> Split:
    """Return ml-100k without the ratings in u1.test, and these."""
    every = read_ratings(path)
    test, _ = read_test_ratings(path.parent / "u1.test", every)
    pairs = [part.users.astype(np.int64) * every.shape[1] + part.items for part in (every, test)]
    return every.take(~np.isin(*pairs)), test
