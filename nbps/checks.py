"""Checks of arguments that several classes share."""

from __future__ import annotations

import operator
from typing import Any

from nbps.errors import ConfigError


def whole(what: str, value: Any, low: int) -> int:
    """Return `value` as an int if it is a whole number >= `low`.

    Raises
    ------
    ConfigError
        Otherwise; names `what`.
    """
    try:
        number = low - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = low - 1
    if number < low:
        raise ConfigError(f"{what} is {value!r}; expected a whole number >= {low}")
    return number
