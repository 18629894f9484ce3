"""Shared-memory connections in every schedule: no frame lost or torn, no wake-up lost; planted bugs are found."""

from __future__ import annotations

import pytest

from nbps.kernels.atomics import load_acquire, store_release
from nbps.kernels.ring import DONE, WAKE, copy_bytes, is_due, put, take
from nbps.testing.consistency.interleave import Order
from nbps.transport.carriers import shm_connection
from nbps.transport.carriers.shm_connection import ShmConnection
from support import shm_threads
from support.shm_threads import Pair

WEAKEST = Order.PSO  # allows whatever the others do


def nothing(*_):
    """Stand in for an operation that was forgotten."""


def never(*_):
    """Stand in for a question that is always answered with no."""
    return False


def store_plainly(array, index, value):
    array[index] = value


def explore_frames(monkeypatch, order, capacity, frames, queue_bytes=100, **planted):
    """Send `frames` from one end, receive them at the other, both in a poll loop."""
    pair = Pair(monkeypatch, order, capacity, **planted)
    pair.machine.thread(lambda: pair.converse(0, frames, 0, queue_bytes=queue_bytes))
    pair.machine.thread(lambda: pair.converse(1, [], len(frames)))
    expected = ((), tuple(frames))
    return pair.machine.explore(lambda cells, returned: None if returned == expected else f"received {returned[1]}")


@pytest.mark.parametrize(
    ("capacity", "frames", "joined"),
    [(2, [b"ab"], True), (2, [b"ab"], False), (2, [b"", b"a"], True), (4, [b"", b"ab"], True)],
    ids=["larger than the ring", "in two buffers", "over the end", "exactly full"],
)
def test_frames_arrive_whole_and_nobody_sleeps_for_good(monkeypatch, capacity, frames, joined):
    """A frame there in every schedule: in pieces, over the ring's end, with both ends asleep in between."""
    if not joined:
        monkeypatch.setattr(shm_connection, "_JOINED_BYTES", -1)
    result = explore_frames(monkeypatch, WEAKEST, capacity, frames)
    assert result.failures == []
    assert result.states > 10_000


@pytest.mark.slow
def test_who_was_refused_is_told_of_room(monkeypatch):
    """A frame that a full queue refuses is sent after the descriptor polled readable, in every schedule."""
    assert explore_frames(monkeypatch, WEAKEST, 1, [b"", b"", b""], queue_bytes=1).failures == []


def test_both_ends_send_at_once(monkeypatch):
    """A bell may be for bytes or for room; one end needs both, and does not sleep for good."""
    pair = Pair(monkeypatch, WEAKEST, 2)
    pair.machine.thread(lambda: pair.converse(0, [b"ab"], 1))
    pair.machine.thread(lambda: pair.converse(1, [b""], 1))
    result = pair.machine.explore(lambda cells, returned: None if returned == ((b"",), (b"ab",)) else f"{returned}")
    assert result.failures == []


def test_a_closed_end_has_sent_its_frames(monkeypatch):
    """What was sent before the end is received before the end, in every schedule."""
    result = explore_end(monkeypatch, WEAKEST, ShmConnection)
    assert result.failures == []


def explore_end(monkeypatch, order, connection):
    """Send two frames, close, and receive until the connection is lost."""
    pair = Pair(monkeypatch, order, 4, connection=connection)
    frames = (b"a", b"")
    pair.machine.thread(lambda: pair.send_and_close(0, frames))
    pair.machine.thread(lambda: pair.converse(1, [], 9))

    def check(cells, returned):
        received, reason = returned[1]
        return None if received == frames and "the other end closed it" in reason else f"{received}, {reason}"

    return pair.machine.explore(check)


# --------------------------------------------------------------------------- planted in the kernels


def write_before_bytes(words, data, tail, source, start):
    """Write as `ring.write` does, but move the tail before the bytes are there."""
    written = 0
    while start + written < source.size:
        room = data.size - (tail + written - load_acquire(words, HEAD))
        if room == 0:
            break
        count = min(room, PIECE, source.size - start - written)
        store_release(words, TAIL, tail + written + count)
        put(data, tail + written, source, start + written, count)
        written += count
        if is_due(words, READER_AWAITS, tail + written):
            return written, WAKE
    return written, DONE


def read_after_room(words, data, head, target, start):
    """Read as `ring.read` does, but hand the room back before the bytes were copied."""
    done = 0
    while start + done < target.size:
        there = load_acquire(words, TAIL) - (head + done)
        if there == 0:
            break
        count = min(there, PIECE, target.size - start - done)
        store_release(words, HEAD, head + done + count)
        take(data, head + done, target, start + done, count)
        done += count
        if is_due(words, WRITER_AWAITS, head + done):
            return done, WAKE
    return done, DONE


def put_over_the_end(data, position, source, start, count):
    """Go back to the start of the ring one byte too early."""
    begin = position & (data.size - 1)
    before_end = min(count, data.size - begin - 1)
    copy_bytes(data, begin, source, start, before_end)
    copy_bytes(data, 0, source, start + before_end, count - before_end)


