"""The same bytes through plain sockets: what a machine can ship at best, from Python and in compiled loops.

Sockets block. Compiled loops call the C library without the GIL, which is the least that any program can do.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from numba import njit, types

from nbps.kernels.atomics import address

Bytes = npt.NDArray[np.uint8]

SOCKET_BYTES = 4 << 20  # of each buffer, as nbps asks for
_NO_SIGNAL = int(socket.MSG_NOSIGNAL)
_WAIT_ALL = int(socket.MSG_WAITALL)

_send = types.ExternalFunction("send", types.intp(types.int32, types.intp, types.intp, types.int32))
_recv = types.ExternalFunction("recv", types.intp(types.int32, types.intp, types.intp, types.int32))


@njit(nogil=True)
def _send_times(descriptor, data, times):
    for _ in range(times):
        done = 0
        while done < data.size:
            count = _send(descriptor, address(data, done), data.size - done, _NO_SIGNAL)
            if count <= 0:
                return False
            done += count
    return True


@njit(nogil=True)
def _receive_times(descriptor, data, times):
    for _ in range(times):
        done = 0
        while done < data.size:
            count = _recv(descriptor, address(data, done), data.size - done, _WAIT_ALL)
            if count <= 0:
                return False
            done += count
    return True


@njit(nogil=True)
def _call_times(descriptor, data, times):
    for _ in range(times):  # noqa: SIM110  (Numba compiles no generator expressions)
        if not (_send_times(descriptor, data, 1) and _receive_times(descriptor, data, 1)):
            return False
    return True


@njit(nogil=True)
def _answer_times(descriptor, data, times):
    for _ in range(times):  # noqa: SIM110
        if not (_receive_times(descriptor, data, 1) and _send_times(descriptor, data, 1)):
            return False
    return True


def send_python(connected: socket.socket, data: Bytes, times: int) -> None:
    """Send `data` so often."""
    for _ in range(times):
        connected.sendall(data)


def receive_python(connected: socket.socket, data: Bytes, times: int) -> None:
    """Receive into `data` until it was filled so often."""
    view = data.data
    for _ in range(times):
        done = 0
        while done < len(view):
            count = connected.recv_into(view[done:])
            if not count:
                raise ConnectionError("the other process has ended")
            done += count


def call_python(connected: socket.socket, data: Bytes, times: int) -> None:
    """Send `data` and wait for as many bytes, so often."""
    for _ in range(times):
        send_python(connected, data, 1)
        receive_python(connected, data, 1)


def answer_python(connected: socket.socket, data: Bytes, times: int) -> None:
    """Be the other side of `call_python`."""
    for _ in range(times):
        receive_python(connected, data, 1)
        send_python(connected, data, 1)


def _compiled(loop: Callable[..., bool]) -> Callable[[socket.socket, Bytes, int], None]:
    def run(connected: socket.socket, data: Bytes, times: int) -> None:
        if not loop(connected.fileno(), data, times):
            raise ConnectionError("the other process has ended")

    return run


send_compiled, receive_compiled = _compiled(_send_times), _compiled(_receive_times)
call_compiled, answer_compiled = _compiled(_call_times), _compiled(_answer_times)

# What one process does, and the other meanwhile.
STREAMS = {"Python": (send_python, receive_python), "compiled": (send_compiled, receive_compiled)}
TRIPS = {"Python": (call_python, answer_python), "compiled": (call_compiled, answer_compiled)}


def tune(unconnected: socket.socket) -> socket.socket:
    """Give a socket the options that nbps gives its own."""
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        unconnected.setsockopt(socket.SOL_SOCKET, option, SOCKET_BYTES)
    unconnected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return unconnected


def compile_loops() -> None:
    """Compile what is compiled, in this process."""
    data = np.zeros(1, np.uint8)
    for loop in (_send_times, _receive_times, _call_times, _answer_times):
        loop(-1, data, 0)
