"""What a claimed addition is made of: claims taken and given back, and rows added and copied by SIMD, at *places*.

In compiled code a place is an address, in plain Python an array; indices count elements of it. An array that goes to a
call that may be skipped has its references counted in the loop around, which costs more than the addition of a row.

Each is a plain Python function with an overload onto an intrinsic, as those of `nbps.kernels.atomics` are.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from .atomics import compare_exchange, store_release
from .relaxed import shifted

_VECTOR_BYTES = 32


# --------------------------------------------------------------------------- plain Python meaning


def take(claims, index, me):
    """Claim the row of byte `index` for `me`, and return whether that was possible; later accesses stay after it."""
    return compare_exchange(claims, index, 0, me)


def give(claims, index):
    """Give a claim back; earlier accesses stay before it."""
    store_release(claims, index, 0)


def mark(marks, index):
    """Set a mark; earlier accesses stay before it."""
    store_release(marks, index, 1)


def word(place, index):
    """Return an int64 of this worker's own."""
    return place[index]


def set_word(place, index, value):
    """Set an int64 of this worker's own."""
    place[index] = value


def element(place, index, zero):
    """Return an element of the type of `zero`."""
    return place[index]


def put_element(place, index, value):
    """Set an element of the type of `value`."""
    place[index] = value


def fetch(place, index, zero):
    """Have the cache line of an element of the type of `zero` here, to be written to."""


def add_elements(target, first, source, start, stride, count, zero):
    """Add `count` elements of the type of `zero` from `start` of `source` on to those from `first` of `target` on.

    Those of `source` lie `stride` bytes apart.
    """
    for j in range(count):
        target[first + j] = target[first + j] + source[start + j]


def copy_elements(target, first, source, start, stride, count, zero):
    """Copy elements as `add_elements` adds them."""
    for j in range(count):
        target[first + j] = source[start + j]


def shift_elements(target, first, base, start, fresh, begin, count, zero):
    """Add ``fresh - base`` to elements of `target`; make them `fresh`, to the bit, where they are `base`. Then base is.

    `first`, `start` and `begin` are the first elements of the three.
    """
    for j in range(count):
        seen, known, new = target[first + j], base[start + j], fresh[begin + j]
        target[first + j] = new if seen == known else seen + (new - known)
        base[start + j] = new


def place_of(array):
    """Return the place of the first element of an array; of one with more than one dimension, which is contiguous."""
    return array if len(array.shape) == 1 else array.reshape(array.size)


def hold(array):
    """Keep an array whose place is used alive until here: its memory may be freed right after its last use."""


def call(function, table, row, source, start, stride, zero):
    """Call a kernel that raises nothing, and have the compiler know it.

    Where no path leaves a loop over rows, no references are counted for what `hold` holds: half of the speed.
    """
    return function(table, row, source, start, stride, zero)


def stride_of(array):
    """Return how many bytes apart the elements of an array, shape (n,), lie."""
    return array.itemsize


def size_of(zero):
    """Return how many bytes apart elements of the type of `zero` lie that are beside each other."""
    return 0  # nobody asks in plain Python


# --------------------------------------------------------------------------- LLVM

_BYTE, _INT32, _INT64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_I64 = types.int64


def _at(builder, place, index, kind, stride=None):
    """Pointer to element `index`, of LLVM type `kind`, of elements `stride` bytes apart, at an address."""
    if stride is None:
        return builder.gep(builder.inttoptr(place, kind.as_pointer()), [index])
    return builder.inttoptr(builder.add(place, builder.mul(index, stride)), kind.as_pointer())


@intrinsic
def _take(typingctx, claims, index, me):
    def codegen(context, builder, signature, args):
        new = builder.trunc(args[2], _BYTE)
        pair = builder.cmpxchg(_at(builder, *args[:2], _BYTE), ir.Constant(_BYTE, 0), new, "acquire", "monotonic")
        return builder.extract_value(pair, 1)

    return types.boolean(_I64, _I64, _I64), codegen


