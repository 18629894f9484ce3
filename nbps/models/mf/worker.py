"""Matrix factorization inside a worker: what it is given, and what it does in an epoch.

Three schedules over the same blocks (`nbps.models.mf.blocks`):

- ``rotate``: all tables ``exclusive``, plain SIMD; the staleness bound keeps a block from having two writers.
- ``cached``: item tables ``cached``; each worker trains on its copy, and clocks exchange the deltas.
- ``direct``: item tables ``direct``; additions are lossless, one rating at a time.

Imported by the workers, so free of Arrow: its import would cost each of them a third of a second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nbps.kernels.models import mf
from nbps.kernels.prepare import prepare
from nbps.models.mf.blocks import Schedule

if TYPE_CHECKING:
    from nbps.job.worker import Worker

Floats = npt.NDArray[np.float32]
TABLES = ("user_factors", "user_state", "item_factors", "item_state")


def preload(access: str) -> None:
    """Prepare, before the workers are forked, what they need for item tables of access mode `access`."""
    prepare(mf.requests(access))


@dataclass(frozen=True)
class TrainingInputs:
    """What all workers get before the first epoch; arrays arrive in shared memory, once."""

    schedule: Schedule
    access: str
    user_decay: Floats
    item_decay: Floats
    adapt: float
    test_users: npt.NDArray[np.int64]
    test_items: npt.NDArray[np.int64]
    test_ratings: Floats
    test_starts: npt.NDArray[np.int64]

    @property
    def nbytes(self) -> int:
        """Bytes of all its arrays."""
        parts = self, self.schedule, self.schedule.users, self.schedule.items
        return sum(value.nbytes for part in parts for value in vars(part).values() if isinstance(value, np.ndarray))


def set_up(worker: Worker, inputs: TrainingInputs, watched: bool) -> bool:
    """Keep the inputs in this worker; return whether any node wants to see the model after each epoch."""
    item_rows = int(np.diff(inputs.schedule.items.starts).max())
    width = worker.table("item_factors").shape[1]
    worker.state["inputs"] = inputs
    worker.state["norms"] = np.empty(item_rows, np.float32)
    worker.state["delta"] = np.empty(width, np.float32)
    return bool(worker.sum(watched))


def train_epoch(worker: Worker, step: float) -> float:
    """Train on every block once, a block a clock; return the sum of squared errors of all workers' ratings."""
    inputs: TrainingInputs = worker.state["inputs"]
    schedule = inputs.schedule
    users = slice(*schedule.users.starts[worker.rank : worker.rank + 2])
    user_factors, user_state, item_factors, item_state = _values(worker)
    total = 0.0
    for clock in range(schedule.blocks):
        block = schedule.block_at(worker.rank, clock)
        items = slice(*schedule.items.starts[block : block + 2])
        arguments = (
            schedule.starts_of(worker.rank, block), schedule.item_rows, schedule.ratings,
            user_factors[users], user_state[users], inputs.user_decay[users],
            item_factors[items], item_state[items], inputs.item_decay[items],
            worker.state["norms"], np.float32(step), np.float32(inputs.adapt),
        )  # fmt: skip
        if inputs.access == "direct":
            total += mf.sgd_block_lossless(*arguments, worker.state["delta"])
        else:
            total += mf.sgd_block(*arguments)
        for name in TABLES[2:]:
            worker.table(name).mark(items.start, items.stop)
        worker.clock()
    return float(worker.sum(total))


def give_users(worker: Worker) -> None:
    """Have the other nodes told of this worker's users: until then only this node knows their rows."""
    inputs: TrainingInputs = worker.state["inputs"]
    for name in TABLES[:2]:
        worker.table(name).mark(*inputs.schedule.users.starts[worker.rank : worker.rank + 2])


def evaluate(worker: Worker) -> float:
    """Return the sum of squared errors on all test ratings; each worker takes its part."""
    inputs: TrainingInputs = worker.state["inputs"]
    part = slice(*inputs.test_starts[worker.rank : worker.rank + 2])
    user_factors, user_state, item_factors, item_state = _values(worker)
    users, items, ratings = inputs.test_users[part], inputs.test_items[part], inputs.test_ratings[part]
    total = mf.squared_error(users, items, ratings, user_factors, user_state, item_factors, item_state)
    return float(worker.sum(total))


def _values(worker: Worker) -> tuple[Floats, ...]:
    return tuple(worker.table(name).kernel.values for name in TABLES)
