"""Matrix factorization in a job: makes its tables, deals the ratings out, and runs the epochs."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from nbps.consistency import SSP, VAP
from nbps.data import Ratings
from nbps.errors import DataError
from nbps.job.ahead import load_ahead
from nbps.kernels.models.mf_layout import LANES, STATE_WIDTH
from nbps.memory.segments import Segment, attach
from nbps.models.blocks import Partition, deal_out
from nbps.models.mf import worker as mf_worker
from nbps.models.mf.history import EpochRecord
from nbps.models.mf.plan import TrainingPlan
from nbps.models.mf.state import Factors
from nbps.models.mf.worker import TrainingInputs
from nbps.models.phases import Phases
from nbps.models.saved import checksum
from nbps.models.trainer import Trainer, Values
from nbps.tables.definition import Table
from nbps.tables.init import Initializer

Floats = npt.NDArray[np.float32]
_BLOCK_BYTES = 1 << 18  # of item rows: half of the smallest second-level cache in use
_PART_BYTES = 1 << 19  # of users' rows, where items are trained on one by one
_LEAST_BLOCKS = 3  # for each worker: some slack costs nothing
_MOST_SLACK = 15  # clocks; workers of a rotation are never that far apart
_PART = 1 << 20  # ratings that workers are shown at a time: 12 MiB of shared memory
_RATING_BYTES = 4 * mf_worker.COLUMNS
_ROWS_PART = 1 << 12  # rows that are copied into a table at a time


def warm_up(plan: TrainingPlan) -> None:
    """Start what the first training of this process waits for half a second; returns at once."""
    kinds = {("float32", access, access != "exclusive", False) for access in ("exclusive", plan.item_access)}
    loads = [(mf_worker.load, (plan.item_access,))]
    agents = plan.nodes.count if plan.nodes.count > 1 else 0
    load_ahead(kinds, isinstance(plan.model, VAP), agents, loads)


class FactorizationTrainer(Trainer[Factors, EpochRecord]):
    """A job that trains `factors` on `data`, an epoch for each step size."""

    record = EpochRecord

    def __init__(
        self,
        plan: TrainingPlan,
        factors: Factors,
        data: Ratings,
        test: Ratings | None,
        watched: bool,
        phases: Phases,
    ) -> None:
        self._start = factors
        self._train, self._test = data, test
        workers, consistency = plan.all_workers, plan.model
        width = -(-factors.rank // LANES) * LANES
        per_worker = _blocks_per_worker(consistency.staleness, workers, factors, width, len(data))
        if plan.schedule == "rotate" and isinstance(consistency, SSP):
            # With so many blocks this bound keeps them apart; it is no looser than what was asked for.
            consistency = replace(consistency, staleness=min(consistency.staleness, per_worker - 1))
        counts = data.user_counts, data.item_counts
        known = counts if len(data) == len(factors.seen_users) else factors.seen_counts  # with those of earlier fits
        self._rotation = rotation = deal_out(*counts, workers, per_worker, plan.seed)
        access = plan.item_access
        users, items = rotation.users, rotation.items
        self._inputs = TrainingInputs(
            rotation=rotation,
            access=access,
            user_decay=_ordered(plan.decay(known[0]), users),
            item_decay=_ordered(plan.decay(known[1]), items),
            adapt=float(plan.adapts),
            seed=plan.seed,
            user_parts=_user_parts(workers, factors, width, len(data)),
        )
        units = _units(factors.scale)
        # A user's rows are read and changed by one worker only: they stay on its node.
        firsts = [int(first) for first in users.starts[plan.local_workers : workers : plan.local_workers]]
        tables = [
            _table("user_factors", factors.user_factors, units[0], width, users, "exclusive", firsts),
            _table("user_state", factors.user_state, units[1], STATE_WIDTH, users, "exclusive", firsts),
            _table("item_factors", factors.item_factors, units[0], width, items, access),
            _table("item_state", factors.item_state, units[1], STATE_WIDTH, items, access),
        ]
        super().__init__(plan, tables, consistency, functools.partial(mf_worker.preload, access), watched, phases)

    @property
    def task(self) -> str:
        """Size of the problem."""
        factors = self._start
        return (
            f"training on {len(self._train):,} ratings of {len(factors.item_ids):,} items by "
            f"{len(factors.user_ids):,} users at rank {factors.rank}"
        )

    @property
    def input_bytes(self) -> int:
        """Of what all workers get, and of the ratings that they are shown at a time."""
        return self._inputs.nbytes + _RATING_BYTES * min(len(self._train), _PART)

    def deal(self) -> None:
        """Have every worker take its ratings."""
        # One segment for all parts: memory that is made anew takes longer to clear and map than to fill.
        window = Segment("ratings", _RATING_BYTES * min(len(self._train), _PART))
        try:
            # On any node: all nodes then gather after each epoch.
            self._watched = self._job.run(mf_worker.set_up, self._inputs, self._watched, window.name)[0]
            mean, scale = self._start.mean, self._start.scale
            columns = attach(window.name).view(np.int32).reshape(mf_worker.COLUMNS, -1)
            self._hand_out(columns, "train", self._train, self._train.values, mean, 1.0 / scale)
            if self._test is not None:
                standardised = (self._test.values - np.float32(mean)) / np.float32(scale)
                self._hand_out(columns, "test", self._test, standardised, 0.0, 1.0)
        finally:
            window.unlink()
        self._job.run(mf_worker.begin)

    def _hand_out(
        self, window: npt.NDArray[np.int32], share: str, data: Ratings, values: Floats, mean: float, scale: float
    ) -> None:
        """Show all ratings to the workers, each of which takes those of its users as ``(value - mean) * scale``."""
        columns = data.users, data.items, values.view(np.int32)
        parts = [slice(first, first + window.shape[1]) for first in range(0, len(data), window.shape[1])]
        for function, shown, more in ((mf_worker.count, columns[:2], ()), (mf_worker.place, columns, (mean, scale))):
            for part in parts:
                for place, column in zip(window, shown, strict=False):
                    place[: column[part].size] = column[part]
                self._job.run(function, share, columns[0][part].size, *more)

    def train(self, epoch: int, setting: float) -> tuple[float, float]:
        """Train on every rating once with the step size `setting`; return it and the sum of squared errors."""
        return setting, self._job.run(mf_worker.train_epoch, setting)[0]  # the same of every worker

    def measure(self, found: tuple[float, float], **timing: Any) -> EpochRecord:
        """Measure the validation error."""
        step, error = found
        if not math.isfinite(error):
            raise DataError(
                f"training diverged in epoch {timing['epoch']}: the error is {error}; lower learning_rate "
                f"(now {step:g})"
            )
        scale = self._start.scale
        validation = None
        if self._test is not None:
            with self.phases("evaluate"):
                validation = scale * math.sqrt(self._job.run(mf_worker.evaluate)[0] / len(self._test))
        return EpochRecord(
            **timing,
            train_rmse=scale * math.sqrt(error / len(self._train)),
            validation_rmse=validation,
            ratings_per_second=len(self._train) / timing["seconds"],
        )

    def gather(self) -> None:
        """Have every node told of the rows of all users; all nodes call this."""
        if self._plan.nodes.count > 1:
            self._job.run(mf_worker.give_users)

    def state(self, values: Values | None = None) -> Factors:
        """Return a copy of the factors; rows of other nodes' users are as of the last epoch or as of `finish`."""
        users, items, rank = self._rotation.users.place, self._rotation.items.place, self._start.rank
        root, bias_unit = _units(self._start.scale)

        def taken(name: str, places: npt.NDArray[np.int64], width: int, unit: Floats) -> Floats:
            rows = self.rows(values, name, places)[:, :width]
            rows *= unit
            return np.ascontiguousarray(rows)

        return replace(
            self._start,
            user_factors=taken("user_factors", users, rank, root),
            user_state=taken("user_state", users, STATE_WIDTH, bias_unit),
            item_factors=taken("item_factors", items, rank, root),
            item_state=taken("item_state", items, STATE_WIDTH, bias_unit),
        )

    def digest(self) -> dict[str, Any]:
        """Return counts and checksums of the ratings to train on and to test with."""
        return {"ratings": _digest(self._train), "validation": None if self._test is None else _digest(self._test)}


