"""Latent Dirichlet allocation as both papers train it: collapsed Gibbs sampling against stale counts.

Documents are dealt out to the workers. How many tokens of each word have each topic, and the totals of these, are
counts that all share; a worker samples its own tokens, document by document, against its copies of them. How many
tokens of each document have each topic is the worker's alone. The objective is the logarithm of the joint probability
of all words and their topics, divided by the number of tokens; it rises.

A lost addition to a count is never made good, and a count may fall below 0: there is no Hogwild here.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from numba import njit

import nbps
from nbps.data import Documents
from papers.application import Application, Values, cuts, deal

ALPHA_SUM = 10.0  # of the priors of a document's topics
BETA = 0.01  # prior of a word in a topic

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Lda(Application):
    """Tokens, dealt out to workers.

    Attributes
    ----------
    name : str
    documents, words, topics : ndarray of int32, shape (n,)
        Of each token; topics are those at the start. Sorted by worker, then by document, documents in random order.
    bounds : ndarray of int64, shape (workers + 1,)
        Worker w has the tokens from ``bounds[w]`` to ``bounds[w + 1]``.
    shape : (int, int, int)
        Documents, words and topics.
    """

    name: str
    documents: Int32s
    words: Int32s
    topics: Int32s
    bounds: Int64s
    shape: tuple[int, int, int]

    shared: ClassVar[str] = "words"
    observed: ClassVar[tuple[str, ...]] = ("topics",)
    quantity: ClassVar[str] = "log-likelihood of a token"
    rising: ClassVar[bool] = True

    @staticmethod
    def of(name: str, documents: Documents, workers: int, topics: int) -> Lda:
        """Deal the documents out, so that workers have equally many tokens, give or take a document's."""
        random = np.random.default_rng(0)
        owner = deal(documents.lengths, workers, random)
        words = np.repeat(documents.words, documents.counts)
        document = np.repeat(documents.document_of_entry, documents.counts).astype(np.int32)
        first = np.random.default_rng(1).integers(topics, size=words.size, dtype=np.int32)
        # Tokens of a document in random order: equal ones, which come one after the other, would favour each other.
        order = np.lexsort((random.random(words.size), random.permutation(len(documents))[document], owner[document]))
        bounds = np.searchsorted(owner[document[order]], np.arange(workers + 1))
        shape = len(documents), len(documents.vocabulary), topics
        return Lda(name, document[order], words[order], first[order], bounds, shape)

    @property
    def alpha(self) -> float:
        """Prior of a topic in a document."""
        return ALPHA_SUM / self.shape[2]

    def tables(self, access: str) -> list[nbps.Table]:
        """Return the tables of the counts, and of the tokens' topics."""
        counts = self._counts(self.topics)
        totals = counts.sum(axis=0, dtype=np.int64)[None]
        return [
            nbps.Table("words", *counts.shape, dtype="int32", access=access, init=counts),
            nbps.Table("totals", 1, self.shape[2], dtype="int64", access=access, init=totals),
            nbps.Table("topics", self.words.size, 1, dtype="int32", access="exclusive", init=self.topics[:, None]),
        ]

    def _counts(self, topics: Int32s) -> Int32s:
        """Count the tokens of each word by topic, shape (words, topics)."""
        counts = np.zeros(self.shape[1:], np.int32)
        count(self.words, topics, counts)
        return counts

    @staticmethod
    def preload() -> None:
        """Compile the loops for the arrays that workers will give them."""
        codes, given, counts = np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros((1, 1), np.int32)
        given.flags.writeable = False
        totals, scratch, state = np.ones(1, np.int64), np.ones(1, np.float32), np.ones(1, np.uint64)
        count(codes, codes, counts)
        count(codes, given, counts)
        sample(codes, codes, codes, counts, counts, totals, 1.0, 1.0, 1.0, scratch, scratch, state)

    def share(self, worker: Any, step: float, clocks_per_epoch: int, seed: int) -> _Share:
        """Return a worker's tokens."""
        first, last = self.bounds[worker.rank], self.bounds[worker.rank + 1]
        documents, words = self.documents[first:last], self.words[first:last].copy()
        by_document = np.zeros((np.unique(documents).size, self.shape[2]), np.int32)
        local = np.cumsum(np.diff(documents, prepend=documents[:1]) != 0, dtype=np.int32)
        count(local, self.topics[first:last], by_document)
        random = np.array([seed * worker.size + worker.rank + 1], np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        return _Share(worker, first, local, words, by_document, self.alpha, random, clocks_per_epoch)

    def objective(self, values: Values) -> float:
        """Return the joint log-likelihood of words and topics, counted anew from the topics of the tokens."""
        topics = values["topics"][:, 0]
        by_word, by_document = self._counts(topics), np.zeros((self.shape[0], self.shape[2]), np.int32)
        count(self.documents, topics, by_document)
        of_words = self._logarithm(by_word.T, BETA)
        of_topics = self._logarithm(by_document, self.alpha)
        return (of_words + of_topics) / topics.size

    def _logarithm(self, counts: Int32s, prior: float) -> float:
        """Return the log-probability of draws from a Dirichlet prior, those counted in one row from one."""
        totals = counts.sum(axis=1)
        single = self._gammas(prior)[counts].sum()
        sums = np.array([math.lgamma(counts.shape[1] * prior + total) for total in totals])
        return float(single + len(totals) * math.lgamma(counts.shape[1] * prior) - sums.sum())

    def _gammas(self, prior: float) -> npt.NDArray[np.float64]:
        """Return ``log(gamma(prior + n) / gamma(prior))`` for each n up to the number of tokens."""
        return _gammas(prior, self.words.size)

    def check(self, values: Values) -> None:
        """Raise unless the counts are those of the tokens' topics: none was lost, none came twice."""
        counts = self._counts(values["topics"][:, 0])
        assert np.array_equal(values["words"], counts), "counts of words differ from those of the tokens' topics"
        assert np.array_equal(values["totals"][0], counts.sum(axis=0)), "totals differ from the tokens' topics"


@functools.cache
def _gammas(prior: float, count: int) -> npt.NDArray[np.float64]:
    return np.concatenate([[0.0], np.cumsum(np.log(prior + np.arange(count)))])


class _Share:
    """The tokens of a worker."""

    def __init__(
        self,
        worker: Any,
        first: int,
        documents: Int32s,
        words: Int32s,
        by_document: Int32s,
        alpha: float,
        random: npt.NDArray[np.uint64],
        clocks_per_epoch: int,
    ) -> None:
        self._words, self._totals = worker.table("words"), worker.table("totals")
        topics = worker.table("topics").kernel.values[first : first + words.size, 0]
        places = itertools.pairwise(cuts(words.size, clocks_per_epoch))
        self._parts = [[column[a:b] for column in (documents, words, topics)] for a, b in places]
        self._by_document, self._random = by_document, random
        vocabulary, width = self._words.kernel.values.shape
        self._prior = alpha, BETA, BETA * vocabulary
        self._scratch = np.empty(width, np.float32), np.empty(width, np.float32)

    def advance(self, clock: int) -> None:
        """Sample the tokens of a clock."""
        part = self._parts[clock % len(self._parts)]
        counts = self._by_document, self._words.kernel.values, self._totals.kernel.values[0]
        sample(*part, *counts, *self._prior, *self._scratch, self._random)


@njit(nogil=True, error_model="numpy", cache=True)
def count(rows, topics, counts):
    """Count tokens by row and topic.

    Parameters
    ----------
    rows, topics : ndarray of int32, shape (n,)
    counts : ndarray of int32, shape (rows, topics)
        Added to.
    """
    for n in range(rows.size):
        counts[rows[n], topics[n]] += 1


@njit(nogil=True, fastmath=True, error_model="numpy", cache=True)
def sample(documents, words, topics, by_document, by_word, totals, alpha, beta, beta_sum, inverse, weights, random):
    """Draw a new topic for each token, in order.

    The product's sampler goes word by word; here, as in the papers, a clock is a part of the documents.

    Parameters
    ----------
    documents, words, topics : ndarray of int32, shape (n,)
        Of each token; topics are changed.
    by_document, by_word : ndarray of int32, shape (documents, topics) and (words, topics)
        Counts, changed: this worker's, and its copy.
    totals : ndarray of int64, shape (topics,)
        The copy of the counts of all words; changed. It may have been refreshed at another moment than `by_word`.
    alpha, beta, beta_sum : float
        Priors of a topic in a document and of a word in a topic, and the sum of the latter.
    inverse, weights : ndarray of float32, shape (topics,)
        Scratch.
    random : ndarray of uint64, shape (1,)
        State of the random numbers (xorshift, Marsaglia 2003), not 0; changed.
    """
    alpha, beta, beta_sum, one = np.float32(alpha), np.float32(beta), np.float32(beta_sum), np.float32(1)
    bits = random[0]
    for k in range(totals.size):
        inverse[k] = one / (np.float32(totals[k]) + beta_sum)
    for n in range(words.size):
        own, row, old = by_document[documents[n]], by_word[words[n]], topics[n]
        own[old] -= 1
        row[old] -= 1
        totals[old] -= 1
        inverse[old] = one / (np.float32(totals[old]) + beta_sum)
        total = np.float32(0)
        for k in range(inverse.size):
            weights[k] = (np.float32(own[k]) + alpha) * (np.float32(row[k]) + beta) * inverse[k]
            total += weights[k]
        bits ^= bits << np.uint64(13)
        bits ^= bits >> np.uint64(7)
        bits ^= bits << np.uint64(17)
        left = np.float32(np.int64(bits >> np.uint64(40))) * np.float32(2.0**-24) * total
        new = 0
        while new < inverse.size - 1 and left >= weights[new]:
            left -= weights[new]
            new += 1
        own[new] += 1
        row[new] += 1
        totals[new] += 1
        inverse[new] = one / (np.float32(totals[new]) + beta_sum)
        topics[n] = new
    random[0] = bits
