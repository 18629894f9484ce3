"""Checks of arguments: what passes, and what the error says."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nbps.checks import FINITE, real
from nbps.errors import ConfigError


@pytest.mark.parametrize(
    ("value", "number"),
    [(0, 0), (1, 1), (0.5, 0.5), (np.float32(0.5), 0.5), (np.int64(1), 1), (math.inf, math.inf), (10**400, math.inf)],
)
def test_real_numbers_become_floats(value, number):
    """Numbers of Python and NumPy, bounds included."""
    found = real("x", value, "a number")
    assert (type(found), found) == (float, number)


@pytest.mark.parametrize("value", [0, FINITE, np.float32(3e38), np.int64(1)])
def test_all_but_infinity_is_finite(value):
    """Up to the largest float, in types of smaller range too."""
    assert real("x", value, "a finite number", FINITE) == value


@pytest.mark.parametrize(
    ("value", "limits"),
    [
        (-1e-300, {}), (math.nan, {}), (True, {}), ("1", {}), (None, {}), (1j, {}), (np.zeros(2), {}),
        (0, {"positive": True}), (-0.0, {"positive": True}), (1.5, {"high": 1}), (math.inf, {"high": FINITE}),
        (np.float32(math.inf), {"high": FINITE}), (10**400, {"high": FINITE}), (-(10**400), {}),
    ],
)  # fmt: skip
def test_what_is_no_such_number_is_refused(value, limits):
    """The error says what is wrong, what it is and what was expected."""
    with pytest.raises(ConfigError) as caught:
        real("Job: x", value, "seconds", **limits)
    assert str(caught.value) == f"Job: x is {value!r}; expected seconds"
