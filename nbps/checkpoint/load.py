"""Checkpoints as a job that resumes sees them: which is the newest, what is in it, and its rows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.fs as pafs

from nbps.checkpoint import format as form
from nbps.checkpoint.rows import read_rows, verify_files
from nbps.checkpoint.store import Store, open_store
from nbps.errors import CheckpointError

_MANIFEST_BYTES_LIMIT = form.JSON_BYTES_LIMIT + 1024
_LOOKS = 20  # at a root whose newest checkpoint is replaced, and removed, before it was read


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

    @property
    def lineage(self) -> str:
        """Lineage that it belongs to."""
        return form.lineage_of(self.attempt)


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


def attempt_of(folder: str) -> str:
    """Return the attempt whose checkpoint lies in `folder`."""
    named = form.FOLDER.fullmatch(folder)
    assert named is not None
    return named["attempt"]


def newest_of_lineages(root: str | Path | pafs.FileSystem) -> dict[str, tuple[int, str]]:
    """Return serial number and path of the newest complete checkpoint of each lineage in `root`, as `latest` ranks."""
    store = open_store(root)
    complete, _ = find(store)
    newest: dict[str, tuple[int, str]] = {}
    for serial in sorted(complete, reverse=True):
        for folder in sorted(complete[serial], key=attempt_of, reverse=True):
            newest.setdefault(form.lineage_of(attempt_of(folder)), (serial, store.show(folder)))
    return newest


def newest_of_life(root: str | Path | pafs.FileSystem, life: str) -> str | None:
    """Return the path of the newest complete checkpoint in `root` of one life of a job; `latest` takes it."""
    store = open_store(root)
    complete, _ = find(store)
    own = [(serial, folder) for serial, some in complete.items() for folder in some]
    own = [each for each in own if form.life_of(attempt_of(each[1])) == life]
    return store.show(max(own)[1]) if own else None


def latest(root: str | Path | pafs.FileSystem, skipped: list[CheckpointError] | None = None) -> Manifest:
    """Return the newest complete checkpoint in `root`; if `root` is the folder of a checkpoint, that one.

    Its manifest, its parts and the sizes of its files are verified, the data when it is loaded. A damaged newest
    checkpoint is an error, never a reason to load an older one unasked.

    Parameters
    ----------
    root : str, Path or pyarrow.fs.FileSystem
    skipped : list, optional
        Where it is given, data is verified too, the errors of damaged checkpoints go there, and the next older one of
        the same lineage is tried.

    Raises
    ------
    CheckpointError
        If there is none, or it is damaged.
    """
    store = open_store(root)
    above, name = store.split()
    asked = form.FOLDER.fullmatch(name) is not None
    store = above if asked else store
    for _ in range(_LOOKS):
        complete, incomplete = find(store, [name] if asked else None)
        if complete:
            serial = max(complete)
            folder = _newest_of(store, serial, complete[serial])
            try:
                return _intact(store, folder, serial, skipped)
            except _VanishedError:
                continue
        if not incomplete:
            break
    if complete:
        raise CheckpointError(f"{store.shown}: checkpoints there are removed before they are read; keep more of them")
    found = f"{len(incomplete)} incomplete: {', '.join(incomplete[:3])}" if incomplete else "nothing"
    raise CheckpointError(f"{store.shown}: expected a complete checkpoint, found {found}")


class _VanishedError(Exception):
    """A checkpoint was removed while it was read, as its job does when it has completed newer ones."""


def _newest_of(store: Store, serial: int, folders: list[str]) -> str:
    """Return which of the `folders` with that serial number is taken: the one whose attempt is the last by name.

    Jobs that complete checkpoints at the same time count alike; one job never counts a number twice.
    """
    lineages = [form.lineage_of(attempt_of(folder)) for folder in folders]
    twice = [folder for folder, lineage in zip(folders, lineages, strict=True) if lineages.count(lineage) > 1]
    if twice:
        raise CheckpointError(
            f"{store.shown}: {' and '.join(twice)} both claim to be checkpoint {serial} of one job; name the folder of "
            f"one of them"
        )
    return max(folders, key=attempt_of)


def _intact(store: Store, folder: str, serial: int, skipped: list[CheckpointError] | None) -> Manifest:
    """Return the manifest of `folder`; where it is damaged and `skipped` is given, that of an older one."""
    damaged: list[CheckpointError] = []
    while True:
        try:
            manifest = _read_manifest(store, folder, serial)
            if skipped is not None:
                verify(manifest)
                skipped += damaged
            return manifest
        except CheckpointError as error:
            if form.manifest_name(serial) not in store.list(folder):
                raise _VanishedError from error
            older = _older(store, folder, serial)
            if skipped is None:
                raise CheckpointError(f"{error}{_advice(store, older)}") from error
            damaged.append(error)
            if not older:
                text = "\n".join(f"  {each}" for each in damaged)
                raise CheckpointError(f"{store.shown}: no checkpoint of its lineage is intact:\n{text}") from error
            serial, folder = older[0]


def _older(store: Store, folder: str, serial: int) -> list[tuple[int, str]]:
    """Return serial numbers and folders of complete checkpoints of the lineage of `folder` before it, newest first."""
    complete, _ = find(store)
    lineage = form.lineage_of(attempt_of(folder))
    before = [(number, other) for number, some in complete.items() if number < serial for other in some]
    return sorted((each for each in before if form.lineage_of(attempt_of(each[1])) == lineage), reverse=True)


def _advice(store: Store, older: list[tuple[int, str]]) -> str:
    """Say which of the `older` checkpoints may serve in the place of a damaged one."""
    whole = []
    for serial, folder in older:
        with contextlib.suppress(CheckpointError):
            _read_manifest(store, folder, serial)
            whole.append(folder)
    if not whole:
        return f"; {store.shown} has no older one of its lineage that is intact"
    return (
        f"; older ones of its lineage that are intact, by their manifests and sizes: {', '.join(whole)}. "
        f"Job.resume(path, newest_intact=True) verifies every byte and takes the newest intact one"
    )


def verify(manifest: Manifest) -> None:
    """Read all data of a checkpoint; raise `CheckpointError` if it is not what was written."""
    for part in manifest.parts:
        verify_files(manifest.store, manifest.folder, part.values())


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
    try:
        read_rows(manifest.store, manifest.folder, [part[table] for part in manifest.parts], shape, values)
    except CheckpointError as error:
        older = _older(manifest.store, manifest.folder, manifest.serial)
        raise CheckpointError(f"{error}{_advice(manifest.store, older)}") from error
