"""Additions to elements of shared arrays, one or a pack at a time, that lose no update and order nothing.

`add_relaxed` and `add_pack_relaxed`, `shift_relaxed` and `shift_pack_relaxed`: a `store_release` publishes them. They
are made as those in `nbps.kernels.atomics` are.

Elements are 4 or 8 bytes wide and naturally aligned. `add_pack_relaxed` adds `PACK_BYTES` at once by one
compare-and-swap (1.6 to 1.8 ns per float32 with 16 bytes on Zen 3 and Zen 5, against 5.0 for ``atomicrmw fadd``) and
needs the address aligned to that. Sixteen bytes need ``cmpxchg16b`` on x86-64; where the CPU has none, packs are 8
bytes wide. On arm64 LLVM makes a load-exclusive pair or ``casp``. ``NBPS_CAS_BYTES=8`` chooses the narrow form.
"""

from __future__ import annotations

import os
import platform

import llvmlite.binding as llvm
import numba
from llvmlite import ir
from numba import types
from numba.core.errors import TypingError
from numba.extending import intrinsic, overload

from .atomics import element_width, holds_floats, pointer_to, step


def _pack_bytes() -> int:
    narrow = os.environ.get("NBPS_CAS_BYTES")
    if narrow not in (None, "", "8", "16"):
        raise ValueError(f"NBPS_CAS_BYTES is {narrow!r}; expected 8 or 16")
    if narrow == "8":
        return 8
    if platform.machine() in ("x86_64", "AMD64"):
        # What Numba compiles for, which NUMBA_CPU_NAME may have made less than what this machine has.
        features = numba.config.CPU_FEATURES
        if features is None and numba.config.CPU_NAME is None:
            return 16 if llvm.get_host_cpu_features().get("cx16", False) else 8
        return 16 if "+cx16" in (features or "") else 8
    return 16 if platform.machine() in ("aarch64", "arm64") else 8


PACK_BYTES = _pack_bytes()


# --------------------------------------------------------------------------- plain Python meaning


def add_relaxed(array, index, value):
    """Add `value` to ``array[index]`` without loss."""
    step()
    array[index] += value


