"""Stochastic gradient descent on items that other workers train at the same time; none of their updates is lost.

What `nbps.kernels.models.mf` says of `sgd_block` holds here too, with the sides exchanged: ratings lie item by item,
and four users are taken against one state of an item. So one claim (`nbps.kernels.claims`) covers all that a worker
has to add to an item at a time: its row of factors and its state, rows of two tables of the same number. Users are the
worker's own. User by user every rating would need a claim, which takes half as long as its training (ml-1m, rank 32,
two threads, best of 12 turns, M ratings/s: 257 without claims, 151 with them user by user, 246 item by item).

Where another worker has claimed an item, its ratings are trained on with a copy of it, and what has changed is put
aside, of both tables, and added later. Rows are read as they are in the tables: they may lack for a moment what this
worker has put aside, which `nbps.kernels.get_row` would add.
"""

from __future__ import annotations

import numpy as np

from ..claim_layout import COUNT, SINCE, SPREAD
from ..claims import EVERY, put_aside, retry, slot
from ..jit import kernel
from ..places import copy_elements, give, place_of, put_element, set_word, size_of, take, word
from .mf_layout import ACCUMULATOR, BIAS, FACTORS, STATE_WIDTH
from .mf_steps import mean_squares, train_row

UNDER_ONE_CLAIM = 256  # ratings, at most: others put aside meanwhile, and clocks wait; it takes 2 us at rank 32
_ZERO = np.float32(0)


@kernel
def _retry_now_and_then(factors, states):
    since = word(factors.words, SINCE) + 1
    set_word(factors.words, SINCE, since)
    if since >= EVERY:
        retry(factors, _ZERO)
        retry(states, _ZERO)


@kernel(fastmath=True)
def _train_aside(
    n, end, others, ratings, item, bias, accumulator, item_decay, q, state, decay, norms, step, adapt,
    copies, factors, states,
):  # fmt: skip
    """Train on ratings of an item that is claimed: their users' rows now, and the item's later."""
    width = factors.width
    place = place_of(copies)
    copy_elements(place, width, factors.values, item * width, size_of(_ZERO), width, _ZERO)
    for t in range(width):
        copies[t] = copies[width + t]
    new_bias, new_accumulator, squares = train_row(
        n, end, others, ratings, copies, 0, bias, accumulator, item_decay, q, state, decay, width, norms, step, adapt,
        True,
    )  # fmt: skip
    for t in range(width):
        copies[t] -= copies[width + t]
    put_aside(factors, item, place, 0, size_of(_ZERO), _ZERO)
    copies[BIAS], copies[ACCUMULATOR] = new_bias - bias, new_accumulator - accumulator
    put_aside(states, item, place, 0, size_of(_ZERO), _ZERO)
    return squares


@kernel(fastmath=True)
def sgd_block_lossless(
    starts, others, ratings, rows, state, decay, users, user_state, user_decay, norms, step, adapt,
    copies, first, factors, states,
):  # fmt: skip
    """Train on one block of ratings while other workers train on the same items; loses none of their updates.

    Parameters
    ----------
    starts : int64[n + 1]
        Where the ratings of each of the block's n items begin.
    others, ratings : int32[m], float32[m]
        Row of `users` and standardised rating, item by item.
    rows, state, decay : float32[n, width], float32[n, 2], float32[n, 2]
        Factors of the items, bias and accumulator, and L2 weights: of the first two, rows `first` and later ones of
        the tables `factors` and `states`.
    users, user_state, user_decay : float32[k, width], float32[k, 2], float32[k, 2]
        The same of users whose only writer is the caller.
    norms : float32[k]
        Scratch.
    step, adapt : float32
    copies : float32[2 * width]
        Scratch.
    first : int
    factors, states : nbps.kernels.claims.Claimed
        Of two tables with the same claims, those of one job.

    Returns
    -------
    float
        Sum of squared errors, each before its rating was trained on.
    """
    n_items, width = rows.shape
    p, q, state_place = rows.reshape(rows.size), users.reshape(users.size), place_of(state)
    mean_squares(q, width, norms)
    # Workers in the same block begin at different items, so that they seldom want the same one.
    shift = (((factors.me * SPREAD) & 0xFFFFFFFF) * n_items) >> 32
    total = 0.0
    for turn in range(n_items):
        i = turn + shift
        if i >= n_items:
            i -= n_items
        n, last = starts[i], starts[i + 1]
        item_decay = decay[i, BIAS], decay[i, FACTORS]
        while n < last:
            end = min(last, n + UNDER_ONE_CLAIM)
            if word(factors.words, COUNT) + word(states.words, COUNT) > 0:
                _retry_now_and_then(factors, states)
            has_claim = take(factors.claims, slot(factors, first + i), factors.me)
            bias, accumulator = state[i, BIAS], state[i, ACCUMULATOR]
            if has_claim:
                bias, accumulator, squares = train_row(
                    n, end, others, ratings, p, i * width, bias, accumulator, item_decay, q, user_state, user_decay,
                    width, norms, step, adapt, True,
                )  # fmt: skip
                put_element(state_place, STATE_WIDTH * i + BIAS, bias)
                put_element(state_place, STATE_WIDTH * i + ACCUMULATOR, accumulator)
                give(factors.claims, slot(factors, first + i))
            else:
                squares = _train_aside(
                    n, end, others, ratings, first + i, bias, accumulator, item_decay, q, user_state, user_decay,
                    norms, step, adapt, copies, factors, states,
                )  # fmt: skip
            total += squares
            n = end
    return total
