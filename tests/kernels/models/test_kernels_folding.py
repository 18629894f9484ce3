"""Topics of new documents, their probabilities, and the prior that is learnt from documents, against NumPy."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbps.kernels.models import dirichlet, folding
from nbps.kernels.models.lda_layout import LANES

f32 = np.float32


@given(seed=st.integers(0, 10**6), passes=st.integers(0, 6))
def test_shares_and_probabilities(seed, passes):
    """Each pass is an expectation and its normalisation; a document without words keeps the prior's shares."""
    random = np.random.default_rng(seed)
    words, width = 7, LANES
    counts = random.integers(0, 50, (words, width)).astype(np.int32)
    alpha = random.random(width).astype(f32) + f32(0.1)
    alpha[width - 3 :] = 0  # padding
    inverse, beta = (1 / (counts.sum(axis=0) + 0.1 * words)).astype(f32), f32(0.1)
    sizes = np.array([0, *random.integers(1, 6, 4)])
    starts = np.concatenate([[0], np.cumsum(sizes)])
    codes = random.integers(0, words, starts[-1]).astype(np.int32)
    many = random.integers(1, 9, starts[-1]).astype(np.int32)
    shares, rows, fresh = np.empty((5, width), f32), np.empty(6 * width, f32), np.empty(width, f32)
    folding.fold_in(starts, codes, many, counts, inverse, alpha, beta, passes, shares, rows, fresh)
    phi = (counts + 0.1) * inverse
    expected, logarithms = np.tile(alpha / alpha.sum(), (5, 1)), 0.0
    for d in range(5):
        own = slice(starts[d], starts[d + 1])
        for _ in range(passes):
            mass = expected[d] * phi[codes[own]]
            new = alpha + (many[own, None] * mass / mass.sum(axis=1, keepdims=True)).sum(axis=0)
            expected[d] = new / new.sum()
        logarithms += float(many[own] @ np.log(phi[codes[own]] @ expected[d]))
    np.testing.assert_allclose(shares, expected, rtol=1e-3, atol=1e-6)
    assert not shares[:, width - 3 :].any()
    found = folding.log_likelihood(starts, codes, many, counts, inverse, beta, shares)
    assert found == pytest.approx(logarithms, rel=1e-4)


@pytest.mark.parametrize("alpha", [1e-5, 0.1, 3.0])
@pytest.mark.parametrize("count", [0, 1, 8, 9, 1_000])
def test_differences_of_digamma(alpha, count):
    """They are sums of reciprocals."""
    assert dirichlet._digamma_step(alpha, count) == pytest.approx(math.fsum(1 / (alpha + i) for i in range(count)))


@pytest.mark.parametrize("kind", [np.uint32, np.uint64])
def test_gains_are_sums_over_documents(kind):
    """Of each topic, and of the lengths of the documents."""
    lists = [{0: 3, 5: 1}, {}, {5: 20}]
    starts, sizes, entries = np.array([0, 16, 32]), np.array([2, 0, 1], np.int32), np.zeros(48, kind)
    half = np.dtype(kind).itemsize * 4
    for start, each in zip(starts, lists, strict=True):
        entries[start : start + len(each)] = [topic << half | count for topic, count in each.items()]
    alpha, gains = np.full(LANES, 0.5), np.zeros(LANES)
    alpha[-1] = 0  # padding
    total = dirichlet.prior_gains(starts, sizes, entries, alpha, gains)

    def step(prior, count):
        return math.fsum(1 / (prior + i) for i in range(count))

    expected = np.zeros(LANES)
    expected[0], expected[5] = step(0.5, 3), step(0.5, 1) + step(0.5, 20)
    np.testing.assert_allclose(gains, expected, rtol=1e-9)
    assert total == pytest.approx(step(7.5, 4) + step(7.5, 20))
