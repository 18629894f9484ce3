"""generate_ratings: the shape asked for, reproducible, and worth factorizing."""

from __future__ import annotations

import numpy as np
import pytest

from nbps.data import generate_ratings
from nbps.errors import ConfigError


@pytest.mark.parametrize(
    ("users", "items", "count"),
    [
        (2, 2, 1),
        (2, 2, 4),
        (10, 8, 80),
        (50, 30, 400),
        (900, 700, 5_000),
        (900, 700, 300_000),
        (3000, 40, 9_000),
    ],
)
def test_sizes_are_exact_and_pairs_distinct(users, items, count):
    """Sparse and dense, down to a single rating and up to every pair."""
    ratings = generate_ratings(users, items, count)
    assert len(ratings) == count
    assert ratings.shape == (users, items)
    pairs = ratings.users.astype(np.int64) * items + ratings.items
    assert (np.diff(pairs) > 0).all()
    assert set(np.unique(ratings.values)) <= {1.0, 2.0, 3.0, 4.0, 5.0}


def test_the_default_is_shaped_like_movielens():
    """MovieLens 1M's size; few items and users have most ratings; mean and deviation within a tenth."""
    ratings = generate_ratings()
    assert (len(ratings), *ratings.shape) == (1_000_209, 6_040, 3_706)
    assert ratings.values.mean() == pytest.approx(3.58, abs=0.1)
    assert ratings.values.std() == pytest.approx(1.12, abs=0.1)
    popularity = np.sort(np.bincount(ratings.items, minlength=3_706))[::-1]
    activity = np.sort(np.bincount(ratings.users, minlength=6_040))[::-1]
    assert popularity[:370].sum() > 0.4 * len(ratings)
    assert activity[:604].sum() > 0.3 * len(ratings)
    assert activity[-1] >= 5


def test_the_seed_decides():
    """The same seed gives the same ratings, another seed others."""
    first, same, other = (generate_ratings(300, 200, 3_000, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.values, same.values)
    np.testing.assert_array_equal(first.items, same.items)
    assert not np.array_equal(first.items, other.items)


def test_half_stars():
    """Ten levels from 1, as the later MovieLens sets have."""
    levels = np.unique(generate_ratings(300, 200, 9_000, step=0.5).values)
    assert levels.tolist() == np.arange(1, 5.5, 0.5).tolist()


def test_factors_predict_better_than_biases():
    """A plain alternating least squares beats the biases by a tenth of a star on held-out ratings."""
    ratings = generate_ratings(400, 300, 40_000, rank=4, seed=3)
    train, test = ratings.split(0.1, 0)
    R = np.zeros(ratings.shape)
    W = np.zeros(ratings.shape)
    R[train.users, train.items] = train.values
    W[train.users, train.items] = 1.0
    mean = train.values.mean()
    user_bias, item_bias = np.zeros(400), np.zeros(300)
    for _ in range(10):
        user_bias = (W * (R - mean - item_bias)).sum(1) / (W.sum(1) + 5)
        item_bias = (W * (R - mean - user_bias[:, None])).sum(0) / (W.sum(0) + 5)
    biases = mean + user_bias[:, None] + item_bias
    E = R - biases
    Q = np.random.default_rng(0).normal(0, 0.1, (300, 4))
    for _ in range(15):
        P = np.stack([_ridge(Q, E[u], W[u]) for u in range(400)])
        Q = np.stack([_ridge(P, E[:, i], W[:, i]) for i in range(300)])

    def rmse(prediction):
        return np.sqrt(np.mean((prediction[test.users, test.items] - test.values) ** 2))

    assert rmse(biases + P @ Q.T) < rmse(biases) - 0.1


def _ridge(X, y, weight):
    return np.linalg.solve(X.T @ (weight[:, None] * X) + 4 * np.eye(X.shape[1]), X.T @ (weight * y))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"users": 1}, "users of at least 2, found 1"),
        ({"items": 0}, "items of at least 2, found 0"),
        ({"ratings": 0}, "ratings of at least 1, found 0"),
        ({"rank": 0}, "rank of at least 1"),
        ({"users": 3, "items": 3, "ratings": 10}, "at most 9 ratings, .* found 10"),
        ({"noise": -1.0}, "noise of 0 or more"),
        ({"noise": float("nan")}, "noise of 0 or more"),
        ({"step": 0.3}, "step 0.5 or 1.0"),
    ],
)
def test_arguments_are_checked(arguments, words):
    """Each message has the argument's name and value."""
    with pytest.raises(ConfigError, match=words):
        generate_ratings(**arguments)
