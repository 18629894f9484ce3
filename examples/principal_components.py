"""Find the plane in which most of some observations lie: a model that must start at random.

From zeros no step would lead anywhere, and rows that started alike would stay alike. `nbps.init.normal` draws the first
values from the job's `seed`, which workers and nodes share: the same seed starts with the same values.
"""

import numpy as np

import nbps

ROWS, WIDTH = 2, 20


def train(worker, observations):
    """Fit the rows to this worker's observations, and these to the rows, in turns."""
    plane = worker.table("plane")
    mine = observations[worker.rank :: worker.size]
    for _ in range(20):
        rows = plane.get(range(ROWS))
        shares = mine @ np.linalg.pinv(rows)  # of each row, in each observation
        change = np.linalg.lstsq(shares, mine - shares @ rows, rcond=None)[0]
        plane.inc(range(ROWS), change / worker.size)
        worker.clock()


random = np.random.default_rng(0)
truth = np.linalg.qr(random.normal(size=(WIDTH, ROWS)))[0]
observations = random.normal(size=(10_000, ROWS)) @ truth.T + 0.1 * random.normal(size=(10_000, WIDTH))

with nbps.Job([nbps.Table("plane", ROWS, WIDTH, init=nbps.init.normal())], workers=2, seed=7) as job:
    before = job.table("plane").to_numpy()
    job.run(train, observations)
    found = np.linalg.qr(job.table("plane").to_numpy().T)[0]

angle = np.degrees(np.arccos(np.linalg.svd(found.T @ truth)[1].min()))
print(f"the first row began with {before[0, :3]} ...; the plane is found to within {angle:.2f} degrees")
assert angle < 2
