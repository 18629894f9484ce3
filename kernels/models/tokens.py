"""A worker's tokens, sorted by word, made of documents that pass by: counted, then placed with a first topic each.

A document comes as the codes of its words, and how often it has each. Every part is counted, then ``starts`` is
cumulated, then every part is placed: a counting sort that needs no memory beside its output.
"""

from __future__ import annotations

import numpy as np

from ..jit import Request, kernel
from .lda import next_random
from .lda_layout import LANES
from .topic_lists import write_list


@kernel
def count_tokens(document_starts, words, counts, place, first, lengths, starts):
    """Count the tokens of each document in ``lengths[first:]``, and add to ``starts[p + 2]`` those of the word at p.

    Parameters
    ----------
    document_starts : int64[m + 1]
        Entries of document j, of a part of the worker's, are ``document_starts[j] - document_starts[0]`` and on.
    words, counts : int32[n]
        Entries of these documents.
    place : int64[vocabulary]
        Place of each word in the order of all blocks.
    first : int
        The worker's number of the first of these documents.
    lengths : int64[documents of the worker]
    starts : int64[vocabulary + 2]
        All zeros before the first part.
    """
    for j in range(document_starts.size - 1):
        length = 0
        for n in range(document_starts[j] - document_starts[0], document_starts[j + 1] - document_starts[0]):
            starts[place[words[n]] + 2] += counts[n]
            length += counts[n]
        lengths[first + j] = length


@kernel
def place_tokens(
    document_starts, words, counts, place, first, starts, documents, topics, fresh, random,
    list_starts, list_sizes, lists, dense, touched,
):  # fmt: skip
    """Place the tokens of documents at the next free places of their words, and make the documents' lists.

    Parameters
    ----------
    document_starts, words, counts, place, first
        As of `count_tokens`.
    starts : int64[vocabulary + 2]
        Cumulated counts; ``starts[p + 1]`` is the next free place, in the end where the next word's begin.
    documents, topics : int32[tokens of the worker]
        Where the tokens go.
    fresh : bool
        Whether topics are drawn at random; else those in `topics` are taken.
    random : uint64[1]
        State of the random numbers; changed.
    list_starts, list_sizes, lists
        See `nbps.kernels.models.topic_lists`; lists are zeros before.
    dense, touched : int32[number of topics]
        Scratch; `dense` is zeros before and after.
    """
    bits, origin, topic_count = random[0], document_starts[0], np.uint64(dense.size)
    for j in range(document_starts.size - 1):
        listed = 0
        for n in range(document_starts[j] - origin, document_starts[j + 1] - origin):
            p = place[words[n]] + 1
            for token in range(starts[p], starts[p] + counts[n]):
                documents[token] = first + j
                if fresh:
                    bits = next_random(bits)
                    topics[token] = (bits >> np.uint64(32)) * topic_count >> np.uint64(32)
                topic = topics[token]
                if dense[topic] == 0:
                    touched[listed] = topic
                    listed += 1
                dense[topic] += 1
            starts[p] += counts[n]
        list_sizes[first + j] = write_list(lists, list_starts[first + j], dense, touched, listed)
    random[0] = bits


@kernel
def add_tokens(starts, topics, word_topic, totals):
    """Add the tokens of a block of words to the counts of its words and to the totals, by topic.

    Parameters
    ----------
    starts : int64[words + 1]
    topics : int32[tokens]
    word_topic : int32[words, width]
    totals : int64[width]
    """
    for w in range(starts.size - 1):
        for i in range(starts[w], starts[w + 1]):
            word_topic[w, topics[i]] += 1
            totals[topics[i]] += 1


def requests(wide: bool) -> list[Request]:
    """Kernels that sort a worker's tokens; what comes with a call is read-only."""

    def given(dtype):
        array = np.zeros(1, dtype)
        array.flags.writeable = False
        return array

    part = given(np.int64), given(np.int32), given(np.int32), given(np.int64), 0
    i32, i64, starts = np.zeros(1, np.int32), np.zeros(1, np.int64), np.zeros(3, np.int64)
    lists = i64, i32, np.zeros(LANES, np.uint64 if wide else np.uint32)
    return [
        (count_tokens, (*part, i64, starts)),
        (place_tokens, (*part, starts, i32, i32, True, np.ones(1, np.uint64), *lists, i32, i32)),
        (add_tokens, (starts[:1], i32, np.zeros((1, LANES), np.int32), i64)),
    ]
