"""Dot products and fused updates of rows of factors, eight float32 at a time, at any width.

Rows lie in flat float32 arrays and are named by the offset of their first element; `n`, the padded width, is a
multiple of `LANES`. The arrays may be the same or overlap in memory as far as the compiler knows, which makes plain
loops reload every row (28 to 35 ns for a rating of rank 32); here all loads of a step come before its stores (18 to 19
ns). Sums are taken in another order than by the plain Python forms.
"""

from __future__ import annotations

import itertools

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from .mf_layout import LANES

_F32, _I64 = types.float32, types.int64
_FLOAT, _INT32, _INT64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, LANES)
_FAST = ("fast",)


# --------------------------------------------------------------------------- plain Python meaning


def dot(p, i, q, j, n):
    """Return ``p[i:i+n] . q[j:j+n]``."""
    return p.dtype.type(sum(p[i + t] * q[j + t] for t in range(n)))


def dot4(p, i, q, j0, j1, j2, j3, n):
    """Return the dot products of one row of `p` with four rows of `q`."""
    return dot(p, i, q, j0, n), dot(p, i, q, j1, n), dot(p, i, q, j2, n), dot(p, i, q, j3, n)


def update(p, i, q, j, n, keep, gain, keep_q, gain_q):
    """Set ``p = keep p + gain q`` and ``q = keep_q q + gain_q p``, both from the old rows."""
    for t in range(n):
        x, y = p[i + t], q[j + t]
        p[i + t] = keep * x + gain * y
        q[j + t] = keep_q * y + gain_q * x


def update4(p, i, q, j0, j1, j2, j3, n, keep, gains, keeps_q, gains_q):
    """Do `update` of one row of `p` and four rows of `q` at once, all from the old rows.

    `gains`, `keeps_q`, `gains_q` are four float32 each. Where two of the four rows are the same, the last one stays.
    """
    for t in range(n):
        x = p[i + t]
        new = keep * x
        old = [q[j + t] for j in (j0, j1, j2, j3)]
        for lane, j in enumerate((j0, j1, j2, j3)):
            new += gains[lane] * old[lane]
            q[j + t] = keeps_q[lane] * old[lane] + gains_q[lane] * x
        p[i + t] = new


# --------------------------------------------------------------------------- LLVM


