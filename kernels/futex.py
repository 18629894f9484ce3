"""Sleep on a word of shared memory until another process wakes it: Linux futexes, called without the GIL.

The word is the low half of an int64 element: all machines that nbps supports are little-endian.
"""

from __future__ import annotations

import platform
import time

from numba import types
from numba.extending import overload

from .atomics import address, step

_SYS_FUTEX = 98 if platform.machine() in ("aarch64", "arm64", "riscv64") else 202
_SYS_WRITE = 64 if platform.machine() in ("aarch64", "arm64", "riscv64") else 1
_FUTEX_WAIT, _FUTEX_WAKE = 0, 1  # not the private forms: the word lies in memory that processes share
_EVERYONE = 2**31 - 1

# The C library's syscall(2), found by name in the running process: unlike a ctypes pointer, it can be cached.
_syscall = types.ExternalFunction(
    "syscall", types.int64(types.int64, types.intp, types.int64, types.int64, types.intp, types.intp, types.int64)
)


def futex_wait(array, index, expected, timeout_index):
    """Sleep while the low half of ``array[index]`` is that of `expected`.

    ``array[timeout_index]`` and the next element are seconds and nanoseconds of the longest sleep. Returns also
    without a reason now and then: look at what was waited for.
    """
    step()
    if array[index] == expected:
        time.sleep(0)


def futex_wake(array, index):
    """Wake everyone who sleeps on ``array[index]``."""
    step()


def write_one(array, descriptor_index, one_index):
    """Write the 8 bytes of ``array[one_index]`` to the descriptor ``array[descriptor_index]``: ring an eventfd."""
    step()


@overload(futex_wait, inline="always")
def _(array, index, expected, timeout_index):
    def wait(array, index, expected, timeout_index):
        _syscall(
            _SYS_FUTEX, address(array, index), _FUTEX_WAIT, expected & 0xFFFFFFFF, address(array, timeout_index), 0, 0
        )

    return wait


@overload(futex_wake, inline="always")
def _(array, index):
    def wake(array, index):
        _syscall(_SYS_FUTEX, address(array, index), _FUTEX_WAKE, _EVERYONE, 0, 0, 0)

    return wake


@overload(write_one, inline="always")
def _(array, descriptor_index, one_index):
    def write(array, descriptor_index, one_index):
        _syscall(_SYS_WRITE, array[descriptor_index], address(array, one_index), 8, 0, 0, 0)

    return write
