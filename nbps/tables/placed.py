"""Where a table lies in shared memory; travels from the driver to every worker."""

from __future__ import annotations

from dataclasses import dataclass

from nbps.memory.layout import Layout


@dataclass(frozen=True)
class TableSpec:
    """What a worker must know of a table.

    `marks` is the segment with a byte for each row that changed, where an agent looks for them; `states` the one that
    says which rows are here, where not all are (`nbps.kernels.presence`).
    """

    name: str
    layout: Layout
    marks: str | None
    states: str | None
    access: str
    staleness: float
    check_finite: bool
