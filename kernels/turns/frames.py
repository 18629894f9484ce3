"""Frames without rows, in bytes: the header of `nbps.transport.carriers.header`, the payload of `nbps.transport.wire`.

Those modules say what the bytes mean. A frame here is int64[8], its payload: kind, run, number, acknowledged number,
and four numbers of the message.
"""

from __future__ import annotations

import numpy as np

from ..checksum import checksum
from ..jit import kernel

KIND, RUN, NUMBER, ACKNOWLEDGED, FIRST, SECOND, THIRD, FOURTH, WORDS = range(9)
NOTHING, PUSH, SHIP = range(3)  # kinds

HEADER_BYTES, PAYLOAD_BYTES = 32, 8 * WORDS
FRAME_BYTES = HEADER_BYTES + PAYLOAD_BYTES
NUMBERS = 1 << 32  # frames of a connection are counted modulo this

_START = int.from_bytes(b"nbps" + (1).to_bytes(2, "little") + bytes(2), "little")  # with the format's version
_CHECKED = HEADER_BYTES - 4  # bytes of the header before its CRC
_NUMBER, _LENGTH, _SUM, _CRC = 2, 3, 5, 7  # in words of 32 bits; length and checksum have two


def _crc_table():
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(0xEDB88320), table >> 1).astype(np.uint32)
    return table


_TABLE = _crc_table()


@kernel
def crc32(data, begin, count):
    """Return the CRC-32 of `count` bytes of uint8 `data` from `begin` on, as `zlib.crc32` does."""
    crc = np.uint32(0xFFFFFFFF)
    for k in range(begin, begin + count):
        crc = _TABLE[(crc ^ data[k]) & np.uint32(0xFF)] ^ (crc >> np.uint32(8))
    return crc ^ np.uint32(0xFFFFFFFF)


@kernel
def write_header(data, begin, number, state):
    """Write the header of frame `number` of a connection before its payload, which is there; `state` is scratch."""
    data[begin : begin + 8].view(np.int64)[0] = _START
    words = data[begin : begin + HEADER_BYTES].view(np.uint32)
    words[_NUMBER] = number
    words[_LENGTH] = PAYLOAD_BYTES
    words[_LENGTH + 1] = 0
    found = checksum(state, data[: begin + FRAME_BYTES], begin + HEADER_BYTES)
    words[_SUM] = found & np.uint64(0xFFFFFFFF)
    words[_SUM + 1] = found >> np.uint64(32)
    words[_CRC] = crc32(data, begin, _CHECKED)


@kernel
def is_whole(data, begin, end, number, state):
    """Tell whether bytes `begin` to `end` of uint8 `data` begin with frame `number` without rows, as it was sent.

    Anything else may be a longer frame, the beginning of one, or wrong: the connection finds out.
    """
    if end - begin < FRAME_BYTES or data[begin : begin + 8].view(np.int64)[0] != _START:
        return False
    words = data[begin : begin + HEADER_BYTES].view(np.uint32)
    if words[_NUMBER] != number or words[_LENGTH] != PAYLOAD_BYTES or words[_LENGTH + 1] != 0:
        return False
    if words[_CRC] != crc32(data, begin, _CHECKED):
        return False
    found = checksum(state, data[: begin + FRAME_BYTES], begin + HEADER_BYTES)
    return words[_SUM] == found & np.uint64(0xFFFFFFFF) and words[_SUM + 1] == found >> np.uint64(32)


@kernel
def payload(data, begin):
    """Return the payload of the frame that begins there, int64[WORDS], a view."""
    return data[begin + HEADER_BYTES : begin + FRAME_BYTES].view(np.int64)
