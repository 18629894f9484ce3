"""Latent Dirichlet allocation by collapsed Gibbs sampling: new topics for the tokens of a block of words.

A token of word w in document d takes topic k with probability in proportion to

    (documents[d, k] + alpha[k]) q[k],    q[k] = (word_topic[w, k] + beta) / (totals[k] + words * beta)

where the counts leave the token itself out. Tokens lie word by word. For up to `FROZEN` tokens of a word q is computed
once, for all topics by SIMD, and kept as it is while they are sampled, but for their own topics, whose q is computed
without them. So a token takes one pass over the short list of topics that its document has, and a topic without tokens
in the document is drawn from the sums of ``alpha q`` over `LANES` topics each. On generated text of 20,000 words one
core (Zen 4) samples 12 million tokens a second at first and 26 after 40 passes, of 1,000 topics 9 and, after 20, 15.

Griffiths and Steyvers, PNAS 2004 (the sampler); Yao, Mimno and McCallum, KDD 2009 (sums over few topics).
"""

from __future__ import annotations

import math

import numpy as np

from ..jit import Request, kernel
from ..places import fetch, place_of
from .lda_layout import LANES
from .lda_vectors import list_sum, weigh
from .topic_lists import count_of, entry, topic_of

FROZEN = 128  # tokens of a word sampled with one q: 64 take 2 % longer at 100 topics, 256 as long
_AHEAD = 8  # tokens between having a document's list fetched and reading it
_ZERO, _ONE = np.float32(0), np.float32(1)
_UNIT = np.float32(2.0**-24)  # random numbers have as many bits as a float32
_TINY, _HUGE = 1e-200, 1e200  # products of probabilities whose logarithm is taken before they leave float64


@kernel(inline=True)
def next_random(random):
    """Return the random bits after `random` (xorshift, Marsaglia 2003), which is not 0."""
    random ^= random << np.uint64(13)
    random ^= random >> np.uint64(7)
    return random ^ random << np.uint64(17)


