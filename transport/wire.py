"""How a frame of the protocol core lies in the payload of a transport's frame.

A payload is a header of 64 bytes, and then either rows, as they lie in memory, or a text, or nothing. Rows begin at a
multiple of 64 bytes, so that values in them can be aligned. All numbers are little-endian::

    struct header {
        uint8_t kind;          /* below */
        uint8_t rows;          /* 1 if rows follow, of any length, also 0; else 0 */
        uint8_t zero[6];
        int64_t run;           /* its number */
        int64_t number;        /* of the message on its link; 0 for kind 0, else > 0 */
        int64_t acknowledged;  /* number of the last message received the other way */
        int64_t field[4];      /* by kind, in this order; those not used are 0 */
    };

==== =========== ======================================= =========
kind message     fields                                  follows
==== =========== ======================================= =========
0    none                                                nothing
1    Push        number, clock                           rows or nothing
2    Ship        number, clock, applied, answered        rows or nothing
3    Pull        clock                                   nothing
4    Subscribe   request                                 rows
5    Unsubscribe                                         rows
6    Arrived     count                                   rows or nothing
7    Confirm     number                                  nothing
8    Visible     number                                  nothing
9    Leaving                                             nothing
10   Stop        lost, unsaved                           UTF-8
11   Halt        bound, asked                            nothing
==== =========== ======================================= =========

No number is negative. How long rows or text are follows from the length of the payload; a text has at most 65,536
bytes. A payload that breaks any of this is refused as a whole. What rows hold is not looked at here.

This is the hot path of small messages: a frame without rows takes one `struct` call each way.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import numpy as np

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
from nbps.errors import LocalProtocolError, RemoteProtocolError
from nbps.transport.interface import Buffer, Bytes

HEADER_BYTES = 64
TEXT_LIMIT = 1 << 16  # bytes; a reason may hold the traceback of a worker

_ROWS = 1 << 8  # the second byte, as part of the first eight
_HEADER = struct.Struct("<8q")
_CUT = " ... (cut)"
_MAY, _MUST, _TEXT, _NOTHING = "rows or nothing", "rows", "text", "nothing"


class _Layout(NamedTuple):
    kind: int
    message: type[tuple[object, ...]]
    numbers: int  # fields that are numbers; they come first
    follows: str
    pack: struct.Struct


def _layout(kind: int, message: type[tuple[object, ...]], numbers: int, follows: str) -> _Layout:
    unused = 4 - numbers
    return _Layout(kind, message, numbers, follows, struct.Struct(f"<{4 + numbers}q{8 * unused}x"))


_LAYOUTS = (
    _layout(1, Push, 2, _MAY),
    _layout(2, Ship, 4, _MAY),
    _layout(3, Pull, 1, _NOTHING),
    _layout(4, Subscribe, 1, _MUST),
    _layout(5, Unsubscribe, 0, _MUST),
    _layout(6, Arrived, 1, _MAY),
    _layout(7, Confirm, 1, _NOTHING),
    _layout(8, Visible, 1, _NOTHING),
    _layout(9, Leaving, 0, _NOTHING),
    _layout(10, Stop, 2, _TEXT),
    _layout(11, Halt, 2, _NOTHING),
)
_BY_MESSAGE = {layout.message: layout for layout in _LAYOUTS}
_BY_START = {layout.kind: layout for layout in _LAYOUTS if layout.follows is not _MUST} | {
    layout.kind | _ROWS: layout for layout in _LAYOUTS if layout.follows in (_MAY, _MUST)
}
_BARE = struct.Struct("<4q32x")


def encode(frame: Frame) -> tuple[Buffer, ...]:
    """Return the parts of the payload that holds `frame`: header, then its rows themselves, without a copy.

    A reason to stop that is too long is cut, and says so; what UTF-8 cannot hold of it is escaped. It may be the only
    thing that tells the other nodes why the job ends.

    Raises
    ------
    LocalProtocolError
        If a number is not in 0 to 2**63 - 1, or rows are not a contiguous uint8[n]: a bug of whoever made the frame.
    """
    run, number, acknowledged, message = frame
    if message is None:
        if number != 0 or run < 0 or acknowledged < 0:
            raise LocalProtocolError(f"{frame} cannot be sent: expected number 0 without a message, and none negative")
        return (_packed(_BARE, frame, (0, run, 0, acknowledged)),)
    layout = _BY_MESSAGE.get(type(message))
    if layout is None:
        raise LocalProtocolError(f"a frame holds a {type(message).__name__}; expected a message of nbps.core.messages")
    kind, _, numbers, follows, pack = layout
    values: tuple[Any, ...] = message[:numbers]
    if number <= 0 or run < 0 or acknowledged < 0 or (values and min(values) < 0):
        raise LocalProtocolError(f"{_shown(frame)} cannot be sent: expected a number > 0, and nothing negative")
    if follows is _NOTHING:
        return (_packed(pack, frame, (kind, run, number, acknowledged, *values)),)
    rest: Any = message[numbers]
    if follows is _TEXT:
        return (_packed(pack, frame, (kind, run, number, acknowledged, *values)), _bytes_of(rest))
    if rest is None and follows is _MAY:
        return (_packed(pack, frame, (kind, run, number, acknowledged, *values)),)
    if not (isinstance(rest, np.ndarray) and rest.dtype == np.uint8 and rest.ndim == 1 and rest.flags.c_contiguous):
        raise LocalProtocolError(f"{_shown(frame)} cannot be sent: expected rows as a contiguous uint8[n]")
    return (_packed(pack, frame, (kind | _ROWS, run, number, acknowledged, *values)), rest)


def decode(payload: Bytes) -> Frame:
    """Return the frame that `payload` holds.

    Parameters
    ----------
    payload : ndarray, uint8[n]
        As `encode` made it, in one piece. Rows of the frame are a view into it: it must stay unchanged with them.

    Raises
    ------
    RemoteProtocolError
        If it holds none; says what was found.
    """
    size = len(payload)
    if size < HEADER_BYTES:
        raise RemoteProtocolError(f"a message of {size} bytes arrived; expected at least {HEADER_BYTES}")
    fields: tuple[int, ...] = _HEADER.unpack_from(payload.data)
    start, run, number, acknowledged, a, b, c, d = fields
    # The sign of all of them in one: negative if any is.
    if (run | number | acknowledged | a | b | c | d) < 0:
        raise RemoteProtocolError(f"a message arrived with a negative number: {fields}")
    if start == 0:
        if size != HEADER_BYTES or number or a | b | c | d:
            raise RemoteProtocolError(
                f"an acknowledgement arrived with {size} bytes and numbers {fields}; expected only one"
            )
        return Frame(run, 0, acknowledged, None)
    layout = _BY_START.get(start)
    if layout is None:
        raise RemoteProtocolError(
            f"a message of unknown kind arrived, it starts with bytes {payload[:8].tobytes().hex()}"
        )
    _, kind, numbers, follows, _ = layout
    if number == 0 or any(fields[4 + numbers :]):
        raise RemoteProtocolError(
            f"a {kind.__name__} arrived with numbers {fields}; expected {numbers} of its own after 4"
        )
    values = fields[4 : 4 + numbers]
    if start & _ROWS:
        return Frame(run, number, acknowledged, _made(kind, (*values, payload[HEADER_BYTES:])))
    if follows is _TEXT:
        return Frame(run, number, acknowledged, _made(kind, (*values, _text_of(payload))))
    if size != HEADER_BYTES:
        raise RemoteProtocolError(f"a {kind.__name__} arrived with {size} bytes; expected {HEADER_BYTES}")
    return Frame(run, number, acknowledged, _made(kind, (*values, None) if follows is _MAY else values))


def _packed(pack: struct.Struct, frame: Frame, numbers: tuple[int, ...]) -> bytes:
    try:
        return pack.pack(*numbers)
    except struct.error as error:
        raise LocalProtocolError(
            f"{_shown(frame)} cannot be sent, expected numbers up to 2**63 - 1: {error}"
        ) from error


def _made(kind: type[tuple[object, ...]], values: tuple[object, ...]) -> Message:
    return kind._make(values)  # type: ignore[attr-defined,no-any-return]  # all of them are named tuples


def _bytes_of(text: str) -> bytes:
    encoded = text.encode("utf-8", "backslashreplace")
    if len(encoded) <= TEXT_LIMIT:
        return encoded
    # Cut before a character, not in the middle of one.
    return encoded[: TEXT_LIMIT - len(_CUT)].decode("utf-8", "ignore").encode() + _CUT.encode()


def _text_of(payload: Bytes) -> str:
    size = len(payload) - HEADER_BYTES
    if size > TEXT_LIMIT:
        raise RemoteProtocolError(f"a Stop arrived with a reason of {size:,} bytes; expected at most {TEXT_LIMIT:,}")
    try:
        return payload[HEADER_BYTES:].tobytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise RemoteProtocolError(f"a Stop arrived with a reason that is not UTF-8: {error}") from error


def _shown(frame: Frame) -> str:
    """`frame` without what its rows hold."""
    text = repr(frame)
    return text if len(text) <= 300 else text[:300] + "..."
