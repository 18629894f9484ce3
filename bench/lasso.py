"""The Lasso beside celer, scikit-learn and skglm: seconds to the same duality gap, single solutions and paths.

Three problems: dense float32 with many more columns than rows, as in the SSP paper; riboflavin (71 x 4,088 genes), or
generated columns of its shape; sparse, as bags of words are. Peers take turns, each after a warm-up on a few columns;
the gap that each ends at is measured afterwards, in the same way for all.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measure import Options, console, in_turn, options, summary, write
from peers.lasso import PEERS, Peer, quietly, relative_gap
from rich.table import Table
from scipy import sparse

_GENES = 4_088


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--data", type=Path, help="riboflavin.csv[.gz] (default: generated columns of that shape)")
    parser.add_argument("--only", help="comma-separated: dense, riboflavin, sparse (default: all)")
    parser.add_argument("--peers", help="comma-separated: which (default: all that are installed)")
    parser.add_argument("--columns", type=int, default=400_000, help="of the dense problem (default %(default)s)")
    parser.add_argument("--no-paths", action="store_true", help="single solutions only")
    parser.add_argument("--add", action="store_true", help="keep what earlier runs measured of other tasks")
    parser.add_argument("--no-singles", action="store_true", help="paths only")


def dense(columns: int, rows: int = 500) -> tuple[Any, Any]:
    """Return float32 columns, a quarter of whose elements are not 0, and a target of a hundred of them."""
    random = np.random.default_rng(7)
    XT = np.empty((columns, rows), np.float32)
    for first in range(0, columns, 20_000):
        part = random.standard_normal((min(20_000, columns - first), rows), dtype=np.float32)
        XT[first : first + len(part)] = part * (random.random(part.shape, dtype=np.float32) < 0.25)
    used = random.choice(columns, min(100, columns), replace=False)
    y = random.normal(size=used.size) @ XT[used].astype(np.float64)
    y += random.normal(size=rows) * y.std() / 10
    return XT.T, (y - y.mean()).astype(np.float32)


def riboflavin(path: Path | None) -> tuple[Any, Any]:
    """Return standardised columns of float64, and a centred target."""
    if path is None:
        random = np.random.default_rng(0)
        table = random.standard_normal((71, 20)) @ random.standard_normal((20, _GENES + 1))
        table += random.standard_normal(table.shape)
    else:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt") as file:
            rows = [line.strip().replace('"', "").split(",")[-_GENES - 1 :] for line in file]
        table = np.array(rows[1:], np.float64)
    table -= table.mean(axis=0)
    return np.asfortranarray(table[:, 1:] / table[:, 1:].std(axis=0)), np.ascontiguousarray(table[:, 0])


def bags(rows: int, columns: int, words: int = 75) -> tuple[Any, Any]:
    """Return sparse columns of float32, weighted as words are (tf-idf), and a target of two classes."""
    random = np.random.default_rng(7)
    share = 1 / (np.arange(columns) + 20.0)
    drawn = np.searchsorted(np.cumsum(share / share.sum()), random.random(rows * words)).clip(0, columns - 1)
    places = np.repeat(np.arange(rows), words), drawn
    X = sparse.coo_matrix((np.ones(rows * words), places), (rows, columns)).tocsr()
    X.data = 1 + np.log(X.data)
    X = X @ sparse.diags(np.log(rows / np.maximum(np.bincount(X.indices, minlength=columns), 1)))
    X = (sparse.diags(1 / np.sqrt(np.asarray(X.multiply(X).sum(axis=1)).ravel())) @ X).tocsc().astype(np.float32)
    weights = np.zeros(columns)
    used = random.choice(columns // 10, columns // 170, replace=False)
    weights[used] = random.normal(size=used.size)
    y = X @ weights
    return X, np.sign(y + random.normal(size=rows) * y.std() / 2).astype(np.float32)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return seconds and result."""
    start = time.perf_counter()
    found = quietly(work)
    return time.perf_counter() - start, found


