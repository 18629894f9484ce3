"""Checks of arguments that several classes share."""

from __future__ import annotations

import math
import numbers
import operator
import sys
from typing import Any

from nbps.errors import ConfigError

FINITE = sys.float_info.max  # the largest that `real` may be where infinity may not


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


def real(what: str, value: Any, expected: str, high: float = math.inf, *, positive: bool = False) -> float:
    """Return `value` as a float if it is a number from 0 to `high`, and not 0 if `positive`.

    Parameters
    ----------
    what : str
        Names the value.
    value : object
        Numbers of NumPy are among those it may be; True and False are not.
    expected : str
        Says in words what it may be, with its unit.
    high : float
        `FINITE` refuses infinity alone.

    Raises
    ------
    ConfigError
        Otherwise; says `what` is wrong, and what was `expected`.
    """
    try:
        number = float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else math.nan
    except OverflowError:  # a whole number beyond all floats
        number = math.inf if value > 0 else -math.inf
    if not 0 <= number <= high or (positive and number == 0):
        raise ConfigError(f"{what} is {value!r}; expected {expected}")
    return number
