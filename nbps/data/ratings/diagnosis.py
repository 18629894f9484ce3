"""What is wrong with a line of a text file of ratings: the rules of `nbps.data.ratings.text` written out."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from nbps.data.lines import SHOWN_CHARACTERS, not_text
from nbps.data.ratings.columns import ROLES
from nbps.data.ratings.layout import MISSING, NOT_FINITE, NUMBER, Layout


def what_is_wrong(number: int, line: str, layout: Layout, lacks: Sequence[bool]) -> str | None:
    """Say what is wrong with line `number` of a file of this layout; None if nothing is.

    `lacks` says whether the ids of users, and of items, are numbers of which some are missing.
    """
    if number <= layout.header_lines or not (line.strip() if layout.format == "libmf" else line):
        return None
    shown = repr(line[:SHOWN_CHARACTERS])
    if (wrong := not_text(line)) is not None:
        return wrong
    fields = layout.split(line)
    if len(fields) != layout.field_count:
        mark = "blanks" if layout.format == "libmf" else repr(layout.separator)
        return f"expected {layout.field_count} fields separated by {mark}, found {len(fields)}: {shown}"
    for role, position, lacks_some in zip(ROLES, layout.positions, lacks, strict=False):
        if not fields[position]:
            return f"expected the {role}'s id, found an empty field: {shown}"
        if "\0" in fields[position]:
            return f"expected the {role}'s id, found a NUL byte in it: {shown}"
        if lacks_some and re.fullmatch(MISSING, fields[position]):
            return f"expected the {role}'s id, found a missing value, {fields[position]!r} among numbers: {shown}"
    rating = fields[layout.positions[2]]
    if NUMBER.fullmatch(rating):
        if np.isfinite(_float32(rating)):
            return None
        return f"expected a rating that float32 holds, found {rating!r}: {shown}"
    if NOT_FINITE.fullmatch(rating):
        return f"expected a finite rating, found {rating!r}: {shown}"
    if NUMBER.fullmatch(rating.replace(",", ".")):
        return f"expected a rating with a decimal point, found {rating!r}: {shown}"
    return f"expected a number as rating, found {rating!r}: {shown}"


def _float32(text: str) -> np.float32:
    with np.errstate(over="ignore"):
        return np.float32(float(text))
