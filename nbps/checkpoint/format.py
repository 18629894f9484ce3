"""The JSON files of a checkpoint: a part per node, and the manifest that makes of the parts a checkpoint.

Names, sizes and checksums chain: the manifest has a checksum of itself and one of every part, a part has one of every
piece of its data files. So no byte of data is looked at before it is known to be what was written, and what was written
at another clock, by another node or in another attempt never fits. Whatever a file says is checked for type and range
before it is used; file names are names, never paths.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nbps.errors import CheckpointError
from nbps.tables.definition import DTYPES

FORMAT = 1
JSON_BYTES_LIMIT = 64 << 20  # 80 bytes of JSON for 16 MiB of data: enough for 13 TB in one part
WIDTH_LIMIT = 2**31 - 1
ATTEMPT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
FOLDER = re.compile(r"clock-(?P<clock>[0-9]{12,19})-(?P<attempt>[A-Za-z0-9][A-Za-z0-9._-]{0,63})")
MANIFEST = re.compile(r"manifest-(?P<serial>[0-9]{9,19})\.json")
_DATA_FILE = re.compile(r"node-[0-9]{4,10}-[A-Za-z0-9._-]{1,99}\.arrow")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_INT64_MAX = 2**63 - 1


def folder_name(clock: int, attempt: str) -> str:
    """Return the name of the folder of a checkpoint."""
    return f"clock-{clock:012}-{attempt}"


def life_of(attempt: str) -> str:
    """Return the life of a job that `attempt` is of: what stands before the first dash."""
    return attempt.partition("-")[0]


def lineage_of(attempt: str) -> str:
    """Return the lineage that `attempt` is of: the name of its first life, which later ones put before theirs."""
    return life_of(attempt).partition(".")[0]


def later_life(lineage: str | None, life: str) -> str:
    """Return what the life `life` of a job is called in `lineage`; None for a job that begins one."""
    return life if lineage is None else f"{lineage}.{life}"


def manifest_name(serial: int) -> str:
    """Return the name of the manifest of the checkpoint that was completed as number `serial` in its root."""
    return f"manifest-{serial:09}.json"


def part_name(rank: int) -> str:
    """Return the name of the file that says what node `rank` has written."""
    return f"node-{rank:04}.json"


def data_name(rank: int, number: int, table: str) -> str:
    """Return the name of the file with the rows of table `number` that node `rank` owns."""
    return f"node-{rank:04}-{number:04}-{re.sub(r'[^A-Za-z0-9_-]', '-', table)[:64]}.arrow"


class Fields:
    """A JSON object from a file, whose values are checked where they are read.

    Parameters
    ----------
    record : object
        What should be a JSON object.
    where : str
        The file, and where in it; for messages.
    """

    def __init__(self, record: object, where: str) -> None:
        self.where = where
        self.record = self._checked("content", record, isinstance(record, dict), "a JSON object")

    def _checked(self, key: str, value: Any, fits: bool, expected: str) -> Any:
        if not fits:
            shown = repr(value) if isinstance(value, str | int | float | None) else type(value).__name__
            raise CheckpointError(f"{self.where}: {key} is {shown[:100]}; expected {expected}")
        return value

    def get(self, key: str) -> Any:
        """Return what is called `key`, whatever it is."""
        if key not in self.record:
            raise CheckpointError(f"{self.where}: {key} is missing")
        return self.record[key]

    def whole(self, key: str, low: int = 0, high: int = _INT64_MAX) -> int:
        """Return a whole number from `low` to `high`."""
        value = self.get(key)
        fits = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        return int(self._checked(key, value, fits, f"a whole number from {low} to {high}"))

    def text(self, key: str, pattern: re.Pattern[str]) -> str:
        """Return a string that matches `pattern`."""
        value = self.get(key)
        fits = isinstance(value, str) and pattern.fullmatch(value) is not None
        return str(self._checked(key, value, fits, f"a string like {pattern.pattern}"))

    def same(self, key: str, expected: int | str) -> None:
        """Demand that the value is `expected`."""
        value = self.get(key)
        self._checked(key, value, type(value) is type(expected) and value == expected, repr(expected))

    def entries(self, key: str) -> list[Any]:
        """Return an array."""
        value = self.get(key)
        return list(self._checked(key, value, isinstance(value, list), "an array"))

    def mapping(self, key: str) -> dict[str, Any]:
        """Return an object."""
        value = self.get(key)
        return dict(self._checked(key, value, isinstance(value, dict), "an object"))


@dataclass(frozen=True)
class Piece:
    """Consecutive bytes of a data file: how many, and their SHA-256."""

    size: int
    sha256: str


@dataclass(frozen=True)
class DataFile:
    """Arrow IPC file `name` with `rows` rows of a table; its pieces are the whole file."""

    name: str
    rows: int
    pieces: tuple[Piece, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(piece.size for piece in self.pieces)


@dataclass(frozen=True)
class PartEntry:
    """What the manifest says of a part: its name, bytes and SHA-256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Shape:
    """Shape and dtype of a table."""

    rows: int
    width: int
    dtype: str


