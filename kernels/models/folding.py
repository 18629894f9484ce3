"""Topics of new documents under a model that stays as it is, and how well they predict further words."""

from __future__ import annotations

import math

import numpy as np

from ..jit import Request, kernel
from .lda_layout import LANES

_ZERO, _ONE = np.float32(0), np.float32(1)
_LEAST = np.float32(1e-30)  # a probability that underflows


@kernel(fastmath=True)
def fold_in(starts, words, counts, word_topic, inverse, alpha, beta, passes, shares, rows, fresh):
    """Compute the shares of topics of documents: ``share = (alpha + expected count) / sum`` over and over again.

    Parameters
    ----------
    starts : int64[d + 1]
        Entries of each document.
    words, counts : int32[n]
        Row of `word_topic`, and how often.
    word_topic : int32[vocabulary, width]
    inverse : float32[width]
        ``1 / (totals + beta_sum)``.
    alpha : float32[width]
        May be 0 for padding, whose shares are 0 then.
    beta : float32
    passes : int
    shares : float32[d, width]
        Result.
    rows : float32[m]
        Scratch, for the entries of any of the documents times width.
    fresh : float32[width]
        Scratch.
    """
    width = alpha.size
    alpha_sum = _ZERO
    for k in range(width):
        alpha_sum += alpha[k]
    flat = word_topic.reshape(word_topic.size)
    for d in range(starts.size - 1):
        share = shares[d]
        first, size = starts[d], starts[d + 1] - starts[d]
        length = _ZERO
        for n in range(size):
            length += np.float32(counts[first + n])
            word = np.int64(words[first + n]) * width
            for k in range(width):
                rows[n * width + k] = (np.float32(flat[word + k]) + beta) * inverse[k]
        for k in range(width):
            share[k] = alpha[k] / alpha_sum
        scale = _ONE / (length + alpha_sum)
        for _ in range(passes if size > 0 else 0):
            for k in range(width):
                fresh[k] = _ZERO
            for n in range(size):
                at = n * width
                mass = _ZERO
                for k in range(width):
                    mass += share[k] * rows[at + k]
                weight = np.float32(counts[first + n]) / max(mass, _LEAST)
                for k in range(width):
                    fresh[k] += weight * rows[at + k]
            for k in range(width):
                share[k] = (alpha[k] + share[k] * fresh[k]) * scale


@kernel(fastmath=True)
def log_likelihood(starts, words, counts, word_topic, inverse, beta, shares):
    """Return the sum of the logarithms of the probabilities of the tokens of documents with these shares of topics."""
    width = inverse.size
    flat = word_topic.reshape(word_topic.size)
    total = 0.0
    for d in range(starts.size - 1):
        share = shares[d]
        for n in range(starts[d], starts[d + 1]):
            word = np.int64(words[n]) * width
            mass = _ZERO
            for k in range(width):
                mass += share[k] * (np.float32(flat[word + k]) + beta) * inverse[k]
            total += counts[n] * math.log(max(mass, _LEAST))
    return total


def requests() -> list[Request]:
    """Kernels that measure a model on other documents."""
    i32, i64, f32 = np.zeros(1, np.int32), np.zeros(1, np.int64), np.zeros(LANES, np.float32)
    beta, word_topic, shares = np.float32(1), np.zeros((1, LANES), np.int32), np.zeros((1, LANES), np.float32)
    documents = i64, i32, i32, word_topic, f32
    return [
        (fold_in, (*documents, f32, beta, 1, shares, f32, f32)),
        (log_likelihood, (*documents, beta, shares)),
    ]
