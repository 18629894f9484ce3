"""Made-up ratings in the shape of MovieLens, for trying things out without a download.

What is imitated: a few items collect most ratings, a few users give most, every user gives at least a few; a
rating is a mean, a user's and an item's bias, an inner product of latent factors, and noise, rounded to
stars. Arrays only; the work is cut into blocks so that temporary arrays stay small.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nbps.buffers import over
from nbps.data.ratings.ids import IdMap
from nbps.data.ratings.ratings import Ratings
from nbps.errors import ConfigError

# Fitted to MovieLens 1M by eye: mean 3.58, standard deviation 1.12, test error of biases alone 0.91 (RMSE).
_MEAN = 3.6
_USER_BIAS_SD = 0.42
_ITEM_BIAS_SD = 0.50
_INTERACTION_SD = 0.65
_LOWEST, _HIGHEST = 1.0, 5.0
# A user's activity is log-normal with this sigma (MovieLens 1M: median 96 ratings, mean 166).
_ACTIVITY_SIGMA = 1.05
# Popularity of the item at rank x (0 to 1) is exp(-decay x) / (x + shift): Zipf's law, flatter at its head
# and steeper at its tail (MovieLens 1M: most popular 3428 ratings, median 124, lowest tenth 7).
_POPULARITY_SHIFT = 0.12
_POPULARITY_DECAY = 4.0
# Above this part of all pairs most draws would repeat a pair; then every pair is weighed instead.
_DENSE_FRACTION = 0.125
_DENSE_PAIRS = 1 << 18
# Draws beyond what is expected to be needed, so that there is rarely a shortfall.
_SURPLUS = 1.01
_BLOCK = 1 << 18


def generate_ratings(
    users: int = 6040,
    items: int = 3706,
    ratings: int = 1_000_209,
    rank: int = 10,
    *,
    noise: float = 0.75,
    step: float = 1.0,
    seed: int = 0,
) -> Ratings:
    """Generate ratings that a matrix factorization predicts better than biases do.

    Parameters
    ----------
    users, items : int
        At least 2 each. The ids are 1, 2, ..., all of them in the maps; an item may be left without a rating.
    ratings : int
        Number of ratings, from 1 to ``users * items``. No pair of user and item occurs twice.
    rank : int
        Number of latent factors.
    noise : float
        Standard deviation, in stars, of what no model can predict.
    step : float
        Ratings are multiples of this from 1 to 5: 1.0 for whole stars, 0.5 for half stars.
    seed : int
        The same arguments give the same ratings, with the same release of NumPy.

    Returns
    -------
    Ratings
        Ordered by user, then item.

    Raises
    ------
    ConfigError
        If an argument is out of range.

    Examples
    --------
    >>> generate_ratings(users=50, items=30, ratings=400)
    Ratings(400 ratings, 50 users, 30 items)
    """
    _check(users, items, ratings, rank, noise, step)
    rng = np.random.default_rng(seed)
    activity: npt.NDArray[np.float64] = rng.lognormal(0.0, _ACTIVITY_SIGMA, users)
    place = rng.permutation(items) / items
    popularity: npt.NDArray[np.float64] = np.exp(-_POPULARITY_DECAY * place) / (place + _POPULARITY_SHIFT)
    if ratings > _DENSE_FRACTION * users * items or users * items <= _DENSE_PAIRS:
        pairs = _weigh_pairs(rng, activity, popularity, ratings)
    else:
        pairs = _draw_pairs(rng, activity, popularity, ratings)
    user_codes, item_codes = (codes.astype(np.int32) for codes in np.divmod(pairs, items))
    values = _rate(rng, users, items, rank, noise, step, user_codes, item_codes)
    user_ids, item_ids = (IdMap(over(np.arange(1, count + 1))) for count in (users, items))
    return Ratings(user_codes, item_codes, values, user_ids, item_ids)


def _check(users: int, items: int, ratings: int, rank: int, noise: float, step: float) -> None:
    sizes = (("users", users, 2), ("items", items, 2), ("ratings", ratings, 1), ("rank", rank, 1))
    for name, value, lowest in sizes:
        if value < lowest:
            raise ConfigError(f"generate_ratings: expected {name} of at least {lowest}, found {value}.")
    if ratings > users * items:
        raise ConfigError(
            f"generate_ratings: expected at most {users * items} ratings, one for each of {users} x {items} "
            f"pairs, found {ratings}."
        )
    if not 0 <= noise < np.inf:
        raise ConfigError(f"generate_ratings: expected noise of 0 or more, found {noise}.")
    if step not in (0.5, 1.0):
        raise ConfigError(f"generate_ratings: expected step 0.5 or 1.0, found {step}.")


def _draw_pairs(
    rng: np.random.Generator,
    activity: npt.NDArray[np.float64],
    popularity: npt.NDArray[np.float64],
    count: int,
) -> npt.NDArray[np.int64]:
    """Draw `count` distinct pairs ``user * items + item`` by both weights; ascending."""
    users, items = len(activity), len(popularity)
    distinct = _quota(rng, activity, items, count).astype(np.float64)
    distinct *= _SURPLUS
    draws = _draws_for(distinct, popularity)
    table = _inverse_table(popularity)
    pairs = np.repeat(np.arange(users, dtype=np.int64), rng.poisson(draws))
    pairs *= items
    pairs += table[rng.integers(0, len(table), len(pairs), dtype=np.int32)]
    pairs = _distinct(pairs)
    while len(pairs) < count:  # a shortfall by chance, of few pairs: any others make up the number
        others = rng.integers(0, users * items, count - len(pairs))
        pairs = _distinct(np.concatenate([pairs, others]))
    return np.delete(pairs, rng.choice(len(pairs), len(pairs) - count, replace=False))


def _quota(
    rng: np.random.Generator, activity: npt.NDArray[np.float64], items: int, count: int
) -> npt.NDArray[np.int64]:
    """Share `count` ratings out to the users: int64, shape ``[users]``, none above half of the items."""
    users = len(activity)
    least = min(20, count // (2 * users))  # MovieLens leaves out users with fewer than 20 ratings
    most = items // 2
    quota = np.full(users, least, np.int64)
    weights = activity.copy()
    while (left := count - int(quota.sum())) > 0:
        weights[quota >= most] = 0.0
        quota += rng.multinomial(left, weights / weights.sum())
        np.minimum(quota, most, out=quota)
    return quota


def _draws_for(distinct: npt.NDArray[np.float64], popularity: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return how many draws by popularity give the wanted numbers of distinct items, on average.

    A Poisson number of draws with mean c hits item i at all with probability ``1 - exp(-c p_i)``,
    independently of the other items. The sum over i is the expected number of distinct items; it grows with
    c and is inverted by interpolation.
    """
    shares = popularity / popularity.sum()
    means = np.concatenate([[0.0], np.geomspace(1.0, 50.0 * len(shares), 200)])
    expected = np.array([-np.expm1(-mean * shares).sum() for mean in means])
    draws: npt.NDArray[np.float64] = np.interp(distinct, expected, means)
    return draws


