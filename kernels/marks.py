"""Looking for the few rows of a table of which a byte says something, eight rows at a time.

Arrays with a byte for each row are seen as int64[ceil(rows / 8)] as well. Bytes are at most 7; 1 is what is looked for.
"""

from __future__ import annotations

from .jit import kernel

EIGHT = 8  # bytes in a word
_WORDS = 8  # that are looked at together
_ONES = 0x0101_0101_0101_0101


@kernel(inline=True)
def next_one(eights, group, last):
    """Return the first of words `group` to `last` in which a byte is 1, or ``last + 1``."""
    while group + _WORDS <= last + 1:
        some = 0
        for k in range(_WORDS):
            some |= _ones(eights[group + k])
        if some != 0:
            break
        group += _WORDS
    while group <= last and _ones(eights[group]) == 0:
        group += 1
    return group


@kernel(inline=True)
def _ones(word):
    """Return a 1 in every byte of `word` that is 1."""
    return word & ~(word >> 1) & ~(word >> 2) & _ONES


@kernel(inline=True)
def owned(owners, first, owner):
    """Return a word with a 1 for each of the `EIGHT` rows from `first` on that is there and belongs to `owner`."""
    found = 0
    for row in range(first, min(first + EIGHT, owners.size)):
        found |= int(owners[row] == owner) << (EIGHT * (row - first))
    return found
