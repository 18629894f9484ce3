"""Checkpoints of a job: when they are written, and what a job that goes on from one is told."""

from __future__ import annotations

import dataclasses
import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nbps.checkpoint.format import life_of
from nbps.checkpoint.progress import Progress
from nbps.checks import whole
from nbps.errors import CheckpointError, ConfigError
from nbps.nodes.nodes import Nodes
from nbps.tables.definition import Table, TableDefinition

if TYPE_CHECKING:
    from nbps.checkpoint.load import Manifest


@dataclass(frozen=True)
class Checkpoints:
    """When and where a job saves its tables while it runs.

    A checkpoint holds exactly the updates of all workers from clocks below its own: at that clock the staleness is 0,
    nobody runs ahead of what is saved. Training goes on while files are written; it waits only if the one before is not
    written yet.

    One more is taken at SIGTERM, as Slurm and Kubernetes send it some seconds before they kill what is left: at the
    next clock that all workers of all nodes can come to, whatever their staleness. Then the job ends on all nodes, and
    `Job.run` raises `SystemExit` with 143 on those that got the signal, `NodeError` on others. A second SIGTERM ends it
    at once. A script that handles SIGTERM itself keeps its handler; runs outside the main thread have none.

    Parameters
    ----------
    path : str or Path
        A folder, or the URI of one at a file system that `pyarrow.fs` knows, as in ``s3://bucket/folder``. All nodes
        must reach the same one. Checkpoints of other jobs in it stay as they are.
    every : int
        Clocks between two checkpoints.
    keep : int, optional
        How many of this job's stay, those of the job that it goes on from included; None for all.
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
    lineage : str
        What checkpoints of the job and of those that it goes on from have in common: in their folders' names, the word
        after the clock.
    plan : Checkpoints or None
        How the job took checkpoints, if it did.
    notes : tuple of str
        Which others were not taken, and why: damaged ones, and the newest of other jobs in the folder.
    """

    path: str
    run: int
    clock: int
    state: Any
    lineage: str
    plan: Checkpoints | None
    notes: tuple[str, ...] = ()


def new_life() -> str:
    """Return a name for this life of a job."""
    return secrets.token_hex(6)


def definitions(tables: Sequence[Table]) -> dict[str, dict[str, Any]]:
    """Return what a checkpoint says of tables, as JSON holds it."""
    return {table.name: table.plain() for table in tables}


def read_checkpoint(
    path: str | Path, tables: Sequence[Table] | None, newest_intact: bool = False
) -> tuple[tuple[Table, ...], Resumed]:
    """Return tables that start with what the newest checkpoint at `path` holds, and where the job goes on.

    `tables` are those of the checkpoint if None; given ones may differ in everything but names, shapes and dtypes. With
    `newest_intact` all data is verified, and damaged checkpoints are passed over.

    Raises
    ------
    CheckpointError
        If there is no complete checkpoint, it is damaged, or it has other tables.
    """
    from nbps.checkpoint.load import latest, newest_of_lineages

    skipped: list[CheckpointError] = []
    manifest = latest(path, skipped if newest_intact else None)
    if tables is None:
        tables = [_table(manifest, name) for name in manifest.tables]
    missing = sorted(manifest.tables.keys() ^ {table.name for table in tables})
    if missing:
        raise CheckpointError(
            f"checkpoint {manifest.path} has the tables {sorted(manifest.tables)}; expected those of this job: "
            f"{sorted(table.name for table in tables)}. It is another job's: name another folder"
        )
    progress = Progress.from_json(manifest.state, f"checkpoint {manifest.path}: state")
    others = newest_of_lineages(path)  # none if it is the folder of a checkpoint
    others.pop(manifest.lineage, None)
    resumed = Resumed(
        path=manifest.path,
        run=progress.run,
        clock=manifest.clock,
        state=progress.user,
        lineage=manifest.lineage,
        plan=Checkpoints(manifest.store.shown, progress.every, progress.keep) if progress.every else None,
        notes=(*(f"passed over: {error}" for error in skipped), *_about_others(manifest, others)),
    )
    return tuple(dataclasses.replace(table, init=_Load(manifest, table.name)) for table in tables), resumed


def _about_others(taken: Manifest, others: Mapping[str, tuple[int, str]]) -> list[str]:
    """Say that a folder holds checkpoints of several jobs; `others` are the newest of each one but that of `taken`."""
    if not others:
        return []
    ties = [path for serial, path in others.values() if serial == taken.serial]
    shared = f" (so is {' and '.join(ties)}: equals are taken by name)" if ties else ""
    return [
        f"{taken.path} is the newest checkpoint there{shared}; other jobs' newest: "
        f"{', '.join(path for _, path in others.values())}; Job.resume(path of a checkpoint) takes any of them"
    ]


def last_of_life(plan: Checkpoints, attempt: str, resumed: Resumed | None) -> str:
    """Return the path of the last checkpoint that the life `attempt` of a job took, or that it went on from.

    Raises
    ------
    CheckpointError
        If there is none.
    """
    from nbps.checkpoint.load import newest_of_life

    path = newest_of_life(plan.path, life_of(attempt))
    if path is not None:
        return path
    if resumed is None:
        raise CheckpointError(f"{plan.path}: expected a complete checkpoint of this job, found none")
    return resumed.path


def say_if_shared(path: str | Path, lineage: str | None) -> None:
    """Say that there are checkpoints at `path`, but none of this job or those that it goes on from, if so."""
    from nbps.checkpoint.load import newest_of_lineages

    there = newest_of_lineages(path)
    if there and lineage not in there:
        _, newest = next(iter(there.values()))
        say(
            f"checkpoints: {path} holds those of {len(there)} other job{'s' * (len(there) > 1)}, the newest "
            f"{newest}; they stay, and keep= counts this job's only. To go on from them: Job.resume"
        )


def say(text: str) -> None:
    """Write a line on standard error."""
    print(f"nbps: {text}", file=sys.stderr, flush=True)  # noqa: T201


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
    known = {field.name for field in dataclasses.fields(TableDefinition)}
    entry = {field: value for field, value in manifest.tables[name].items() if field in known}
    try:
        return Table(**{**entry, "name": name})
    except (TypeError, ConfigError) as error:
        raise CheckpointError(f"checkpoint {manifest.path}: table {name!r} cannot be made: {error}") from error


@dataclass(frozen=True)
class _Load:
    """Initial values of a table from a checkpoint."""

    manifest: Manifest
    table: str

    def __call__(self, values: npt.NDArray[Any], random: np.random.Generator) -> None:
        from nbps.checkpoint.load import load

        load(self.manifest, self.table, values)
