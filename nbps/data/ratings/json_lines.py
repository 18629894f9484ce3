"""Reading JSON lines with pyarrow's reader, in blocks on all cores."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from nbps.data.lines import SHOWN_CHARACTERS, first_bad_line, not_text
from nbps.data.ratings.columns import ROLES, Columns, locate
from nbps.data.ratings.formats import first_line
from nbps.data.source import Source

_ID_TYPES = {int: pa.int64(), str: pa.string()}
_TYPE_NAMES = {int: "an integer", str: "a string"}


def read_json_lines(source: Source, columns: Columns | None) -> pa.Table:
    """Table with the columns user, item (each int64 or string) and rating (float32), without nulls.

    The first object has all names, and says whether ids are integers or strings.

    Raises
    ------
    DataError
        If a line is not such an object, a value is missing or has another type; the message has the line's number.
    """
    first = _object(first_line(source))
    if isinstance(first, str):
        raise source.error(f"{first}. Write each rating as an object on a line of its own.", line=1)
    names = list(first)
    wanted = [names[position] for position in locate(source.error, names, columns)]
    types = [type(first[name]) for name in wanted[:2]]
    wrong = functools.partial(_what_is_wrong, wanted=wanted, types=types)
    fields = [(name, _ID_TYPES.get(kind, pa.string())) for name, kind in zip(wanted, types, strict=False)]
    options = pyarrow.json.ParseOptions(
        explicit_schema=pa.schema([*fields, (wanted[2], pa.float64())]), unexpected_field_behavior="ignore"
    )
    try:
        with source.open() as stream:
            table = pyarrow.json.read_json(stream, parse_options=options).select(wanted).rename_columns(list(ROLES))
    except pa.ArrowMemoryError:
        raise
    except (pa.ArrowException, OSError) as error:
        found = first_bad_line(source, wrong)
        raise found or source.error(f"expected JSON lines, found: {error}.") from None
    values = table["rating"].cast(pa.float32(), safe=False)
    has_bad_ids = any(
        column.null_count or (pa.types.is_string(column.type) and pc.any(pc.equal(column, "")).as_py())
        for column in (table["user"], table["item"])
    )
    if has_bad_ids or values.null_count or not pc.all(pc.is_finite(values)).as_py():
        raise first_bad_line(source, wrong) or source.error("expected ids and finite ratings on each line.")
    return table.set_column(2, "rating", values)


def _object(line: str) -> Mapping[str, Any] | str:
    """Return the object that a line holds, or what is wrong with it."""
    shown = repr(line[:SHOWN_CHARACTERS])
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"expected a JSON object, found {error}: {shown}"
    return found if isinstance(found, dict) else f"expected a JSON object, found {type(found).__name__}: {shown}"


def _what_is_wrong(number: int, line: str, wanted: list[str], types: list[type]) -> str | None:
    if not line.strip():
        return None
    if (wrong := not_text(line)) is not None:
        return wrong
    found = _object(line)
    if isinstance(found, str):
        return found
    shown = repr(line[:SHOWN_CHARACTERS])
    for role, name, kind in zip(ROLES, wanted, types, strict=False):
        value = found.get(name)
        expected = _TYPE_NAMES.get(kind, "an integer or string")
        if type(value) not in _ID_TYPES or type(value) is not kind or value == "":
            return f"expected the {role}'s id in {name!r}, {expected} as in the first line, found {value!r}: {shown}"
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            return f"expected the {role}'s id in {name!r}, an integer of 64 bits, found {value}: {shown}"
    rating = found.get(wanted[2])
    if isinstance(rating, bool) or not isinstance(rating, int | float) or not _fits_float32(rating):
        return f"expected a rating that float32 holds in {wanted[2]!r}, found {rating!r}: {shown}"
    return None


def _fits_float32(value: float) -> bool:
    return math.isfinite(value) and abs(value) <= float(np.finfo(np.float32).max)
