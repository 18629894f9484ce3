"""What a worker must know of its job; travels from the driver to every worker."""

from __future__ import annotations

from dataclasses import dataclass

from nbps.consistency import VAP, Consistency
from nbps.core.worker import Terms
from nbps.runtime.dense import Layout


@dataclass(frozen=True)
class TableSpec:
    """What a worker must know of a table."""

    name: str
    layout: Layout
    access: str
    staleness: float
    check_finite: bool


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker must know of its job."""

    workers: int
    board: str
    tables: tuple[TableSpec, ...]
    consistency: Consistency
    seed: int
    clock_timeout_s: float
    oversubscribed: bool
    record_staleness: bool

    def terms(self) -> Terms:
        """Return what the workers agreed upon, as their protocol wants it."""
        model = self.consistency
        return Terms(
            staleness=min([model.staleness, *(table.staleness for table in self.tables)]),
            eager=model.eager,
            ordered=model.ordered and any(table.access == "cached" for table in self.tables),
            v0=model.v0 if isinstance(model, VAP) else None,
        )