def _row(context, builder, array_type, array, offset):
    """Pointer to vectors from element `offset` of a flat array on."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), _VECTOR.as_pointer())


def _shuffle(builder, x, y, lanes):
    return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(_INT32, len(lanes)), lanes))


def _splat(builder, x):
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    return _shuffle(builder, builder.insert_element(undefined, x, ir.Constant(_INT32, 0)), undefined, [0] * LANES)


def _load(builder, pointer):
    return builder.load(pointer, align=4)


def _multiply_add(builder, x, y, z):
    return builder.fadd(builder.fmul(x, y, flags=_FAST), z, flags=_FAST)


def _each_vector(builder, n, emit):
    """Emit ``emit(k, turn)`` for each vector k of a row, two in a pass, which are turns 0 and 1.

    Two sums, one a turn, wait half as long for each other's additions as one.
    """
    vectors = builder.sdiv(n, ir.Constant(_INT64, LANES))
    one = ir.Constant(_INT64, 1)
    with cgutils.for_range(builder, builder.ashr(vectors, one)) as loop:
        even = builder.shl(loop.index, one)
        emit(even, 0)
        emit(builder.add(even, one), 1)
    with builder.if_then(builder.trunc(vectors, ir.IntType(1))):
        emit(builder.sub(vectors, one), 0)


def _sums4(builder, vectors):
    """Horizontal sums of four vectors, by pairs."""
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    halves = [
        builder.fadd(
            _shuffle(builder, x, undefined, [0, 1, 2, 3]), _shuffle(builder, x, undefined, [4, 5, 6, 7]), flags=_FAST
        )
        for x in vectors
    ]

    def pairs(x, y):
        return builder.fadd(_shuffle(builder, x, y, [0, 2, 4, 6]), _shuffle(builder, x, y, [1, 3, 5, 7]), flags=_FAST)

    sums = pairs(pairs(halves[0], halves[1]), pairs(halves[2], halves[3]))
    return [builder.extract_element(sums, ir.Constant(_INT32, lane)) for lane in range(4)]


def _dots(builder, p, qs, n):
    """Vectors whose lanes add up to the dot products of `p` with each of `qs`."""
    totals = [[cgutils.alloca_once(builder, _VECTOR) for _ in range(2)] for _ in qs]
    for total in itertools.chain(*totals):
        builder.store(ir.Constant(_VECTOR, [0.0] * LANES), total)

    def emit(k, turn):
        x = _load(builder, builder.gep(p, [k]))
        for total, q in zip(totals, qs, strict=True):
            y = _load(builder, builder.gep(q, [k]))
            builder.store(_multiply_add(builder, x, y, builder.load(total[turn])), total[turn])

    _each_vector(builder, n, emit)
    return [builder.fadd(builder.load(even), builder.load(odd), flags=_FAST) for even, odd in totals]


def _emit_update(context, builder, p, qs, n, keep, gains, keeps_q, gains_q):
    keep = _splat(builder, keep)
    gains, keeps_q, gains_q = ([_splat(builder, x) for x in xs] for xs in (gains, keeps_q, gains_q))

    def emit(k, turn):
        p_place = builder.gep(p, [k])
        q_places = [builder.gep(q, [k]) for q in qs]
        x = _load(builder, p_place)
        ys = [_load(builder, place) for place in q_places]
        new = builder.fmul(keep, x, flags=_FAST)
        for gain, y in zip(gains, ys, strict=True):
            new = _multiply_add(builder, gain, y, new)
        builder.store(new, p_place, align=4)
        for place, y, keep_q, gain_q in zip(q_places, ys, keeps_q, gains_q, strict=True):
            kept = builder.fmul(keep_q, y, flags=_FAST)
            builder.store(_multiply_add(builder, gain_q, x, kept), place, align=4)

    _each_vector(builder, n, emit)
    return context.get_dummy_value()


@intrinsic
def _dot(typingctx, p, i, q, j, n):
    def codegen(context, builder, signature, args):
        rows = _row(context, builder, p, args[0], args[1]), _row(context, builder, q, args[2], args[3])
        (lanes,) = _dots(builder, rows[0], [rows[1]], args[4])
        return _sums4(builder, [lanes] * 4)[0]

    return _F32(p, _I64, q, _I64, _I64), codegen


@intrinsic
def _dot4(typingctx, p, i, q, j0, j1, j2, j3, n):
    four = types.UniTuple(_F32, 4)

    def codegen(context, builder, signature, args):
        row = _row(context, builder, p, args[0], args[1])
        rows = [_row(context, builder, q, args[2], offset) for offset in args[3:7]]
        return context.make_tuple(builder, four, _sums4(builder, _dots(builder, row, rows, args[7])))

    return four(p, _I64, q, _I64, _I64, _I64, _I64, _I64), codegen


@intrinsic
def _update(typingctx, p, i, q, j, n, keep, gain, keep_q, gain_q):
    def codegen(context, builder, signature, args):
        row = _row(context, builder, p, args[0], args[1])
        rows = [_row(context, builder, q, args[2], args[3])]
        return _emit_update(context, builder, row, rows, args[4], args[5], args[6:7], args[7:8], args[8:9])

    return types.void(p, _I64, q, _I64, _I64, _F32, _F32, _F32, _F32), codegen


@intrinsic
def _update4(typingctx, p, i, q, j0, j1, j2, j3, n, keep, gains, keeps_q, gains_q):
    four = types.UniTuple(_F32, 4)

    def codegen(context, builder, signature, args):
        row = _row(context, builder, p, args[0], args[1])
        rows = [_row(context, builder, q, args[2], offset) for offset in args[3:7]]
        factors = [cgutils.unpack_tuple(builder, value, 4) for value in args[9:12]]
        return _emit_update(context, builder, row, rows, args[7], args[8], *factors)

    return types.void(p, _I64, q, _I64, _I64, _I64, _I64, _I64, _F32, four, four, four), codegen


@overload(dot, inline="always")
def _(p, i, q, j, n):
    return lambda p, i, q, j, n: _dot(p, i, q, j, n)


@overload(dot4, inline="always")
def _(p, i, q, j0, j1, j2, j3, n):
    return lambda p, i, q, j0, j1, j2, j3, n: _dot4(p, i, q, j0, j1, j2, j3, n)


@overload(update, inline="always")
def _(p, i, q, j, n, keep, gain, keep_q, gain_q):
    return lambda p, i, q, j, n, keep, gain, keep_q, gain_q: _update(p, i, q, j, n, keep, gain, keep_q, gain_q)


@overload(update4, inline="always")
def _(p, i, q, j0, j1, j2, j3, n, keep, gains, keeps_q, gains_q):
    return lambda p, i, q, j0, j1, j2, j3, n, keep, gains, keeps_q, gains_q: _update4(
        p, i, q, j0, j1, j2, j3, n, keep, gains, keeps_q, gains_q
    )