@kernel(fastmath=True)
def _from_alpha(u, q, alpha, sums, old, own):
    """Return the topic at which the sum of ``alpha q`` over all topics but `old` passes `u`; `own` is that of `old`.

    It is `old` where rounding has left less than `u`.
    """
    at_old = np.int64(old)
    b, last = 0, sums.size - 1
    while b < last:
        mass = sums[b] - (own if b == at_old // LANES else _ZERO)
        if u < mass:
            break
        u -= mass
        b += 1
    for k in range(b * LANES, b * LANES + LANES):
        if k != at_old:
            u -= alpha[k] * q[k]
            if u < _ZERO:
                return k
    return at_old


# Long because the tokens of a word are sampled in one loop, whose numbers stay in registers.
@kernel(fastmath=True)
def sample_block(
    starts, documents, topics, list_starts, list_sizes, lists, word_topic, totals,
    alpha, beta, beta_sum, q, inverse, sums, random,
):  # fmt: skip
    """Sample new topics for the tokens of a block of words, all of them of this worker's documents.

    Parameters
    ----------
    starts : int64[words + 1]
        Where the tokens of each of the block's words begin.
    documents, topics : int32[tokens]
        Of each token; topics are changed.
    list_starts, list_sizes : int64[d], int32[d]
        See `nbps.kernels.models.topic_lists`; sizes are changed.
    lists : uint32[m] or uint64[m]
        Changed.
    word_topic : int32[words, width]
        Counts of the block's words; changed. No other worker writes to them meanwhile.
    totals : int64[width]
        Sums over all words; changed.
    alpha : float32[width]
        The prior of each topic in a document; 0 for padding.
    beta, beta_sum : float32
        The prior of a word in a topic, and the sum of those of all words.
    q, inverse : float32[width]
        Scratch.
    sums : float32[width / LANES]
        Scratch.
    random : uint64[1]
        State of the random numbers; changed.

    Returns
    -------
    float
        Sum of the logarithms of each token's probability, given all others, before it is sampled; without the
        denominators ``tokens of the document - 1 + sum(alpha)``.
    """
    one = entry(lists, 0, 1)
    bits = random[0]
    logarithms, product = 0.0, 1.0
    lists_place, sizes_place, flat = place_of(lists), place_of(list_sizes), word_topic.reshape(word_topic.size)
    width = q.size
    for k in range(width):
        inverse[k] = _ONE / (np.float32(totals[k]) + beta_sum)
    for w in range(starts.size - 1):
        first, end = starts[w], starts[w + 1]
        row = flat[w * width : (w + 1) * width]
        while first < end:
            last = min(end, first + FROZEN)
            alpha_sum = weigh(flat, w * width, inverse, alpha, beta, q, sums)
            for i in range(first, last):
                if i + _AHEAD < end:
                    ahead = documents[i + _AHEAD]
                    fetch(sizes_place, np.int64(ahead), np.int32(0))
                    fetch(lists_place, list_starts[ahead], one)
                    fetch(lists_place, list_starts[ahead] + LANES, one)
                d = np.uint64(documents[i])
                start, size = np.uint64(list_starts[d]), np.uint64(list_sizes[d])
                old = topics[i]
                listed, count = list_sum(lists, np.int64(start), np.int64(size), q, np.int64(old))
                q_old = q[old]
                own = (np.float32(row[old]) - _ONE + beta) / (np.float32(totals[old]) - _ONE + beta_sum)
                listed = max(listed - count * q_old, _ZERO)
                stay = (count - _ONE + alpha[old]) * own
                others = alpha_sum - alpha[old] * q_old
                mass = stay + listed + others
                product *= np.float64(mass)
                if product < _TINY or product > _HUGE:
                    logarithms += math.log(product)
                    product = 1.0
                bits = next_random(bits)
                u = np.float32(np.int64(bits >> np.uint64(40))) * _UNIT * mass
                if u < stay:
                    continue  # an unchanged topic writes nothing
                u -= stay
                at_old = start
                while topic_of(lists[at_old]) != old:
                    at_old += np.uint64(1)
                at_new = start + size
                if u < listed:
                    for j in range(start, start + size):
                        if j != at_old:
                            u -= np.float32(count_of(lists[j])) * q[topic_of(lists[j])]
                            if u < _ZERO:
                                at_new = j
                                break
                    if at_new == start + size:
                        continue  # rounding has left less than was drawn
                    new = np.int64(topic_of(lists[at_new]))
                else:
                    new = _from_alpha(u - listed, q, alpha, sums, old, alpha[old] * q_old)
                    if new == old:
                        continue
                    for j in range(start, start + size):
                        if np.int64(topic_of(lists[j])) == new:
                            at_new = j
                            break
                if at_new < start + size:
                    lists[at_new] += one
                else:
                    lists[at_new] = entry(lists, new, 1)
                    size += np.uint64(1)
                lists[at_old] -= one
                if count_of(lists[at_old]) == 0:
                    size -= np.uint64(1)
                    lists[at_old] = lists[start + size]
                    lists[start + size] = 0
                list_sizes[d] = size
                topics[i] = new
                row[old] -= 1
                row[new] += 1
                totals[old] -= 1
                totals[new] += 1
                inverse[old] = _ONE / (np.float32(totals[old]) + beta_sum)
                inverse[new] = _ONE / (np.float32(totals[new]) + beta_sum)
            first = last
    random[0] = bits
    return logarithms + math.log(product)


def requests(wide: bool) -> list[Request]:
    """Kernels that sample, with entries of 64 bits if `wide`."""
    i32, i64, f32 = np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(LANES, np.float32)
    lists = i64, i32, np.zeros(0, np.uint64 if wide else np.uint32)
    counts = np.zeros((0, LANES), np.int32), np.zeros(LANES, np.int64)
    prior, scratch = (f32, np.float32(1), np.float32(1)), (f32, f32, f32[:1])
    return [(sample_block, (np.zeros(1, np.int64), i32, i32, *lists, *counts, *prior, *scratch, np.ones(1, np.uint64)))]