def add_pack_relaxed(array, index, deltas, delta_index):
    """Add the `PACK_BYTES` of `deltas` from `delta_index` on to `array` from `index` on, without loss.

    The address of ``array[index]`` is a multiple of `PACK_BYTES`. One pack is one step: no reader sees half.
    """
    step()
    for lane in range(PACK_BYTES // array.itemsize):
        array[index + lane] += deltas[delta_index + lane]


def shift_relaxed(array, index, old, new):
    """Add ``new - old`` to ``array[index]`` without loss; make it `new`, to the bit, if it is `old`."""
    step()
    array[index] = new if array[index] == old else array[index] + (new - old)


def shift_pack_relaxed(array, index, old, new, source_index):
    """Do `shift_relaxed` with each element of a pack, from ``old[source_index]`` and ``new[source_index]`` on.

    The address of ``array[index]`` is a multiple of `PACK_BYTES`. One pack is one step: no reader sees half.
    """
    step()
    for lane in range(PACK_BYTES // array.itemsize):
        seen, known, fresh = array[index + lane], old[source_index + lane], new[source_index + lane]
        array[index + lane] = fresh if seen == known else seen + (fresh - known)


def pack_lanes(array):
    """Return how many elements of `array` a pack holds; a constant in compiled code, where dividing would cost."""
    return PACK_BYTES // array.itemsize


# --------------------------------------------------------------------------- LLVM


def _update_by_compare_and_swap(builder, pointer, kind, bits, update):
    """Emit ``*pointer = update(*pointer)``, of type `kind`, as a loop on one compare-and-swap of `bits` bits.

    The first, plain read may be torn or old: the swap then fails and returns the true value.
    """
    word = ir.IntType(bits)
    pointer = builder.bitcast(pointer, word.as_pointer())
    first = builder.load(pointer, align=bits // 8)
    before = builder.block
    loop = builder.append_basic_block("cas.loop")
    done = builder.append_basic_block("cas.done")
    builder.branch(loop)
    builder.position_at_end(loop)
    seen = builder.phi(word)
    seen.add_incoming(first, before)
    wanted = builder.bitcast(update(builder.bitcast(seen, kind)), word)
    pair = builder.cmpxchg(pointer, seen, wanted, "monotonic", "monotonic")
    seen.add_incoming(builder.extract_value(pair, 0), builder.block)
    builder.cbranch(builder.extract_value(pair, 1), done, loop)
    builder.position_at_end(done)


@intrinsic
def _add_relaxed(typingctx, array, index, value):
    def codegen(context, builder, signature, args):
        pointer = pointer_to(context, builder, array, args[0], args[1])
        if holds_floats(array):
            # A loop of our own: `atomicrmw fadd` compiles to one as well, and was the slower of the two.
            _update_by_compare_and_swap(
                builder, pointer, args[2].type, 8 * element_width(array), lambda seen: builder.fadd(seen, args[2])
            )
        else:
            builder.atomic_rmw("add", pointer, args[2], "monotonic")
        return context.get_dummy_value()

    return types.void(array, types.intp, array.dtype), codegen


@intrinsic
def _add_pack_relaxed(typingctx, array, index, deltas, delta_index):
    if array.layout != "C":
        return None

    def codegen(context, builder, signature, args):
        target = pointer_to(context, builder, array, args[0], args[1])
        lanes = ir.VectorType(context.get_value_type(array.dtype), PACK_BYTES // element_width(array))
        if deltas.layout == "C":
            delta = _load_pack(context, builder, deltas, args[2], args[3], lanes)
        else:  # a column of a matrix, say
            delta = ir.Constant(lanes, ir.Undefined)
            for lane in range(lanes.count):
                position = builder.add(args[3], ir.Constant(args[3].type, lane))
                value = builder.load(pointer_to(context, builder, deltas, args[2], position))
                delta = builder.insert_element(delta, value, ir.Constant(ir.IntType(32), lane))
        add = builder.fadd if holds_floats(array) else builder.add
        _update_by_compare_and_swap(builder, target, lanes, 8 * PACK_BYTES, lambda seen: add(seen, delta))
        return context.get_dummy_value()

    return types.void(array, types.intp, deltas, types.intp), codegen


def _load_pack(context, builder, array_type, array, index, lanes):
    """Load a pack from an address that need not be aligned to it."""
    source = pointer_to(context, builder, array_type, array, index)
    return builder.load(builder.bitcast(source, lanes.as_pointer()), align=element_width(array_type))


def shifted(builder, seen, old, new, is_float):
    """Emit ``new if seen == old else seen + (new - old)``, for a value or a pack."""
    add, subtract = (builder.fadd, builder.fsub) if is_float else (builder.add, builder.sub)
    same = builder.fcmp_ordered("==", seen, old) if is_float else builder.icmp_signed("==", seen, old)
    return builder.select(same, new, add(seen, subtract(new, old)))


@intrinsic
def _shift_relaxed(typingctx, array, index, old, new):
    def codegen(context, builder, signature, args):
        pointer = pointer_to(context, builder, array, args[0], args[1])
        _update_by_compare_and_swap(
            builder, pointer, args[2].type, 8 * element_width(array),
            lambda seen: shifted(builder, seen, args[2], args[3], holds_floats(array)),
        )  # fmt: skip
        return context.get_dummy_value()

    return types.void(array, types.intp, array.dtype, array.dtype), codegen


@intrinsic
def _shift_pack_relaxed(typingctx, array, index, old, new, source_index):
    if not array.layout == old.layout == new.layout == "C":
        return None

    def codegen(context, builder, signature, args):
        target = pointer_to(context, builder, array, args[0], args[1])
        lanes = ir.VectorType(context.get_value_type(array.dtype), PACK_BYTES // element_width(array))
        known = _load_pack(context, builder, old, args[2], args[4], lanes)
        fresh = _load_pack(context, builder, new, args[3], args[4], lanes)
        _update_by_compare_and_swap(
            builder, target, lanes, 8 * PACK_BYTES,
            lambda seen: shifted(builder, seen, known, fresh, holds_floats(array)),
        )  # fmt: skip
        return context.get_dummy_value()

    return types.void(array, types.intp, old, new, types.intp), codegen


def _check_writable(array) -> None:
    """Refuse rows that are claimed (`nbps.kernels.claims`): a claimant's plain stores would undo what is added here."""
    if not array.mutable:
        raise TypingError(
            "these rows are read-only: additions to them go through inc_row or inc_rows of nbps.kernels, a whole row "
            "at a time, with zeros where nothing is to be added"
        )


@overload(add_relaxed, inline="always")
def _(array, index, value):
    _check_writable(array)
    return lambda array, index, value: _add_relaxed(array, index, value)


@overload(add_pack_relaxed, inline="always")
def _(array, index, deltas, delta_index):
    _check_writable(array)
    if array.dtype != deltas.dtype:
        raise TypingError(f"the deltas are {deltas.dtype}, the rows they go to {array.dtype}: make them {array.dtype}")
    return lambda array, index, deltas, delta_index: _add_pack_relaxed(array, index, deltas, delta_index)


@overload(shift_relaxed, inline="always")
def _(array, index, old, new):
    return lambda array, index, old, new: _shift_relaxed(array, index, old, new)


@overload(shift_pack_relaxed, inline="always")
def _(array, index, old, new, source_index):
    return lambda array, index, old, new, source_index: _shift_pack_relaxed(array, index, old, new, source_index)


@overload(pack_lanes)
def _(array):
    lanes = PACK_BYTES // element_width(array)
    return lambda array: lanes
