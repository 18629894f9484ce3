"""What the experiments train, with which sizes: three applications, their data read or generated."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from measure import Options

from nbps.data import generate_documents, generate_ratings, read_documents, read_ratings
from papers import lasso, plan
from papers.application import Application
from papers.factorization import DECAY, SAMPLE, Factorization
from papers.lasso import ALPHA_SHARE, Lasso
from papers.lda import ALPHA_SUM, BETA, Lda

Deal = Callable[[int, int], Application]  # by the number of workers, and the rank


class Data(NamedTuple):
    """What an application is trained on.

    Attributes
    ----------
    name : str
    deal : callable
        Returns the application, dealt out; once for each number of workers and rank.
    about : dict
        For JSON.
    """

    name: str
    deal: Deal
    about: dict[str, Any]


@dataclass(frozen=True)
class Experiment:
    """An application, as the experiments run it.

    Attributes
    ----------
    load : callable
        Returns the data, given the options.
    full, smoke : Size
        Of real runs.
    clusters, smoke_clusters : tuple of Size
        Of simulated ones; the simulator knows factorization only.
    """

    load: Callable[[Options], Data]
    full: plan.Size
    smoke: plan.Size
    clusters: tuple[plan.Size, ...] = ()
    smoke_clusters: tuple[plan.Size, ...] = ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where data are."""
    parser.add_argument("--data", type=Path, help="ratings file (default: generated ratings in the shape of ml-1m)")
    parser.add_argument(
        "--documents", type=Path, help="file of documents (default: generated ones, as many as kos has)"
    )
    parser.add_argument(
        "--regression", type=Path, help="CSV of numbers, y first (default: generated, 500 rows as in the paper)"
    )


def ratings(given: Options) -> Data:
    """Return ratings: all of them train."""
    path = given.arguments.data
    if path is not None and not given.smoke:
        name, found = path.parent.name, read_ratings(path)
    else:
        users, items, count = given.size(6040, 300), given.size(3706, 200), given.size(1_000_209, 8_000)
        name, found = f"generated, {users} x {items}", generate_ratings(users=users, items=items, ratings=count)
    about = {"ratings": len(found), "decay": DECAY, "objective_sample": min(SAMPLE, len(found))}
    return Data(name, functools.cache(functools.partial(Factorization.of, name, found)), about)


def documents(given: Options) -> Data:
    """Return documents: all of them train."""
    path = given.arguments.documents
    if path is not None and not given.smoke:
        name, found = path.parent.name, read_documents(path)
    else:
        count, length, words = given.size(3_430, 60), given.size(136, 20), given.size(6_906, 100)
        name, found = f"generated, {count} x {words}", generate_documents(count, length, words, given.size(50, 5))
    about = {
        "documents": len(found),
        "words": len(found.vocabulary),
        "tokens": found.tokens,
        "alpha_sum": ALPHA_SUM,
        "beta": BETA,
    }
    return Data(name, functools.cache(functools.partial(Lda.of, name, found)), about)


def regression(given: Options) -> Data:
    """Return a regression, which has no rank."""
    path = given.arguments.regression
    if path is not None and not given.smoke:
        name, found = path.parent.name, lasso.read(path)
    else:
        rows, columns, chosen = given.size(500, 100), given.size(40_000, 300), given.size(100, 10)
        name, found = f"generated, {rows} x {columns}", lasso.generate(rows, columns, given.size(25, 10), chosen)
    about = {
        "rows": found.y.size,
        "columns": found.starts.size - 1,
        "elements": found.values.size,
        "alpha_share": ALPHA_SHARE,
        "alpha": Lasso.of(name, found, 1, 0).alpha,
    }
    return Data(name, functools.cache(functools.partial(Lasso.of, name, found)), about)


EXPERIMENTS = {
    "factorization": Experiment(
        ratings, plan.FULL, plan.SMOKE, (plan.CLUSTER, plan.SMALL_CLUSTER), (plan.SMOKE_CLUSTER,)
    ),
    "lda": Experiment(documents, plan.LDA, plan.SMOKE_LDA),
    "lasso": Experiment(regression, plan.LASSO, plan.SMOKE_LASSO),
}
