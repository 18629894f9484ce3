"""Matrix factorization by stochastic gradient descent: a block of ratings, and the error on others.

The model of rating y (standardised) is ``bias_u + bias_i + p_u . q_i``. Rows carry a state ``[bias, accumulator]``;
with error e the steps are, as in AdaGrad but with one accumulator a row,

    rate_x = step / sqrt(accumulator_x)
    p += rate_u (e q - decay_u p),   q += rate_i (e p - decay_i q)
    bias_x += BIAS_RATE rate_x (e - bias_decay_x bias_x)
    accumulator_x += adapt e^2 |other row|^2 / width

`decay` holds the L2 weights of a row's bias and of its factors; `adapt` is 1, or 0 for plain SGD. Ratings lie user by
user, so that a user's row stays in registers and cache; four of them are taken against one state of it. If one item
occurs twice among those four, one of its two updates is lost, deterministically.
"""

from __future__ import annotations

import numpy as np

from ..jit import Request, kernel
from ..rows import example_table
from .mf_layout import ACCUMULATOR, BIAS, DECAY_WIDTH, FACTORS, LANES, STATE_WIDTH
from .mf_lossless import sgd_block_lossless
from .mf_states import advance4
from .mf_steps import BIAS_RATE, item_step
from .vectors import dot, dot4, update, update4

__all__ = ["BIAS_RATE", "requests", "sgd_block", "sgd_block_lossless", "squared_error"]

_ONE, _FOUR = np.float32(1), np.float32(4)


@kernel(fastmath=True)
def _item_step(state, decay, i, error, step, adapt, user_norm):
    """Advance the state of item `i`; return the factors ``keep`` and ``gain`` of its row's update."""
    bias, accumulator = state[i, BIAS], state[i, ACCUMULATOR]
    keep, gain, to_bias, to_accumulator = item_step(bias, accumulator, decay, i, error, step, adapt, user_norm)
    state[i, BIAS] = bias + to_bias
    state[i, ACCUMULATOR] = accumulator + to_accumulator
    return keep, gain


# Long because it trains on four ratings at a time, and then on those that are left, in one block of registers.
@kernel(fastmath=True)
def sgd_block(starts, items, ratings, users, user_state, user_decay, rows, state, decay, norms, step, adapt):
    """Train on one block of ratings; the caller is the only writer of all rows in it.

    Parameters
    ----------
    starts : int64[n + 1]
        Where the ratings of each of the block's n users begin.
    items, ratings : int32[m], float32[m]
        Row of `rows` and standardised rating, user by user.
    users, rows : float32[n, width], float32[k, width]
        Factors of the users and of the block's items; width is a multiple of `vectors.LANES`.
    user_state, state : float32[n, 2], float32[k, 2]
        Bias and accumulator.
    user_decay, decay : float32[n, 2], float32[k, 2]
        L2 weights of bias and factors.
    norms : float32[k]
        Scratch: mean squares of the items' rows when the block began.
    step, adapt : float32

    Returns
    -------
    float
        Sum of squared errors, each before its rating was trained on.
    """
    width = users.shape[1]
    scale = _ONE / np.float32(width)
    p, q = users.reshape(users.size), rows.reshape(rows.size)
    for i in range(rows.shape[0]):
        norms[i] = dot(q, i * width, q, i * width, width) * scale
    total = 0.0
    for u in range(starts.size - 1):
        n, end = starts[u], starts[u + 1]
        if n == end:
            continue
        at = u * width
        bias, accumulator, squares = user_state[u, BIAS], user_state[u, ACCUMULATOR], np.float32(0)
        norm = dot(p, at, p, at, width) * scale
        bias_decay, factors_decay = user_decay[u, BIAS], user_decay[u, FACTORS]
        while n + 4 <= end:
            i, j, k, m = np.int64(items[n]), np.int64(items[n + 1]), np.int64(items[n + 2]), np.int64(items[n + 3])
            products = dot4(p, at, q, i * width, j * width, k * width, m * width, width)
            (ei, ej, ek, em), keeps, gains = advance4(
                state, decay, (i, j, k, m), ratings, n, bias, products, step, BIAS_RATE, adapt * norm
            )
            rate = step / np.sqrt(accumulator)
            update4(
                p, at, q, i * width, j * width, k * width, m * width, width, _ONE - _FOUR * rate * factors_decay,
                (rate * ei, rate * ej, rate * ek, rate * em), keeps, gains,
            )  # fmt: skip
            bias += BIAS_RATE * rate * (ei + ej + ek + em - _FOUR * bias_decay * bias)
            squares += ei * ei + ej * ej + ek * ek + em * em
            accumulator += adapt * (ei * ei * norms[i] + ej * ej * norms[j] + ek * ek * norms[k] + em * em * norms[m])
            n += 4
        while n < end:
            i = np.int64(items[n])
            rate = step / np.sqrt(accumulator)
            error = ratings[n] - bias - state[i, BIAS] - dot(p, at, q, i * width, width)
            keep, gain = _item_step(state, decay, i, error, step, adapt, norm)
            update(p, at, q, i * width, width, _ONE - rate * factors_decay, rate * error, keep, gain)
            bias += BIAS_RATE * rate * (error - bias_decay * bias)
            squares += error * error
            accumulator += adapt * error * error * norms[i]
            n += 1
        user_state[u, BIAS], user_state[u, ACCUMULATOR] = bias, accumulator
        total += squares
    return total


@kernel(fastmath=True)
def squared_error(user_rows, item_rows, ratings, users, user_state, rows, state):
    """Return the sum of squared errors over ratings given as (row of `users`, row of `rows`, standardised rating)."""
    width = users.shape[1]
    p, q = users.reshape(users.size), rows.reshape(rows.size)
    total = 0.0
    for n in range(ratings.size):
        u, i = np.int64(user_rows[n]), np.int64(item_rows[n])
        error = ratings[n] - user_state[u, BIAS] - state[i, BIAS] - dot(p, u * width, q, i * width, width)
        total += error * error
    return total


def requests(access: str) -> list[Request]:
    """Kernels that train on item tables of access mode `access`, and weigh the model."""
    rows, state = np.zeros((1, LANES), np.float32), np.zeros((1, STATE_WIDTH), np.float32)
    decay = np.zeros((1, DECAY_WIDTH), np.float32)
    decay.flags.writeable = False  # as what arrives with a call
    side = (rows, state, decay)
    starts, items, ratings = np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32)
    block = (starts, items, ratings, *side, *side, rows[0], np.float32(0), np.float32(0))
    item_rows, item_state = rows, state
    if access == "direct":
        tables = [example_table("float32", is_claimed=True, width=array.shape[1]) for array in side[:2]]
        item_rows, item_state = (table.values for table in tables)
        block = (*block[:6], item_rows, item_state, *block[8:], rows[0], 0, *(table.claimed for table in tables))
    train = (sgd_block_lossless if access == "direct" else sgd_block, block)
    return [train, (squared_error, (items, items, ratings, rows, state, item_rows, item_state))]
