"""Checkpoints as a job that resumes sees them: which is the newest, what is in it, and its rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.fs as pafs

from nbps.checkpoint import format as form
from nbps.checkpoint.rows import read_rows
from nbps.checkpoint.store import Store, open_store
from nbps.errors import CheckpointError

_MANIFEST_BYTES_LIMIT = form.JSON_BYTES_LIMIT + 1024


@dataclass(frozen=True)
class Manifest:
    """A complete checkpoint.

    Attributes
    ----------
    path : str
        Its folder; `latest` takes it, on every node.
    version : str
        Of the nbps that wrote it.
    clock, attempt, nodes
        When it was taken, in which life of the job, by how many nodes.
    serial : int
        How many checkpoints had been completed in this root, this one included.
    tables : dict
        Definition of every table, as the job gave it: at least ``rows``, ``width``, ``dtype``.
    state : Any
        What the job gave besides; lists, dicts, strings, numbers.
    """

    path: str
    version: str
    clock: int
    attempt: str
    nodes: int
    serial: int
    tables: dict[str, dict[str, Any]]
    state: Any
    store: Store
    folder: str
    shapes: dict[str, form.Shape]
    parts: tuple[dict[str, form.DataFile], ...]


def find(store: Store, folders: Iterable[str] | None = None) -> tuple[dict[int, list[str]], list[str]]:
    """Return the folders of complete checkpoints by serial number, and the incomplete ones; by default of all."""
    if folders is None:
        folders = sorted(name for name, size in store.list().items() if size is None and form.FOLDER.fullmatch(name))
    complete: dict[int, list[str]] = {}
    incomplete = []
    for folder in folders:
        serials = [int(match["serial"]) for name in store.list(folder) if (match := form.MANIFEST.fullmatch(name))]
        for serial in serials:
            complete.setdefault(serial, []).append(folder)
        if not serials:
            incomplete.append(folder)
    return complete, incomplete


def remove(store: Store, folder: str) -> None:
    """Remove a checkpoint, complete or not; what a kill in between leaves of it is an incomplete one."""
    for name in store.list(folder):
        if form.MANIFEST.fullmatch(name):
            store.remove_file(f"{folder}/{name}")
    store.remove_folder(folder)


def check_sizes(there: Mapping[str, int | None], sizes: Mapping[str, int], where: str) -> None:
    """Demand that the files called and as large as in `sizes` are among those that are `there`."""
    for name, size in sizes.items():
        found = there.get(name)
        if found != size:
            state = "it is missing" if found is None else f"it has {found:,} bytes"
            raise CheckpointError(f"{where}: expected the file {name} of {size:,} bytes, but {state}")


def data_sizes(parts: Iterable[Mapping[str, form.DataFile]]) -> dict[str, int]:
    """Return names and sizes of all data files of `parts`."""
    return {file.name: file.size for part in parts for file in part.values()}


def latest(root: str | Path | pafs.FileSystem) -> Manifest:
    """Return the newest complete checkpoint in `root`; if `root` is the folder of a checkpoint, that one.

    Its manifest, its parts and the sizes of its files are verified, the data when it is loaded. A damaged newest
    checkpoint is an error, never a reason to load an older one unasked.

    Raises
    ------
    CheckpointError
        If there is none, or it is damaged.
    """
    store = open_store(root)
    above, name = store.split()
    if form.FOLDER.fullmatch(name):
        store = above
        complete, incomplete = find(store, [name])
    else:
        complete, incomplete = find(store)
    if not complete:
        found = f"{len(incomplete)} incomplete: {', '.join(incomplete[:3])}" if incomplete else "nothing"
        raise CheckpointError(f"{store.shown}: expected a complete checkpoint, found {found}")
    serial = max(complete)
    if len(complete[serial]) > 1:
        raise CheckpointError(
            f"{store.shown}: {' and '.join(complete[serial])} both claim to be checkpoint {serial} of this folder; "
            f"name the folder of one of them"
        )
    return _read_manifest(store, complete[serial][0], serial)


def _read_manifest(store: Store, folder: str, serial: int) -> Manifest:
    path = f"{folder}/{form.manifest_name(serial)}"
    where = store.show(path)
    said = form.decode_manifest(store.read(path, _MANIFEST_BYTES_LIMIT), where)
    named = form.FOLDER.fullmatch(folder)
    if named is None:
        raise CheckpointError(f"{where}: expected a folder called like {form.FOLDER.pattern}")
    clock, attempt = int(named["clock"]), named["attempt"]
    for key, expected in (("serial", serial), ("clock", clock), ("attempt", attempt)):
        said.same(key, expected)  # whoever renamed the folder or the file may have mixed two checkpoints
    tables = said.mapping("tables")
    shapes = {name: form.read_shape(entry, f"{where}: table {name!r}") for name, entry in tables.items()}
    entries = said.entries("parts")
    nodes = len(entries)
    said.same("nodes", nodes)
    named_parts = [form.read_part_entry(record, rank, where) for rank, record in enumerate(entries)]
    there = store.list(folder)
    check_sizes(there, {entry.name: entry.size for entry in named_parts}, store.show(folder))
    parts = []
    for rank, entry in enumerate(named_parts):
        text = store.read(f"{folder}/{entry.name}", form.JSON_BYTES_LIMIT)
        shown = store.show(f"{folder}/{entry.name}")
        if form.sha256(text) != entry.sha256:
            raise CheckpointError(f"{shown}: it is not what was written, by its SHA-256: the file is damaged")
        parts.append(form.decode_part(text, shown, clock=clock, attempt=attempt, rank=rank, nodes=nodes, tables=shapes))
    form.check_complete(parts, shapes, where)
    check_sizes(there, data_sizes(parts), store.show(folder))
    return Manifest(
        path=store.show(folder),
        version=str(said.get("nbps")),
        clock=clock,
        attempt=attempt,
        nodes=nodes,
        serial=serial,
        tables=tables,
        state=said.get("state"),
        store=store,
        folder=folder,
        shapes=shapes,
        parts=tuple(parts),
    )


def load(manifest: Manifest, table: str, values: npt.NDArray[Any]) -> None:
    """Fill `values`, shape (rows, width), with the rows of `table`, whichever nodes wrote them.

    Memory used besides: one byte per row and 16 MiB for each of up to four threads.

    Raises
    ------
    CheckpointError
        If the checkpoint has no such table of that shape and dtype, or a file is not what was written; `values` may
        then hold anything.
    """
    shape = manifest.shapes.get(table)
    if shape is None:
        known = ", ".join(map(repr, manifest.shapes)) or "none"
        raise CheckpointError(f"checkpoint {manifest.path}: it has no table {table!r}; its tables: {known}")
    if values.shape != (shape.rows, shape.width) or values.dtype != np.dtype(shape.dtype):
        raise CheckpointError(
            f"checkpoint {manifest.path}: table {table!r} is {shape.dtype} {(shape.rows, shape.width)}; expected by "
            f"this job: {values.dtype} {values.shape}"
        )
    read_rows(manifest.store, manifest.folder, [part[table] for part in manifest.parts], shape, values)
