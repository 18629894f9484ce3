"""Steps of one row of factors by the ratings that it has with rows of the other side (`nbps.kernels.models.mf`)."""

from __future__ import annotations

import numpy as np

from ..jit import kernel
from .mf_layout import ACCUMULATOR, BIAS, FACTORS
from .mf_states import advance4
from .vectors import dot, dot4, update, update4

BIAS_RATE = np.float32(0.35)  # 0.2 to 0.6 are alike; from 1.5 on the first epoch overshoots
_ONE, _FOUR = np.float32(1), np.float32(4)


@kernel(fastmath=True)
def _advance(state, decay, i, error, step, adapt, norm):
    """Advance the state of row `i` of the other side; return the factors ``keep`` and ``gain`` of its update."""
    bias, accumulator = state[i, BIAS], state[i, ACCUMULATOR]
    rate = step / np.sqrt(accumulator)
    gain = rate * error
    state[i, BIAS] = bias + BIAS_RATE * (gain - rate * decay[i, BIAS] * bias)
    state[i, ACCUMULATOR] = accumulator + adapt * error * error * norm
    return _ONE - rate * decay[i, FACTORS], gain


@kernel(inline=True)
def _differ(i, j, k, m):
    return i != j and i != k and i != m and j != k and j != m and k != m


# One function, and inlined: bias and accumulator of the row stay in registers. Four ratings are taken at a time, the
# last ones singly.
@kernel(fastmath=True, inline=True)
def train_row(
    n, end, others, ratings, p, at, bias, accumulator, p_decay, q, state, decay, width, norms, step, adapt, is_lossless
):
    """Train on ratings `n` to `end`, which are of one row; the caller is the only writer of all rows here.

    Parameters
    ----------
    n, end : int
    others, ratings : int32[m], float32[m]
        Row of `q` and standardised rating.
    p, at : float32[any], int
        The row lies in `p` from `at` on.
    bias, accumulator : float32
        Its state.
    p_decay : (float32, float32)
        Its L2 weights of bias and factors.
    q : float32[k * width]
        Rows of the other side.
    state, decay : float32[k, 2]
    width : int
    norms : float32[k]
        Mean squares of the rows of `q`, of any moment.
    step, adapt : float32
    is_lossless : bool
        Whether a row that comes twice among four keeps both updates: these are then taken singly.

    Returns
    -------
    bias, accumulator : float32
    squares : float32
        Sum of squared errors, each before its rating was trained on.
    """
    squares = np.float32(0)
    norm = dot(p, at, p, at, width) / np.float32(width)
    bias_decay, factors_decay = p_decay
    while n < end:
        rate = step / np.sqrt(accumulator)
        i = np.int64(others[n])
        if n + 4 <= end:
            j, k, m = np.int64(others[n + 1]), np.int64(others[n + 2]), np.int64(others[n + 3])
            if not is_lossless or _differ(i, j, k, m):
                products = dot4(p, at, q, i * width, j * width, k * width, m * width, width)
                (ei, ej, ek, em), keeps, gains = advance4(
                    state, decay, (i, j, k, m), ratings, n, bias, products, step, BIAS_RATE, adapt * norm
                )
                update4(
                    p, at, q, i * width, j * width, k * width, m * width, width, _ONE - _FOUR * rate * factors_decay,
                    (rate * ei, rate * ej, rate * ek, rate * em), keeps, gains,
                )  # fmt: skip
                bias += BIAS_RATE * rate * (ei + ej + ek + em - _FOUR * bias_decay * bias)
                squares += ei * ei + ej * ej + ek * ek + em * em
                accumulator += adapt * (
                    ei * ei * norms[i] + ej * ej * norms[j] + ek * ek * norms[k] + em * em * norms[m]
                )
                n += 4
                continue
        error = ratings[n] - bias - state[i, BIAS] - dot(p, at, q, i * width, width)
        keep, gain = _advance(state, decay, i, error, step, adapt, norm)
        update(p, at, q, i * width, width, _ONE - rate * factors_decay, rate * error, keep, gain)
        bias += BIAS_RATE * rate * (error - bias_decay * bias)
        squares += error * error
        accumulator += adapt * error * error * norms[i]
        n += 1
    return bias, accumulator, squares


@kernel(fastmath=True)
def mean_squares(q, width, norms):
    """Fill `norms` with the mean squares of the rows that lie in `q`."""
    for i in range(q.size // width):
        norms[i] = dot(q, i * width, q, i * width, width) / np.float32(width)
