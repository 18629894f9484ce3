"""What a worker must know of its job; travels from the driver to every worker."""

from __future__ import annotations

from dataclasses import dataclass

from nbps.consistency import VAP, Consistency
from nbps.core.terms import Terms
from nbps.tables.placed import TableSpec


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker must know of its job.

    Attributes
    ----------
    workers : int
        On this node.
    shards : int
        Slots that the agent has on the board: one for each node, or 0 without an agent.
    node : int
        Rank of this node.
    first, size : int
        Rank of this node's first worker, and number of workers of all nodes.
    """

    workers: int
    shards: int
    node: int
    first: int
    size: int
    board: str
    tables: tuple[TableSpec, ...]
    consistency: Consistency
    seed: int
    clock_timeout_s: float
    oversubscribed: bool
    record_staleness: bool
    checkpoint_every: int

    def terms(self) -> Terms:
        """Return what the workers agreed upon, as their protocol wants it."""
        model = self.consistency
        return Terms(
            staleness=min([model.staleness, *(table.staleness for table in self.tables)]),
            eager=model.eager,
            ordered=model.ordered and any(table.access == "cached" for table in self.tables),
            v0=model.v0 if isinstance(model, VAP) else None,
            checkpoint_every=self.checkpoint_every,
        )
