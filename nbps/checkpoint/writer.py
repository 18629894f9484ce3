"""Checkpoints of a job's tables at a clock: written by every node, complete at once, loaded by any number of nodes.

Layout of a root, a folder at any `pyarrow.fs` file system that all nodes reach::

    clock-000000000120-<attempt>/
        node-0000-0000-items.arrow     the rows of table 0 that node 0 owns: columns `row` and `values`
        node-0000.json                 written after them: names, sizes and checksums of node 0's files
        node-0001-0000-items.arrow, node-0001.json
        manifest-000000007.json        written last, by node 0: what the tables are, the parts, the user's state

*Rules.* A checkpoint exists if and only if its manifest does; until then, and from the instant at which the manifest is
removed, the folder is an incomplete one that nobody loads. An *attempt*, ``[lineage.]life[-run]``, is of one life of a
job: a job that was restarted writes into folders of its own, so the parts of two lives never mix. Lives of which each
went on from a checkpoint of one before are a *lineage*, named by the first; only what is of its own lineage does a
writer count and remove, so jobs may share a root. The number in the manifest's name counts the checkpoints completed in
this root; the newest is the one with the highest number, not the one with the highest clock or the latest time: after a
return to an older checkpoint clocks come again, and machines' clocks differ. Jobs that complete one each at the same
time count alike; of equal numbers the attempt that is the last by name is the newest.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.fs as pafs

from nbps.checkpoint import format as form
from nbps.checkpoint.load import attempt_of, check_sizes, data_sizes, find, remove
from nbps.checkpoint.rows import needed_bytes, write_rows
from nbps.checkpoint.store import is_full, open_store
from nbps.errors import CheckpointError

_POLL_S = (0.005, 0.25)  # at first, and at most: a part of a small table is there within milliseconds

Tables = Mapping[str, tuple[npt.NDArray[np.int64], npt.NDArray[Any]]]


class CheckpointWriter:
    """Writes one node's part of checkpoints; on node 0, also makes checkpoints of the parts.

    Parameters
    ----------
    root : str, Path or pyarrow.fs.FileSystem
        A local path, a URI, or a file system, which stands for its root. It is made if it is not there; all nodes must
        reach the same one. A lineage has one life at a time.
    attempt : str
        This life of the job: letters, digits, ``.``, ``_``, ``-``, at most 64; the same on all nodes, never used
        before. Attempts that begin alike up to a ``-`` are parts of one life: nodes may be writing several at a time.
        Lives that begin alike up to a ``.`` are of one lineage.
    rank, nodes : int
        This node and how many there are.
    tables : mapping
        Name to definition, JSON of any kind with at least ``rows``, ``width`` and ``dtype``. The same on all nodes.
    keep : int, optional
        How many complete checkpoints of this lineage stay in the root; None for all.

    Raises
    ------
    CheckpointError
        If the root cannot be written to, or an argument cannot be used.
    """

    def __init__(
        self,
        root: str | Path | pafs.FileSystem,
        attempt: str,
        rank: int,
        nodes: int,
        tables: Mapping[str, Mapping[str, Any]],
        keep: int | None = None,
    ) -> None:
        if not isinstance(attempt, str) or form.ATTEMPT.fullmatch(attempt) is None:
            raise CheckpointError(f"checkpoint: attempt is {attempt!r}; expected a string like {form.ATTEMPT.pattern}")
        if not 0 <= rank < nodes:
            raise CheckpointError(f"checkpoint: rank is {rank} of {nodes} nodes; expected 0 to {nodes - 1}")
        if keep is not None and keep < 1:
            raise CheckpointError(f"checkpoint: keep is {keep}; expected at least 1, or None to keep all")
        self._attempt, self._rank, self._nodes, self._keep = attempt, rank, nodes, keep
        self._tables = form.decode(form.encode(dict(tables), "the definitions of the tables"), "tables")
        self._shapes = {name: form.read_shape(entry, f"table {name!r}") for name, entry in self._tables.items()}
        self._store = open_store(root)
        self._store.prove_writable(f"{attempt}-{rank}")

    def write(self, clock: int, tables: Tables) -> None:
        """Write this node's part of the checkpoint at `clock`; blocks until it is safe on the disk.

        Parameters
        ----------
        clock : int
            The clock; no node writes it twice in an attempt.
        tables : mapping
            Name to the int64 numbers of the rows that this node owns, shape (k,), and their values, shape (k, width),
            of every table of the job. Both must stay unchanged until this returns; memory used besides: under 40 MiB,
            and the numbers once more if they do not ascend.

        Raises
        ------
        CheckpointError
            If it cannot be written. This node's files of that clock are removed then.
        """
        self._check_rows(tables)
        folder = form.folder_name(clock, self._attempt)
        there = self._store.list(folder)
        if form.part_name(self._rank) in there or any(form.MANIFEST.fullmatch(name) for name in there):
            raise CheckpointError(
                f"checkpoint {self._store.show(folder)}: node {self._rank} has written clock {clock} already; each "
                f"life of a job needs an attempt of its own, now it is {self._attempt!r}"
            )
        needed = sum(needed_bytes(rows, values) for rows, values in tables.values())
        free = self._store.free_bytes()
        if free is not None and needed > free:
            raise self._too_full(folder, needed, free)
        try:
            self._store.make_folder(folder)
            files = {}
            for number, (name, shape) in enumerate(self._shapes.items()):
                file = f"{folder}/{form.data_name(self._rank, number, name)}"
                files[name] = write_rows(self._store, file, shape, *tables[name])
            self._put(
                f"{folder}/{form.part_name(self._rank)}",
                form.encode_part(clock, self._attempt, self._rank, self._nodes, files),
            )
        except BaseException as error:
            free = self._store.free_bytes()
            self._remove_own(folder)
            if is_full(error):
                raise self._too_full(folder, needed, free) from error
            raise

    def complete(self, clock: int, timeout_s: float, stop: Callable[[], bool], state: object = None) -> bool:
        """On node 0: wait for all parts of `clock`, make them a checkpoint, then remove what is not to be kept.

        Removed are, of this lineage, all but the newest `keep` complete checkpoints, and incomplete ones of earlier
        clocks and other lives.

        Parameters
        ----------
        clock : int
            The clock that every node writes.
        timeout_s : float
            How long to wait for the parts.
        stop : callable
            Asked while waiting; True gives it up.
        state : object
            What to keep with the tables; JSON.

        Returns
        -------
        bool
            False if `stop` said so; the checkpoint is incomplete then, and removed.

        Raises
        ------
        CheckpointError
            If a part does not come in time, rows are missing, or something cannot be written. The checkpoint is
            incomplete then, and removed. Only if an old one cannot be removed, the new one is complete.
        """
        if self._rank != 0:
            raise CheckpointError(
                f"checkpoint: node {self._rank} was asked to complete clock {clock}; node 0 does that"
            )
        folder = form.folder_name(clock, self._attempt)
        try:
            kept = form.encode(state, f"checkpoint of clock {clock}: state")
            parts = self._wait(clock, folder, time.monotonic() + timeout_s, stop)
            if parts is None:
                remove(self._store, folder)
                return False
            self._write_manifest(clock, folder, parts, form.decode(kept, "state"))
        except BaseException:
            with contextlib.suppress(CheckpointError):  # the first error is the one to tell
                remove(self._store, folder)
            raise
        self._remove_old(clock, folder)
        return True

    def _check_rows(self, tables: Tables) -> None:
        if tables.keys() != self._shapes.keys():
            raise CheckpointError(f"checkpoint: given the tables {sorted(tables)}; expected {sorted(self._shapes)}")
        for name, (rows, values) in tables.items():
            shape, what = self._shapes[name], f"checkpoint: table {name!r}"
            if rows.ndim != 1 or rows.dtype != np.dtype(np.int64):
                raise CheckpointError(f"{what}: row numbers are {rows.dtype} {rows.shape}; expected int64, (k,)")
            if values.shape != (len(rows), shape.width) or values.dtype != np.dtype(shape.dtype):
                expected = f"{shape.dtype} {(len(rows), shape.width)}"
                raise CheckpointError(f"{what}: values are {values.dtype} {values.shape}; expected {expected}")
            ordered = rows if bool((rows[1:] > rows[:-1]).all()) else np.sort(rows)
            if len(rows) and (ordered[0] < 0 or ordered[-1] >= shape.rows):
                found = f"{ordered[0]} to {ordered[-1]}"
                raise CheckpointError(f"{what}: rows are {found}; expected 0 to {shape.rows - 1}")
            if not bool((ordered[1:] > ordered[:-1]).all()):
                raise CheckpointError(f"{what}: a row is given twice; expected each row once")

    def _put(self, path: str, content: bytes) -> None:
        with self._store.create(path) as sink:
            sink.write(content)

    def _remove_own(self, folder: str) -> None:
        own = f"node-{self._rank:04}"
        with contextlib.suppress(CheckpointError):  # the error that led here is the one to tell
            for name in self._store.list(folder):
                if name.startswith((f"{own}-", f"{own}.")):
                    self._store.remove_file(f"{folder}/{name}")
            if not self._store.list(folder):
                self._store.remove_folder(folder)

    def _wait(
        self, clock: int, folder: str, deadline: float, stop: Callable[[], bool]
    ) -> list[tuple[form.PartEntry, dict[str, form.DataFile]]] | None:
        """Return the parts of all nodes, None if `stop` says so."""
        parts: dict[int, tuple[form.PartEntry, dict[str, form.DataFile]]] = {}
        reasons: dict[int, str] = {}
        pause = _POLL_S[0]
        while True:
            there = self._store.list(folder)
            for rank in range(self._nodes):
                if rank not in parts and form.part_name(rank) in there:
                    try:
                        parts[rank] = self._read_part(clock, folder, rank)
                    except CheckpointError as error:  # not every file system shows a file only when it is whole
                        reasons[rank] = str(error)
            if len(parts) == self._nodes:
                return [parts[rank] for rank in range(self._nodes)]
            if stop():
                return None
            if time.monotonic() > deadline:
                missing = [rank for rank in range(self._nodes) if rank not in parts]
                raise CheckpointError(
                    f"checkpoint {self._store.show(folder)}: {len(missing)} of {self._nodes} nodes did not write their "
                    f"parts in time: {', '.join(map(str, missing))}"
                    + "".join(f"; {reasons[rank]}" for rank in missing if rank in reasons)
                    + "; all nodes must reach the same folder"
                )
            time.sleep(pause)
            pause = min(2 * pause, _POLL_S[1])

    def _read_part(self, clock: int, folder: str, rank: int) -> tuple[form.PartEntry, dict[str, form.DataFile]]:
        path = f"{folder}/{form.part_name(rank)}"
        text = self._store.read(path, form.JSON_BYTES_LIMIT)
        files = form.decode_part(
            text,
            self._store.show(path),
            clock=clock,
            attempt=self._attempt,
            rank=rank,
            nodes=self._nodes,
            tables=self._shapes,
        )
        return form.PartEntry(form.part_name(rank), len(text), form.sha256(text)), files

    def _write_manifest(
        self, clock: int, folder: str, parts: list[tuple[form.PartEntry, dict[str, form.DataFile]]], state: object
    ) -> None:
        where = self._store.show(folder)
        form.check_complete([files for _, files in parts], self._shapes, where)
        check_sizes(self._store.list(folder), data_sizes(files for _, files in parts), where)
        complete, _ = find(self._store)
        serial = 1 + max(complete, default=0)
        checkpoint = {
            "nbps": version("nbps"),
            "serial": serial,
            "clock": clock,
            "attempt": self._attempt,
            "nodes": self._nodes,
            "tables": self._tables,
            "state": state,
            "parts": [{"file": entry.name, "size": entry.size, "sha256": entry.sha256} for entry, _ in parts],
        }
        self._put(f"{folder}/{form.manifest_name(serial)}", form.encode_manifest(checkpoint))

    def _remove_old(self, clock: int, newest: str) -> None:
        complete, incomplete = find(self._store)
        own = [(serial, folder) for serial in complete for folder in complete[serial] if self._is_own(folder)]
        left = [folder for _, folder in sorted(own)[: -self._keep]] if self._keep is not None else []
        for folder in filter(self._is_own, incomplete):
            match = form.FOLDER.fullmatch(folder)
            assert match is not None
            other_life = form.life_of(match["attempt"]) != form.life_of(self._attempt)
            if other_life or (match["attempt"] == self._attempt and int(match["clock"]) < clock):
                left.append(folder)
        for folder in left:
            if folder != newest:
                remove(self._store, folder)

    def _is_own(self, folder: str) -> bool:
        return form.lineage_of(attempt_of(folder)) == form.lineage_of(self._attempt)

    def _too_full(self, folder: str, needed: int, free: int | None) -> CheckpointError:
        known = "" if free is None else f", free {free:,}"
        return CheckpointError(
            f"checkpoint {self._store.show(folder)}: the disk is too full: needed {needed:,} bytes{known}; make room, "
            f"or keep fewer checkpoints (one more than are kept must fit)"
        )
