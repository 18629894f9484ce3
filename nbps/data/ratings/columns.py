"""Which columns of a file are the user, the item and the rating."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from nbps.errors import ConfigError, DataError

# Header names, lower case without punctuation, of MovieLens, the Amazon, Book-Crossing and Goodreads sets,
# Surprise, RecBole and LensKit.
_KNOWN_NAMES = (
    {"user", "userid", "uid", "useridtoken", "reviewerid", "u"},
    {"item", "itemid", "iid", "itemidtoken", "movie", "movieid", "bookid", "isbn", "asin", "productid", "i"},
    {"rating", "ratingfloat", "bookrating", "score", "stars", "value", "overall", "r"},
)
_NAMED_COLUMNS = 20  # enough to choose from, or to see that it is another file
ROLES = ("user", "item", "rating")
_ADVICE = "Say which to use: columns=(user, item, rating), or --columns user,item,rating in a shell."
NO_RATINGS = "There is no rating column: nbps needs explicit ratings."

Columns = Sequence[str | int]
Fail = Callable[..., DataError]  # makes the error about the data's origin; `row`, from 1, where there is one


def check_columns(columns: Columns | None) -> None:
    """Check the ``columns=`` argument before any file is opened."""
    if columns is None:
        return
    listed = list(columns)
    if (
        isinstance(columns, str)
        or len(listed) != 3
        or len(set(listed)) != 3
        or any(isinstance(column, int) and column < 0 for column in listed)
    ):
        raise ConfigError(
            "columns: expected three different columns (user, item, rating), each a name in the header or a "
            f"position from 0, found {columns!r}."
        )


def is_known_header(names: Sequence[str]) -> bool:
    """Whether a line of fields can only be a header: it has a known name for each of the three columns."""
    return all(known_position(names, role) is not None for role in range(3))


def locate(fail: Fail, names: Sequence[str], columns: Columns | None, advice: str = _ADVICE) -> tuple[int, int, int]:
    """Positions of the user, item and rating column.

    Parameters
    ----------
    fail : callable
        Makes the error.
    names : sequence of str
        The columns that there are, in order.
    columns : sequence of three str or int, or None
        The caller's choice, or None to go by known names.
    advice : str
        How to choose; files by default.

    Raises
    ------
    DataError
        If a column is missing; the message lists the columns that there are.
    """
    found = []
    for role in range(3):
        wanted = None if columns is None else columns[role]
        if wanted is None:
            position = known_position(names, role)
        elif isinstance(wanted, int):
            position = wanted if wanted < len(names) else None
        else:
            position = list(names).index(wanted) if wanted in names else None
        if position is None:
            what = f"the {ROLES[role]} column" if wanted is None else f"the {ROLES[role]} column {wanted!r}"
            more = f", ... ({len(names):,} in all)" if len(names) > _NAMED_COLUMNS else ""
            listed = ", ".join(map(repr, names[:_NAMED_COLUMNS])) + more
            there = f"the columns {listed}" if names else "no columns"
            raise fail(f"expected {what}, found {there}. {NO_RATINGS if len(names) == 2 else advice}")
        found.append(position)
    return found[0], found[1], found[2]


def known_position(names: Sequence[str], role: int) -> int | None:
    """Return the position of the first column with a usual name for this role, if there is one."""
    for position, name in enumerate(names):
        if re.sub(r"[^a-z0-9]", "", name.lower()) in _KNOWN_NAMES[role]:
            return position
    return None
