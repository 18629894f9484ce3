"""Checkpoints of a training: its tables and its history after an epoch, and the job that goes on from them.

Those of the best epoch, where one is looked for, lie in the folder ``best`` of the others.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nbps.checkpoint.progress import Progress
from nbps.errors import CheckpointError
from nbps.job.checkpoints import say
from nbps.job.job import Job
from nbps.models.history import Record
from nbps.tables.definition import Table

_KEPT = 2  # the newest, and the one before


@dataclass(frozen=True)
class Best:
    """The best epoch so far: what early stopping watched after it, and the values of all tables."""

    epoch: int
    watched: float
    values: dict[str, npt.NDArray[Any]]


class SavedTraining:
    """Where a training saves itself, and finds itself again when it is begun anew.

    Parameters
    ----------
    path : str or Path
        A folder, or the URI of one; that of one training.
    identity : dict of str to JSON
        What must be the same for a training to go on: parameters, number of workers, a digest of the data.
    """

    def __init__(self, path: str | Path, identity: Mapping[str, Any]) -> None:
        self._path = str(path)
        self._best_path = f"{self._path.rstrip('/')}/best"
        self._identity = dict(identity)

    def job(self, tables: Sequence[Table], **options: Any) -> tuple[Job, list[dict[str, Any]]]:
        """Make the job of the training, and return it with the history that it goes on from.

        Raises
        ------
        CheckpointError
            If the checkpoints there are of another training, or the newest one is damaged.
        """
        if not _has_any(self._path):
            return Job(tables, **options), []
        job = Job.resume(self._path, tables, checkpoints=None, **options)
        assert job.resumed is not None
        path, found = job.resumed.path, job.resumed.state
        if not isinstance(found, dict) or set(found) != {"identity", "history"}:
            raise CheckpointError(f"{path}: expected the checkpoint of a training, found that of another job")
        for name, expected in self._identity.items():
            if (there := found["identity"].get(name)) != expected:
                raise CheckpointError(
                    f"{path}: this is the checkpoint of a training with {name} {there!r}; expected {expected!r}. Train "
                    f"as that one did, or name another folder"
                )
        if job.settings.nodes.rank == 0:
            say(f"training goes on after epoch {len(found['history'])}, from {path}")
        return job, found["history"]

    def save(self, job: Job, history: Sequence[Record]) -> None:
        """Save the tables of `job` with the `history` of this training."""
        job.checkpoint(self._path, {"identity": self._identity, "history": [*map(asdict, history)]}, keep=_KEPT)

    def save_best(self, job: Job, epoch: int, watched: float) -> None:
        """Save the tables of `job` as those of the best epoch; before `save`, which then never knows a better one."""
        state = {"identity": self._identity, "epoch": epoch, "watched": watched}
        job.checkpoint(self._best_path, state, keep=1)

    def best(self, tables: Sequence[Table]) -> Best | None:
        """Return what `save_best` saved last of this training, if it did."""
        from nbps.checkpoint.load import latest, load

        if not _has_any(self._best_path):
            return None
        manifest = latest(self._best_path)
        found = Progress.from_json(manifest.state, manifest.path).user
        if not isinstance(found, dict) or found.get("identity") != self._identity:
            return None  # left of another training, whose other checkpoints somebody removed
        values = {table.name: np.empty((table.rows, table.width), table.dtype) for table in tables}
        for name, rows in values.items():
            load(manifest, name, rows)
        return Best(found["epoch"], found["watched"], values)


def checksum(*arrays: npt.NDArray[Any]) -> str:
    """Return a checksum of the bytes of contiguous arrays, for the identity of a training."""
    found = 0
    for array in arrays:
        found = zlib.crc32(array.data, found)
    return f"{found:08x}"


def _has_any(path: str) -> bool:
    """Whether there is a complete checkpoint in a folder."""
    from nbps.checkpoint.load import newest_of_lineages  # file systems; most trainings are not saved

    return bool(newest_of_lineages(path))
