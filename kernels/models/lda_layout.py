"""How topics of a document are packed, and how many are looked at together; free of Numba."""

from __future__ import annotations

LANES = 16  # topics that are summed up together: rows of topics are padded with zeros to a multiple of this
_NARROW = 1 << 16  # topics and counts below this fit the two halves of 32 bits


def needs_wide(topics: int, longest: int) -> bool:
    """Whether so many topics, or counts of a document of so many tokens, need more than 16 bits each."""
    return topics > _NARROW or longest >= _NARROW


def padded(topics: int) -> int:
    """Return the width of a row of so many topics."""
    return -(-topics // LANES) * LANES
