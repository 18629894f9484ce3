"""Sampling topics: each draw has the exact probabilities, and counts stay counts of the tokens' topics."""

import math

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbps.kernels.jit import kernel
from nbps.kernels.models import lda, lda_vectors, tokens, topic_lists
from nbps.kernels.models.lda_layout import LANES, needs_wide, padded

f32 = np.float32


@kernel
def _weigh(counts, at, inverse, alpha, beta, q, sums):
    return lda_vectors.weigh(counts, at, inverse, alpha, beta, q, sums)


@kernel
def _list_sum(lists, start, size, q, topic):
    return lda_vectors.list_sum(lists, start, size, q, topic)


@kernel
def _parts_of(lists, topic, count):
    each = topic_lists.entry(lists, topic, count)
    return topic_lists.topic_of(each), topic_lists.count_of(each)


class Corpus:
    """Documents as arrays of words, sorted into tokens of one worker, with all counts."""

    def __init__(self, documents, words, topics, seed=1, is_wide=None, given=None):
        self.words, self.topics = words, topics
        counted = [np.unique(each, return_counts=True) for each in documents]
        self.starts = np.concatenate([[0], np.cumsum([each.size for each, _ in counted])]).astype(np.int64)
        self.codes = np.concatenate([each for each, _ in counted]).astype(np.int32)
        self.counts = np.concatenate([each for _, each in counted]).astype(np.int32)
        lengths = np.array([len(each) for each in documents])
        size, width = int(lengths.sum()), padded(topics)
        self.place = np.random.default_rng(seed).permutation(words)
        self.token_starts, own = np.zeros(words + 2, np.int64), np.zeros(lengths.size, np.int64)
        tokens.count_tokens(self.starts, self.codes, self.counts, self.place, 0, own, self.token_starts)
        assert own.tolist() == lengths.tolist()
        np.cumsum(self.token_starts, out=self.token_starts)
        self.documents = np.empty(size, np.int32)
        self.assignments = np.empty(size, np.int32) if given is None else np.array(given, np.int32)
        wide = needs_wide(topics, int(lengths.max())) if is_wide is None else is_wide
        rooms = -(-np.minimum(lengths + 1, topics) // LANES) * LANES
        self.lists = [
            np.concatenate([[0], np.cumsum(rooms)])[:-1],
            np.zeros(lengths.size, np.int32),
            np.zeros(rooms.sum(), np.uint64 if wide else np.uint32),
        ]
        self.random = np.array([seed * 7919 + 88172645463325252], np.uint64)
        scratch = np.zeros(topics, np.int32), np.zeros(topics, np.int32)
        tokens.place_tokens(
            self.starts, self.codes, self.counts, self.place, 0, self.token_starts, self.documents, self.assignments,
            given is None, self.random, *self.lists, *scratch,
        )  # fmt: skip
        assert not scratch[0].any()
        self.word_topic, self.totals = np.zeros((words, width), np.int32), np.zeros(width, np.int64)
        tokens.add_tokens(self.token_starts[:-1], self.assignments, self.word_topic, self.totals)
        self.scratch = np.empty(width, f32), np.empty(width, f32), np.empty(width // LANES, f32)

    def sample(self, alpha, beta, first=0, last=None):
        """Sample the words at places `first` to `last`."""
        last = self.words if last is None else last
        prior = np.zeros(self.totals.size, f32)
        prior[: self.topics] = alpha
        return lda.sample_block(
            self.token_starts[first : last + 1], self.documents, self.assignments, *self.lists,
            self.word_topic[first:last], self.totals, prior, f32(beta), f32(beta * self.words), *self.scratch,
            self.random,
        )  # fmt: skip

    def word_places(self):
        return np.repeat(np.arange(self.words), np.diff(self.token_starts[:-1]))

    def check(self):
        """Check that every count is that of the tokens' topics."""
        shape = self.words, self.totals.size
        expected = np.zeros(shape, np.int64)
        np.add.at(expected, (self.word_places(), self.assignments), 1)
        assert np.array_equal(self.word_topic, expected)
        assert np.array_equal(self.totals, expected.sum(axis=0))
        starts, sizes, lists = self.lists
        ends = [*starts[1:], lists.size]
        half = lists.dtype.itemsize * 4
        for d, (start, size, end) in enumerate(zip(starts, sizes, ends, strict=True)):
            found = {int(each) >> half: int(each) & (1 << half) - 1 for each in lists[start : start + size]}
            own, counts = np.unique(self.assignments[self.documents == d], return_counts=True)
            assert found == dict(zip(own.tolist(), counts.tolist(), strict=True))
            assert len(found) == size
            assert not lists[start + size : end].any()


def corpus(seed, topics, words=12, documents=6, **options):
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 40, documents)
    return Corpus([random.integers(0, words, n) for n in lengths], words, topics, seed + 1, **options)


@pytest.mark.parametrize("is_wide", [False, True])
@pytest.mark.parametrize("topics", [1, 2, 16, 17, 40])
def test_counts_stay_exact(topics, is_wide):
    """After every block of words, for few topics and many, entries of 32 bits and of 64."""
    made = corpus(topics, topics, is_wide=is_wide)
    made.check()
    before = made.assignments.copy()
    for first in (0, 4, 8) * 5:
        made.sample(0.3, 0.1, first, first + 4)
        made.check()
    assert 0 <= made.assignments.min() <= made.assignments.max() < topics
    assert topics == 1 or not np.array_equal(made.assignments, before)


def conditional(made, token, alpha, beta):
    """Return the exact probabilities of the topics of a token, not normalised."""
    d, w = made.documents[token], made.word_places()[token]
    others = np.arange(made.assignments.size) != token
    places = made.word_places()

    def counts(mask):
        return np.bincount(made.assignments[others & mask], minlength=made.topics)

    everywhere = counts(np.ones(others.size, bool))
    return (counts(made.documents == d) + alpha) * (counts(places == w) + beta) / (everywhere + beta * made.words)


@pytest.mark.parametrize("topics", [3, 20])
def test_draws_have_the_exact_probabilities(topics):
    """Of a word with one token, drawn from the same state over and over; also its old topic's, with unequal priors."""
    random = np.random.default_rng(0)
    documents = [random.integers(0, 8, n) for n in (9, 30, 5)]
    documents[1][3:] %= 7
    documents[1][0] = 7
    documents[0] %= 7
    documents[2] %= 7
    documents[1][1:3] = 0
    alpha = np.linspace(0.2, 1.5, topics)
    made = Corpus(documents, 8, topics)
    place = int(made.place[7])
    (token,) = np.flatnonzero(made.word_places() == place)
    expected = conditional(made, token, alpha, 0.2)
    draws = 4_000 if not numba.config.DISABLE_JIT else 400
    found = np.zeros(topics)
    changing = [made.assignments, *made.lists[1:], made.word_topic, made.totals]
    kept = [each.copy() for each in changing]
    for _ in range(draws):
        logarithm = made.sample(alpha, 0.2, place, place + 1)
        found[made.assignments[token]] += 1
        for each, value in zip(changing, kept, strict=True):
            each[:] = value
    assert logarithm == pytest.approx(math.log(expected.sum()), rel=1e-5)
    share = expected / expected.sum()
    chi_square = float((((found - draws * share) ** 2) / (draws * share)).sum())
    assert chi_square < topics - 1 + 4 * math.sqrt(2 * (topics - 1))


def test_what_is_returned_is_about_all_tokens():
    """The sum of the logarithms over a block in which nothing can change: there is one topic."""
    made = corpus(3, 1)
    lengths = np.bincount(made.documents)
    words = np.bincount(made.word_places(), minlength=made.words)
    own = np.log((words[made.word_places()] - 1 + 0.1) / (made.totals[0] - 1 + 0.1 * made.words))
    expected = float((own + np.log(lengths[made.documents] - 1 + 0.3)).sum())
    assert made.sample(0.3, 0.1) == pytest.approx(expected, rel=1e-5)


def test_products_of_probabilities_do_not_underflow():
    """Their logarithms are added up before they leave the range of float64."""
    random = np.random.default_rng(0)
    made = Corpus([random.integers(0, 500, 300) for _ in range(4)], 500, 2)
    found = made.sample(1e-3, 1e-3)
    assert math.isfinite(found)
    assert found < -700  # the logarithm of the least float64 is -745


def test_a_seed_repeats_and_another_differs():
    """Topics depend on the seed alone."""
    one, same, other = (corpus(5, 8), corpus(5, 8), corpus(5, 8))
    other.random[0] += 1
    for each in (one, same, other):
        each.sample(0.3, 0.1)
    assert np.array_equal(one.assignments, same.assignments)
    assert not np.array_equal(one.assignments, other.assignments)


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="a minute of plain Python")
def test_counts_and_topics_beyond_16_bits():
    """A document of 70,000 tokens of a topic, and 70,000 topics."""
    made = Corpus([np.zeros(70_000, int), np.ones(3, int)], 2, 2, given=np.zeros(70_003, int))
    assert made.lists[2].dtype == np.uint64
    made.check()
    made.sample(0.5, 0.1)
    made.check()
    assert made.totals[0] > 65_535
    many = Corpus([np.zeros(400, int), np.ones(30, int)], 2, 70_000)
    many.sample(0.001, 0.01)
    many.check()
    assert many.lists[2].dtype == np.uint64
    assert many.assignments.max() > 65_535


