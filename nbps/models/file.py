"""A saved model: a folder of Arrow IPC files that any Arrow reader reads, and a manifest. Nothing is pickled.

``model.json`` is written last and holds the checksums of the others: a folder whose saving was cut off, or was mixed
with another, is refused.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from nbps.consistency import VAP, Consistency, consistency_named
from nbps.errors import DataError
from nbps.memory.files import write_files

_MANIFEST = "model.json"


@dataclass(frozen=True)
class ModelFormat:
    """What the files of one kind of model are called, and which versions of them this nbps reads.

    Attributes
    ----------
    name : str
        Of the kind, in manifests and errors.
    version : int
        That is written.
    readable : tuple of int
        Versions that are read.
    """

    name: str
    version: int = 1
    readable: tuple[int, ...] = (1,)

    def check_folder(self, folder: Path) -> None:
        """Raise `DataError` if `folder` is a file, or has a model of another kind, whose files would stay there."""
        if folder.exists() and not folder.is_dir():
            raise DataError(f"{folder}: expected a folder to write the model into, found a file")
        try:
            found = json.loads((folder / _MANIFEST).read_text())["format"]
        except (OSError, ValueError, TypeError, KeyError):
            return
        if found != self.name:
            raise DataError(
                f"{folder}: expected no model there, or one of the format {self.name!r}; found {found!r}. Name another "
                f"folder, or remove that one"
            )

    def write(self, folder: Path, tables: dict[str, pa.Table], manifest: dict[str, Any]) -> None:
        """Write `tables` as ``<name>.arrow`` and `manifest` into `folder`, which is made if need be.

        Raises
        ------
        DataError
            If `folder` is a file, or has a model of another kind.
        OSError
            If the folder cannot be written; what was there is untouched.
        """
        self.check_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        sums: dict[str, str] = {}  # filled while the tables are written, which is before the manifest

        def write_table(name: str, table: pa.Table, file: BinaryIO) -> None:
            summed = _Summed(file)
            with pa.PythonFile(summed, "w") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
            sums[name] = summed.digest.hexdigest()

        def write_manifest(file: BinaryIO) -> None:
            whole = {"format": self.name, "version": self.version, "sha256": sums, **manifest}
            file.write(json.dumps(whole, indent=2).encode())

        contents: dict[Path, Any] = {
            folder / f"{name}.arrow": functools.partial(write_table, name, table) for name, table in tables.items()
        }
        write_files(contents | {folder / _MANIFEST: write_manifest})

    def read(self, folder: Path) -> tuple[dict[str, pa.Table], dict[str, Any]]:
        """Return tables and manifest, as `write` wrote them.

        Raises
        ------
        DataError
            If they are not there, of another format or version, or damaged.
        """
        path = folder / _MANIFEST
        try:
            manifest = json.loads(path.read_text())
        except FileNotFoundError:
            what = f"no saved model here ({_MANIFEST} is missing); expected a folder written by save()"
            raise DataError(f"{folder}: {what}") from None
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: expected the manifest of a saved model, found: {error}") from error
        found = manifest.get("format") if isinstance(manifest, dict) else None
        if found != self.name:
            raise DataError(
                f"{path}: expected the format {self.name!r}, found {found!r}: another kind of model or file"
            )
        if manifest.get("version") not in self.readable:
            raise DataError(
                f"{path}: expected format version {' or '.join(map(str, self.readable))}, found "
                f"{manifest.get('version')}; read it with the nbps that wrote it"
            )
        sums = manifest.get("sha256")
        if not isinstance(sums, dict):
            raise DataError(f"{path}: expected the checksums of the model's files in 'sha256', found {sums!r}")
        return {name: _read_table(folder / f"{name}.arrow", sum_) for name, sum_ in sums.items()}, manifest


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


def _read_table(path: Path, expected: str) -> pa.Table:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: part of the saved model cannot be read: {error}") from error
    if hashlib.sha256(content).hexdigest() != expected:
        raise DataError(f"{path}: the checksum differs from the manifest's; saving was cut off or the file was changed")
    return pa.ipc.open_file(pa.py_buffer(content)).read_all()


def parameters_to_json(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return an estimator's parameters as JSON; callbacks, `checkpoint` and what splits rows or draws are left out."""
    plain = {name: value for name, value in parameters.items() if name not in ("callbacks", "checkpoint")}
    if isinstance(plain.get("random_state"), np.random.RandomState | np.random.Generator):
        plain["random_state"] = None
    if not isinstance(plain.get("cv"), int):
        plain.pop("cv", None)
    model = plain.get("consistency")
    if model is not None:
        plain["consistency"] = [type(model).__name__, _parameter(model)]
    known = (type(None), str, bool, int, float)  # others are array_like: JSON has neither NumPy's types nor tuples
    return {
        name: value if name == "consistency" or type(value) in known else np.asarray(value).tolist()
        for name, value in plain.items()
    }


def parameters_from_json(plain: dict[str, Any]) -> dict[str, Any]:
    """Inverse of `parameters_to_json`, for what it kept."""
    model = plain.get("consistency")
    return plain if model is None else plain | {"consistency": _consistency(*model)}


def _parameter(model: Consistency) -> float | None:
    """Return the number that a consistency model was made with; None is infinite or has none, JSON knows neither."""
    number = model.v0 if isinstance(model, VAP) else model.staleness
    return None if math.isinf(number) else number


def _consistency(name: str, parameter: float | None) -> Consistency:
    return consistency_named(name, math.inf if parameter is None else parameter)  # VAP refuses infinity
