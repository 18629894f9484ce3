"""What a worker must know of its job; travels from the driver to every worker."""

from __future__ import annotations

from dataclasses import dataclass

from nbps.consistency import Consistency, terms_of
from nbps.core.terms import Terms
from nbps.tables.placed import PlacedTable


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker must know of its job.

    Attributes
    ----------
    sizes : tuple of int
        Workers of each node.
    node : int
        Rank of this node.
    shards : int
        Slots that the agent has on the board: one for each node, or 0 without an agent.
    """

    sizes: tuple[int, ...]
    node: int
    shards: int
    board: str
    tables: tuple[PlacedTable, ...]
    consistency: Consistency
    seed: int
    clock_timeout_s: float
    oversubscribed: bool
    record_staleness: bool
    checkpoint_every: int

    @property
    def workers(self) -> int:
        """Workers of this node."""
        return self.sizes[self.node]

    @property
    def claimants(self) -> int:
        """Processes of this node that add to shared rows: workers, and where there is one the agent."""
        return self.workers + (self.shards > 0)

    @property
    def first(self) -> int:
        """Rank of this node's first worker."""
        return sum(self.sizes[: self.node])

    def terms(self) -> Terms:
        """Return what the workers agreed upon, as their protocol wants it."""
        bounds = (table.definition.staleness_under(self.consistency) for table in self.tables)
        copies = any(table.definition.access == "cached" for table in self.tables)
        return terms_of(self.consistency, self.checkpoint_every, bounds, copies)
