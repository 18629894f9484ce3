"""Rings of bytes against a queue of bytes; whom they wake, and counts that make no sense.

Every interleaving of two ends, and planted bugs: ``tests/transport/test_transport_shm_explore.py``.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbps.kernels import ring


class Ends:
    """Both ends of a ring of which `count` bytes were written and read before."""

    def __init__(self, capacity: int, count: int = 0) -> None:
        self.words = np.zeros(ring.RING_WORDS, np.int64)
        self.words[[ring.TAIL, ring.HEAD]] = count
        memory = np.full(capacity + 2, 170, np.uint8)
        self.memory, self.data = memory, memory[1:-1]
        self.tail = self.head = count

    def write(self, source: bytes, start: int = 0) -> tuple[int, int]:
        count, status = ring.write(self.words, self.data, self.tail, np.frombuffer(source, np.uint8), start)
        self.tail += count
        assert self.memory[0] == self.memory[-1] == 170
        return count, status

    def read(self, limit: int, start: int = 0) -> tuple[bytes, int]:
        target = np.full(limit + 2, 85, np.uint8)
        count, status = ring.read(self.words, self.data, self.head, target[1:-1], start)
        self.head += count
        assert (target[: 1 + start] == 85).all()
        assert (target[1 + start + count :] == 85).all()
        return target[1 + start : 1 + start + count].tobytes(), status


@given(
    st.integers(0, 6),
    st.integers(0, 2**62),
    st.lists(st.tuples(st.booleans(), st.integers(0, 80), st.integers(0, 3)), max_size=40),
)
def test_it_is_a_queue_of_bytes(exponent, count, steps):
    """Whatever is written and read in turns, as much as fits passes, in order, over the ring's end and nowhere else."""
    ends, expected, number = Ends(1 << exponent, count), b"", 0
    for writes, length, start in steps:
        start = min(start, length)
        if writes:
            source = bytes((number + n) % 256 for n in range(length))
            number += length
            fits = min(length - start, (1 << exponent) - len(expected))
            assert ends.write(source, start) == (fits, ring.DONE)
            expected += source[start : start + fits]
        else:
            found = expected[: length - start]
            assert ends.read(length, start) == (found, ring.DONE)
            expected = expected[len(found) :]
        assert ends.words[[ring.TAIL, ring.HEAD]].tolist() == [ends.tail, ends.head]
    assert ends.tail - ends.head == len(expected)


@pytest.mark.parametrize("pieces", [1, 4])
def test_long_buffers_pass_in_pieces(pieces):
    """More than one piece at once, to a ring that holds less than all of it."""
    sent = np.random.default_rng(0).bytes(5 * ring.PIECE + 3)
    ends, received, start = Ends(pieces * ring.PIECE), b"", 0
    while len(received) < len(sent):
        start += ends.write(sent, start)[0]
        received += ends.read(2 * ring.PIECE + 1)[0]
    assert received == sent


def test_the_reader_is_woken_once_when_what_it_awaits_is_there():
    """Neither before the count that it announced nor twice."""
    ends = Ends(16)
    assert ring.announce(ends.words, ring.READER_AWAITS, ring.TAIL, 3)
    assert ends.write(b"ab") == (2, ring.DONE)
    assert ends.write(b"cd") == (2, ring.WAKE)
    assert ends.write(b"ef") == (2, ring.DONE)


def test_the_writer_is_woken_once_when_there_is_the_room_it_awaits():
    """Neither before the count that it announced nor twice."""
    ends = Ends(8)
    assert ends.write(b"12345678 and more") == (8, ring.DONE)
    assert ring.announce(ends.words, ring.WRITER_AWAITS, ring.HEAD, 3)
    assert ends.read(2) == (b"12", ring.DONE)
    assert ends.read(2) == (b"34", ring.WAKE)
    assert ends.read(2) == (b"56", ring.DONE)


def test_nobody_waits_for_what_is_there():
    """Who announces too late is told so."""
    ends = Ends(8)
    ends.write(b"abc")
    assert not ring.announce(ends.words, ring.READER_AWAITS, ring.TAIL, 3)
    ends.read(1)
    assert not ring.announce(ends.words, ring.WRITER_AWAITS, ring.HEAD, 1)


def test_a_wake_up_comes_before_the_rest():
    """A sleeper is woken after the first piece, and the call that follows goes on."""
    ends = Ends(4 * ring.PIECE)
    ring.announce(ends.words, ring.READER_AWAITS, ring.TAIL, 1)
    source = bytes(3 * ring.PIECE)
    assert ends.write(source) == (ring.PIECE, ring.WAKE)
    assert ends.write(source, ring.PIECE) == (2 * ring.PIECE, ring.DONE)


@pytest.mark.parametrize("wrong", [101, 91, -(2**63), 2**63 - 1, 2**40, 0])
def test_a_head_that_makes_no_sense_is_found(wrong):
    """Nothing is written for a head beyond the tail, or further behind it than the ring is long."""
    ends = Ends(8, 100)
    ends.words[ring.HEAD] = wrong
    assert ends.write(b"abc") == (0, ring.BROKEN)
    assert (ends.memory == 170).all()


@pytest.mark.parametrize("wrong", [99, 109, -(2**63), 2**63 - 1, 2**40, 0])
def test_a_tail_that_makes_no_sense_is_found(wrong):
    """Nothing is read for a tail before the head, or further beyond it than the ring is long."""
    ends = Ends(8, 100)
    ends.words[ring.TAIL] = wrong
    assert ends.read(3) == (b"", ring.BROKEN)


@given(st.lists(st.sampled_from(["head", "tail", "reader", "writer"]), max_size=4), st.data())
def test_no_words_lead_out_of_the_arrays(which, data):
    """Whatever the other process writes into the words: no call goes astray, hangs or reads more than there is."""
    ends = Ends(16, 1000)
    places = {"head": ring.HEAD, "tail": ring.TAIL, "reader": ring.READER_AWAITS, "writer": ring.WRITER_AWAITS}
    ends.write(b"0123456789")
    for name in which:
        near = st.integers(900, 1100)
        ends.words[places[name]] = data.draw(near | st.integers(-(2**63), 2**63 - 1))
    for _ in range(4):
        assert ends.write(b"a" * 20)[0] <= 16
        assert len(ends.read(20)[0]) <= 16


def test_requests_compile_what_a_connection_calls():
    """After preparation neither frames of bytes nor of arrays need the compiler."""
    for kernel, arguments in ring.requests():
        kernel(*arguments)
    before = {kernel: len(getattr(kernel, "signatures", ())) for kernel, _ in ring.requests()}
    ends = Ends(8)
    assert ends.write(b"abc") == (3, ring.DONE)
    ring.write(ends.words, ends.data, ends.tail, np.zeros(3, np.uint8), 0)
    assert ends.read(3) == (b"abc", ring.DONE)
    ring.announce(ends.words, ring.READER_AWAITS, ring.TAIL, 9)
    assert {kernel: len(getattr(kernel, "signatures", ())) for kernel in before} == before