def _byte_setter(value):
    @intrinsic
    def emit(typingctx, place, index):
        def codegen(context, builder, signature, args):
            builder.store_atomic(ir.Constant(_BYTE, value), _at(builder, *args, _BYTE), "release", 1)
            return context.get_dummy_value()

        return types.void(_I64, _I64), codegen

    return emit


_give, _mark = _byte_setter(0), _byte_setter(1)


@intrinsic
def _word(typingctx, place, index):
    def codegen(context, builder, signature, args):
        return builder.load(_at(builder, *args, _INT64))

    return _I64(_I64, _I64), codegen


@intrinsic
def _set_word(typingctx, place, index, value):
    def codegen(context, builder, signature, args):
        builder.store(args[2], _at(builder, *args[:2], _INT64))
        return context.get_dummy_value()

    return types.void(_I64, _I64, _I64), codegen


@intrinsic
def _element(typingctx, place, index, zero):
    def codegen(context, builder, signature, args):
        return builder.load(_at(builder, *args[:2], args[2].type))

    return zero(_I64, _I64, zero), codegen


@intrinsic
def _put_element(typingctx, place, index, value):
    def codegen(context, builder, signature, args):
        builder.store(args[2], _at(builder, *args[:2], args[2].type))
        return context.get_dummy_value()

    return types.void(_I64, _I64, value), codegen


@intrinsic
def _fetch(typingctx, place, index, zero):
    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(ir.VoidType(), [_BYTE.as_pointer(), _INT32, _INT32, _INT32])
        hint = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        pointer = builder.bitcast(_at(builder, *args[:2], args[2].type), _BYTE.as_pointer())
        builder.call(hint, [pointer, *(ir.Constant(_INT32, flag) for flag in (1, 3, 1))])  # write, keep, data
        return context.get_dummy_value()

    return types.void(_I64, _I64, zero), codegen


def _place(builder, place, index, kind):
    """Address of an element."""
    return builder.ptrtoint(_at(builder, place, index, kind), _INT64)


