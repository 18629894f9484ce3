"""A parameter server in twenty lines: linear regression with bounded staleness."""

import numpy as np

import nbps


def train(worker, features, targets):
    """Every worker has its own share of the examples."""
    weights = worker.table("weights")
    mine = slice(worker.rank, None, worker.size)
    X, y = features[mine], targets[mine]
    for _ in range(200):
        w = weights.get(0)
        gradient = X.T @ (X @ w - y) / len(features)
        weights.inc(0, -0.2 * gradient)
        worker.clock()
    return float(np.mean((X @ weights.get(0) - y) ** 2))


random = np.random.default_rng(0)
truth = random.normal(size=8)
features = random.normal(size=(10_000, 8))

with nbps.Job(
    tables=[nbps.Table("weights", rows=1, width=8, dtype="float64")],
    workers=2,
    consistency=nbps.ESSP(staleness=2),
) as job:
    losses = job.run(train, features, features @ truth)
    error = np.abs(job.table("weights").to_numpy() - truth).max()
    print(job.report())

print(f"losses of the workers: {losses}; largest error of a weight: {error:.1e}")
assert error < 1e-6
