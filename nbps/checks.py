"""Checks of arguments that several classes share."""

from __future__ import annotations

import operator
from typing import Any

from nbps.errors import ConfigError


def whole(what: str, value: Any, low: int, high: int | None = None) -> int:
    """Return `value` as an int if it is a whole number >= `low`, and <= `high` if that is given.

    Raises
    ------
    ConfigError
        Otherwise; names `what`.
    """
    try:
        number = low - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = low - 1
    if number < low or (high is not None and number > high):
        expected = f">= {low}" if high is None else f"from {low} to {high}"
        raise ConfigError(f"{what} is {value!r}; expected a whole number {expected}")
    return number