def _inverse_table(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """Return a table in which an entry drawn uniformly is an index drawn by `weights`.

    One gather for each draw is four times as fast as binary search in the cumulated weights. The table has 64
    entries per index, so a weight below 1/128 of the average may get none.
    """
    places = np.cumsum(weights) / weights.sum()
    size = 64 * len(weights)
    return np.searchsorted(places, (np.arange(size) + 0.5) / size).astype(np.int32)


def _distinct(pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    pairs.sort()
    is_first = np.empty(len(pairs), bool)
    is_first[:1] = True
    np.not_equal(pairs[1:], pairs[:-1], out=is_first[1:])
    return pairs[is_first]


def _weigh_pairs(
    rng: np.random.Generator,
    activity: npt.NDArray[np.float64],
    popularity: npt.NDArray[np.float64],
    count: int,
) -> npt.NDArray[np.int64]:
    """Draw `count` distinct pairs by both weights, from all pairs; ascending.

    The `count` smallest of exponential variables divided by the weights are a weighted sample without
    replacement (Efraimidis and Spirakis 2006).
    """
    keys = rng.standard_exponential((len(activity), len(popularity)), dtype=np.float32)
    keys /= activity[:, None].astype(np.float32)
    keys /= popularity.astype(np.float32)
    flat = keys.ravel()
    pairs = np.argpartition(flat, count - 1)[:count] if count < flat.size else np.arange(flat.size)
    return np.sort(pairs)


def _rate(
    rng: np.random.Generator,
    users: int,
    items: int,
    rank: int,
    noise: float,
    step: float,
    user_codes: npt.NDArray[np.int32],
    item_codes: npt.NDArray[np.int32],
) -> npt.NDArray[np.float32]:
    """Return the rating of each pair: float32, shape ``[n]``."""
    user_bias = _USER_BIAS_SD * rng.standard_normal(users, dtype=np.float32)
    item_bias = _ITEM_BIAS_SD * rng.standard_normal(items, dtype=np.float32)
    # A sum of `rank` products of unit variables has variance `rank`; both factors share the scale.
    scale = np.float32(np.sqrt(_INTERACTION_SD / np.sqrt(rank)))
    user_factors = scale * rng.standard_normal((users, rank), dtype=np.float32)
    item_factors = scale * rng.standard_normal((items, rank), dtype=np.float32)
    values = np.empty(len(user_codes), np.float32)
    for start in range(0, len(values), _BLOCK):
        u = user_codes[start : start + _BLOCK]
        i = item_codes[start : start + _BLOCK]
        block = rng.standard_normal(len(u), dtype=np.float32)
        block *= np.float32(noise)
        block += np.float32(_MEAN) + user_bias[u] + item_bias[i]
        block += np.einsum("nk,nk->n", user_factors[u], item_factors[i])
        block /= np.float32(step)
        np.rint(block, out=block)
        block *= np.float32(step)
        np.clip(block, _LOWEST, _HIGHEST, out=values[start : start + len(block)])
    return values