def announce_after_looking(words, awaited, index, wanted):
    """Look first: what comes between is announced by nobody."""
    has_to_wait = load_acquire(words, index) < wanted
    store_release(words, awaited, wanted)
    return has_to_wait


TAIL, HEAD, READER_AWAITS, WRITER_AWAITS = 0, 1, 2, 3
PIECE = shm_threads.PIECE
WEAK, EVERY = {Order.TSO, Order.PSO}, set(Order)

KERNEL_BUGS = {  # what is planted, whether it only costs a wake-up, and the orders that show it
    "no fence in write": ({"planted": {"write": {"fence": nothing}}}, True, WEAK),
    "no fence in read": ({"planted": {"read": {"fence": nothing}}}, True, WEAK),
    "no fence in announce": ({"planted": {"announce": {"fence": nothing}}}, True, WEAK),
    "write rings no bell": ({"planted": {"write": {"is_due": never}}}, True, EVERY),
    "read rings no bell": ({"planted": {"read": {"is_due": never}}}, True, EVERY),
    "announced too late": ({"kernels": {"announce": announce_after_looking}}, True, EVERY),
    "the tail is not released": ({"planted": {"write": {"store_release": store_plainly}}}, False, {Order.PSO}),
    "the tail before the bytes": ({"kernels": {"write": write_before_bytes}}, False, EVERY),
    "the head before the bytes": ({"kernels": {"read": read_after_room}}, False, EVERY),
    "wrong at the end of the ring": ({"planted": {"write": {"put": put_over_the_end}}}, False, EVERY),
}


@pytest.mark.slow
@pytest.mark.parametrize("order", Order, ids=lambda order: order.name)
@pytest.mark.parametrize("name", KERNEL_BUGS)
def test_a_bug_in_a_kernel_is_found(monkeypatch, name, order):
    """Planted: what the memory model and the protocol of sleeping need is left out; only weak orders show a fence."""
    planted, only_sleeps, showing = KERNEL_BUGS[name]
    failures = explore_frames(monkeypatch, order, 2, [b"ab"], **planted).failures
    assert bool(failures) == (order in showing)
    if only_sleeps:  # whereas one who reads a torn length may wait as well, instead of receiving something wrong
        assert all(failure.message.startswith("deadlock") for failure in failures)


# --------------------------------------------------------------------------- planted in the connection


class TakesBellsLate(ShmConnection):
    """Announces first: a bell that comes before it is taken away is lost."""

    def receive(self):
        frame = self._take()
        if frame is None and shm_connection.ring.announce(
            self._incoming.words, READER_AWAITS, TAIL, self.bytes_received + 1
        ):
            self._take_bells()
            if self._queue:
                self.flush()
        return frame


class ForgetsRoom(ShmConnection):
    """Takes bells away that may have been for room, without looking for room."""

    def receive(self):
        queue, self._queue = self._queue, ()
        try:
            return super().receive()
        finally:
            self._queue = queue


class SendsWhenItReceives(ShmConnection):
    """Uses room in `receive`, of which who was refused by `send` never hears."""

    def _take_bells(self):
        super()._take_bells()
        self.flush()


class LooksForTheEndFirst(ShmConnection):
    """Believes an end before it has looked into the ring."""

    def receive(self):
        self._take_bells()
        if self._closed_there:
            self._lose("the other end closed it")
        return super().receive()


class FlushTakesBells(ShmConnection):
    """Takes bells in `flush`, which does not look for bytes; then sleeps without having called `receive`."""

    def flush(self):
        self._take_bells()
        super().flush()

    def receive(self):
        frame = super().receive()
        if frame is None and self._queue:
            self.flush()
        return frame


CONNECTION_BUGS = {  # what shows it: capacity, frames, length of the queue
    TakesBellsLate: (2, [b"ab"], 100),
    ForgetsRoom: (2, [b"abc"], 100),
    SendsWhenItReceives: (1, [b"", b"", b""], 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("connection", CONNECTION_BUGS)
def test_a_bell_that_is_taken_at_the_wrong_time_is_found(monkeypatch, connection):
    """Planted: bells are taken away, and what they may have been about is not looked at again."""
    failures = explore_frames(monkeypatch, Order.SC, *CONNECTION_BUGS[connection], connection=connection).failures
    assert any(failure.message.startswith("deadlock") for failure in failures)


@pytest.mark.slow
def test_bells_for_bytes_that_flush_takes_are_found(monkeypatch):
    """Planted: an end that sends and receives loses the bell for bytes while it looks for room."""
    pair = Pair(monkeypatch, Order.SC, 2, connection=FlushTakesBells)
    pair.machine.thread(lambda: pair.converse(0, [b"ab"], 1))
    pair.machine.thread(lambda: pair.converse(1, [b""], 1))
    assert pair.machine.explore(lambda cells, returned: None).failures


def test_an_end_that_is_believed_too_early_is_found(monkeypatch):
    """Planted: frames that lie in the ring when the other end is gone are dropped."""
    assert explore_end(monkeypatch, Order.SC, LooksForTheEndFirst).failures
