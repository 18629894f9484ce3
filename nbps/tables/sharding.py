"""Which node owns which row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Owners = npt.NDArray[np.uint8]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio: spreads consecutive numbers evenly


def row_owners(rows: int, nodes: int, sharding: str | Sequence[int]) -> Owners:
    """Return the owner of each row, uint8[rows].

    Parameters
    ----------
    sharding : {"block", "hash"} or sequence of int
        ``block``: consecutive rows, as many for every node; ``hash``: rows spread over the nodes, for tables where
        rows that are used together, or often, lie beside each other. A sequence gives the first rows of the blocks of
        nodes 1, 2, ...: nodes - 1 ascending numbers.
    """
    if sharding == "hash":
        mixed = np.arange(rows, dtype=np.uint64) * _GOLDEN
        return (((mixed >> np.uint64(32)) * np.uint64(nodes)) >> np.uint64(32)).astype(np.uint8)
    starts = [rows * node // nodes for node in range(1, nodes)] if isinstance(sharding, str) else sharding
    return np.repeat(np.arange(nodes, dtype=np.uint8), np.diff([0, *starts, rows]))
