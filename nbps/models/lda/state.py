"""The numbers of a topic model: counts, priors, the topics of the documents that it was trained on."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nbps.buffers import numbers, over
from nbps.data import Documents
from nbps.errors import DataError

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]
_DENSE = 4  # counters for each token beyond which they are sorted instead


@dataclass(frozen=True)
class Topics:
    """Counts of topics.

    Attributes
    ----------
    word_topic : int32[words, topics]
        How many tokens of a word have a topic.
    prior : float64[topics]
        Of each topic in a document.
    word_prior : float
        Of each word in a topic.
    vocabulary : pyarrow.Array
        string[words].
    starts, topics, counts : int64[documents + 1], int32[n], int32[n]
        Topics of document d and how many of its tokens have them are those from ``starts[d]`` to ``starts[d + 1]``.
    """

    word_topic: Int32s
    prior: Float64s
    word_prior: float
    vocabulary: pa.Array
    starts: Int64s
    topics: Int32s
    counts: Int32s

    @classmethod
    def of(
        cls,
        word_topic: Int32s,
        prior: Float64s,
        word_prior: float,
        data: Documents,
        assigned: Int32s,
        document: Int32s,
    ) -> Topics:
        """Make them, given the topic of each token and its document."""
        count, size = prior.size, len(data)
        keys = document.astype(np.int64) * count + assigned
        if size * count <= _DENSE * keys.size:
            every = np.bincount(keys, minlength=size * count)
            keys = np.flatnonzero(every)
            counts = every[keys]
        else:
            keys, counts = np.unique(keys, return_counts=True)
        document_of, topics = np.divmod(keys, count)
        starts = np.concatenate([[0], np.cumsum(np.bincount(document_of, minlength=size))]).astype(np.int64)
        lists = topics.astype(np.int32), counts.astype(np.int32)
        return cls(word_topic, prior, word_prior, data.vocabulary, starts, *lists)

    @classmethod
    def none(cls, vocabulary: pa.Array, prior: Float64s, word_prior: float) -> Topics:
        """Return the counts before any training."""
        nothing = np.zeros((len(vocabulary), prior.size), np.int32)
        empty = np.empty(0, np.int32)
        return cls(nothing, prior, word_prior, vocabulary, np.zeros(1, np.int64), empty, empty)

    @property
    def count(self) -> int:
        """Number of topics."""
        return int(self.prior.size)

    @functools.cached_property
    def totals(self) -> Int64s:
        """Tokens of each topic: int64[topics]."""
        return np.asarray(self.word_topic.sum(axis=0, dtype=np.int64))

    @functools.cached_property
    def inverse(self) -> npt.NDArray[np.float32]:
        """``1 / (tokens of a topic + sum of the priors of words)``: float32[topics]."""
        found = 1 / (self.totals + self.word_prior * len(self.vocabulary))
        return np.asarray(found.astype(np.float32))

    def top_words(self, topic: int, n: int) -> tuple[list[str], Float64s]:
        """Return the most probable words of a topic, best first, and their probabilities."""
        counts = self.word_topic[:, topic].astype(np.float64) + self.word_prior
        order = np.lexsort((np.arange(counts.size), -counts))[:n]  # equal ones in the order of the vocabulary
        return self.vocabulary.take(over(order)).to_pylist(), counts[order] / counts.sum()

    def document_shares(self) -> Float64s:
        """Return the shares of topics of each document that it was trained on: float64[documents, topics]."""
        shares = np.tile(self.prior, (self.starts.size - 1, 1))
        document = np.repeat(np.arange(self.starts.size - 1), np.diff(self.starts))
        shares[document, self.topics] += self.counts
        return np.asarray(shares / shares.sum(axis=1, keepdims=True))

    def extended(self, vocabulary: pa.Array) -> Topics:
        """Return the same counts with the words of `vocabulary`, which begins with those there are."""
        more = len(vocabulary) - len(self.vocabulary)
        rows = np.concatenate([self.word_topic, np.zeros((more, self.count), np.int32)])
        return Topics(rows, self.prior, self.word_prior, vocabulary, self.starts, self.topics, self.counts)

    def to_file(self) -> tuple[dict[str, pa.Table], dict[str, Any]]:
        """Return the tables and numbers that a saved model consists of.

        ``words`` has the columns word and counts (fixed-size list, by topic); ``topics`` prior; ``documents`` topics
        and counts (lists) of those that it was trained on.
        """
        rows = pa.FixedSizeListArray.from_arrays(over(np.ascontiguousarray(self.word_topic)), self.count)
        lists = [pa.LargeListArray.from_arrays(over(self.starts), over(part)) for part in (self.topics, self.counts)]
        tables = {
            "words": pa.table({"word": self.vocabulary, "counts": rows}),
            "topics": pa.table({"prior": over(self.prior)}),
            "documents": pa.table(lists, names=["topics", "counts"]),
        }
        return tables, {"word_prior": self.word_prior}

    @classmethod
    def from_file(cls, tables: dict[str, pa.Table], manifest: dict[str, Any]) -> Topics:
        """Inverse of `to_file`."""
        words, documents = (tables[name].combine_chunks() for name in ("words", "documents"))
        counts = _only_chunk(words["counts"])
        prior = numbers(_only_chunk(tables["topics"]["prior"])).copy()
        if counts.type.list_size != prior.size:
            raise DataError(
                f"words.arrow: has {counts.type.list_size} topics; expected {prior.size} as topics.arrow has"
            )
        topics, of_topics = (_only_chunk(documents[name]) for name in ("topics", "counts"))
        lists = numbers(topics.flatten()), numbers(of_topics.flatten())
        if lists[0].size and not 0 <= lists[0].min() <= lists[0].max() < prior.size:
            raise DataError("documents.arrow: names topics that topics.arrow does not have")
        return cls(
            numbers(counts.flatten()).reshape(len(words), prior.size),
            prior,
            float(manifest["word_prior"]),
            _only_chunk(words["word"]),
            numbers(topics.offsets).astype(np.int64),
            *lists,
        )


def _only_chunk(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array, also of no rows."""
    found = column.combine_chunks()
    if isinstance(found, pa.ChunkedArray):
        found = found.chunk(0) if found.num_chunks else pa.array([], column.type)
    return found