def compare(name: str, X: Any, y: Any, given: Options, goals: list[tuple[int, float]]) -> list[dict[str, Any]]:
    """Time every peer on single solutions and on a path; return a dict for each line of the table."""
    names = given.arguments.peers.split(",") if given.arguments.peers else [peer.name for peer in PEERS]
    peers = [peer for peer in PEERS if peer.name in names and peer.is_installed]
    largest = float(max(np.abs(X[:, k : k + 20_000].T @ y).max() for k in range(0, X.shape[1], 20_000))) / y.size
    few = X[:, :50].copy(order="F") if isinstance(X, np.ndarray) else X[:, :50].tocsc()
    for peer in peers:  # compiled, loaded, and whatever else a first call does
        quietly(partial(peer.single, few, y, largest / 50, 1e-2))
    lines = []

    def add(task: str, peer: Peer, samples: list[tuple[float, Any]], alpha: float) -> None:
        gap = relative_gap(X, y, samples[-1][1], alpha)
        seconds = summary([seconds for seconds, _ in samples])
        lines.append({"problem": name, "task": task, "peer": peer.name, "seconds": seconds, "gap": gap})

    for divisor, tol in [] if given.arguments.no_singles else goals:
        alpha = largest / divisor
        turns = in_turn({p.name: partial(timed, partial(p.single, X, y, alpha, tol)) for p in peers}, given.repeats)
        for peer in peers:
            add(f"max/{divisor}, gap {tol:g}", peer, turns[peer.name], alpha)
    if not given.arguments.no_paths:
        alphas = largest * np.logspace(0, -2, given.size(100, 5))
        walked = [peer for peer in peers if peer.path is not None]
        turns = in_turn({p.name: partial(timed, partial(p.path, X, y, alphas, 1e-4)) for p in walked}, given.repeats)
        for peer in walked:
            add(f"path of {alphas.size} to max/100, gap 0.0001", peer, turns[peer.name], float(alphas[-1]))
    return lines


def main() -> None:
    """Run the benchmark."""
    given = options(__doc__, 3, add_arguments)
    wanted = given.arguments.only.split(",") if given.arguments.only else ["dense", "riboflavin", "sparse"]
    lines: list[dict[str, Any]] = []
    if "dense" in wanted:
        X, y = dense(given.size(given.arguments.columns, 300), given.size(500, 40))
        goals = [(divisor, tol) for divisor in (5, 20) for tol in (1e-4, 1e-6)]
        lines += compare(f"dense {X.shape[0]} x {X.shape[1]:,}", X, y, given, goals)
        del X
    if "riboflavin" in wanted:
        X, y = riboflavin(given.arguments.data)
        name = "generated 71 x 4,088" if given.arguments.data is None else "riboflavin"
        lines += compare(name, X, y, given, [(5, 1e-4), (20, 1e-6)])
    if "sparse" in wanted:
        X, y = bags(given.size(20_000, 200), given.size(50_000, 400))
        lines += compare(f"sparse {X.shape[0]:,} x {X.shape[1]:,}", X, y, given, [(5, 1e-4), (50, 1e-4)])
    table = Table("problem", "task", "", "s", "least to most", "gap", "x nbps")
    first = {(line["problem"], line["task"]): line["seconds"]["median"] for line in lines if line["peer"] == "nbps"}
    for line in lines:
        seconds = line["seconds"]
        ratio = seconds["median"] / first.get((line["problem"], line["task"]), seconds["median"])
        spread = f"{seconds['min']:.4f} to {seconds['max']:.4f}"
        table.add_row(
            line["problem"], line["task"], line["peer"], f"{seconds['median']:.4f}", spread, f"{line['gap']:.1e}",
            f"{ratio:.2f}",
        )  # fmt: skip
    console().print(table)
    earlier = given.out / "lasso.json"
    if given.arguments.add and earlier.exists():
        new = {(line["problem"], line["task"]) for line in lines}
        known = json.loads(earlier.read_text())["lines"]
        lines = [line for line in known if (line["problem"], line["task"]) not in new] + lines
    write("lasso", {"lines": lines}, given)


if __name__ == "__main__":
    main()
