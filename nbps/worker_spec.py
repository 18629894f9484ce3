"""What a worker must know of its job; travels from the driver to every worker."""

from __future__ import annotations

from dataclasses import dataclass

from nbps.consistency import Consistency
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
