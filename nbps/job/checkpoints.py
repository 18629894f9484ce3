"""Checkpoints of a job: when they are written, and what a job that goes on from one is told."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nbps.checks import whole
from nbps.errors import CheckpointError, ConfigError
from nbps.nodes.nodes import Nodes
from nbps.tables.definition import Table

if TYPE_CHECKING:
    from nbps.checkpoint.writer import Manifest

_FIELDS = ("rows", "width", "dtype", "access", "staleness", "check_finite", "sharding", "replicate", "compress")


@dataclass(frozen=True)
class Checkpoints:
    """When and where a job saves its tables while it runs.

    A checkpoint holds exactly the updates of all workers from clocks below its own: at that clock the staleness is 0,
    nobody runs ahead of what is saved. Training goes on while files are written; it waits only if the one before is not
    written yet.

    Parameters
    ----------
    path : str or Path
        A folder, or the URI of one at a file system that `pyarrow.fs` knows, as in ``s3://bucket/folder``. All nodes
        must reach the same one. It belongs to one job at a time.
    every : int
        Clocks between two checkpoints.
    keep : int, optional
        How many stay; None for all.
    """

    path: str | Path
    every: int
    keep: int | None = 3

    def __post_init__(self) -> None:
        whole("Checkpoints: every", self.every, 1)
        if self.keep is not None:
            whole("Checkpoints: keep", self.keep, 1)
        if not isinstance(self.path, (str, Path)) or not str(self.path):
            raise ConfigError(f"Checkpoints: path is {self.path!r}; expected a folder or the URI of one")


@dataclass(frozen=True)
class Resumed:
    """Where a job goes on.

    Attributes
    ----------
    path : str
        Of the checkpoint.
    run : int
        Number of the `Job.run` that was being carried out, or would have been next; the first is 0.
    clock : int
        At which the first `run` of the resumed job starts.
    state : object
        What `Job.checkpoint` was given to keep; JSON.
    """

    path: str
    run: int
    clock: int
    state: Any


def new_attempt() -> str:
    """Return a name for this life of a job."""
    return secrets.token_hex(6)


def definitions(tables: Sequence[Table]) -> dict[str, dict[str, Any]]:
    """Return what a checkpoint says of tables, as JSON holds it."""

    def plain(value: Any) -> Any:
        return list(value) if isinstance(value, tuple) else value

    return {table.name: {field: plain(getattr(table, field)) for field in _FIELDS} for table in tables}


def read_checkpoint(path: str | Path, tables: Sequence[Table] | None) -> tuple[tuple[Table, ...], Resumed]:
    """Return tables that start with what the newest checkpoint at `path` holds, and where the job goes on.

    `tables` are those of the checkpoint if None; given ones may differ in everything but names, shapes and dtypes.

    Raises
    ------
    CheckpointError
        If there is no complete checkpoint, it is damaged, or it has other tables.
    """
    from nbps.checkpoint.writer import latest

    manifest = latest(path)
    if tables is None:
        tables = [_table(manifest, name) for name in manifest.tables]
    missing = sorted(manifest.tables.keys() ^ {table.name for table in tables})
    if missing:
        raise CheckpointError(
            f"checkpoint {manifest.path} has the tables {sorted(manifest.tables)}; expected those of this job: "
            f"{sorted(table.name for table in tables)}"
        )
    state = manifest.state if isinstance(manifest.state, dict) else {}
    resumed = Resumed(str(manifest.path), int(state.get("run", 0)), manifest.clock, state.get("user"))
    return tuple(dataclasses.replace(table, init=_Load(manifest, table.name)) for table in tables), resumed


def write_checkpoint(
    path: str | Path,
    attempt: str,
    nodes: Nodes,
    tables: Sequence[Table],
    own: Mapping[str, tuple[npt.NDArray[np.int64], npt.NDArray[Any]]],
    keep: int | None,
    clock: int,
    state: dict[str, Any],
    timeout_s: float,
) -> None:
    """Write the rows that this node owns, numbers and values by table; on node 0, complete the checkpoint with `state`.

    Raises
    ------
    CheckpointError
        If it cannot be written: older ones stay as they were.
    """
    from nbps.checkpoint.writer import CheckpointWriter

    writer = CheckpointWriter(path, attempt, nodes.rank, nodes.count, definitions(tables), keep)
    writer.write(clock, own)
    if nodes.rank == 0:
        writer.complete(clock, timeout_s, lambda: False, state)


def _table(manifest: Manifest, name: str) -> Table:
    entry = manifest.tables[name]
    try:
        return Table(name, **{field: entry[field] for field in _FIELDS if field in entry})
    except (TypeError, ConfigError) as error:
        raise CheckpointError(f"checkpoint {manifest.path}: table {name!r} cannot be made: {error}") from error


@dataclass(frozen=True)
class _Load:
    """Initial values of a table from a checkpoint."""

    manifest: Manifest
    table: str

    def __call__(self, values: npt.NDArray[Any], random: np.random.Generator) -> None:
        from nbps.checkpoint.writer import load

        load(self.manifest, self.table, values)