def _whole_vectors(builder, stride, count, size):
    """Emit how many whole vectors there are in elements of `size` bytes; none if they do not lie side by side."""
    whole = builder.sdiv(count, ir.Constant(_INT64, _VECTOR_BYTES // size))
    return builder.select(builder.icmp_signed("==", stride, ir.Constant(_INT64, size)), whole, ir.Constant(_INT64, 0))


def _rest(builder, whole, lanes, count):
    """Loop over the elements after the whole vectors."""
    done = builder.mul(whole, ir.Constant(_INT64, lanes))
    return cgutils.for_range_slice(builder, done, count, ir.Constant(_INT64, 1), _INT64)


def _loop(is_sum):
    """Intrinsic for `add_elements` or `copy_elements`: 32 bytes at a time, then single elements."""

    @intrinsic
    def emit(typingctx, target, first, source, start, stride, count, zero):
        def codegen(context, builder, signature, args):
            kind, size = args[6].type, zero.bitwidth // 8
            add = builder.fadd if isinstance(zero, types.Float) else builder.add
            stride, count = args[4:6]
            target = _place(builder, *args[:2], kind)
            source = builder.add(args[2], builder.mul(args[3], stride))

            def one(p, q):
                value = builder.load(q, align=size)
                builder.store(add(builder.load(p, align=size), value) if is_sum else value, p, align=size)

            lanes = _VECTOR_BYTES // size
            whole = _whole_vectors(builder, stride, count, size)
            with cgutils.for_range(builder, whole) as loop:
                one(*(_at(builder, place, loop.index, ir.VectorType(kind, lanes)) for place in (target, source)))
            with _rest(builder, whole, lanes, count) as (k, _):
                one(_at(builder, target, k, kind), _at(builder, source, k, kind, stride))
            return context.get_dummy_value()

        return types.void(_I64, _I64, _I64, _I64, _I64, _I64, zero), codegen

    return emit


_add_elements, _copy_elements = _loop(is_sum=True), _loop(is_sum=False)


@intrinsic
def _shift_elements(typingctx, target, first, base, start, fresh, begin, count, zero):
    def codegen(context, builder, signature, args):
        kind, size, is_float = args[7].type, zero.bitwidth // 8, isinstance(zero, types.Float)
        places = [_place(builder, *args[k : k + 2], kind) for k in (0, 2, 4)]
        count, lanes = args[6], _VECTOR_BYTES // size

        def one(p, q, r):
            seen, known, new = (builder.load(place, align=size) for place in (p, q, r))
            builder.store(shifted(builder, seen, known, new, is_float), p, align=size)
            builder.store(new, q, align=size)

        whole = _whole_vectors(builder, ir.Constant(_INT64, size), count, size)
        with cgutils.for_range(builder, whole) as loop:
            one(*(_at(builder, place, loop.index, ir.VectorType(kind, lanes)) for place in places))
        with _rest(builder, whole, lanes, count) as (k, _):
            one(*(_at(builder, place, k, kind) for place in places))
        return context.get_dummy_value()

    return types.void(_I64, _I64, _I64, _I64, _I64, _I64, _I64, zero), codegen


@overload(take, inline="always")
def _(claims, index, me):
    return lambda claims, index, me: _take(claims, index, me)


@overload(give, inline="always")
def _(claims, index):
    return lambda claims, index: _give(claims, index)


@overload(mark, inline="always")
def _(marks, index):
    return lambda marks, index: _mark(marks, index)


@overload(word, inline="always")
def _(place, index):
    return lambda place, index: _word(place, index)


@overload(set_word, inline="always")
def _(place, index, value):
    return lambda place, index, value: _set_word(place, index, value)


@overload(element, inline="always")
def _(place, index, zero):
    return lambda place, index, zero: _element(place, index, zero)


@overload(put_element, inline="always")
def _(place, index, value):
    return lambda place, index, value: _put_element(place, index, value)


@overload(fetch, inline="always")
def _(place, index, zero):
    return lambda place, index, zero: _fetch(place, index, zero)


@overload(add_elements, inline="always")
def _(target, first, source, start, stride, count, zero):
    return lambda target, first, source, start, stride, count, zero: _add_elements(
        target, first, source, start, stride, count, zero
    )


@overload(copy_elements, inline="always")
def _(target, first, source, start, stride, count, zero):
    return lambda target, first, source, start, stride, count, zero: _copy_elements(
        target, first, source, start, stride, count, zero
    )


@overload(shift_elements, inline="always")
def _(target, first, base, start, fresh, begin, count, zero):
    return lambda target, first, base, start, fresh, begin, count, zero: _shift_elements(
        target, first, base, start, fresh, begin, count, zero
    )


@overload(place_of, inline="always")
def _(array):
    return lambda array: array.ctypes.data


@intrinsic
def _hold(typingctx, array):
    def codegen(context, builder, signature, args):
        return context.get_dummy_value()

    return types.void(array), codegen


@overload(hold, inline="always")
def _(array):
    return lambda array: _hold(array)


@intrinsic
def _call(typingctx, function, table, row, source, start, stride, zero):
    given = table, row, source, start, stride, zero
    typed = typingctx.resolve_function_type(function, given, {})

    def codegen(context, builder, signature, args):
        compiled = function.dispatcher.overloads[typed.args]
        context.add_linking_libs([compiled.library])
        values = [context.cast(builder, *cast) for cast in zip(args[1:], given, typed.args, strict=True)]
        return context.call_internal_no_propagate(builder, compiled.fndesc, typed, values)[1]

    return typed.return_type(function, *given), codegen


@overload(call, inline="always")
def _(function, table, row, source, start, stride, zero):
    return lambda function, table, row, source, start, stride, zero: _call(
        function, table, row, source, start, stride, zero
    )


@overload(stride_of, inline="always")
def _(array):
    size = array.dtype.bitwidth // 8
    return (lambda array: size) if array.layout == "C" else (lambda array: array.strides[0])


@overload(size_of, inline="always")
def _(zero):
    size = zero.bitwidth // 8
    return lambda zero: size
