"""Sums over the topics of a word and of a document, `LANES` topics at a time.

Numba leaves loops of a fixed length of 16 scalar, or makes vectors across them: sampling took twice as long. Sums are
taken in another order than by the plain Python forms.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from .lda_layout import LANES
from .topic_lists import count_of, topic_of

_F32, _I64 = types.float32, types.int64
_FLOAT, _INT32, _INT64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_FLOATS, _INT32S = ir.VectorType(_FLOAT, LANES), ir.VectorType(_INT32, LANES)
_FAST = ("fast",)
_ZERO = np.float32(0)


# --------------------------------------------------------------------------- plain Python meaning


def weigh(counts, at, inverse, alpha, beta, q, sums):
    """Set ``q = (counts + beta) * inverse`` and the sums of ``alpha q`` over `LANES` topics each; return their sum.

    Parameters
    ----------
    counts : int32[m]
        Those of the word from `at` on.
    at : int
    inverse, alpha : float32[width]
    beta : float32
    q, sums : float32[width], float32[width / LANES]
        Results.
    """
    total = _ZERO
    for b in range(sums.size):
        block = slice(b * LANES, (b + 1) * LANES)
        q[block] = (counts[at + b * LANES : at + (b + 1) * LANES].astype(np.float32) + beta) * inverse[block]
        sums[b] = (alpha[block] * q[block]).sum()
        total += sums[b]
    return total


def list_sum(lists, start, size, q, topic):
    """Return the sum of ``count * q`` over a document's list, and the count of `topic`, float32 each.

    Parameters
    ----------
    lists : uint32[m] or uint64[m]
        Entries from `start` on, `size` of them, and zeros up to a multiple of `LANES`.
    start, size : int
    q : float32[width]
    topic : int
    """
    total, own = _ZERO, _ZERO
    for each in lists[start : start + size]:
        total += np.float32(count_of(each)) * q[topic_of(each)]
        own += np.float32(count_of(each)) if topic_of(each) == topic else _ZERO
    return total, own


# --------------------------------------------------------------------------- LLVM


def _data(context, builder, kind, array):
    return context.make_array(kind)(context, builder, array).data


def _size(context, builder, kind, array):
    return builder.extract_value(context.make_array(kind)(context, builder, array).shape, 0)


def _constant(number):
    return ir.Constant(_INT64, number)


def _lane(number):
    return ir.Constant(_INT32, number)


def _vector_at(builder, data, index, kind):
    """Load `LANES` elements from one on."""
    return builder.load(builder.bitcast(builder.gep(data, [index]), kind.as_pointer()), align=4)


def _splat(builder, x, kind):
    undefined = ir.Constant(kind, ir.Undefined)
    one = builder.insert_element(undefined, x, _lane(0))
    return builder.shuffle_vector(one, undefined, ir.Constant(_INT32S, [0] * LANES))


def _add(builder, x, y):
    return builder.fadd(x, y, flags=_FAST)


def _sum_of(builder, vector):
    """Add up the lanes, by halves."""
    size = LANES
    while size > 1:
        size //= 2
        undefined, kind = ir.Constant(vector.type, ir.Undefined), ir.VectorType(_INT32, size)
        halves = [ir.Constant(kind, [*range(first, first + size)]) for first in (0, size)]
        vector = _add(builder, *(builder.shuffle_vector(vector, undefined, half) for half in halves))
    return builder.extract_element(vector, _lane(0))


def _variable(builder, value):
    place = cgutils.alloca_once(builder, value.type)
    builder.store(value, place)
    return place


def _zeros(builder):
    return _variable(builder, ir.Constant(_FLOATS, [0.0] * LANES))


def _vectors(builder, size):
    """Return how many vectors hold so many elements."""
    return builder.udiv(builder.add(size, _constant(LANES - 1)), _constant(LANES))


def _entries(builder, data, index, bits):
    """Load `LANES` entries and take them apart: topics, counts."""
    kind = ir.VectorType(ir.IntType(bits), LANES)
    entries, half = _vector_at(builder, data, index, kind), ir.Constant(kind, [bits // 2] * LANES)
    parts = builder.lshr(entries, half), builder.lshr(builder.shl(entries, half), half)
    return [part if bits == _INT32.width else builder.trunc(part, _INT32S) for part in parts]


def _gathered(builder, data, indices):
    """Load the elements at `LANES` indices, each for itself: it is no slower than an instruction that gathers."""
    found = ir.Constant(_FLOATS, ir.Undefined)
    for lane in map(_lane, range(LANES)):
        index = builder.zext(builder.extract_element(indices, lane), _INT64)
        found = builder.insert_element(found, builder.load(builder.gep(data, [index])), lane)
    return found


@intrinsic
def _weigh(typingctx, counts, at, inverse, alpha, beta, q, sums):
    def codegen(context, builder, signature, args):
        counted, reciprocals, priors, weights, out = (
            _data(context, builder, signature.args[n], args[n]) for n in (0, 2, 3, 5, 6)
        )
        total, added = _zeros(builder), _splat(builder, args[4], _FLOATS)
        size = _size(context, builder, signature.args[5], args[5])
        with cgutils.for_range(builder, _vectors(builder, size)) as loop:
            first = builder.mul(loop.index, _constant(LANES))
            found = builder.sitofp(_vector_at(builder, counted, builder.add(args[1], first), _INT32S), _FLOATS)
            found = _add(builder, found, added)
            found = builder.fmul(found, _vector_at(builder, reciprocals, first, _FLOATS), flags=_FAST)
            builder.store(found, builder.bitcast(builder.gep(weights, [first]), _FLOATS.as_pointer()), align=4)
            found = builder.fmul(found, _vector_at(builder, priors, first, _FLOATS), flags=_FAST)
            builder.store(_sum_of(builder, found), builder.gep(out, [loop.index]))
            builder.store(_add(builder, builder.load(total), found), total)
        return _sum_of(builder, builder.load(total))

    return _F32(counts, _I64, inverse, alpha, _F32, q, sums), codegen


@intrinsic
def _list_sum(typingctx, lists, start, size, q, topic):
    pair = types.UniTuple(_F32, 2)

    def codegen(context, builder, signature, args):
        data, weights = (_data(context, builder, signature.args[n], args[n]) for n in (0, 3))
        wanted = _splat(builder, builder.trunc(args[4], _INT32), _INT32S)
        total, own = _zeros(builder), _zeros(builder)
        with cgutils.for_range(builder, _vectors(builder, args[2])) as loop:
            index = builder.add(args[1], builder.mul(loop.index, _constant(LANES)))
            topics, counts = _entries(builder, data, index, lists.dtype.bitwidth)
            counts = builder.sitofp(counts, _FLOATS)
            masses = builder.fmul(counts, _gathered(builder, weights, topics), flags=_FAST)
            builder.store(_add(builder, builder.load(total), masses), total)
            is_own = builder.icmp_unsigned("==", topics, wanted)
            found = builder.select(is_own, counts, ir.Constant(_FLOATS, [0.0] * LANES))
            builder.store(_add(builder, builder.load(own), found), own)
        return context.make_tuple(builder, pair, [_sum_of(builder, builder.load(place)) for place in (total, own)])

    return pair(lists, _I64, _I64, q, _I64), codegen


@overload(weigh, inline="always")
def _(counts, at, inverse, alpha, beta, q, sums):
    return lambda counts, at, inverse, alpha, beta, q, sums: _weigh(counts, at, inverse, alpha, beta, q, sums)


@overload(list_sum, inline="always")
def _(lists, start, size, q, topic):
    return lambda lists, start, size, q, topic: _list_sum(lists, start, size, q, topic)
