"""What an agent is given of a table: its arrays, and what follows for it from the table's definition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from nbps.agent.encodings import AS_IT_IS, BFLOAT16, FLOAT16, LARGEST, OVERWRITE, Bytes
from nbps.memory.segments import attach
from nbps.tables.definition import TableDefinition
from nbps.tables.placed import PlacedTable
from nbps.tables.sharding import Owners, row_owners

_ENCODINGS: dict[str | None, int] = {None: AS_IT_IS, "float16": FLOAT16, "bfloat16": BFLOAT16}


@dataclass(frozen=True)
class TableShare:
    """What an agent is given of a table.

    Attributes
    ----------
    name : str
    values : ndarray, shape (rows, width)
        The live rows.
    dirty : ndarray, uint8[8 * ceil(rows / 8)]
        Marks of changed rows.
    owners : ndarray, uint8[rows]
    states : ndarray, uint8[8 * ceil(rows / 8)], or None
        Which rows are here (`nbps.kernels.presence`); None for all.
    replicated : bool
        Whether other nodes are told of all changes during a run.
    encoding, kept : int
        Of additions on their way (`nbps.agent.encodings`); `OVERWRITE` where a row has one writer at a time, and its
        values are sent.
    claims : ndarray of uint8, or None
        Of rows (`nbps.kernels.claims`); None where rows are changed by atomic operations, or have one writer.
    source : int
        Number of the agent among the processes of its node that add to rows, the last one.
    """

    name: str
    values: npt.NDArray[Any]
    dirty: Bytes
    owners: Owners
    states: Bytes | None
    replicated: bool
    encoding: int = AS_IT_IS
    kept: int = 0
    claims: Bytes | None = None
    source: int = 0


def share_of(table: PlacedTable, nodes: int, workers: int) -> TableShare:
    """Attach an agent to a table of a job on `nodes` nodes, with `workers` workers on this one."""
    definition = table.definition
    assert table.marks is not None
    share = definition.compress if isinstance(definition.compress, float) else 0
    return TableShare(
        name=definition.name,
        values=table.layout.view(),
        dirty=attach(table.marks),
        owners=row_owners(definition.rows, nodes, definition.sharding),
        states=None if table.states is None else attach(table.states),
        replicated=definition.replicate == "clock",
        encoding=_encoding(definition),
        kept=max(1, round(share * definition.width)) if share else 0,
        claims=None if table.claims is None else attach(table.claims),
        source=workers,
    )


def _encoding(table: TableDefinition) -> int:
    if table.access == "exclusive":
        return OVERWRITE
    return LARGEST if isinstance(table.compress, float) else _ENCODINGS[table.compress]
