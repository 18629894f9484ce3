"""Notes: what nodes tell each other in JSON before the frames of the job. Strict, since anybody may send them.

A note is one object with exactly the keys that are due, each of exactly its type; no key twice, no NaN, no number
beyond 64 bits. How long a note may be, the connection's frame limit says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from nbps.errors import ProtocolError
from nbps.transport.interface import Bytes

_SHOWN = 100  # characters of a note that a message quotes
_WORDS_LIMIT = 2000  # characters of a sentence of another node


def write_note(fields: Mapping[str, Any]) -> bytes:
    """Return the note that holds `fields`.

    Raises
    ------
    ValueError, TypeError
        If JSON cannot hold them.
    """
    return json.dumps(fields, allow_nan=False, separators=(",", ":")).encode()


def read_note(payload: bytes | Bytes) -> dict[str, Any]:
    """Return the fields of a note.

    Raises
    ------
    ProtocolError
        If it is not one; says what was found.
    """
    raw = bytes(payload)
    try:
        note = json.loads(raw.decode("utf-8"), parse_constant=_refuse, object_pairs_hook=_pairs, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"expected a note in JSON, found {_shown(raw)}: {error}") from error
    if not isinstance(note, dict):
        raise ProtocolError(f"expected a note, an object of JSON; found {_shown(raw)}")
    return note


def check_fields(note: Mapping[str, Any], kinds: Mapping[str, type]) -> None:
    """Raise `ProtocolError` unless `note` has exactly the keys of `kinds`, with values of exactly these types."""
    if note.keys() != kinds.keys():
        raise ProtocolError(f"expected a note with {sorted(kinds)}, found {_shown(repr(sorted(note)))}")
    for key, kind in kinds.items():
        if type(note[key]) is not kind:  # a bool is an int to isinstance
            raise ProtocolError(f"expected {key!r} as {kind.__name__}, found {_shown(repr(note[key]))}")


def printable(words: str) -> str:
    """Return what another node said so that it can be shown or logged: on one line, not too long."""
    short = words if len(words) <= _WORDS_LIMIT else words[:_WORDS_LIMIT] + "..."
    return "".join(character if character.isprintable() else " " for character in short)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number here")


def _integer(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError("a number of more than 64 bits")
    return int(digits)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key comes twice")
    return fields


def _shown(found: bytes | str) -> str:
    text = repr(found) if isinstance(found, bytes) else found
    return printable(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")
