"""Calls of the C library for descriptors and time, without the GIL: what a compiled loop over connections is made of.

Each is a plain Python function with an overload onto the call itself, as in `nbps.kernels.futex`. Where a call fails
they return the error's number, negative.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from .atomics import address

READABLE = select.POLLIN
_EVENTS_SHIFT, _EVENTS = 16, 0xFFFF  # of a `struct pollfd` {int; short; short} seen as two int32: what happened
_CLOCK_MONOTONIC = 1  # as in Python's time.monotonic
_NO_WAIT, _NO_SIGNAL = int(socket.MSG_DONTWAIT), int(socket.MSG_NOSIGNAL)

# Found by name in the running process: unlike a ctypes pointer, it can be cached.
_poll = types.ExternalFunction("poll", types.int32(types.intp, types.uint64, types.int32))
_send = types.ExternalFunction("send", types.intp(types.int32, types.intp, types.intp, types.int32))
_recv = types.ExternalFunction("recv", types.intp(types.int32, types.intp, types.intp, types.int32))
_read = types.ExternalFunction("read", types.intp(types.int32, types.intp, types.intp))
_sched_yield = types.ExternalFunction("sched_yield", types.int32())
_clock_gettime = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.intp))
_errno_location = types.ExternalFunction("__errno_location", types.intp())

# --------------------------------------------------------------------------- plain Python meaning


def send_bytes(descriptor, data, begin, count):
    """Send `count` bytes of uint8 `data` from `begin` on, as many as go without waiting; return how many."""
    try:
        with socket.socket(fileno=os.dup(descriptor)) as same:
            return same.send(data[begin : begin + count], _NO_WAIT | _NO_SIGNAL)
    except OSError as error:
        return -(error.errno or errno.EIO)


def receive_bytes(descriptor, data):
    """Receive into uint8 `data` what is there, at most its size; return how many bytes, 0 if no more will come."""
    try:
        with socket.socket(fileno=os.dup(descriptor)) as same:
            return same.recv_into(data, 0, _NO_WAIT)
    except OSError as error:
        return -(error.errno or errno.EIO)


def wait_ready(polled, timeout_ms):
    """Wait until a descriptor of `polled` is ready, for so long at most; return how many are.

    `polled` is int32[n, 2], one ``struct pollfd`` a row; `what_is_ready` tells of one.
    """
    poll = select.poll()
    for descriptor, wanted in polled.tolist():
        poll.register(descriptor, wanted & _EVENTS)
    ready = dict(poll.poll(timeout_ms))
    polled[:, 1] &= _EVENTS
    for n, descriptor in enumerate(polled[:, 0].tolist()):
        polled[n, 1] |= ready.get(descriptor, 0) << _EVENTS_SHIFT
    return len(ready)


def clear_bell(descriptor, scratch):
    """Take the count of an eventfd that does not block; `scratch` is int64[2]."""
    try:
        scratch[0] = os.eventfd_read(descriptor)
    except BlockingIOError:
        scratch[0] = 0


def yield_slice():
    """Let another process go on."""
    os.sched_yield()


def monotonic(scratch):
    """Return the seconds that Python's `time.monotonic` counts; `scratch` is int64[2]."""
    return time.monotonic()


# --------------------------------------------------------------------------- the calls


@intrinsic
def _int32_at(typingctx, place):
    def codegen(context, builder, signature, args):
        return builder.load(builder.inttoptr(args[0], ir.IntType(32).as_pointer()))

    return types.int32(types.intp), codegen


@intrinsic
def _int64_at(typingctx, place):
    def codegen(context, builder, signature, args):
        pointer = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(types.intp), codegen


@overload(send_bytes)
def _(descriptor, data, begin, count):
    def send(descriptor, data, begin, count):
        sent = _send(descriptor, address(data, begin), count, _NO_WAIT | _NO_SIGNAL)
        return sent if sent >= 0 else -np.int64(_int32_at(_errno_location()))

    return send


@overload(receive_bytes)
def _(descriptor, data):
    def receive(descriptor, data):
        count = _recv(descriptor, address(data, 0), data.size, _NO_WAIT)
        return count if count >= 0 else -np.int64(_int32_at(_errno_location()))

    return receive


@overload(wait_ready)
def _(polled, timeout_ms):
    return lambda polled, timeout_ms: _poll(polled.ctypes.data, polled.shape[0], timeout_ms)


@overload(clear_bell)
def _(descriptor, scratch):
    def clear(descriptor, scratch):
        _read(descriptor, address(scratch, 0), 8)

    return clear


@overload(yield_slice)
def _():
    def give_way():
        _sched_yield()

    return give_way


@overload(monotonic)
def _(scratch):
    def now(scratch):
        _clock_gettime(_CLOCK_MONOTONIC, address(scratch, 0))
        return float(scratch[0]) + 1e-9 * float(scratch[1])

    return now


def what_is_ready(events):
    """Return what happened to a descriptor, of the second word of its row in `wait_ready`."""
    return (events >> _EVENTS_SHIFT) & _EVENTS


def word_at(place):
    """Return the int64 at the address `place`, in acquire order."""
    import ctypes

    return ctypes.c_int64.from_address(int(place)).value


@overload(what_is_ready)
def _(events):
    return lambda events: (events >> _EVENTS_SHIFT) & _EVENTS


@overload(word_at, inline="always")
def _(place):
    return lambda place: _int64_at(place)
