"""Matrix factorization inside a worker: what it is given, and what it does in an epoch.

Three schedules over the same blocks (`nbps.models.blocks`):

- ``rotate``: all tables ``exclusive``, plain SIMD; the staleness bound keeps a block from having two writers.
- ``cached``: item tables ``cached``; each worker trains on its copy, and clocks exchange the deltas.
- ``direct``: item tables ``direct``; several workers train on a block at the same time, item by item where the others
  go user by user, and lose nothing.

The driver imports it, too, and needs no Numba, and workers need no Arrow; each takes a third of a second. So functions
import what they need.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nbps.memory.segments import attach
from nbps.models.blocks import Partition, Rotation
from nbps.models.mf.share import Share

if TYPE_CHECKING:
    from nbps.job.worker import Worker

Floats = npt.NDArray[np.float32]
Int32s = npt.NDArray[np.int32]
COLUMNS = 3  # of ratings that workers are shown: users, items, values
TABLES = ("user_factors", "user_state", "item_factors", "item_state")


def preload(access: str) -> None:
    """Prepare, before the workers are forked, what they need for item tables of access mode `access`."""
    from nbps.kernels.models import cells, mf
    from nbps.kernels.prepare import prepare

    prepare([*mf.requests(access), *cells.requests()])


def load(access: str) -> None:
    """Load of that what is compiled, in the fork server."""
    from nbps.kernels.models import cells, mf
    from nbps.kernels.prepare import load

    load([*mf.requests(access), *cells.requests()])


@dataclass(frozen=True)
class TrainingInputs:
    """What all workers get before the first epoch, besides the ratings; arrays arrive in shared memory, once.

    Where workers train item by item, `user_parts` is into how many parts each divides its users.
    """

    rotation: Rotation
    access: str
    user_decay: Floats
    item_decay: Floats
    adapt: float
    seed: int
    user_parts: int

    @property
    def nbytes(self) -> int:
        """Bytes of all its arrays."""
        parts = self, self.rotation.users, self.rotation.items
        return sum(value.nbytes for part in parts for value in vars(part).values() if isinstance(value, np.ndarray))


def set_up(worker: Worker, inputs: TrainingInputs, watched: bool, window: str) -> bool:
    """Keep the inputs in this worker; return whether any node wants to see the model after each epoch.

    The segment called `window` is where ratings will be shown part by part: int32[COLUMNS, n] of users, of items, and
    of the bits of values.
    """
    rotation = inputs.rotation
    by_item = inputs.access == "direct"
    train = Share(rotation.users, rotation.items, worker.rank, inputs.user_parts if by_item else None)
    others = train.user_starts if by_item else rotation.items.starts
    width = worker.table("item_factors").shape[1]
    # To test with, all items are one block: the error needs no order of them.
    every_item = Partition(rotation.items.place, np.array([0, rotation.items.place.size]))
    worker.state.update(
        inputs=inputs,
        window=attach(window, writable=False).view(np.int32).reshape(COLUMNS, -1),
        train=train,
        test=Share(rotation.users, every_item, worker.rank),
        norms=np.empty(int(np.diff(others).max()), np.float32),
        copies=np.empty(2 * width, np.float32),
    )
    return bool(worker.sum(watched))


def count(worker: Worker, share: str, size: int) -> None:
    """Count this worker's ratings among so many to train on, or to test with, in the window; `share` says which."""
    users, items, _ = worker.state["window"][:, :size]
    worker.state[share].count(users, items)


def place(worker: Worker, share: str, size: int, mean: float, scale: float) -> None:
    """Take this worker's ratings among these."""
    users, items, values = worker.state["window"][:, :size]
    worker.state[share].place(users, items, values.view(np.float32), mean, scale)


def begin(worker: Worker) -> None:
    """Bring the ratings that were placed into the order in which they are trained on."""
    del worker.state["window"]
    draws = np.zeros(worker.size, np.int64)
    draws[worker.rank] = worker.state["train"].draws
    skipped = int(worker.sum(draws)[: worker.rank].sum())
    worker.state["train"].shuffle(worker.state["inputs"].seed, skipped)
    worker.state["test_users"] = worker.state["test"].user_places()


def train_epoch(worker: Worker, step: float) -> float:
    """Train on every block once, a block a clock; return the sum of squared errors of all workers' ratings."""
    rotation: Rotation = worker.state["inputs"].rotation
    total = 0.0
    for clock in range(rotation.blocks):
        total += _train_block(worker, rotation.block_at(worker.rank, clock), step)
        worker.clock()
    return float(worker.sum(total))


def _train_block(worker: Worker, block: int, step: float) -> float:
    from nbps.kernels.models import mf

    inputs: TrainingInputs = worker.state["inputs"]
    rotation, share = inputs.rotation, worker.state["train"]
    user_factors, user_state, item_factors, item_state = _values(worker)
    items = slice(*rotation.items.starts[block : block + 2])
    item_side = item_factors[items], item_state[items], inputs.item_decay[items]
    options = worker.state["norms"], np.float32(step), np.float32(inputs.adapt)
    claimed = [worker.table(name).kernel.claimed for name in TABLES[2:]]
    total = 0.0
    for part, bounds in enumerate(itertools.pairwise(share.user_starts)):
        users = slice(*bounds)
        user_side = user_factors[users], user_state[users], inputs.user_decay[users]
        if inputs.access == "direct":
            starts, copies = share.starts_of(part, items), worker.state["copies"]
            total += mf.sgd_block_lossless(
                starts, share.others, share.ratings, *item_side, *user_side, *options, copies, items.start, *claimed
            )
        else:
            starts = share.starts_of(block)
            total += mf.sgd_block(starts, share.others, share.ratings, *user_side, *item_side, *options)
    for name in TABLES[2:]:
        worker.table(name).mark(items.start, items.stop)
    return total


def give_users(worker: Worker) -> None:
    """Have the other nodes told of this worker's users: until then only this node knows their rows."""
    inputs: TrainingInputs = worker.state["inputs"]
    for name in TABLES[:2]:
        worker.table(name).mark(*inputs.rotation.users.starts[worker.rank : worker.rank + 2])


def evaluate(worker: Worker) -> float:
    """Return the sum of squared errors on all test ratings; each worker takes those of its users."""
    from nbps.kernels.models import mf

    share: Share = worker.state["test"]
    user_factors, user_state, item_factors, item_state = _values(worker)
    total = mf.squared_error(
        worker.state["test_users"], share.others, share.ratings, user_factors, user_state, item_factors, item_state
    )
    return float(worker.sum(total))


def _values(worker: Worker) -> tuple[Floats, ...]:
    return tuple(worker.table(name).kernel.values for name in TABLES)