@given(seed=st.integers(0, 10**6), cut=st.integers(0, 6))
def test_tokens_are_sorted_by_word_in_their_order(seed, cut):
    """In one part or two: as NumPy's stable sort does it; first topics are random, or those that are there."""
    random = np.random.default_rng(seed)
    made = corpus(seed % 100, 4)
    document = np.repeat(np.repeat(np.arange(6), np.diff(made.starts)), made.counts)
    place = made.place[np.repeat(made.codes, made.counts)]
    order = np.argsort(place, kind="stable")
    assert np.array_equal(made.documents, document[order])
    assert np.array_equal(made.word_places(), place[order])
    topics = random.integers(0, 4, document.size).astype(np.int32)
    again = corpus(seed % 100, 4, given=topics)
    assert np.array_equal(again.assignments, topics)
    again.check()
    starts, lengths = np.zeros_like(made.token_starts), np.zeros(6, np.int64)
    documents, assignments = np.empty_like(made.documents), topics.copy()
    lists = [made.lists[0], np.zeros_like(made.lists[1]), np.zeros_like(made.lists[2])]
    parts = [(first, last) for first, last in ((0, cut), (cut, 6)) if first < last]
    for step in (0, 1):
        for first, last in parts:
            entries = slice(made.starts[first], made.starts[last])
            part = made.starts[first : last + 1], made.codes[entries], made.counts[entries], made.place, first
            if step == 0:
                tokens.count_tokens(*part, lengths, starts)
            else:
                scratch = np.zeros(4, np.int32), np.zeros(4, np.int32)
                tokens.place_tokens(*part, starts, documents, assignments, False, made.random, *lists, *scratch)
        if step == 0:
            np.cumsum(starts, out=starts)
    assert np.array_equal(documents, made.documents)
    assert np.array_equal(starts, made.token_starts)
    assert all(np.array_equal(one, other) for one, other in zip(lists, again.lists, strict=True))


