"""Streams that were changed on the way: what arrives is what was sent, up to a point, and then our error.

`NBPS_FUZZ` sets another number of streams than 10,000.
"""

from __future__ import annotations

import os
import random
import select
import socket
import tracemalloc
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbps.errors import ConnectionLostError
from nbps.kernels import checksum
from nbps.transport import Options
from nbps.transport.carriers.header import HEADER_BYTES, write_header
from nbps.transport.carriers.stream import StreamConnection
from nbps.transport.carriers.tcp_connection import TcpConnection

STREAMS = int(os.environ.get("NBPS_FUZZ", "10000"))
LIMIT = 1 << 20


class PairConnection(TcpConnection):
    """The connection of TCP over one of a pair of Unix sockets, of which 10,000 are made in no time."""

    def __init__(self, connected: socket.socket, options: Options) -> None:
        StreamConnection.__init__(self, "pair", options)
        self._socket = connected
        connected.setblocking(False)


def stream(frames: list[bytes]) -> bytes:
    """Return what a connection sends for `frames`."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    connection = PairConnection(ours, Options())
    sent = b""
    for frame in frames:
        assert connection.send(frame)
        while True:
            try:
                sent += theirs.recv(1 << 20)
            except BlockingIOError:
                if not connection.wants_write:
                    break
                connection.flush()
    theirs.close()
    connection.close()
    return sent


def received(data: bytes, cuts: list[int]) -> tuple[list[bytes], str]:
    """Return what a connection receives of `data`, given to it in pieces, and why it ended."""
    ours, theirs = socket.socketpair()
    connection = PairConnection(ours, Options(frame_limit=LIMIT))
    frames = []
    try:
        for begin, end in zip([0, *cuts], [*cuts, None], strict=True):
            rest = data[begin:end]
            while rest:
                rest = rest[theirs.send(rest[:30_000]) :]
                while (frame := connection.receive()) is not None:
                    frames.append(frame.tobytes())
        theirs.shutdown(socket.SHUT_WR)
        for _ in range(3):
            while (frame := connection.receive()) is not None:
                frames.append(frame.tobytes())
        raise AssertionError("the end of the stream was not noticed")
    except ConnectionLostError as error:
        for call in (connection.receive, connection.flush, connection.fileno, lambda: connection.send(b"x")):
            with pytest.raises(ConnectionLostError):
                call()
        return frames, str(error)
    finally:
        theirs.close()
        connection.close()


def flip(data: bytearray, dice: random.Random) -> None:
    """Flip one to three bits."""
    for _ in range(dice.randint(1, 3)):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def flip_header(data: bytearray, dice: random.Random) -> None:
    """Flip a bit of the first header."""
    data[dice.randrange(HEADER_BYTES)] ^= 1 << dice.randrange(8)


def cut(data: bytearray, dice: random.Random) -> None:
    """Leave the end away."""
    del data[dice.randrange(len(data)) :]


def lose(data: bytearray, dice: random.Random) -> None:
    """Leave something within away."""
    begin = dice.randrange(len(data))
    del data[begin : begin + dice.randint(1, 200)]


def repeat(data: bytearray, dice: random.Random) -> None:
    """Have something come twice."""
    begin = dice.randrange(len(data))
    data[begin:begin] = data[begin : begin + dice.randint(1, 200)]


def insert(data: bytearray, dice: random.Random) -> None:
    """Insert something of no meaning."""
    begin = dice.randrange(len(data) + 1)
    data[begin:begin] = dice.randbytes(dice.randint(1, 100))


def overwrite(data: bytearray, dice: random.Random) -> None:
    """Replace something by noise."""
    begin = dice.randrange(len(data))
    end = min(len(data), begin + dice.randint(1, 100))
    data[begin:end] = dice.randbytes(end - begin)


def noise(data: bytearray, dice: random.Random) -> None:
    """Replace all by noise."""
    data[:] = dice.randbytes(len(data))


def swap_frames(data: bytearray, dice: random.Random) -> None:
    """Exchange the first frame with all that follow."""
    length = HEADER_BYTES + int.from_bytes(data[12:20], "little")
    data[:] = data[length:] + data[:length]


def repeat_frame(data: bytearray, dice: random.Random) -> None:
    """Have the first frame come twice."""
    length = HEADER_BYTES + int.from_bytes(data[12:20], "little")
    data[:0] = data[:length]


def forge_header(data: bytearray, dice: random.Random) -> None:
    """Put a header that is right by its CRC in front, with some number, length and checksum."""
    forged = bytearray(HEADER_BYTES)
    length = dice.choice([0, 1, 100, LIMIT, LIMIT + 1, 1 << 31, 1 << 32, 1 << 63, (1 << 64) - 1])
    write_header(memoryview(forged), dice.choice([0, 0, 1, 1 << 31]), length, dice.getrandbits(64))
    data[:0] = forged


CHANGES: list[Callable[[bytearray, random.Random], None]] = [
    flip, flip_header, cut, lose, repeat, insert, overwrite, noise, swap_frames, repeat_frame, forge_header,
]  # fmt: skip


def drawn(seed: int) -> Iterator[tuple[list[bytes], bytes]]:
    """Yield lists of frames and what a connection sends for them."""
    dice = random.Random(seed)
    while True:
        longest = dice.choice([40, 300, 20_000])
        frames = [dice.randbytes(dice.randint(0, longest)) for _ in range(dice.randint(1, 5))]
        yield frames, stream(frames)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_changed_stream_gives_what_was_sent_or_our_error(change):
    """Never another payload, another exception, a crash or a hang; and never much memory."""
    dice = random.Random(change.__name__)
    source = drawn(1)
    frames, data = next(source)
    for n in range(STREAMS // len(CHANGES) + 1):
        if n % 20 == 0:
            frames, data = next(source)
        changed = bytearray(data)
        change(changed, dice)
        cuts = sorted(dice.randint(0, len(changed)) for _ in range(dice.randint(0, 3)))
        found, reason = received(bytes(changed), cuts)
        assert found == frames[: len(found)], (n, reason)
        if found == frames:
            assert changed[: len(data)] == data, (n, reason)
        assert reason.startswith("connection to pair: ")


def test_forged_lengths_take_no_memory():
    """Headers that are right by their CRC and claim up to 2**64 - 1 bytes: none is made room for beyond the limit."""
    dice = random.Random(2)
    tracemalloc.start()
    try:
        for _ in range(200):
            data = bytearray(100)
            forge_header(data, dice)
            received(bytes(data), [])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < LIMIT + (1 << 19)


def test_a_payload_that_is_right_by_its_header_only_is_refused():
    """The checksum of the payload is another thing than the CRC of the header."""
    frame = bytearray(HEADER_BYTES) + b"payload"
    write_header(memoryview(frame), 0, 7, 12345)
    found, reason = received(bytes(frame), [])
    assert found == []
    assert "frame 0 of 7 bytes arrived changed: its checksum does not fit" in reason


def test_every_flipped_bit_of_a_frame_is_found():
    """One at a time, in header and payload."""
    data = stream([b"rows and more rows"])
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        assert received(bytes(changed), [])[0] == [], bit


@given(st.lists(st.binary(max_size=400), max_size=12), st.lists(st.integers(0, 6000), max_size=12))
def test_any_frames_in_any_pieces_arrive(frames, cuts):
    """However the stream is cut, frames arrive whole and in order, and the end is the end."""
    data = stream(frames)
    found, reason = received(data, sorted(min(cut, len(data)) for cut in cuts))
    assert found == frames
    assert reason == "connection to pair: the other end closed it"


@given(st.binary(max_size=300))
def test_any_bytes_are_no_frame(data):
    """Nothing that Hypothesis thinks of is taken for a frame."""
    assert received(data, [])[0] == []


def test_the_number_of_a_frame_goes_round():
    """After 2**32 frames it is 0 again, at both ends."""
    ours, theirs = socket.socketpair()
    first, second = PairConnection(ours, Options()), PairConnection(theirs, Options())
    first._sent = second._received = 2**32 - 2
    for n in range(4):
        assert first.send(b"%d" % n)
        while (frame := second.receive()) is None:
            select.select([second], [], [])
        assert frame.tobytes() == b"%d" % n
    assert first._sent == second._received == 2
    first.close()
    second.close()


def test_the_state_of_a_checksum_is_of_its_connection():
    """Two connections that send in turns do not disturb each other: each has a place of its own to compute in."""
    states = [PairConnection(end, Options()) for end in socket.socketpair()]
    assert states[0]._state is not states[1]._state
    assert states[0]._state.size == checksum.STATE_WORDS
    for state in states:
        state.close()
