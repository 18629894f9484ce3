"""Atomic operations on words of shared arrays, which Numba lacks on CPUs, made from LLVM instructions.

Each is a plain Python function on ``(array, index, ...)`` with an overload onto an intrinsic. The Python
function is the sequential meaning; it calls `step` first, where a test can switch threads. The ordering is part
of the name:

- `load_acquire` sees everything that was written before the `store_release` whose value it reads.
- `fetch_add`, `exchange` and `compare_exchange` are sequentially consistent; `fence` orders a store before a
  later load, which neither acquire nor release does (x86 reorders those two).
- What ends in ``_relaxed`` orders nothing: `nbps.kernels.relaxed`.

Elements are 4 or 8 bytes wide and naturally aligned.
"""

from __future__ import annotations

import platform

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload


def step() -> None:
    """Do nothing; plain Python kernels call it before each atomic, so that a test can switch threads there."""


# --------------------------------------------------------------------------- plain Python meaning


def load_acquire(array, index):
    """Return ``array[index]``; later reads and writes stay after it."""
    step()
    return array[index]


def store_release(array, index, value):
    """Set ``array[index] = value``; earlier reads and writes stay before it."""
    step()
    array[index] = value


def fetch_add(array, index, value):
    """Add `value` to ``array[index]`` and return what was there; integers only."""
    step()
    old = array[index]
    array[index] = old + value
    return old


def exchange(array, index, value):
    """Set ``array[index] = value`` and return what was there; integers only."""
    step()
    old = array[index]
    array[index] = value
    return old


def compare_exchange(array, index, expected, desired):
    """Set ``array[index] = desired`` if it is `expected`; return whether it was; integers only."""
    step()
    if array[index] != expected:
        return False
    array[index] = desired
    return True


def fence():
    """Order every earlier read and write before every later one."""
    step()


def address(array, index):
    """Return the address of ``array[index]`` in bytes."""
    return array.ctypes.data + index * array.itemsize


def pause():
    """Tell the CPU that this is a spin loop."""
    step()


# --------------------------------------------------------------------------- LLVM


def pointer_to(context, builder, array_type, array, index):
    """Pointer to ``array[index]`` of a one-dimensional array; negative indices do not wrap."""
    view = context.make_array(array_type)(context, builder, array)
    return cgutils.get_item_pointer(context, builder, array_type, view, [index], wraparound=False)


def element_width(array_type) -> int:
    """Bytes of an element."""
    return array_type.dtype.bitwidth // 8


def holds_floats(array_type) -> bool:
    """Whether elements are floats, for which LLVM has other instructions."""
    return isinstance(array_type.dtype, types.Float)


@intrinsic
def _load_acquire(typingctx, array, index):
    def codegen(context, builder, signature, args):
        pointer = pointer_to(context, builder, array, args[0], args[1])
        if not holds_floats(array):
            return builder.load_atomic(pointer, "acquire", element_width(array))
        bits = ir.IntType(8 * element_width(array))
        value = builder.load_atomic(builder.bitcast(pointer, bits.as_pointer()), "acquire", element_width(array))
        return builder.bitcast(value, context.get_value_type(array.dtype))

    return array.dtype(array, types.intp), codegen


@intrinsic
def _store_release(typingctx, array, index, value):
    def codegen(context, builder, signature, args):
        pointer = pointer_to(context, builder, array, args[0], args[1])
        new = args[2]
        if holds_floats(array):
            bits = ir.IntType(8 * element_width(array))
            pointer, new = builder.bitcast(pointer, bits.as_pointer()), builder.bitcast(new, bits)
        builder.store_atomic(new, pointer, "release", element_width(array))
        return context.get_dummy_value()

    return types.void(array, types.intp, array.dtype), codegen


def _read_modify_write(operation):
    @intrinsic
    def emit(typingctx, array, index, value):
        def codegen(context, builder, signature, args):
            pointer = pointer_to(context, builder, array, args[0], args[1])
            return builder.atomic_rmw(operation, pointer, args[2], "seq_cst")

        return array.dtype(array, types.intp, array.dtype), codegen

    return emit


_fetch_add = _read_modify_write("add")
_exchange = _read_modify_write("xchg")


@intrinsic
def _compare_exchange(typingctx, array, index, expected, desired):
    def codegen(context, builder, signature, args):
        pointer = pointer_to(context, builder, array, args[0], args[1])
        pair = builder.cmpxchg(pointer, args[2], args[3], "seq_cst", "seq_cst")
        return builder.extract_value(pair, 1)

    return types.boolean(array, types.intp, array.dtype, array.dtype), codegen


@intrinsic
def _fence(typingctx):
    def codegen(context, builder, signature, args):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def _pause(typingctx):
    def codegen(context, builder, signature, args):
        if platform.machine() in ("x86_64", "AMD64"):
            hint = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(ir.VoidType(), []), "llvm.x86.sse2.pause"
            )
            builder.call(hint, [])
        elif platform.machine() in ("aarch64", "arm64"):
            hint = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(ir.VoidType(), [ir.IntType(32)]), "llvm.aarch64.hint"
            )
            builder.call(hint, [ir.Constant(ir.IntType(32), 1)])  # 1 is YIELD
        return context.get_dummy_value()

    return types.void(), codegen


@overload(load_acquire, inline="always")
def _(array, index):
    return lambda array, index: _load_acquire(array, index)


@overload(store_release, inline="always")
def _(array, index, value):
    return lambda array, index, value: _store_release(array, index, value)


@overload(fetch_add, inline="always")
def _(array, index, value):
    return lambda array, index, value: _fetch_add(array, index, value)


@overload(exchange, inline="always")
def _(array, index, value):
    return lambda array, index, value: _exchange(array, index, value)


@overload(compare_exchange, inline="always")
def _(array, index, expected, desired):
    return lambda array, index, expected, desired: _compare_exchange(array, index, expected, desired)


@overload(fence, inline="always")
def _():
    return lambda: _fence()


@overload(pause, inline="always")
def _():
    return lambda: _pause()


@overload(address, inline="always")
def _(array, index):
    return lambda array, index: array.ctypes.data + index * array.itemsize