@given(seed=st.integers(0, 10**6), vectors=st.integers(1, 5), is_wide=st.booleans())
def test_sums_are_those_of_numpy(seed, vectors, is_wide):
    """Of a word's topics by blocks, and of a document's list, of any length."""
    random = np.random.default_rng(seed)
    width = vectors * LANES
    counts = random.integers(0, 1000, 3 * width).astype(np.int32)
    inverse, alpha = random.random(width).astype(f32), random.random(width).astype(f32)
    q, sums = np.empty(width, f32), np.empty(vectors, f32)
    total = _weigh(counts, width, inverse, alpha, f32(0.5), q, sums)
    expected = (counts[width : 2 * width] + 0.5) * inverse
    np.testing.assert_allclose(q, expected, rtol=1e-5)
    np.testing.assert_allclose(sums, (alpha * expected).reshape(vectors, LANES).sum(axis=1), rtol=1e-5)
    assert total == pytest.approx((alpha * expected).sum(), rel=1e-5)
    size = int(random.integers(1, width + 1))
    own = random.permutation(width)[:size]
    lists = np.zeros(LANES + width, np.uint64 if is_wide else np.uint32)
    many = random.integers(1, 60_000, size)
    lists[LANES : LANES + size] = own.astype(np.uint64) << np.uint64(32 if is_wide else 16) | many.astype(np.uint64)
    found, count = _list_sum(lists, LANES, size, q, int(own[-1]))
    assert found == pytest.approx(float((q[own] * many).sum()), rel=1e-5)
    assert count == many[-1]
    absent = np.setdiff1d(np.arange(1, width), own)
    assert absent.size == 0 or _list_sum(lists, LANES, size, q, int(absent[0]))[1] == 0


@pytest.mark.parametrize(
    ("kind", "topic", "count"), [(np.uint32, 65_535, 65_535), (np.uint64, 2**31 - 1, 2**31 - 1), (np.uint32, 0, 1)]
)
def test_entries_hold_topics_and_counts(kind, topic, count):
    """Up to the largest that fit."""
    assert _parts_of(np.zeros(1, kind), topic, count) == (topic, count)


@pytest.mark.parametrize("kind", [np.uint32, np.uint64])
def test_lists_are_sorted_by_counts(kind):
    """Each document's own; the order does not depend on what it was before."""
    random = np.random.default_rng(0)
    half = np.dtype(kind).itemsize * 4
    sizes = np.array([20, 0, 1, 16], np.int32)
    starts = np.array([0, 32, 32, 48])
    lists = np.zeros(64, kind)
    expected = []
    for start, size in zip(starts, sizes, strict=True):
        topics, counts = random.permutation(60)[:size], random.integers(1, 4, size)
        lists[start : start + size] = topics.astype(kind) << kind(half) | counts.astype(kind)
        expected.append(sorted(zip(counts.tolist(), topics.tolist(), strict=True), reverse=True))
    topic_lists.sort_lists(starts, sizes, lists)
    for start, size, pairs in zip(starts, sizes, expected, strict=True):
        found = [int(each) for each in lists[start : start + size]]
        assert [(each & (1 << half) - 1, each >> half) for each in found] == pairs
