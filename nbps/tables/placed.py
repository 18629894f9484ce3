"""A table in shared memory: what it is, and where; travels from the driver to every worker and to the agent."""

from __future__ import annotations

from dataclasses import dataclass

from nbps.memory.layout import Layout
from nbps.tables.definition import TableDefinition


@dataclass(frozen=True)
class PlacedTable:
    """What workers and agent know of a table.

    Attributes
    ----------
    definition : TableDefinition
    layout : Layout
        Where its values are.
    marks : str or None
        The segment with a byte for each row that changed; None where no agent looks for them.
    states : str or None
        The segment that says which rows are here (`nbps.kernels.presence`); None where all are.
    claims : str or None
        The segment with the claims of its rows; None where they have none.
    """

    definition: TableDefinition
    layout: Layout
    marks: str | None
    states: str | None
    claims: str | None = None
