"""The parts of shipping rows between nodes, each on one core alone: what `node_rows.py` does with two processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from node_rows import OWNER, REPLICA, ROW_BYTES, WIDTH, Case, Worked

from nbps.kernels import checksum
from nbps.kernels import rows as row_kernels
from nbps.kernels.claim_layout import claims_bytes
from nbps.tables.shared import SharedRows


def on_one_core(access: str, rows: int, times: int) -> dict[str, Callable[[], float]]:
    """Return what measures the parts of shipping `rows` rows, in GB/s of rows; nothing is sent."""
    case = Case("", access, rows)
    source, target = np.ones((rows, WIDTH), np.float32), np.zeros((rows, WIDTH), np.float32)
    claims = np.zeros(claims_bytes(rows), np.uint8) if access == "direct" else None
    shared, ids = SharedRows(target, row_kernels.NOBODY_LOOKS, claims, access == "direct", 0, 1), np.arange(rows)
    state = np.empty(checksum.STATE_WORDS, np.uint64)
    # Values and additions have memories of their own: what one does to the rows is not in the way of the other.
    owner, reader, adder, target_owner = (Worked(rank, case) for rank in (OWNER, REPLICA, REPLICA, OWNER))

    def timed(part: Callable[[Any], object], before: Callable[[], Any] = lambda: None) -> float:
        """Time `part`, which is given what `before` returned."""
        seconds = 0.0
        for _ in range(times):
            given = before()
            start = time.perf_counter()
            part(given)
            seconds += time.perf_counter() - start
        return times * rows * ROW_BYTES / seconds / 1e9

    def gathered() -> Any:
        owner.work()
        return owner.gather(REPLICA, everything=False)

    def collected() -> Any:
        adder.work()
        return adder.collect(OWNER, exact=False)

    bytes_ = source.reshape(-1).view(np.uint8)
    return {
        "memcpy": lambda: timed(lambda _: np.copyto(target, source)),
        "checksum": lambda: timed(lambda _: checksum.checksum(state, bytes_, 0)),
        "add kernel": lambda: timed(lambda _: row_kernels.inc_rows(shared.kernel, ids, source)),
        "gather": lambda: timed(lambda _: owner.gather(REPLICA, everything=False), owner.work),
        "install": lambda: timed(lambda batch: reader.install(OWNER, batch, (), 0), gathered),
        "collect": lambda: timed(lambda _: adder.collect(OWNER, exact=False), adder.work),
        "apply": lambda: timed(lambda batch: target_owner.apply(REPLICA, batch), collected),
    }
