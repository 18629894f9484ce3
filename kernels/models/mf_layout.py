"""Columns of what goes with each row of a factorization: its state and its L2 weights; free of Numba."""

from __future__ import annotations

BIAS, ACCUMULATOR = 0, 1
STATE_WIDTH = 2
FACTORS = 1  # beside BIAS, in the L2 weights
DECAY_WIDTH = 2
LANES = 8  # widths of factors are padded with zeros to a multiple of this
