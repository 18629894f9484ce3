"""Latent Dirichlet allocation inside a worker: what it is given, and what it does in a pass.

Two schedules over the same blocks (`nbps.models.blocks`), which words rotate over:

- ``rotate``: the table of words is ``exclusive``, and the staleness bound keeps a word from having two writers;
  the totals of the topics are a ``cached`` row.
- ``cached``: both are ``cached``: each worker samples with its copy, and clocks exchange the differences. This is how
  Ho et al. 2013 and Dai et al. 2015 did it.

The driver imports it, too, and needs no Numba, and workers need no Arrow; each takes a third of a second. So functions
import what they need.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nbps.kernels.models.lda_layout import LANES, padded
from nbps.models.blocks import Rotation
from nbps.models.lda.share import Int32s, Int64s, Share, own_part

if TYPE_CHECKING:
    from nbps.job.worker import Worker

Floats = npt.NDArray[np.float32]
FOLD_PASSES = 30  # of folding in: on kos the perplexity after 100 differs by 0.01 %
_MINKA_STEPS = 5  # towards the fixed point, each time the prior is learnt
_LEAST_PRIOR = 1e-5  # of a topic that no document has


def preload(is_wide: bool) -> None:
    """Prepare, before the workers are forked, what they need."""
    from nbps.kernels.prepare import prepare

    prepare(_requests(is_wide))


def load(is_wide: bool) -> None:
    """Load of that what is compiled, in the fork server."""
    from nbps.kernels.prepare import load

    load(_requests(is_wide))


def _requests(is_wide: bool) -> list[Any]:
    from nbps.kernels.models import dirichlet, folding, lda, tokens, topic_lists

    by_width = (lda, tokens, topic_lists, dirichlet)
    return [*(each for file in by_width for each in file.requests(is_wide)), *folding.requests()]


@dataclass(frozen=True)
class TopicsInputs:
    """What all workers get before the first pass, besides the documents; arrays arrive in shared memory, once.

    Attributes
    ----------
    rotation : Rotation
        Its users are documents, its items words.
    assignment_rows : int64[workers + 1]
        Rows of the table of assignments of each worker.
    topics : int
    beta : float
        Prior of a word in a topic.
    is_wide : bool
        Whether entries of documents' lists take 64 bits.
    is_fresh : bool
        Whether tokens begin with random topics; else with those in the table of assignments, and are counted already.
    seed : int
    """

    rotation: Rotation
    assignment_rows: Int64s
    topics: int
    beta: float
    is_wide: bool
    is_fresh: bool
    seed: int

    @property
    def nbytes(self) -> int:
        """Bytes of all its arrays."""
        return self.rotation.users.place.nbytes + self.rotation.items.place.nbytes + self.assignment_rows.nbytes


def set_up(worker: Worker, inputs: TopicsInputs, watched: bool) -> bool:
    """Keep the inputs in this worker; return whether any node wants to see the model after each pass."""
    width = padded(inputs.topics)
    worker.state.update(
        inputs=inputs,
        share=Share(inputs.rotation, worker.rank, inputs.topics, inputs.is_wide),
        scratch=(np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width // LANES, np.float32)),
        random=_random(inputs, worker.rank, 0),
    )
    return bool(worker.sum(watched))


def _random(inputs: TopicsInputs, rank: int, epoch: int) -> npt.NDArray[np.uint64]:
    """Return the state of a worker's random numbers in a pass: they follow from the seed and its number alone."""
    seeds = np.random.SeedSequence([inputs.seed, rank, epoch])
    return seeds.generate_state(1, np.uint64) | np.uint64(1)


def count(worker: Worker, first: int, starts: Int64s, words: Int32s, counts: Int32s) -> None:
    """Count this worker's tokens among a part of the documents, from the one numbered `first` on."""
    worker.state["share"].count(first, starts, words, counts)


def hold(worker: Worker) -> None:
    """Make room for the tokens that were counted."""
    rows = slice(*worker.state["inputs"].assignment_rows[worker.rank : worker.rank + 2])
    worker.state["share"].hold(worker.table("assignments").kernel.values[rows].reshape(-1))


def place(worker: Worker, first: int, starts: Int64s, words: Int32s, counts: Int32s) -> None:
    """Take this worker's tokens among such a part."""
    is_fresh, random = worker.state["inputs"].is_fresh, worker.state["random"]
    worker.state["share"].place(first, starts, words, counts, is_fresh, random)


