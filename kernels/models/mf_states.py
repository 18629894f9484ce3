"""The states of four items, advanced at once by the errors of four ratings.

One after the other their square roots and divisions take as long as the rows of factors at rank 32 (8.2 against 6.4 ns
a rating, Zen 4).
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from .mf_layout import ACCUMULATOR, BIAS, DECAY_WIDTH, FACTORS, STATE_WIDTH

_F32, _I64 = types.float32, types.int64
_FOUR_F32, _FOUR_I64 = types.UniTuple(_F32, 4), types.UniTuple(_I64, 4)
_LANES = [ir.Constant(ir.IntType(32), lane) for lane in range(4)]
_VECTOR, _PAIR = ir.VectorType(ir.FloatType(), 4), ir.VectorType(ir.FloatType(), 2)
_FAST = ("fast",)


# --------------------------------------------------------------------------- plain Python meaning


def advance4(state, decay, items, ratings, n, bias, products, step, bias_rate, growth):
    """Advance the states of four items by the error of one rating each.

    Parameters
    ----------
    state : float32[k, 2]
        Bias and accumulator.
    decay : float32[k, 2]
        L2 weights of bias and factors.
    items : four int64
        Where two are the same, the last one's state stays.
    ratings : float32[m]
        The four from `n` on.
    bias : float32
        Of the user.
    products : four float32
        Of the user's row with the items' rows.
    step, bias_rate : float32
    growth : float32
        What an accumulator grows by, for each square of an error.

    Returns
    -------
    errors, keeps, gains : four float32 each
        And the factors of the updates of the items' rows.
    """
    found = []
    for i, rating, product in zip(items, ratings[n : n + 4], products, strict=True):
        known, accumulator = state[i, BIAS], state[i, ACCUMULATOR]
        error, rate = rating - bias - known - product, step / np.sqrt(accumulator)
        advanced = (
            known + bias_rate * (rate * error - rate * decay[i, BIAS] * known),
            accumulator + growth * error * error,
        )
        found.append((i, advanced, (error, np.float32(1) - rate * decay[i, FACTORS], rate * error)))
    for i, advanced, _ in found:
        state[i, BIAS], state[i, ACCUMULATOR] = advanced
    return tuple(zip(*(factors for _, _, factors in found), strict=True))


# --------------------------------------------------------------------------- LLVM


def _shuffle(builder, x, y, lanes):
    return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes))


def _vector(builder, values):
    made = ir.Constant(_VECTOR, ir.Undefined)
    for lane, value in zip(_LANES, values, strict=True):
        made = builder.insert_element(made, value, lane)
    return made


def _columns(context, builder, array_type, array, rows):
    """Pointers to four rows of an array of two columns, and the columns of these rows."""
    pairs = builder.bitcast(context.make_array(array_type)(context, builder, array).data, _PAIR.as_pointer())
    places = [builder.gep(pairs, [row]) for row in rows]
    loaded = [builder.load(place, align=4) for place in places]
    low, high = (_shuffle(builder, x, y, [0, 2, 1, 3]) for x, y in (loaded[:2], loaded[2:]))
    return places, (_shuffle(builder, low, high, [0, 1, 4, 5]), _shuffle(builder, low, high, [2, 3, 6, 7]))


def _square_root(builder, x):
    kind = ir.FunctionType(_VECTOR, [_VECTOR])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.sqrt.v4f32"), [x], fastmath=_FAST)


@intrinsic
def _advance4(typingctx, state, decay, items, ratings, n, bias, products, step, bias_rate, growth):
    assert (BIAS, ACCUMULATOR, STATE_WIDTH) == (BIAS, FACTORS, DECAY_WIDTH) == (0, 1, 2)
    results = types.UniTuple(_FOUR_F32, 3)

    def codegen(context, builder, signature, args):
        def add(x, y):
            return builder.fadd(x, y, flags=_FAST)

        def subtract(x, y):
            return builder.fsub(x, y, flags=_FAST)

        def multiply(x, y):
            return builder.fmul(x, y, flags=_FAST)

        ids = cgutils.unpack_tuple(builder, args[2], 4)
        user_bias, step, bias_rate, growth = (_vector(builder, [x] * 4) for x in (args[5], *args[7:]))
        places, (bias, accumulator) = _columns(context, builder, state, args[0], ids)
        _, (bias_decay, factors_decay) = _columns(context, builder, decay, args[1], ids)

        rate = builder.fdiv(step, _square_root(builder, accumulator), flags=_FAST)
        first = builder.gep(context.make_array(ratings)(context, builder, args[3]).data, [args[4]])
        rating = builder.load(builder.bitcast(first, _VECTOR.as_pointer()), align=4)
        product = _vector(builder, cgutils.unpack_tuple(builder, args[6], 4))
        error = subtract(subtract(subtract(rating, user_bias), bias), product)
        gain = multiply(rate, error)
        keep = subtract(ir.Constant(_VECTOR, [1.0] * 4), multiply(rate, factors_decay))
        decayed = multiply(multiply(rate, bias_decay), bias)
        new_bias = add(bias, multiply(bias_rate, subtract(gain, decayed)))
        new_accumulator = add(accumulator, multiply(growth, multiply(error, error)))

        for lane, place in enumerate(places):
            builder.store(_shuffle(builder, new_bias, new_accumulator, [lane, 4 + lane]), place, align=4)
        fours = [[builder.extract_element(x, lane) for lane in _LANES] for x in (error, keep, gain)]
        return context.make_tuple(
            builder, results, [context.make_tuple(builder, _FOUR_F32, values) for values in fours]
        )

    return results(state, decay, _FOUR_I64, ratings, _I64, _F32, _FOUR_F32, _F32, _F32, _F32), codegen


@overload(advance4, inline="always")
def _(state, decay, items, ratings, n, bias, products, step, bias_rate, growth):
    return lambda state, decay, items, ratings, n, bias, products, step, bias_rate, growth: _advance4(
        state, decay, items, ratings, n, bias, products, step, bias_rate, growth
    )
