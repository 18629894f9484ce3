"""The header of a frame in a stream of bytes: 32 bytes, little-endian, before its payload.

====== ===== ==========================================================================
offset bytes content
====== ===== ==========================================================================
0      4     ``nbps``
4      2     version of this format
6      2     zero
8      4     number of the frame on its connection, from 0 on, modulo 2**32
12     8     length of the payload in bytes
20     8     checksum of the payload
28     4     CRC-32 of the header up to here
====== ===== ==========================================================================

The number finds a frame that came twice or is missing. The header has a check of its own, so that a changed length is
found before it is waited for. `read_header` judges what arrived as soon as it can: a peer that speaks something else
may send less than a header and then wait.
"""

from __future__ import annotations

import struct
import zlib

from nbps.errors import ConnectionLostError

VERSION = 1
HEADER_BYTES = 32
NUMBERS = 1 << 32  # frame numbers count modulo this

_MAGIC = b"nbps"
_FIELDS = struct.Struct("<4sHHIQQ")
_HEADER = struct.Struct("<4sHHIQQI")
_CHECK = struct.Struct("<I")
_START = _FIELDS.pack(_MAGIC, VERSION, 0, 0, 0, 0)[:8]
_SHOWN = 16  # bytes of something unknown that a message quotes

# What else may talk to a port, by what it says first.
_STRANGERS = (
    ((b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"CONNECT ", b"HTTP/", b"PRI * "), "HTTP"),
    ((b"\x16\x03", b"\x15\x03"), "TLS: switch it on at both ends or at none"),
    ((b"SSH-",), "SSH"),
)


def write_header(into: memoryview, number: int, length: int, checksum: int) -> None:
    """Write the header of a frame to the beginning of `into`."""
    _FIELDS.pack_into(into, 0, _MAGIC, VERSION, 0, number, length, checksum)
    _CHECK.pack_into(into, _FIELDS.size, zlib.crc32(into[: _FIELDS.size]))


def read_header(head: memoryview, number: int, frame_limit: int) -> tuple[int, int] | None:
    """Return length and checksum of frame `number`, whose header `head` is or begins; None if more is to come.

    Raises
    ------
    ConnectionLostError
        If these are not bytes of a header, or not of that frame, or its payload is longer than `frame_limit`.
    """
    size = len(head)
    if size < HEADER_BYTES:
        if head[:8] != _START[:size] and (size >= 6 or head[:4] != _MAGIC[:size]):
            raise ConnectionLostError(_stranger(bytes(head)))
        return None
    magic, version, zero, found, length, checksum, check = _HEADER.unpack(head)
    if magic != _MAGIC or version != VERSION or zero:
        raise ConnectionLostError(_stranger(bytes(head)))
    if zlib.crc32(head[: _FIELDS.size]) != check:
        raise ConnectionLostError("the header of a frame arrived changed: its CRC does not fit")
    if found != number:
        raise ConnectionLostError(f"frame {found} arrived where frame {number} was due: some are missing or came twice")
    if length > frame_limit:
        raise ConnectionLostError(f"a frame of {length:,} bytes was announced; at most {frame_limit:,} are taken here")
    return length, checksum


def _stranger(head: bytes) -> str:
    if head[:4] == _MAGIC:
        version = int.from_bytes(head[4:6], "little")
        if version != VERSION:
            return f"the other end speaks frame version {version}, expected {VERSION}: install one nbps on all nodes"
    for beginnings, protocol in _STRANGERS:
        if head.startswith(beginnings):
            return f"what arrived is not a frame of nbps, it looks like {protocol}: {head[:_SHOWN]!r}"
    return f"what arrived is not a frame of nbps: {head[:_SHOWN]!r}"
