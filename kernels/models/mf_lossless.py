"""Stochastic gradient descent on items that other workers train at the same time; none of their updates is lost.

What `nbps.kernels.models.mf` says of `sgd_block` holds here too. A rating is trained on under the claim of its item
(`nbps.kernels.claims`), four at a time: one claim covers the item's factors and its state, rows of two tables of the
same number. Where another worker has claimed one of the four, or two are of the same item, they are taken one by one;
and where an item is claimed then, its change is put aside, of both tables, and added later. Rows are read as they are
in the tables: they may lack for a moment what this worker has put aside, which `nbps.kernels.get_row` would add. They
are not fetched ahead: on ml-1m, whose items fit a second-level cache, that costs 5 %.
"""

from __future__ import annotations

import numpy as np

from ..claim_layout import COUNT, SINCE
from ..claims import EVERY, put_aside, retry, slot
from ..jit import kernel
from ..places import element, give, place_of, put_element, set_word, size_of, take, word
from .mf_layout import ACCUMULATOR, BIAS, FACTORS
from .mf_states import advance4
from .mf_steps import BIAS_RATE, item_step
from .vectors import dot, dot4, update, update4

_ZERO, _ONE, _FOUR = np.float32(0), np.float32(1), np.float32(4)


@kernel(inline=True)
def _claim(factors, item):
    return take(factors.claims, slot(factors, item), factors.me)


@kernel(inline=True)
def _give(factors, item, is_claimed):
    if is_claimed:
        give(factors.claims, slot(factors, item))


@kernel
def _retry_now_and_then(factors, states, ratings):
    since = word(factors.words, SINCE) + ratings
    set_word(factors.words, SINCE, since)
    if since >= EVERY:
        retry(factors, _ZERO)
        retry(states, _ZERO)


@kernel(fastmath=True)
def _train_aside(factors, states, item, user, at, keep, gain, step, delta):
    """Train on a rating of an item that is claimed: the user's row, from `at` on, now, and the item's later."""
    keep_item, gain_item, to_bias, to_accumulator = step
    for t in range(factors.width):
        x, y = element(user, at + t, _ZERO), element(factors.values, item * factors.width + t, _ZERO)
        put_element(user, at + t, keep * x + gain * y)
        put_element(delta, t, (keep_item - _ONE) * y + gain_item * x)
    put_aside(factors, item, delta, 0, size_of(_ZERO), _ZERO)
    put_element(delta, BIAS, to_bias)
    put_element(delta, ACCUMULATOR, to_accumulator)
    put_aside(states, item, delta, 0, size_of(_ZERO), _ZERO)


# Long because it trains on four ratings at a time, and then on those that are left, in one block of registers.
@kernel(fastmath=True)
def sgd_block_lossless(
    starts, items, ratings, users, user_state, user_decay, rows, state, decay, norms, step, adapt,
    delta, first, factors, states,
):  # fmt: skip
    """Train as `sgd_block` while other workers train on the same items; loses none of their updates.

    Parameters
    ----------
    starts, ..., adapt
        As of `sgd_block`. `rows` and `state` are rows `first` and later ones of the tables `factors` and `states`.
    delta : float32[width]
        Scratch.
    first : int
    factors, states : nbps.kernels.claims.Claimed
        Of two tables with the same claims, those of one job.

    Returns
    -------
    float
        Sum of squared errors, each before its rating was trained on.
    """
    width = users.shape[1]
    scale = _ONE / np.float32(width)
    p, q = users.reshape(users.size), rows.reshape(rows.size)
    user_place, spare, state_place = place_of(p), place_of(delta), place_of(state)
    for i in range(rows.shape[0]):
        norms[i] = dot(q, i * width, q, i * width, width) * scale
    total = 0.0
    for u in range(starts.size - 1):
        n, end, alone = starts[u], starts[u + 1], 0
        if n == end:
            continue
        at = u * width
        bias, accumulator, squares = user_state[u, BIAS], user_state[u, ACCUMULATOR], np.float32(0)
        norm = dot(p, at, p, at, width) * scale
        bias_decay, factors_decay = user_decay[u, BIAS], user_decay[u, FACTORS]
        while n < end:
            if word(factors.words, COUNT) + word(states.words, COUNT) > 0:
                _retry_now_and_then(factors, states, 1)
            rate = step / np.sqrt(accumulator)
            if n + 4 <= end and n >= alone:
                i, j, k, m = np.int64(items[n]), np.int64(items[n + 1]), np.int64(items[n + 2]), np.int64(items[n + 3])
                has_i, has_j = _claim(factors, first + i), _claim(factors, first + j)
                has_k, has_m = _claim(factors, first + k), _claim(factors, first + m)
                all_four = has_i and has_j and has_k and has_m
                if all_four:
                    products = dot4(p, at, q, i * width, j * width, k * width, m * width, width)
                    (ei, ej, ek, em), keeps, gains = advance4(
                        state, decay, (i, j, k, m), ratings, n, bias, products, step, BIAS_RATE, adapt * norm
                    )
                    update4(
                        p, at, q, i * width, j * width, k * width, m * width, width,
                        _ONE - _FOUR * rate * factors_decay, (rate * ei, rate * ej, rate * ek, rate * em), keeps, gains,
                    )  # fmt: skip
                    bias += BIAS_RATE * rate * (ei + ej + ek + em - _FOUR * bias_decay * bias)
                    squares += ei * ei + ej * ej + ek * ek + em * em
                    accumulator += adapt * (
                        ei * ei * norms[i] + ej * ej * norms[j] + ek * ek * norms[k] + em * em * norms[m]
                    )
                    n += 4
                _give(factors, first + i, has_i)
                _give(factors, first + j, has_j)
                _give(factors, first + k, has_k)
                _give(factors, first + m, has_m)
                if all_four:
                    continue
                alone = n + 4
            i = np.int64(items[n])
            has_i = _claim(factors, first + i)
            known = state[i, BIAS]
            error = ratings[n] - bias - known - dot(p, at, q, i * width, width)
            keep, gain = _ONE - rate * factors_decay, rate * error
            item = item_step(known, state[i, ACCUMULATOR], decay, i, error, step, adapt, norm)
            if has_i:
                update(p, at, q, i * width, width, keep, gain, item[0], item[1])
                put_element(state_place, 2 * i + BIAS, known + item[2])
                put_element(state_place, 2 * i + ACCUMULATOR, state[i, ACCUMULATOR] + item[3])
                give(factors.claims, slot(factors, first + i))
            else:
                _train_aside(factors, states, first + i, user_place, at, keep, gain, item, spare)
            bias += BIAS_RATE * rate * (error - bias_decay * bias)
            squares += error * error
            accumulator += adapt * error * error * norms[i]
            n += 1
        user_state[u, BIAS], user_state[u, ACCUMULATOR] = bias, accumulator
        total += squares
    return total
