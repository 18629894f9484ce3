"""Train in compiled code of your own: no Python call for a row.

Every worker estimates the mean vector of each of 1,000 groups from its share of a million noisy observations. The
loop over observations is jitted; it reads and adds to the shared table through `nbps.kernels`. `compile_loop` compiles
it once, before the workers start.
"""

import numpy as np
from numba import njit

import nbps
from nbps.kernels import get_row, inc_row, table_like

GROUPS, WIDTH, OBSERVATIONS, CLOCKS = 1_000, 16, 1_000_000, 10


@njit(nogil=True)
def learn(table, ids, observations, row, step):
    """Move each observed group's row towards its observation."""
    for n in range(ids.size):
        get_row(table, ids[n], row)
        for j in range(row.size):
            row[j] = step * (observations[n, j] - row[j])
        inc_row(table, ids[n], row)


def compile_loop():
    """Call the loop on nothing, with arguments of the types that it will get."""
    rows = np.zeros((0, WIDTH), np.float32)
    learn(table_like(WIDTH), np.zeros(0, np.int64), rows, np.zeros(WIDTH, np.float32), np.float32(0))


def train(worker, ids, observations):
    """Learn from this worker's share, a tenth of it each clock, with a falling step."""
    means = worker.table("means")
    row = np.empty(WIDTH, np.float32)
    mine = np.array_split(np.arange(worker.rank, ids.size, worker.size), CLOCKS)
    for clock, part in enumerate(mine):
        learn(means.kernel, ids[part], observations[part], row, np.float32(0.1 / (1 + clock)))
        worker.clock()


random = np.random.default_rng(0)
truth = random.normal(size=(GROUPS, WIDTH)).astype(np.float32)
ids = random.integers(0, GROUPS, OBSERVATIONS)
observations = truth[ids] + random.normal(size=(OBSERVATIONS, WIDTH)).astype(np.float32)

with nbps.Job(
    [nbps.Table("means", GROUPS, WIDTH, dtype="float32", access="direct")], workers=2, preload=compile_loop
) as job:
    job.run(train, ids, observations)
    error = float(np.sqrt(np.mean((job.table("means").to_numpy() - truth) ** 2)))
    print(job.report())

print(f"error of the means: {error:.3f} (a single observation has 1.0)")
assert error < 0.25
