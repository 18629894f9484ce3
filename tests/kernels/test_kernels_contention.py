"""Additions of several processes and threads to the same rows: none is lost, and the check would notice one."""

from __future__ import annotations

import numpy as np
import pytest

from nbps.kernels.claim_layout import claims_bytes
from support.peers import CLAIMED
from support.sharing import peers
from support.twins import DTYPES

_PROCESSES, _THREADS = 2, 2


def lost_updates(values: np.ndarray, rounds: int) -> int:
    """How many additions of 1 are missing in each column, over all rows, summed."""
    expected = rounds * values.shape[1]
    return expected - int(values.astype(np.float64).sum())


def contend(dtype: str, height: int, width: int, offset: int, atomic: int, rounds: int) -> tuple[np.ndarray, int]:
    """Have all threads of all processes add ones; return the table and how many row additions there were."""
    item = np.dtype(dtype).itemsize
    with peers((height * width + offset) * item + claims_bytes(height)) as group:
        for _ in range(_PROCESSES):
            group.add("add", dtype, height, width, offset, atomic, rounds, _THREADS)
        group.go()
        group.join()
        rows = group.memory[offset * item : (offset + height * width) * item]
        values = rows.view(dtype).reshape(height, width).copy()
    return values, _PROCESSES * _THREADS * rounds


@pytest.mark.slow
@pytest.mark.parametrize("atomic", [1, CLAIMED], ids=["compare-and-swap", "claims"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_addition_is_lost_under_contention(dtype, atomic):
    """Two processes of two threads add ones to three unaligned rows: every element is the exact count."""
    height, width = 3, 13  # rows begin at every alignment; a pack's neighbour belongs to the next row
    values, added = contend(dtype, height, width, 1, atomic, 90_000)
    assert lost_updates(values, added) == 0
    assert (values == added / height).all()


@pytest.mark.slow
def test_the_check_notices_lost_updates():
    """Plain SIMD additions lose some under the same contention; if they lose none here, one taken away is noticed."""
    for _ in range(3):
        values, added = contend("float32", 1, 32, 0, 0, 200_000)
        if lost_updates(values, added):
            return
    values[0, 5] -= 1
    assert lost_updates(values, added) == 1