def _digest(data: Ratings) -> str:
    return f"{len(data):,} with checksum {checksum(data.users, data.items, data.values)}"


def _units(scale: float) -> tuple[Floats, Floats]:
    """Return what turns factors and states of standardised ratings into those of ratings; accumulators stay."""
    return np.array([math.sqrt(scale)], np.float32), np.array([scale, 1], np.float32)


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


def _user_parts(workers: int, factors: Factors, width: int, ratings: int) -> int:
    """Return into how many parts a worker divides its users: a part fits the cache, and an item has ratings in it."""
    user_bytes = len(factors.user_ids) * (width + STATE_WIDTH) * 4
    worthwhile = ratings // (len(factors.item_ids) * workers)
    return max(1, min(-(-user_bytes // (_PART_BYTES * workers)), worthwhile))


def _ordered(rows: Floats, partition: Partition) -> Floats:
    """Return `rows` in the order of `partition`."""
    out = np.empty_like(rows)
    out[partition.place] = rows
    return out


def _table(
    name: str,
    rows: Floats,
    unit: Floats,
    width: int,
    partition: Partition,
    access: Any,
    firsts: Sequence[int] | None = None,
) -> Table:
    """Make a table of `rows`, in units of ratings, in the order of `partition`; `firsts` if each stays on its node."""
    stays: dict[str, Any] = {} if firsts is None else {"sharding": firsts, "replicate": "run"}
    return Table(name, len(rows), width, dtype="float32", access=access, init=_placed(rows, unit, partition), **stays)


def _placed(rows: Floats, unit: Floats, partition: Partition) -> Initializer:
    """Fill a table with `rows` in units of standardised ratings; it may be wider, and holds zeros there."""

    def fill(values: Floats, random: np.random.Generator) -> None:
        for first in range(0, len(rows), _ROWS_PART):
            part = slice(first, first + _ROWS_PART)
            values[partition.place[part], : rows.shape[1]] = rows[part] / unit

    return fill
