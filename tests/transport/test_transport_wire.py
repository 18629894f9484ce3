"""Frames of the core as bytes: the layout, every message there and back, and anything else refused."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbps.core.messages import (
    Arrived,
    Confirm,
    Frame,
    Halt,
    Leaving,
    Message,
    Pull,
    Push,
    Ship,
    Stop,
    Subscribe,
    Unsubscribe,
    Visible,
)
from nbps.errors import ProtocolError
from nbps.transport.interface import total_bytes
from nbps.transport.wire import HEADER_BYTES, TEXT_LIMIT, decode, encode

HIGHEST = 2**63 - 1
ROWS = np.arange(200, dtype=np.uint8)


def joined(frame: Frame) -> np.ndarray:
    return np.frombuffer(b"".join(bytes(part) for part in encode(frame)), np.uint8)


def same(first: Frame, second: Frame) -> bool:
    """Equal, rows byte by byte, and of the same types."""

    def plain(frame: Frame) -> tuple[object, ...]:
        if frame.message is None:
            return (*frame,)
        fields = [bytes(field) if isinstance(field, np.ndarray) else field for field in frame.message]
        return (*frame[:3], type(frame.message), fields)

    return plain(first) == plain(second)


def payload(kind: int = 1, rows: int = 0, numbers: tuple[int, ...] = (1, 1, 1), fields: tuple[int, ...] = ()) -> bytes:
    fields += (0,) * (4 - len(fields))
    return struct.pack("<BB6x", kind, rows) + struct.pack("<7q", *numbers, *fields)


numbers = st.integers(0, HIGHEST)
batches = st.binary(max_size=300).map(lambda raw: np.frombuffer(raw, np.uint8))
messages = st.one_of(
    st.builds(Push, numbers, numbers, st.none() | batches),
    st.builds(Ship, numbers, numbers, numbers, numbers, st.none() | batches),
    st.builds(Pull, numbers),
    st.builds(Subscribe, numbers, batches),
    st.builds(Unsubscribe, batches),
    st.builds(Arrived, numbers, st.none() | batches),
    st.builds(Confirm, numbers),
    st.builds(Visible, numbers),
    st.builds(Leaving),
    st.builds(Halt, numbers, numbers),
    st.builds(Stop, numbers, numbers, st.text(st.characters(codec="utf-8"))),
)
frames = st.builds(Frame, numbers, st.integers(1, HIGHEST), numbers, messages) | st.builds(
    Frame, numbers, st.just(0), numbers, st.none()
)


@given(frames)
def test_every_frame_comes_back(frame):
    """What was encoded is decoded to the same, and 64 bytes longer than what follows the header."""
    raw = joined(frame)
    assert same(decode(raw), frame)
    assert raw.nbytes == total_bytes(encode(frame))


def test_every_message_of_the_core_is_known():
    """The strategy above, and so the round trip, leaves out none of the messages."""
    assert set(Message.__args__) == {
        Push, Ship, Pull, Subscribe, Unsubscribe, Arrived, Confirm, Visible, Leaving, Stop, Halt,
    }  # fmt: skip


def test_the_layout_is_as_documented():
    """Byte by byte, as a program in C would write it."""
    expected = bytes([2, 1, 0, 0, 0, 0, 0, 0]) + b"".join(
        number.to_bytes(8, "little") for number in (5, 6, 7, 8, HIGHEST, 10, 11)
    )
    header, rows = encode(Frame(5, 6, 7, Ship(8, HIGHEST, 10, 11, ROWS)))
    assert header == expected
    assert rows is ROWS
    assert bytes(joined(Frame(1, 2, 3, Stop(0, 0, "ü")))) == payload(10, numbers=(1, 2, 3)) + "ü".encode()
    assert bytes(joined(Frame(1, 0, 3, None))) == payload(0, numbers=(1, 0, 3))


def test_rows_are_a_view_at_a_multiple_of_64_bytes():
    """Decoding copies nothing, and values in rows can be aligned."""
    raw = joined(Frame(1, 2, 3, Push(4, 5, ROWS)))
    rows = decode(raw).message.rows
    assert np.shares_memory(rows, raw)
    assert (rows.ctypes.data - raw.ctypes.data) % 64 == 0
    assert (rows.dtype, rows.shape) == (np.uint8, (200,))


@pytest.mark.parametrize("make", [lambda rows: Push(1, 2, rows), lambda rows: Ship(1, 2, 3, 4, rows)])
def test_no_rows_and_none_of_them_differ(make):
    """An empty batch comes back as an empty batch, no batch as None."""
    assert decode(joined(Frame(1, 2, 3, make(None)))).message.rows is None
    assert decode(joined(Frame(1, 2, 3, make(ROWS[:0])))).message.rows.shape == (0,)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (Frame(-1, 1, 1, Pull(1)), "nothing negative"),
        (Frame(1, 0, 1, Pull(1)), "number > 0"),
        (Frame(1, 1, -1, Pull(1)), "nothing negative"),
        (Frame(1, 1, 1, Pull(-1)), "nothing negative"),
        (Frame(1, 1, 1, Ship(1, 1, 1, -1, None)), "nothing negative"),
        (Frame(1, 1, 1, Pull(HIGHEST + 1)), "2\\*\\*63 - 1"),
        (Frame(HIGHEST + 1, 1, 1, Leaving()), "2\\*\\*63 - 1"),
        (Frame(1, 1, 1, Pull(1.5)), "2\\*\\*63 - 1"),
        (Frame(1, 1, 1, None), "number 0"),
        (Frame(1, 0, -1, None), "none negative"),
        (Frame(1, 1, 1, "stop"), "holds a str"),
        (Frame(1, 1, 1, Push(1, 1, b"rows")), "contiguous uint8"),
        (Frame(1, 1, 1, Push(1, 1, ROWS.astype(np.int8))), "contiguous uint8"),
        (Frame(1, 1, 1, Push(1, 1, ROWS[::2])), "contiguous uint8"),
        (Frame(1, 1, 1, Push(1, 1, ROWS.reshape(2, 100))), "contiguous uint8"),
        (Frame(1, 1, 1, Subscribe(1, None)), "contiguous uint8"),
        (Frame(1, 1, 1, Unsubscribe(None)), "contiguous uint8"),
    ],
)
def test_what_cannot_be_sent_is_refused(frame, message):
    """A frame that breaks the layout's rules is an error where it is made, not at the other end."""
    with pytest.raises(ProtocolError, match=message):
        encode(frame)


