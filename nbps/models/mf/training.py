"""Matrix factorization in a job: makes its tables, deals the ratings out, and runs the epochs."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from nbps.consistency import SSP
from nbps.data import Ratings
from nbps.errors import ConfigError, DataError, SharedMemoryError
from nbps.job.job import Job
from nbps.job.report import Report
from nbps.job.settings import default_workers
from nbps.kernels.models.mf_layout import LANES, STATE_WIDTH
from nbps.memory.segments import FOLDER, shared_memory_usage
from nbps.models.mf import worker as mf_worker
from nbps.models.mf.blocks import Partition, Schedule, build_schedule
from nbps.models.mf.history import EpochRecord
from nbps.models.mf.plan import TrainingPlan
from nbps.models.mf.state import Factors
from nbps.models.mf.worker import TrainingInputs
from nbps.tables.definition import Table

Floats = npt.NDArray[np.float32]
_BLOCK_BYTES = 1 << 18  # of item rows: half of the smallest second-level cache in use
_LEAST_BLOCKS = 3  # for each worker: some slack costs nothing
_MOST_SLACK = 15  # clocks; workers of a rotation are never that far apart


class Trainer:
    """A job that trains `factors` on `data` epoch by epoch; a context manager.

    `watched` is whether somebody looks at the model after each epoch.
    """

    def __init__(
        self, plan: TrainingPlan, factors: Factors, data: Ratings, test: Ratings | None, watched: bool
    ) -> None:
        nodes = plan.nodes
        local = default_workers(nodes) if plan.workers is None else plan.workers
        self._workers = local * nodes.count
        consistency = plan.model
        width = -(-factors.rank // LANES) * LANES
        per_worker = _blocks_per_worker(consistency.staleness, self._workers, factors, width, len(data))
        if plan.schedule == "rotate" and isinstance(consistency, SSP):
            # With so many blocks this bound keeps them apart; it is no looser than what was asked for.
            consistency = replace(consistency, staleness=min(consistency.staleness, per_worker - 1))
        self._watched = watched  # here, and once they have told each other, on any node
        self._start = factors
        self._test_size = 0 if test is None else len(test)
        self._ratings = len(data)
        self._schedule = build_schedule(data, self._workers, per_worker, factors.mean, factors.scale, plan.seed)
        access = plan.item_access
        self._inputs = _inputs_of(self._schedule, plan, data, test, factors)
        root, bias_unit = _units(factors.scale)
        users, items = self._schedule.users, self._schedule.items
        # A user's rows are read and changed by one worker only: they stay on its node.
        firsts = [int(first) for first in users.starts[local : self._workers : local]]
        self._job = Job(
            [
                _table("user_factors", _padded(factors.user_factors / root, width), users, "exclusive", firsts),
                _table("user_state", factors.user_state / bias_unit, users, "exclusive", firsts),
                _table("item_factors", _padded(factors.item_factors / root, width), items, access),
                _table("item_state", factors.item_state / bias_unit, items, access),
            ],
            workers=local,
            nodes=nodes,
            consistency=consistency,
            seed=plan.seed,
            preload=functools.partial(mf_worker.preload, access),
        )

    def __enter__(self) -> Self:
        try:
            return self._enter()
        except SharedMemoryError as error:
            raise self._too_large() from error

    def _enter(self) -> Self:
        self._job.__enter__()
        try:
            if self._job.size != self._workers:
                raise ConfigError(
                    f"workers is {self._job.settings.workers} on this node, {self._job.size} on all "
                    f"{self._job.settings.nodes.count} nodes together; expected as many on each node"
                )
            self._watched = self._job.run(mf_worker.set_up, self._inputs, self._watched)[0]
        except BaseException:
            self._job.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._job.close()

    def _too_large(self) -> SharedMemoryError:
        """Make the error for shared memory that does not hold tables and ratings."""
        given, usage = self._inputs, shared_memory_usage()
        needed = sum(table.nbytes for table in self._job.settings.tables) + given.nbytes
        factors = self._start
        size = -(-(usage.total_bytes - usage.free_bytes + needed) * 5 // (4 << 20))  # a quarter more, in MiB
        return SharedMemoryError(
            f"training on {self._ratings:,} ratings of {len(factors.item_ids):,} items by {len(factors.user_ids):,} "
            f"users at rank {factors.rank} needs {needed:,} bytes of shared memory; free are {usage.free_bytes:,} of "
            f"{usage.total_bytes:,} in {FOLDER}. Enlarge it (docker run --shm-size={size}m, mount -o "
            f"remount,size={size}m {FOLDER}), remove what is left over (nbps doctor --clean), or lower rank"
        )

    def report(self) -> Report:
        """Return what the job measured so far."""
        return self._job.report()

    def epoch(self, number: int, step: float) -> EpochRecord:
        """Train for one epoch and measure the test error after it.

        Raises
        ------
        DataError
            If training diverges.
        """
        before = self._job.report()
        start = time.perf_counter()
        error = self._job.run(mf_worker.train_epoch, step)[0]  # the same of every worker
        seconds = time.perf_counter() - start
        after = self._job.report()
        if not math.isfinite(error):
            raise DataError(
                f"training diverged in epoch {number}: the error is {error}; lower learning_rate (now {step:g})"
            )
        if self._watched:
            self._gather_users()
        scale = self._start.scale
        validation = None
        if self._test_size:
            validation = scale * math.sqrt(self._job.run(mf_worker.evaluate)[0] / self._test_size)
        return EpochRecord(
            epoch=number,
            train_rmse=scale * math.sqrt(error / self._ratings),
            validation_rmse=validation,
            seconds=seconds,
            ratings_per_second=self._ratings / seconds,
            wait_share=(after.wait_seconds - before.wait_seconds) / (seconds * self._job.settings.workers),
        )

    def _gather_users(self) -> None:
        """Have every node told of the rows of all users; all nodes call this."""
        if self._job.settings.nodes.count > 1:
            self._job.run(mf_worker.give_users)

    def finish(self) -> None:
        """End training: from now on `factors` is whole on every node. All nodes call this after the last epoch."""
        if not self._watched:
            self._gather_users()

    def factors(self) -> Factors:
        """Return a copy of the state as it is now.

        Rows of other nodes' users are as of the last epoch if somebody watches, else as of `finish`.
        """
        users, items, rank = self._schedule.users.place, self._schedule.items.place, self._start.rank
        root, bias_unit = _units(self._start.scale)
        values = {name: self._job.table(name).to_numpy() for name in mf_worker.TABLES}
        return replace(
            self._start,
            user_factors=values["user_factors"][users, :rank] * root,
            user_state=values["user_state"][users] * bias_unit,
            item_factors=values["item_factors"][items, :rank] * root,
            item_state=values["item_state"][items] * bias_unit,
        )


def _units(scale: float) -> tuple[np.float32, Floats]:
    """Return what turns factors and states of standardised ratings into those of ratings; accumulators stay."""
    return np.float32(math.sqrt(scale)), np.array([scale, 1], np.float32)


def _blocks_per_worker(staleness: float, workers: int, factors: Factors, width: int, ratings: int) -> int:
    """Return how many item blocks each worker gets.

    Enough for the slack that `staleness` allows, up to a limit, and for a block's item rows to fit the cache; but not
    so many that a user has less than a rating in a block, since each (user, block) takes memory and time.
    """
    slack = min(staleness, _MOST_SLACK)
    item_bytes = len(factors.item_ids) * (width + STATE_WIDTH) * 4
    fitting = -(-item_bytes // (_BLOCK_BYTES * workers))
    worthwhile = ratings // (len(factors.user_ids) * workers)
    return max(_LEAST_BLOCKS, int(slack) + 1, min(fitting, worthwhile))


def _inputs_of(
    schedule: Schedule, plan: TrainingPlan, data: Ratings, test: Ratings | None, factors: Factors
) -> TrainingInputs:
    def decay(codes: npt.NDArray[np.int32], partition: Partition) -> Floats:
        counts = np.bincount(codes, minlength=partition.place.size)
        weights = plan.regularization * (counts + 1.0) ** -0.25
        return _ordered(weights.astype(np.float32), partition)

    empty = np.empty(0, np.int64)
    users = empty if test is None else schedule.users.place[test.users]
    order = np.argsort(users, kind="stable")
    return TrainingInputs(
        schedule=schedule,
        access=plan.item_access,
        user_decay=decay(data.users, schedule.users),
        item_decay=decay(data.items, schedule.items),
        adapt=float(plan.adapts),
        test_users=users[order],
        test_items=empty if test is None else schedule.items.place[test.items][order],
        test_ratings=np.empty(0, np.float32)
        if test is None
        else ((test.values[order] - factors.mean) / factors.scale).astype(np.float32),
        test_starts=np.searchsorted(users[order], schedule.users.starts),
    )


def _table(name: str, values: Floats, partition: Partition, access: Any, firsts: Sequence[int] | None = None) -> Table:
    """Make a table of rows in the order of `partition`; `firsts` if each stays on the node that owns it."""
    rows, width = values.shape
    if firsts is None:
        return Table(name, rows, width, dtype="float32", access=access, init=_ordered(values, partition))
    return Table(
        name,
        rows,
        width,
        dtype="float32",
        access=access,
        init=_ordered(values, partition),
        sharding=firsts,
        replicate="run",
    )


def _ordered(values: Floats, partition: Partition) -> Floats:
    """Rows of `values` in the order of `partition`."""
    out = np.empty_like(values)
    out[partition.place] = values
    return out


def _padded(rows: Floats, width: int) -> Floats:
    out = np.zeros((rows.shape[0], width), np.float32)
    out[:, : rows.shape[1]] = rows
    return out
