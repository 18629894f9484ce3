"""What a worker must know of its job; travels from the driver to every worker."""

from __future__ import annotations

from dataclasses import dataclass

from nbps.consistency import VAP, Consistency
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
    def first(self) -> int:
        """Rank of this node's first worker."""
        return sum(self.sizes[: self.node])

    def terms(self) -> Terms:
        """Return what the workers agreed upon, as their protocol wants it."""
        model = self.consistency
        return Terms(
            staleness=min([model.staleness, *(table.definition.staleness_under(model) for table in self.tables)]),
            eager=model.eager,
            ordered=model.ordered and any(table.definition.access == "cached" for table in self.tables),
            v0=model.v0 if isinstance(model, VAP) else None,
            checkpoint_every=self.checkpoint_every,
        )
