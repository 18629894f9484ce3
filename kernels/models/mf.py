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
from .mf_steps import BIAS_RATE, mean_squares, train_row
from .vectors import dot

__all__ = ["BIAS_RATE", "requests", "sgd_block", "sgd_block_lossless", "squared_error"]


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
    p, q = users.reshape(users.size), rows.reshape(rows.size)
    mean_squares(q, width, norms)
    total = 0.0
    for u in range(starts.size - 1):
        n, end = starts[u], starts[u + 1]
        if n == end:
            continue
        bias, accumulator, squares = train_row(
            n, end, items, ratings, p, u * width, user_state[u, BIAS], user_state[u, ACCUMULATOR],
            (user_decay[u, BIAS], user_decay[u, FACTORS]), q, state, decay, width, norms, step, adapt, False,
        )  # fmt: skip
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
    starts, items, ratings = np.zeros(2, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32)
    block = (starts, items, ratings, *side, *side, rows[0], np.float32(0), np.float32(0))
    item_rows, item_state = rows, state
    if access == "direct":
        tables = [example_table("float32", is_claimed=True, width=array.shape[1]) for array in side[:2]]
        item_rows, item_state = (table.values for table in tables)
        items_side = item_rows, item_state, decay
        block = (*block[:3], *items_side, *side, *block[9:], rows[0], 0, *(table.claimed for table in tables))
    train = (sgd_block_lossless if access == "direct" else sgd_block, block)
    return [train, (squared_error, (items, items, ratings, rows, state, item_rows, item_state))]