def test_an_error_does_not_print_all_rows():
    """A refused frame with many rows gives a short message."""
    with pytest.raises(ProtocolError) as caught:
        encode(Frame(1, 1, 1, Push(-1, 1, np.zeros(100_000, np.uint8))))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "0 bytes"),
        (payload()[:63], "63 bytes arrived; expected at least 64"),
        (payload(12), "unknown kind"),
        (payload(255), "unknown kind"),
        (payload(1, 2), "unknown kind"),
        (payload(3, 1), "unknown kind"),
        (payload(0, 1), "unknown kind"),
        (payload(4), "unknown kind"),
        (payload(5), "unknown kind"),
        (b"\1\0\0\0\0\0\0\1" + payload()[8:], "unknown kind"),
        (b"\1\0\0\0\0\0\0\x80" + payload()[8:], "unknown kind"),
        (payload(numbers=(-1, 1, 1)), "negative"),
        (payload(numbers=(1, -1, 1)), "negative"),
        (payload(numbers=(1, 1, -1)), "negative"),
        (payload(fields=(-1,)), "negative"),
        (payload(2, fields=(0, 0, 0, -1)), "negative"),
        (payload(numbers=(1, 0, 1)), "a Push arrived with numbers"),
        (payload(fields=(1, 1, 1)), "a Push arrived with numbers"),
        (payload(9, fields=(1,)), "a Leaving arrived with numbers"),
        (payload() + b"x", "65 bytes; expected 64"),
        (payload(3) + b"x", "a Pull arrived with 65 bytes"),
        (payload(0), "an acknowledgement"),
        (payload(0, numbers=(1, 0, 1)) + b"x", "an acknowledgement"),
        (payload(0, numbers=(1, 0, 1), fields=(0, 1)), "an acknowledgement"),
        (payload(10) + b"\xff", "not UTF-8"),
        (payload(10) + b"\xed\xa0\x80", "not UTF-8"),
        (payload(10) + b"x" * (TEXT_LIMIT + 1), "65,537 bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)} bytes",
)
def test_what_is_no_frame_is_refused(raw, message):
    """Each rule of the layout, broken alone."""
    with pytest.raises(ProtocolError, match=message):
        decode(np.frombuffer(raw, np.uint8))


def test_the_longest_reason_passes():
    """64 KiB of text are the limit, and inside it."""
    assert decode(joined(Frame(1, 1, 1, Stop(0, 0, "x" * TEXT_LIMIT)))).message.reason == "x" * TEXT_LIMIT


@pytest.mark.parametrize("character", ["x", "ü", "€", "😀"])
def test_a_longer_reason_is_cut_between_characters(character):
    """A reason to stop always arrives, and says that it was cut."""
    reason = decode(joined(Frame(1, 1, 1, Stop(0, 0, "a" + character * TEXT_LIMIT)))).message.reason
    assert reason.endswith(character + " ... (cut)")
    assert TEXT_LIMIT - 4 <= len(reason.encode()) <= TEXT_LIMIT


def test_a_reason_that_is_no_unicode_arrives_escaped():
    """Names of files may hold lone surrogates; the reason must not be lost for it."""
    assert decode(joined(Frame(1, 1, 1, Stop(0, 0, "no \udcff.npy")))).message.reason == "no \\udcff.npy"


def test_ten_thousand_mutations_give_a_frame_or_our_error():
    """Changed, cut and longer payloads are refused, or are the one way to write what they decode to."""
    draw = random.Random(1)
    start = [
        Frame(1, 2, 3, Push(4, 5, ROWS)), Frame(1, 2, 3, Push(4, 5, None)), Frame(1, 2, 3, Ship(4, 5, 6, 7, ROWS[:3])),
        Frame(1, 0, 3, None), Frame(1, 2, 3, Stop(0, 0, "text")), Frame(1, 2, 3, Subscribe(4, ROWS[:9])),
        Frame(1, 2, 3, Leaving()), Frame(1, 2, 3, Confirm(HIGHEST)),
    ]  # fmt: skip
    taken = refused = 0
    for _ in range(10_000):
        raw = bytearray(bytes(joined(draw.choice(start))))
        for _ in range(draw.randint(1, 3)):
            position = draw.randrange(min(len(raw), HEADER_BYTES + 4)) if raw else 0
            match draw.randrange(4):
                case 0 if raw:
                    raw[position] ^= 1 << draw.randrange(8)
                case 1 if raw:
                    raw[position] = draw.choice([0, 1, 127, 128, 255])
                case 2:
                    del raw[draw.randint(0, len(raw)) :]
                case _:
                    raw += draw.randbytes(draw.randint(0, 9))
        mutated = np.frombuffer(bytes(raw), np.uint8)
        try:
            frame = decode(mutated)
        except ProtocolError:
            refused += 1
            continue
        taken += 1
        assert bytes(joined(frame)) == bytes(raw)
    assert taken > 1000
    assert refused > 1000