def add_all(worker: Worker) -> None:
    """Add the tokens to the counts of words and topics, a block a clock."""
    from nbps.kernels.models import tokens

    share: Share = worker.state["share"]
    words, totals = worker.table("words"), worker.table("totals").kernel.values[0]
    rotation: Rotation = worker.state["inputs"].rotation
    for clock in range(rotation.blocks):
        rows = _rows(rotation, worker.rank, clock)
        tokens.add_tokens(share.starts_of(rows), share.assignments, words.kernel.values[rows], totals)
        words.mark(rows.start, rows.stop)
        worker.clock()


def _rows(rotation: Rotation, rank: int, clock: int) -> slice:
    """Return the rows of the words that a worker has in a clock."""
    block = rotation.block_at(rank, clock)
    first, last = rotation.items.starts[block : block + 2].tolist()
    return slice(first, last)


def sample(worker: Worker, epoch: int) -> float:
    """Sample a new topic for every token once, a block a clock; return the sum of what the kernel returns."""
    from nbps.kernels.models import lda, topic_lists

    inputs: TopicsInputs = worker.state["inputs"]
    share: Share = worker.state["share"]
    words, totals = worker.table("words"), worker.table("totals").kernel.values[0]
    topic_lists.sort_lists(*share.topic_lists)  # a training that goes on draws what it would have drawn
    alpha, random, total = _alpha(worker).astype(np.float32), _random(inputs, worker.rank, epoch), 0.0
    beta, beta_sum = np.float32(inputs.beta), np.float32(inputs.beta * words.shape[0])
    for clock in range(inputs.rotation.blocks):
        rows = _rows(inputs.rotation, worker.rank, clock)
        total += lda.sample_block(
            share.starts_of(rows), share.documents, share.assignments, *share.topic_lists,
            words.kernel.values[rows], totals, alpha, beta, beta_sum, *worker.state["scratch"], random,
        )  # fmt: skip
        words.mark(rows.start, rows.stop)
        worker.clock()
    return float(worker.sum(total))


def _alpha(worker: Worker) -> npt.NDArray[np.float64]:
    """Return the prior of the topics, with zeros for padding."""
    values: npt.NDArray[np.float64] = worker.table("prior").kernel.values[0]
    return values


def learn_prior(worker: Worker) -> None:
    """Move the prior towards the one under which documents have topics as they do: Minka's fixed point."""
    from nbps.kernels.models import dirichlet

    share: Share = worker.state["share"]
    alpha = _alpha(worker).copy()
    padding = alpha == 0
    for _ in range(_MINKA_STEPS):
        gains = np.zeros(alpha.size)
        length = dirichlet.prior_gains(*share.topic_lists, alpha, gains)
        found = worker.sum(np.append(gains, length))
        alpha = np.maximum(alpha * found[:-1] / found[-1], _LEAST_PRIOR)
        alpha[padding] = 0
    if worker.rank == 0:
        worker.table("prior").put(0, alpha)


def give_assignments(worker: Worker) -> None:
    """Have the other nodes told of the topics of this worker's tokens: until then only this node knows them."""
    worker.table("assignments").mark(*worker.state["inputs"].assignment_rows[worker.rank : worker.rank + 2].tolist())


Bag = tuple[Int64s, Int32s, Int32s]


def keep_validation(worker: Worker, firsts: Int64s, observed: Bag, predicted: Bag) -> None:
    """Keep this worker's documents, numbered from ``firsts[rank]`` on, of those to measure the perplexity on."""
    begin, end = firsts[worker.rank : worker.rank + 2].tolist()
    place, kept = worker.state["inputs"].rotation.items.place, []
    for bag in (observed, predicted):
        _, starts, words, counts = own_part(begin, end, 0, *bag)
        kept.append((starts - starts[0], place[words].astype(np.int32), counts.copy()))
    worker.state["validation"] = kept
    width = padded(worker.state["inputs"].topics)
    longest = int(np.diff(kept[0][0]).max(initial=0))
    worker.state["folding"] = np.empty((end - begin, width), np.float32), np.empty(longest * width, np.float32)


def evaluate(worker: Worker) -> float:
    """Return the sum of the logarithms of the probabilities of what is to be predicted of all validation documents."""
    from nbps.kernels.models import folding

    inputs: TopicsInputs = worker.state["inputs"]
    words, totals = worker.table("words").kernel.values, worker.table("totals").kernel.values[0]
    inverse = (1 / (totals + inputs.beta * words.shape[0])).astype(np.float32)
    shares, rows = worker.state["folding"]
    observed, predicted = worker.state["validation"]
    alpha, beta = _alpha(worker).astype(np.float32), np.float32(inputs.beta)
    fresh = worker.state["scratch"][0]
    folding.fold_in(*observed, words, inverse, alpha, beta, FOLD_PASSES, shares, rows, fresh)
    return float(worker.sum(folding.log_likelihood(*predicted, words, inverse, beta, shares)))
