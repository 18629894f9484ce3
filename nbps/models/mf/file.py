"""A saved factorization: a folder of Arrow IPC files that any Arrow reader reads, and a manifest. Nothing is pickled.

``users.arrow`` and ``items.arrow`` have the columns id, factors (fixed-size list), bias, accumulator; ``seen.arrow``
the training pairs in any order, as codes, that is row numbers of those two. ``model.json`` is written last and holds
their checksums: a folder whose saving was cut off, or was mixed with another, is refused.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from nbps.consistency import VAP, Consistency, consistency_named
from nbps.errors import DataError
from nbps.memory.files import write_files

FORMAT = "nbps matrix factorization"
FORMAT_VERSION = 2
_READ_VERSIONS = (1, 2)  # in the first, seen.arrow was sorted by user
_MANIFEST = "model.json"


def write_model(folder: Path, tables: dict[str, pa.Table], manifest: dict[str, Any]) -> None:
    """Write `tables` as ``<name>.arrow`` and `manifest` into `folder`, which is made if need be.

    Raises
    ------
    DataError
        If `folder` is a file.
    OSError
        If the folder cannot be written; what was there is untouched.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: expected a folder to write the model into, found a file")
    folder.mkdir(parents=True, exist_ok=True)
    sums: dict[str, str] = {}  # filled while the tables are written, which is before the manifest

    def write_table(name: str, table: pa.Table, file: BinaryIO) -> None:
        summed = _Summed(file)
        with pa.PythonFile(summed, "w") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        sums[name] = summed.digest.hexdigest()

    def write_manifest(file: BinaryIO) -> None:
        whole = {"format": FORMAT, "version": FORMAT_VERSION, "sha256": sums, **manifest}
        file.write(json.dumps(whole, indent=2).encode())

    contents: dict[Path, Any] = {
        folder / f"{name}.arrow": functools.partial(write_table, name, table) for name, table in tables.items()
    }
    write_files(contents | {folder / _MANIFEST: write_manifest})


class _Summed:
    """A file being written, as pyarrow takes it, and the checksum of what was: no copy of a model is made in memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.closed = False

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:  # the file is its opener's
        self.closed = True


def read_model(folder: Path) -> tuple[dict[str, pa.Table], dict[str, Any]]:
    """Read what `write_model` wrote.

    Raises
    ------
    DataError
        If it is not there, of another format or version, or damaged.
    """
    path = folder / _MANIFEST
    try:
        manifest = json.loads(path.read_text())
    except FileNotFoundError:
        what = f"no saved model here ({_MANIFEST} is missing); expected a folder written by save()"
        raise DataError(f"{folder}: {what}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected the manifest of a saved model, found: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise DataError(f"{path}: expected the format {FORMAT!r}; this is another kind of file")
    if manifest.get("version") not in _READ_VERSIONS:
        raise DataError(
            f"{path}: expected format version {' or '.join(map(str, _READ_VERSIONS))}, found "
            f"{manifest.get('version')}; read it with the nbps that wrote it"
        )
    sums = manifest.get("sha256")
    if not isinstance(sums, dict):
        raise DataError(f"{path}: expected the checksums of the model's files in 'sha256', found {sums!r}")
    return {name: _read_table(folder / f"{name}.arrow", sum_) for name, sum_ in sums.items()}, manifest


def _read_table(path: Path, expected: str) -> pa.Table:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: part of the saved model cannot be read: {error}") from error
    if hashlib.sha256(content).hexdigest() != expected:
        raise DataError(f"{path}: the checksum differs from the manifest's; saving was cut off or the file was changed")
    return pa.ipc.open_file(pa.py_buffer(content)).read_all()


def parameters_to_json(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return an estimator's parameters as the manifest holds them; callbacks and sources of random numbers do not."""
    plain = {name: value for name, value in parameters.items() if name != "callbacks"}
    if isinstance(plain["random_state"], np.random.RandomState | np.random.Generator):
        plain["random_state"] = None
    model = plain["consistency"]
    plain["consistency"] = None if model is None else [type(model).__name__, _parameter(model)]
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in plain.items()}


def parameters_from_json(plain: dict[str, Any]) -> dict[str, Any]:
    """Inverse of `parameters_to_json`, for what it kept."""
    model = plain["consistency"]
    return plain | {"consistency": None if model is None else _consistency(*model)}


def _parameter(model: Consistency) -> float | None:
    """Return the number that a consistency model was made with; None is infinite or has none, JSON knows neither."""
    number = model.v0 if isinstance(model, VAP) else model.staleness
    return None if math.isinf(number) else number


def _consistency(name: str, parameter: float | None) -> Consistency:
    return consistency_named(name, math.inf if parameter is None else parameter)  # VAP refuses infinity
