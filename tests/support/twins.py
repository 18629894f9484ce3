"""Naive NumPy twins of the kernels, and arrays to try both on. Imports no kernel."""

from __future__ import annotations

import os

import numpy as np

# A run in a special mode may try fewer types, since it compiles all kernels anew.
DTYPES = os.environ.get("NBPS_TEST_DTYPES", "float32,float64,int32,int64").split(",")


def placed(size: int, dtype: str, start: int) -> np.ndarray:
    """Zeros of shape (size,) whose first element lies `start` elements after a multiple of 64 bytes."""
    item = np.dtype(dtype).itemsize
    memory = np.zeros((size + start) * item + 64, np.uint8)
    first = -memory.ctypes.data % 64 + start * item
    return memory[first : first + size * item].view(dtype)


def inc_rows(values: np.ndarray, ids: np.ndarray, deltas: np.ndarray) -> None:
    for n, row in enumerate(ids):
        values[row] = values[row] + deltas[n]


def put_rows(values: np.ndarray, ids: np.ndarray, source: np.ndarray) -> None:
    for n, row in enumerate(ids):
        values[row] = source[n]


def flush(values: np.ndarray, base: np.ndarray, parent: np.ndarray) -> tuple[int, float]:
    changed = (values != base).any(axis=1)
    delta = values - base
    parent += delta
    base += delta
    return int(changed.sum()), float(np.abs(delta.astype(np.float64)).max())


def refresh(values: np.ndarray, base: np.ndarray, parent: np.ndarray) -> None:
    values[...] = np.where(values == base, parent, values + (parent - base))
    base[...] = parent
