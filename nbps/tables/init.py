"""Initial values of tables: the same for any number of workers, given the job's seed and the table's name.

Example: ``nbps.Table("items", rows=3706, width=32, init=nbps.init.uniform(-0.1, 0.1))``.
"""

from __future__ import annotations

import contextlib
import math
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nbps.errors import ConfigError, DataError

Array = npt.NDArray[Any]
# Fills the values, shape (rows, width), of a new table in place.
Initializer = Callable[[Array, np.random.Generator], None]

_CHUNK = 1 << 16  # values drawn, copied or looked at at a time: small beside the table


def generator(seed: int, table: str) -> np.random.Generator:
    """Random numbers of one table: its name is mixed into the job's seed, so that tables differ."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, zlib.crc32(table.encode())])))


def check_all_finite(values: Array) -> None:
    """Raise `ConfigError` if a value is NaN or infinite; names the first."""
    step = max(1, _CHUNK // values.shape[1])
    for first in range(0, len(values), step):
        bad = np.argwhere(~np.isfinite(values[first : first + step]))
        if len(bad):
            row, column = first + bad[0][0], bad[0][1]
            raise ConfigError(
                f"initial values: row {row}, column {column} is {values[row, column]}; expected finite numbers "
                f"(check_finite is on)"
            )


def zeros() -> Initializer:
    """All zeros."""
    return constant(0)


def constant(value: float) -> Initializer:
    """Every element is `value`."""

    def fill(values: Array, random: np.random.Generator) -> None:
        _check_kind(np.asarray(value), values.dtype)
        with _fitting(values.dtype, f"init.constant({value})"):
            values[...] = value

    return fill


def uniform(low: float, high: float) -> Initializer:
    """Uniform on [low, high): reals for float tables, integers for integer tables."""
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ConfigError(f"init.uniform({low}, {high}): expected two finite numbers, low < high")

    def draw(size: int, dtype: np.dtype[Any], random: np.random.Generator) -> Array:
        if dtype.kind == "i":
            first, last = math.ceil(low), math.ceil(high) - 1
            if not np.iinfo(dtype).min <= first <= last <= np.iinfo(dtype).max:
                raise ConfigError(f"init.uniform({low}, {high}): expected a range with whole numbers of dtype {dtype}")
            return random.integers(first, last, size, dtype, endpoint=True)
        return (low + (high - low) * random.random(size, dtype)).astype(dtype, copy=False)

    return _drawn(draw, f"init.uniform({low}, {high})")


def normal(mean: float = 0.0, std: float = 1.0) -> Initializer:
    """Gaussian with `mean` and standard deviation `std`; float tables only."""
    if not (np.isfinite(mean) and np.isfinite(std) and std > 0):
        raise ConfigError(f"init.normal({mean}, {std}): expected a finite mean and a std > 0")

    def draw(size: int, dtype: np.dtype[Any], random: np.random.Generator) -> Array:
        if dtype.kind == "i":
            raise ConfigError(f"init.normal: expected a float table, found dtype {dtype}")
        return (mean + std * random.standard_normal(size, dtype)).astype(dtype, copy=False)

    return _drawn(draw, f"init.normal({mean}, {std})")


def from_array(array: npt.ArrayLike) -> Initializer:
    """Copy of `array`, shape (rows, width); integers where the table holds integers."""
    source = np.asarray(array)

    def fill(values: Array, random: np.random.Generator) -> None:
        if source.shape != values.shape:
            raise ConfigError(f"init.from_array: expected shape {values.shape}, found {source.shape}")
        _copy(source, values)

    return fill


def from_file(path: str | Path) -> Initializer:
    """Values of a table saved by nbps, or of any Arrow IPC file whose first column is a fixed-size list."""
    path = Path(path)

    def fill(values: Array, random: np.random.Generator) -> None:
        from nbps.memory.arrow import read_table_file

        parts = read_table_file(path)
        shape = (sum(len(part) for part in parts), parts[0].shape[1])
        if shape != values.shape:
            raise DataError(f"init.from_file({str(path)!r}): expected shape {values.shape}, found {shape}")
        first = 0
        for part in parts:
            _copy(part, values[first : first + len(part)])
            first += len(part)

    return fill


def _drawn(draw: Callable[[int, np.dtype[Any], np.random.Generator], Array], what: str) -> Initializer:
    def fill(values: Array, random: np.random.Generator) -> None:
        flat = values.reshape(-1)
        with _fitting(values.dtype, what):
            for start in range(0, flat.size, _CHUNK):
                part = flat[start : start + _CHUNK]
                part[...] = draw(part.size, values.dtype, random)

    return fill


def _copy(source: Array, values: Array) -> None:
    """Copy `source` to `values`, a part at a time: a table may take most of the memory there is."""
    step = max(1, _CHUNK // values.shape[1])
    for first in range(0, len(values), step):
        part = source[first : first + step]
        with _fitting(values.dtype):
            _check_kind(part, values.dtype)
            values[first : first + step] = part


@contextlib.contextmanager
def _fitting(dtype: np.dtype[Any], what: str = "initial values") -> Iterator[None]:
    """Refuse finite numbers that would become infinite."""
    try:
        with np.errstate(over="raise"):
            yield
    except FloatingPointError:
        raise ConfigError(f"{what}: expected numbers that fit dtype {dtype}, found larger ones") from None


def _check_kind(source: Array, dtype: np.dtype[Any]) -> None:
    """Refuse what are not numbers, and for integer tables numbers that are not whole or too large."""
    kind = source.dtype.kind
    if kind not in "iufb" or (dtype.kind == "i" and kind == "f" and not np.array_equal(source, np.trunc(source))):
        raise ConfigError(f"initial values: expected numbers that fit dtype {dtype}, found dtype {source.dtype}")
    if dtype.kind == "i" and source.size:
        limits, low, high = np.iinfo(dtype), source.min(), source.max()
        # Compared as Python integers: a float just past the limit would round to it.
        if not (np.isfinite(low) and np.isfinite(high) and limits.min <= int(low) and int(high) <= limits.max):
            raise ConfigError(f"initial values: expected numbers that fit dtype {dtype}, found {low} to {high}")
