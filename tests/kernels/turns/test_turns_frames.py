"""Frames without rows, compiled: the bytes are those of the transport, and whatever is changed in them is noticed."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbps.core.messages import Frame, Push, Ship
from nbps.kernels.checksum import STATE_WORDS, checksum
from nbps.kernels.turns import frames
from nbps.transport.carriers import header
from nbps.transport.wire import HEADER_BYTES, decode, encode

SCRATCH = np.zeros(STATE_WORDS, np.uint64)
number = st.integers(0, 2**63 - 1)
messages = st.one_of(
    st.none(),
    st.builds(Push, number, number, st.none()),
    st.builds(Ship, number, number, number, number, st.none()),
)


def written(count: int, run: int, acknowledged: int, message: Push | Ship | None) -> tuple[np.ndarray, bytes]:
    """Return frame `count` of a connection, compiled behind 96 other bytes, and as the transport writes it."""
    kind = {type(None): frames.NOTHING, Push: frames.PUSH, Ship: frames.SHIP}[type(message)]
    fields = [] if message is None else list(message[:-1])
    data = np.zeros(2 * frames.FRAME_BYTES, np.uint8)
    payload = frames.payload(data, frames.FRAME_BYTES)
    payload[:] = [kind, run, int(message is not None), acknowledged, *fields, *[0] * (4 - len(fields))]
    frames.write_header(data, frames.FRAME_BYTES, count, SCRATCH)
    (expected,) = encode(Frame(run, int(message is not None), acknowledged, message))
    head = bytearray(header.HEADER_BYTES)
    found = checksum(SCRATCH, np.frombuffer(expected, np.uint8), 0)
    header.write_header(memoryview(head), count, len(expected), int(found))
    return data[frames.FRAME_BYTES :], bytes(head) + bytes(expected)


@given(st.integers(0, header.NUMBERS - 1), number, number, messages)
def test_frames_are_those_of_the_transport(count, run, acknowledged, message):
    """To the byte; and they are found whole, as the next one of a connection and no other."""
    data, expected = written(count, run, acknowledged, message)
    assert data.tobytes() == expected
    assert frames.is_whole(data, 0, data.size, count, SCRATCH)
    assert not frames.is_whole(data, 0, data.size, (count + 1) % header.NUMBERS, SCRATCH)
    assert decode(data[header.HEADER_BYTES :]).message == message


@given(st.integers(0, frames.FRAME_BYTES - 1), st.integers(1, 255))
def test_a_byte_that_was_changed_is_noticed(place, change):
    """Wherever it is."""
    data, _ = written(7, 1, 2, Push(3, 4, None))
    data[place] ^= change
    assert not frames.is_whole(data, 0, data.size, 7, SCRATCH)


@pytest.mark.parametrize("missing", range(1, frames.FRAME_BYTES))
def test_the_beginning_of_a_frame_is_not_one(missing):
    """What follows it in the buffer is not looked at."""
    data, _ = written(7, 1, 2, Push(3, 4, None))
    assert not frames.is_whole(data, 0, data.size - missing, 7, SCRATCH)


def test_a_longer_frame_is_not_one():
    """Its header and checksum are right; its length says that it holds more than a header of the wire."""
    data = np.zeros(200, np.uint8)
    for length in (0, 63, 65, 64 + (1 << 32)):
        found = checksum(SCRATCH, data[: header.HEADER_BYTES + 64], header.HEADER_BYTES)
        header.write_header(data.data, 0, length, int(found))
        assert not frames.is_whole(data, 0, data.size, 0, SCRATCH)


@given(st.binary(max_size=64), st.integers(0, 8))
def test_the_crc_is_that_of_zlib(data, begin):
    """Of any bytes, from anywhere on."""
    padded = np.frombuffer(bytes(begin) + data, np.uint8).copy() if data else np.zeros(begin, np.uint8)
    assert frames.crc32(padded, begin, len(data)) == zlib.crc32(data)


def test_what_both_sides_know_is_the_same():
    """Lengths and numbers that stand in both places."""
    assert frames.HEADER_BYTES == header.HEADER_BYTES
    assert frames.PAYLOAD_BYTES == HEADER_BYTES
    assert frames.NUMBERS == header.NUMBERS
