"""The checksum of frames: against a twin in plain integers, in pieces, and what it finds."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbps.kernels import checksum

_MASK = 2**64 - 1


def twin(data: bytes) -> int:
    """Return the checksum, computed word by word in integers of Python."""
    lanes = [(checksum._FIRST >> n) + (n << 32) for n in range(16)]
    padded = data + bytes(-len(data) % 128)
    for n in range(0, len(padded), 8):
        lane = lanes[n // 8 % 16] ^ int.from_bytes(padded[n : n + 8], "little")
        lane = (lane + (lane << 13)) & _MASK
        lanes[n // 8 % 16] = lane ^ lane >> 7
    lanes[0] ^= len(data)
    while len(lanes) > 1:
        half = len(lanes) // 2
        mixed = [lane * checksum._PRIME & _MASK for lane in lanes[:half]]
        lanes = [((lane ^ lane >> 32) + other) & _MASK for lane, other in zip(mixed, lanes[half:], strict=True)]
    last = lanes[0]
    last = (last ^ last >> 29) * checksum._PRIME & _MASK
    return last ^ last >> 32


def whole(data: bytes, first: int = 0) -> int:
    return int(checksum.checksum(np.empty(checksum.STATE_WORDS, np.uint64), np.frombuffer(data, np.uint8), first))


@pytest.mark.parametrize("length", [0, 1, 7, 8, 100, 127, 128, 129, 255, 256, 1000, 5000])
def test_it_is_that_of_the_twin(length):
    """For lengths around the block, from any position on, of bytes that can be written to and that cannot."""
    for first in (0, 1, 5, 32):
        data = random.Random(length).randbytes(first + length)
        assert whole(data, first) == whole(bytearray(data), first) == twin(data[first:])


@given(st.lists(st.binary(max_size=300), max_size=8), st.booleans())
def test_pieces_give_the_checksum_of_the_whole(pieces, fixed):
    """However bytes are cut into pieces, empty ones among them."""
    state = np.empty(checksum.STATE_WORDS, np.uint64)
    checksum.start(state)
    for piece in pieces:
        checksum.absorb(state, np.frombuffer(piece if fixed else bytearray(piece), np.uint8), 0)
    assert int(checksum.finish(state)) == twin(b"".join(pieces))


@pytest.mark.parametrize("length", [1, 8, 100, 128, 131, 700])
def test_every_flipped_bit_is_found(length):
    """All of them, one at a time."""
    data = bytearray(random.Random(length).randbytes(length))
    right = whole(data)
    for bit in range(8 * length):
        data[bit // 8] ^= 1 << bit % 8
        assert whole(data) != right, bit
        data[bit // 8] ^= 1 << bit % 8


def test_two_flipped_bits_are_found():
    """All pairs within two blocks that are one bit of different words, as a broken wire of a bus makes them."""
    data = bytearray(256)
    right = whole(data)
    for bit in range(64):
        for word in range(32):
            for other in range(word):
                changed = bytearray(data)
                changed[8 * word + bit // 8] ^= 1 << bit % 8
                changed[8 * other + bit // 8] ^= 1 << bit % 8
                assert whole(changed) != right, (bit, word, other)


def test_missing_zeros_and_swapped_words_are_found():
    """Zeros at the end, words or blocks in another order: other checksums, all of them."""
    blocks = [random.Random(n).randbytes(128) for n in range(3)]
    words = [random.Random(n).randbytes(8) for n in range(16)]
    found = [whole(bytes(n)) for n in range(400)]
    found += [whole(blocks[a] + blocks[b] + blocks[c]) for a, b, c in ((0, 1, 2), (1, 0, 2), (0, 2, 1), (2, 1, 0))]
    for n in range(16):
        found.append(whole(b"".join(words[n:] + words[:n])))
    assert len(set(found)) == len(found)


@pytest.mark.slow
@pytest.mark.skipif("NBPS_CHECKSUM_MODE" in os.environ, reason="it runs in another mode already")
@pytest.mark.parametrize("mode", ["NUMBA_DISABLE_JIT", "NUMBA_BOUNDSCHECK"])
def test_it_is_the_same_in_every_mode(mode):
    """As plain Python and with bounds checks it agrees with the twin as well."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-n0",
            "-q",
            "-p",
            "no:cacheprovider",
            __file__,
            "-k",
            "twin or pieces or zeros",
        ],
        env={**os.environ, mode: "1", "NBPS_CHECKSUM_MODE": mode},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
