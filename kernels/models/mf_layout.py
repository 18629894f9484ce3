"""Columns of the state that each row of a factorization carries beside its factors; free of Numba."""

from __future__ import annotations

BIAS, ACCUMULATOR = 0, 1
STATE_WIDTH = 2
LANES = 8  # widths of factors are padded with zeros to a multiple of this
