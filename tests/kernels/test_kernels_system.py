"""Calls of the C library, compiled and in plain Python: both do the same, and say by numbers what fails."""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Iterator

import numba
import numpy as np
import pytest

from nbps.kernels import system


@numba.njit
def _send(descriptor, data, begin, count):
    return system.send_bytes(descriptor, data, begin, count)


@numba.njit
def _receive(descriptor, data):
    return system.receive_bytes(descriptor, data)


@numba.njit
def _wait(polled, timeout_ms):
    return system.wait_ready(polled, timeout_ms)


@numba.njit
def _ready(events):
    return system.what_is_ready(events)


@numba.njit
def _clear(descriptor, scratch):
    system.clear_bell(descriptor, scratch)


@numba.njit
def _now(scratch):
    system.yield_slice()
    return system.monotonic(scratch)


@numba.njit
def _word(place):
    return system.word_at(place)


@pytest.fixture(params=["compiled", "plain"])
def form(request):
    """Return what takes a function in one of its two forms."""
    return (lambda function: function) if request.param == "compiled" else (lambda function: function.py_func)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets that do not block."""
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    yield ends
    for end in ends:
        end.close()


def test_bytes_are_sent_and_received(form, pair):
    """From where it is said on, so many; and no more than there is room for."""
    send, receive = form(_send), form(_receive)
    ours, theirs = pair
    assert send(ours.fileno(), np.arange(10, dtype=np.uint8), 3, 5) == 5
    data = np.zeros(4, np.uint8)
    assert receive(theirs.fileno(), data) == 4
    assert data.tolist() == [3, 4, 5, 6]
    assert receive(theirs.fileno(), data) == 1
    assert data.tolist() == [7, 4, 5, 6]


def test_what_cannot_be_now_and_what_failed_is_told_by_numbers(form, pair):
    """Nothing there, no room, an end, and one that is gone; no signal kills the process."""
    send, receive = form(_send), form(_receive)
    ours, theirs = pair
    data = np.zeros(1 << 16, np.uint8)
    assert receive(ours.fileno(), data) == -errno.EAGAIN
    while (sent := send(ours.fileno(), data, 0, data.size)) > 0:
        pass
    assert sent == -errno.EAGAIN
    theirs.close()
    assert send(ours.fileno(), data, 0, 8) == -errno.EPIPE
    assert receive(ours.fileno(), data) in (0, -errno.ECONNRESET)
    assert receive(-1, data) == -errno.EBADF


def test_a_poll_says_which_descriptors_are_ready_and_for_what(form, pair):
    """Of those that are not it says nothing, though it did before; it waits no longer than it may."""
    wait, ready = form(_wait), form(_ready)
    ours, theirs = pair
    polled = np.array([(ours.fileno(), select.POLLIN), (theirs.fileno(), select.POLLIN | select.POLLOUT)], np.int32)
    assert wait(polled, 0) == 1
    assert [ready(events) for events in polled[:, 1]] == [0, select.POLLOUT]
    theirs.send(b"x")
    assert wait(polled[:1], 1000) == 1
    assert ready(polled[0, 1]) == select.POLLIN
    ours.recv(1)
    assert wait(polled[:1], 1) == 0
    assert ready(polled[0, 1]) == 0
    theirs.close()
    assert wait(polled[:1], 0) == 1
    assert ready(polled[0, 1]) == select.POLLIN | select.POLLHUP


def test_a_bell_is_cleared(form):
    """Its descriptor polls readable no more; one that has not rung is no error."""
    clear, bell = form(_clear), os.eventfd(0, os.EFD_NONBLOCK)
    os.eventfd_write(bell, 3)
    for _ in range(2):
        clear(bell, np.zeros(2, np.int64))
        with pytest.raises(BlockingIOError):
            os.eventfd_read(bell)
    os.close(bell)


def test_time_is_that_of_python(form):
    """Between two looks of Python's own."""
    now = form(_now)
    before = time.monotonic()
    found = now(np.zeros(2, np.int64))
    assert before <= found + 1e-6 <= time.monotonic() + 2e-6


def test_a_word_is_read_by_its_address(form):
    """Each of an array, as it is now."""
    word, words = form(_word), np.array([5, -7], np.int64)
    assert [word(words.ctypes.data + 8 * n) for n in range(2)] == [5, -7]
    words[1] = 2**62
    assert word(words.ctypes.data + 8) == 2**62
