"""Topics by Gibbs sampling beside tomotopy: tokens a second in the last passes, seconds, held-out perplexity.

Both have the same documents, priors, passes, and workers or threads, and take turns; the perplexity is measured in the
same way for both: half of each held-out document folds in, the other half is predicted. Without ``--data`` documents
are generated: 10,000 of 150 tokens, 20,000 words, 100 true topics.
"""

from __future__ import annotations

import argparse
import itertools
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from measure import Line, Options, in_turn, options, report

from nbps.data import Documents, generate_documents, read_documents
from nbps.models import LatentDirichletAllocation
from nbps.models.lda.state import Topics

_LAST = 10  # passes whose speed counts
_BETA = 0.01


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--data", type=Path, help="docword.*.txt[.gz] of UCI (default: generated documents)")
    parser.add_argument("--topics", type=int, default=100, help="number of topics (default %(default)s)")
    parser.add_argument("--passes", type=int, default=40, help="over the tokens (default %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes, and threads (default %(default)s)")
    parser.add_argument("--learn", action="store_true", help="learn alpha, after each ten passes, in both")
    parser.add_argument("--faster", type=float, help="by which factor nbps must be faster")


def documents(given: Options) -> tuple[Documents, Documents]:
    """Return those to train on and those that are held out."""
    if given.arguments.data is not None:
        return read_documents(given.arguments.data).split(0.1, seed=0)
    count, words = given.size(10_500, 120), given.size(20_000, 300)
    made = generate_documents(documents=count, words=words, seed=20261121)
    train = count * 20 // 21
    return made.take(np.arange(train)), made.take(np.arange(train, count))


def ours(train: Documents, test: Documents, given: Options) -> dict[str, float]:
    """Train with nbps."""
    options = given.arguments
    model = LatentDirichletAllocation(
        n_components=options.topics, max_iter=options.passes, workers=options.workers, doc_topic_prior=None,
        topic_word_prior=_BETA, optimize_every=10 if options.learn else None, random_state=1,
    ).fit(train)  # fmt: skip
    last = model.history_[-_LAST:]
    seconds = sum(record.seconds for record in last)
    speed = train.tokens * len(last) / seconds
    return {"speed": speed, "seconds": model.train_seconds_, "perplexity": model.perplexity(test)}


def tomotopys(train: Documents, test: Documents, given: Options) -> dict[str, float]:
    """Train with tomotopy; its documents are put in before the time begins."""
    import tomotopy

    options = given.arguments
    names = list(map(str, range(len(train.vocabulary))))
    peer = tomotopy.LDAModel(k=options.topics, alpha=10 / options.topics, eta=_BETA, seed=1)
    peer.optim_interval = 10 if options.learn else 0
    for first, last in itertools.pairwise(train.starts):
        pairs = zip(train.words[first:last], train.counts[first:last], strict=True)
        peer.add_doc([names[word] for word, count in pairs for _ in range(count)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that threads make results differ
        peer.train(0, workers=options.workers)
        start = time.perf_counter()
        peer.train(options.passes - _LAST, workers=options.workers)
        middle = time.perf_counter()
        peer.train(_LAST, workers=options.workers)
        end = time.perf_counter()
    return {
        "speed": train.tokens * _LAST / (end - middle),
        "seconds": end - start,
        "perplexity": perplexity(peer, train, test),
    }


def perplexity(peer: Any, train: Documents, test: Documents) -> float:
    """Return the perplexity of a model of tomotopy by what measures ours."""
    totals = np.asarray(peer.get_count_by_topics(), np.float64)
    shares = np.array([peer.get_topic_word_dist(k) for k in range(peer.k)])
    used = [int(name) for name in peer.used_vocabs]
    counts = np.zeros((len(train.vocabulary), peer.k))
    counts[used] = (shares * (totals[:, None] + _BETA * len(used)) - _BETA).T
    model = LatentDirichletAllocation(n_components=peer.k)
    alpha = np.asarray(peer.alpha, np.float64)
    model._state = Topics(
        np.rint(counts).clip(0).astype(np.int32), alpha, _BETA, train.vocabulary, np.zeros(1, np.int64),
        *[np.empty(0, np.int32)] * 2,
    )  # fmt: skip
    return model.perplexity(test)


def main() -> None:
    """Compare."""
    given = options(__doc__, 3, add_arguments)
    given.arguments.passes = given.size(given.arguments.passes, _LAST + 2)
    train, test = documents(given)
    candidates = {"nbps": ours, "tomotopy": tomotopys}
    ours(train.take(np.arange(10)), test, given)  # kernels are loaded, and the fork server is there
    found = in_turn({name: lambda call=call: call(train, test, given) for name, call in candidates.items()},
                    given.repeats)  # fmt: skip
    name = "generated" if given.arguments.data is None else given.arguments.data.name.split(".")[1]
    lines = [
        Line(f"{peer}, {what}", unit, [one[key] / scale for one in runs])
        for key, what, unit, scale in (
            ("speed", f"last {_LAST} passes", "million tokens/s", 1e6),
            ("seconds", "training", "s", 1.0),
            ("perplexity", "held out", "", 1.0),
        )
        for peer, runs in found.items()
    ]
    ratios = [one["speed"] / other["speed"] for one, other in zip(*found.values(), strict=True)]
    lines.append(Line("speed over tomotopy's", "x", ratios, given.arguments.faster, at_least=True))
    title = (
        f"{name}, {given.arguments.topics} topics, {given.arguments.passes} passes, {given.arguments.workers} workers"
    )
    report(f"lda_{name}_{given.arguments.topics}", title, lines, given, {"passes": given.arguments.passes})


if __name__ == "__main__":
    main()