def encode(record: object, what: str) -> bytes:
    """Return `record` as JSON, the same bytes for the same record.

    Raises
    ------
    CheckpointError
        If it is not what JSON can hold, or too large.
    """
    try:
        text = json.dumps(record, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{what} cannot be kept as JSON: {error}; use numbers, strings, lists, dicts") from error
    if len(text) > JSON_BYTES_LIMIT:
        raise CheckpointError(f"{what} takes {len(text):,} bytes of JSON; expected at most {JSON_BYTES_LIMIT:,}")
    return text


def decode(text: bytes, where: str) -> Any:
    """Return what JSON `text` holds.

    Raises
    ------
    CheckpointError
        If it is not JSON, or JSON made to exhaust its reader.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError, MemoryError) as error:
        raise CheckpointError(f"{where}: expected JSON, found: {error}") from error


def sha256(data: Any) -> str:
    """Return the SHA-256 of bytes-like `data` in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def read_shape(record: object, where: str) -> Shape:
    """Return shape and dtype of the definition of a table."""
    fields = Fields(record, where)
    dtype = fields.text("dtype", re.compile("|".join(DTYPES)))
    return Shape(fields.whole("rows", 1), fields.whole("width", 1, WIDTH_LIMIT), dtype)


def encode_part(clock: int, attempt: str, rank: int, nodes: int, tables: Mapping[str, DataFile]) -> bytes:
    """Return what the part file of node `rank` holds."""
    files = {
        name: {"file": file.name, "rows": file.rows, "pieces": [[piece.size, piece.sha256] for piece in file.pieces]}
        for name, file in tables.items()
    }
    record = {"format": FORMAT, "clock": clock, "attempt": attempt, "rank": rank, "nodes": nodes, "tables": files}
    return encode(record, f"the part of node {rank}")


def decode_part(
    text: bytes, where: str, *, clock: int, attempt: str, rank: int, nodes: int, tables: Mapping[str, Shape]
) -> dict[str, DataFile]:
    """Return the data file of every table in the part of node `rank`; it must be that of this very checkpoint."""
    part = Fields(decode(text, where), where)
    for key, expected in (("format", FORMAT), ("clock", clock), ("attempt", attempt), ("rank", rank), ("nodes", nodes)):
        part.same(key, expected)
    found = part.mapping("tables")
    if found.keys() != tables.keys():
        raise CheckpointError(f"{where}: it has the tables {sorted(found)}; expected {sorted(tables)}")
    return {
        name: _data_file(Fields(found[name], f"{where}: table {name!r}"), shape.rows) for name, shape in tables.items()
    }


def _data_file(fields: Fields, rows_limit: int) -> DataFile:
    pieces: list[Piece] = []
    for entry in fields.entries("pieces"):
        size, checksum = entry if isinstance(entry, list) and len(entry) == 2 else (None, None)
        piece = Fields({"size": size, "sha256": checksum}, f"{fields.where}: piece {len(pieces)}")
        pieces.append(Piece(piece.whole("size", 1), piece.text("sha256", _SHA256)))
    return DataFile(fields.text("file", _DATA_FILE), fields.whole("rows", 0, rows_limit), tuple(pieces))


def check_complete(parts: list[dict[str, DataFile]], tables: Mapping[str, Shape], where: str) -> None:
    """Demand that the parts together have as many rows as each table."""
    for name, shape in tables.items():
        rows = sum(part[name].rows for part in parts)
        if rows != shape.rows:
            raise CheckpointError(
                f"{where}: its {len(parts)} nodes have {rows:,} rows of table {name!r}; expected {shape.rows:,}: every "
                f"row from the one node that owns it"
            )


def encode_manifest(checkpoint: dict[str, Any]) -> bytes:
    """Return what a manifest holds that says `checkpoint`, with a checksum of that."""
    said = encode(checkpoint, "the manifest")
    return b'{"format":%d,"sha256":"%s","checkpoint":%s}' % (FORMAT, sha256(said).encode(), said)


def decode_manifest(text: bytes, where: str) -> Fields:
    """Return what a manifest says, its checksum verified."""
    outer = Fields(decode(text, where), where)
    if outer.whole("format", 1) != FORMAT:
        raise CheckpointError(
            f"{where}: the checkpoint has format {outer.get('format')}; this nbps reads format {FORMAT}: load it with "
            f"the version of nbps that wrote it"
        )
    checkpoint = outer.mapping("checkpoint")
    # Encoding what was decoded gives the bytes that were encoded first; white space and repeated keys do not count.
    found, expected = sha256(encode(checkpoint, where)), outer.text("sha256", _SHA256)
    if found != expected:
        raise CheckpointError(f"{where}: the manifest is damaged: its SHA-256 is {found}; expected {expected}")
    return Fields(checkpoint, where)


def read_part_entry(record: object, rank: int, where: str) -> PartEntry:
    """Return what the manifest says of the part of node `rank`."""
    fields = Fields(record, f"{where}: part {rank}")
    fields.same("file", part_name(rank))
    return PartEntry(part_name(rank), fields.whole("size", 0, JSON_BYTES_LIMIT), fields.text("sha256", _SHA256))
