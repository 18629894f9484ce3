"""Documents that a topic model made: for tests, examples and benchmarks."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from nbps.checks import whole
from nbps.data.documents.documents import Documents


def generate_documents(
    documents: int = 10_000,
    length: int = 150,
    words: int = 20_000,
    topics: int = 100,
    *,
    topic_prior: float = 0.03,
    concentration: float = 100.0,
    seed: int = 0,
) -> Documents:
    """Draw documents from a model with known topics.

    Parameters
    ----------
    documents, length, words, topics : int
        How many documents, of how many tokens each, of how many words and topics.
    topic_prior : float
        Of a document's topics (symmetric Dirichlet): small numbers give it few.
    concentration : float
        Of the topics' words around one Zipfian distribution: frequent words are shared by topics, as in text.
    seed : int

    Returns
    -------
    Documents
        Words are called ``w0``, ``w1``, ... ; some may not occur.

    Examples
    --------
    >>> generate_documents(documents=20, length=30, words=100, topics=3)
    Documents(20 documents, 600 tokens, 100 words)
    """
    for name, number in (("documents", documents), ("length", length), ("words", words), ("topics", topics)):
        whole(f"generate_documents: {name}", number, 1)
    random = np.random.default_rng(seed)
    base = 1 / (np.arange(words) + 10.0) ** 0.9
    base = random.permutation(base / base.sum())
    by_topic = random.gamma(concentration * base, size=(topics, words)) + 1e-300
    cumulated = np.cumsum(by_topic / by_topic.sum(axis=1, keepdims=True), axis=1)
    shares = np.cumsum(random.dirichlet(np.full(topics, topic_prior), documents), axis=1)
    drawn = np.empty((documents, length), np.int64)
    for d in range(documents):
        chosen = np.searchsorted(shares[d], random.random(length)).clip(0, topics - 1)
        draws = random.random(length)
        for topic in np.unique(chosen):
            own = chosen == topic
            places = np.searchsorted(cumulated[topic], draws[own] * cumulated[topic, -1])
            drawn[d, own] = places.clip(0, words - 1)
    keys, counts = np.unique(np.arange(documents)[:, None] * words + drawn, return_counts=True)
    document, codes = np.divmod(keys, words)
    starts = np.concatenate([[0], np.cumsum(np.bincount(document, minlength=documents))]).astype(np.int64)
    names = pa.array([f"w{word}" for word in range(words)])
    return Documents(starts, codes.astype(np.int32), counts.astype(np.int32), names)
