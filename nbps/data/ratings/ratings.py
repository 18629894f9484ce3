"""Ratings in memory: three columns of codes and values, and the maps of the codes to the ids."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nbps.buffers import over
from nbps.data.arrays import added_up, cached_parts, flat, on_all_cores, own_memory, parts, release_unused
from nbps.data.ratings.columns import ROLES, Columns
from nbps.data.ratings.frames import rating_columns
from nbps.data.ratings.ids import IdMap
from nbps.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Ratings:
    """Ratings of items by users, one entry for each rating, in file order.

    The same (user, item) pair may occur more than once; every occurrence is kept and counts as a rating.

    Parameters
    ----------
    users : numpy.ndarray
        int32, shape ``[n]``, C-contiguous: codes of `user_ids`. Shared with the caller; treat as read-only.
    items : numpy.ndarray
        int32, shape ``[n]``, C-contiguous: codes of `item_ids`. Shared with the caller; treat as read-only.
    values : numpy.ndarray
        float32, shape ``[n]``, C-contiguous, finite. Shared with the caller; treat as read-only.
    user_ids, item_ids : IdMap
        May hold ids that no rating here uses, as the two parts of a split do.

    Raises
    ------
    ConfigError
        If a column has another dtype or length, or a code is outside its map.
        `Ratings.from_columns` converts.
    """

    users: npt.NDArray[np.int32]
    items: npt.NDArray[np.int32]
    values: npt.NDArray[np.float32]
    user_ids: IdMap
    item_ids: IdMap

    def __post_init__(self) -> None:
        for name, column, dtype in (
            ("users", self.users, np.int32),
            ("items", self.items, np.int32),
            ("values", self.values, np.float32),
        ):
            if column.dtype != dtype or column.shape != self.users.shape or column.ndim != 1:
                raise ConfigError(
                    f"Ratings.{name}: expected {np.dtype(dtype)} of shape [{len(self.users)}], found "
                    f"{column.dtype} of shape {list(column.shape)}. Use Ratings.from_columns to convert."
                )
            if not column.flags.c_contiguous:
                raise ConfigError(f"Ratings.{name}: expected contiguous, found strides {column.strides}.")
        for name, codes, ids in (("users", self.users, self.user_ids), ("items", self.items, self.item_ids)):
            if codes.size and not (codes.min() >= 0 and codes.max() < len(ids)):
                raise ConfigError(
                    f"Ratings.{name}: expected codes from 0 to {len(ids) - 1}, found {codes.min()} to {codes.max()}."
                )
        if not all(np.isfinite(self.values[part]).all() for part in parts(len(self.values))):
            row = int(np.argmin(np.isfinite(self.values)))
            raise ConfigError(f"Ratings.values: expected finite, found {self.values[row]} at index {row}.")

    @classmethod
    def from_columns(cls, users: Any, items: Any, values: npt.ArrayLike) -> Ratings:
        """Make ratings from columns of original ids.

        Parameters
        ----------
        users, items : sequence, numpy.ndarray or pyarrow array of integers or strings
            Shape ``[n]``. Not kept.
        values : array_like
            Numbers, shape ``[n]``.

        Returns
        -------
        Ratings

        Raises
        ------
        ConfigError
            If the lengths differ, an id is missing or neither integer nor string, or a value is not finite.

        Examples
        --------
        >>> ratings = Ratings.from_columns(["ann", "bob", "ann"], [7, 7, 9], [5, 3, 1])
        >>> ratings.shape, ratings.users.tolist(), ratings.item_ids.ids.to_pylist()
        ((2, 2), [0, 1, 0], [7, 9])
        """
        user_ids, user_codes = IdMap.of(users, "users")
        item_ids, item_codes = IdMap.of(items, "items")
        try:
            with np.errstate(over="ignore"):  # infinity is refused below
                numbers = np.array(values, dtype=np.float32)  # a copy: Arrow's own memory is read-only
        except (TypeError, ValueError) as error:
            raise ConfigError(f"values: expected numbers, found something else: {error}") from None
        sizes = user_codes.size, item_codes.size, numbers.size
        if len(set(sizes)) != 1:
            raise ConfigError("ratings: {} users, {} items, {} values: expected equally many".format(*sizes))
        return cls(user_codes, item_codes, numbers, user_ids, item_ids)

    @classmethod
    def from_arrow(cls, table: Any, columns: Columns | None = None) -> Ratings:
        """Make ratings from an Arrow table, or from any frame that hands its columns out as an Arrow stream.

        Parameters
        ----------
        table : pyarrow.Table, pyarrow.RecordBatchReader, polars.DataFrame, ...
            Whatever has ``__arrow_c_stream__``. Not kept.
        columns : sequence of three str or int, optional
            The columns of user, item and rating, by name or position. By default those with usual names (``userId``,
            ``user_id``, ``item``, ...), or where there are three columns with other names, these in order.

        Returns
        -------
        Ratings

        Raises
        ------
        DataError
            If a column is missing, has another type, or a value is missing or not finite; names column and row.
        ConfigError
            If `table` is not of that kind, or `columns` cannot be used.

        Examples
        --------
        >>> import pyarrow as pa
        >>> table = pa.table({"userId": ["ann", "bob"], "movieId": [7, 9], "rating": [5.0, 3.5], "time": [0, 1]})
        >>> Ratings.from_arrow(table)
        Ratings(2 ratings, 2 users, 2 items)
        """
        return cls.from_table(rating_columns(table, columns))

    @classmethod
    def from_table(cls, table: pa.Table, in_place: bool = False) -> Ratings:
        """Make ratings from what a file or frame was read as.

        Parameters
        ----------
        table : pyarrow.Table
            The columns user, item (each integers or strings) and rating (float32), without nulls; all values finite.
        in_place : bool
            The ratings may take the memory of the table, which is not to be used any more then.
        """
        columns = [table.column(role) for role in ROLES]
        del table  # each column is let go of when it has been converted, if nobody else holds it
        release_unused()
        users, user_codes = IdMap.of(columns.pop(0), "users", in_place)
        release_unused()
        items, item_codes = IdMap.of(columns.pop(0), "items", in_place)
        release_unused()
        values = own_memory(columns[0]) if in_place else None
        if values is None:
            values = flat(columns.pop(0), np.float32)
            release_unused()
        return cls(user_codes, item_codes, values, users, items)

    @classmethod
    def from_pandas(cls, frame: Any, columns: Columns | None = None) -> Ratings:
        """Make ratings from a pandas frame; its index is not looked at. As `from_arrow` otherwise."""
        return cls.from_arrow(frame, columns)

    def to_arrow(self) -> pa.Table:
        """Return an Arrow table with the columns user, item (ids) and rating, as `from_arrow` takes it."""
        return pa.table(
            {
                "user": self.user_ids.ids.take(over(self.users)),
                "item": self.item_ids.ids.take(over(self.items)),
                "rating": over(self.values),
            }
        )

    def to_pandas(self) -> Any:
        """Return a pandas frame with the columns user, item (ids) and rating; pandas must be installed."""
        return self.to_arrow().to_pandas()

    @property
    def shape(self) -> tuple[int, int]:
        """Number of users and number of items in the id maps."""
        return len(self.user_ids), len(self.item_ids)

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        return f"Ratings({len(self)} ratings, {self.shape[0]} users, {self.shape[1]} items)"

    @functools.cached_property
    def user_counts(self) -> npt.NDArray[np.int64]:
        """How many ratings each user has: int64, by code."""
        return _counts(self.users, len(self.user_ids))

    @functools.cached_property
    def item_counts(self) -> npt.NDArray[np.int64]:
        """How many ratings each item has: int64, by code."""
        return _counts(self.items, len(self.item_ids))

    def take(self, mask: npt.NDArray[Any]) -> Ratings:
        """Return part of the ratings, with the full id maps.

        Parameters
        ----------
        mask : numpy.ndarray
            bool, shape ``[n]``: which to keep; or integers: their indices, in the order wanted.

        Returns
        -------
        Ratings
            With its own copy of the columns.
        """
        return replace(self, users=self.users[mask], items=self.items[mask], values=self.values[mask])

    def split(self, test_fraction: float, seed: int = 0, in_place: bool = False) -> tuple[Ratings, Ratings]:
        """Split at random into train and test, each in file order and with the full id maps.

        A rating is test where ``np.random.default_rng(seed).random(n) < test_fraction``.

        Parameters
        ----------
        test_fraction : float
            Between 0 and 1, both excluded.
        seed : int
            The same seed gives the same split.
        in_place : bool
            The part to train on takes the memory of these ratings: neither they nor the arrays that they were made of
            may be used any more.

        Returns
        -------
        train, test : Ratings

        Raises
        ------
        ConfigError
            If `test_fraction` is out of range, or one of the parts would be empty.
        """
        if not 0.0 < test_fraction < 1.0:
            raise ConfigError(
                f"test_fraction: expected a number between 0 and 1 (both excluded), found {test_fraction}."
            )
        is_test = _draw(len(self), test_fraction, seed)
        count = np.count_nonzero(is_test)
        if count in (0, len(self)):
            raise ConfigError(
                f"test_fraction {test_fraction} of {len(self)} ratings leaves {len(self) - count} to train "
                f"and {count} to test; expected at least one of each. Use another fraction or more ratings."
            )
        divided = _divided((self.users, self.items, self.values), is_test, in_place)
        train, test = (replace(self, users=users, items=items, values=values) for users, items, values in divided)
        return train, test

    def recode(self, user_ids: IdMap, item_ids: IdMap) -> tuple[Ratings, int]:
        """Return the same ratings in the codes of other maps, as a model trained on other data needs them.

        Parameters
        ----------
        user_ids, item_ids : IdMap
            The maps to use.

        Returns
        -------
        ratings : Ratings
            Those whose user and item are both known to the maps.
        dropped : int
            How many were not.
        """
        if user_ids is self.user_ids and item_ids is self.item_ids:
            return self, 0
        users = user_ids.find(self.user_ids.ids)[self.users]
        items = item_ids.find(self.item_ids.ids)[self.items]
        known = (users >= 0) & (items >= 0)
        kept = Ratings(users[known], items[known], self.values[known], user_ids, item_ids)
        return kept, len(self) - len(kept)


def _draw(count: int, fraction: float, seed: int) -> npt.NDArray[np.bool_]:
    """Return ``np.random.default_rng(seed).random(count) < fraction``."""
    drawn = np.empty(count, bool)

    def draw(part: slice) -> None:
        source = np.random.PCG64(seed)
        source.advance(part.start)  # a number of 64 bits for each entry before it
        np.less(np.random.Generator(source).random(drawn[part].size), fraction, out=drawn[part])

    on_all_cores(draw, cached_parts(count))
    return drawn


def _divided(columns: tuple[Any, Any, Any], mask: npt.NDArray[np.bool_], in_place: bool) -> tuple[list[Any], list[Any]]:
    """Return the entries of columns where `mask` is not, in these columns' memory if `in_place`; and where it is."""
    count = np.count_nonzero(mask)
    others = [column if in_place else np.empty(mask.size - count, column.dtype) for column in columns]
    chosen = [np.empty(count, column.dtype) for column in columns]

    def divide(number: int) -> None:
        end = chosen_end = 0
        for part in cached_parts(mask.size):
            found, is_chosen = columns[number][part], mask[part]
            more = found[is_chosen]
            rest = found[~is_chosen]
            chosen[number][chosen_end : chosen_end + more.size] = more
            others[number][end : end + rest.size] = rest
            chosen_end, end = chosen_end + more.size, end + rest.size

    on_all_cores(divide, range(len(columns)))
    return [column[: mask.size - count] for column in others], chosen


def _counts(codes: npt.NDArray[np.int32], size: int) -> npt.NDArray[np.int64]:
    counts: npt.NDArray[np.int64] = added_up(lambda part: np.bincount(codes[part], minlength=size), len(codes), size)
    return counts
