"""Ratings from frames and tables in memory, and back: Arrow, pandas, Polars, and whatever exports Arrow streams."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from nbps.data import Ratings
from nbps.errors import ConfigError, DataError

COLUMNS = {"userId": [3, 1, 3], "movieId": ["b", "a", "a"], "rating": [1.0, 2.5, 4.0], "timestamp": [9, 8, 7]}


class Exporter:
    """A frame of some library: all that is known of it is that it exports an Arrow stream."""

    def __init__(self, columns) -> None:
        self._table = pa.table(columns)

    def __arrow_c_stream__(self, requested_schema=None):
        return self._table.__arrow_c_stream__(requested_schema)


def pandas_frame(columns):
    """Return a frame of pandas with an index that is no range, as a part of a larger one has."""
    pandas = pytest.importorskip("pandas")
    size = len(next(iter(columns.values())))
    return pandas.DataFrame(columns, index=range(size, 0, -1))


def polars_frame(columns):
    """Return a frame of Polars."""
    if not hasattr(pa, "string_view"):
        pytest.skip("this pyarrow does not know the strings of Polars")
    return pytest.importorskip("polars").DataFrame(columns)


MAKERS = {
    "table": pa.table,
    "batch": lambda columns: pa.RecordBatch.from_pydict(columns),
    "reader": lambda columns: pa.table(columns).to_reader(),
    "exporter": Exporter,
    "pandas": pandas_frame,
    "polars": polars_frame,
}


@pytest.fixture(params=MAKERS)
def make(request):
    """Return a function that makes a frame of columns."""
    return MAKERS[request.param]


def same(ratings: Ratings, users, items, values) -> bool:
    """Whether these are the ids and values, in order."""
    return (
        ratings.user_ids.decode(ratings.users).tolist() == users
        and ratings.item_ids.decode(ratings.items).tolist() == items
        and ratings.values.tolist() == values
    )


def test_columns_are_found_by_their_names(make):
    """Usual names, whatever else is there; or those that are named, by name or position."""
    for columns, options in (
        (COLUMNS, {}),
        (dict(reversed(COLUMNS.items())), {}),
        ({"who": [3, 1, 3], "what": ["b", "a", "a"], "x": [0, 0, 0], "y": [1.0, 2.5, 4.0]}, {"columns": (0, 1, "y")}),
    ):
        assert same(Ratings.from_arrow(make(columns), **options), [3, 1, 3], ["b", "a", "a"], [1.0, 2.5, 4.0])


def test_three_columns_of_other_names_are_taken_in_order(make):
    """User, item, rating; not where a known name says that they stand in another order."""
    assert same(Ratings.from_arrow(make({"a": [1], "b": [2], "c": [3]})), [1], [2], [3.0])
    with pytest.raises(DataError, match="expected the user column, found the columns 'rating', 'who', 'what'"):
        Ratings.from_arrow(make({"rating": [3.0], "who": [1], "what": [2]}))
    with pytest.raises(DataError, match="expected the user column, found the columns 'a', 'b', 'c', 'd'"):
        Ratings.from_arrow(make({"a": [1], "b": [2], "c": [3], "d": [4]}))


def test_what_is_wrong_is_named_by_column_and_row(make):
    """Missing ids and ratings, types that are neither ids nor ratings, columns that are not there."""
    for change, message in (
        ({"userId": [1.0, float("nan"), 2.0]}, r"row 2: expected the user's id in column 'userId', found a missing"),
        ({"movieId": ["a", None, None]}, r"row 2: .* in column 'movieId', found a missing .*, and 1 more"),
        ({"userId": [1.0, 2.0, 3.0]}, "integers or strings in the user column 'userId', found float64"),
        ({"rating": [1.0, float("inf"), 2.0]}, "row 2: expected a finite rating in column 'rating'"),
        ({"rating": ["1", "2", "3"]}, "expected numbers in the rating column 'rating', found"),
        ({"movieId": ["a", "", "b"]}, "row 2: .* in column 'movieId', found an empty string"),
    ):
        with pytest.raises(DataError, match=message):
            Ratings.from_arrow(make(COLUMNS | change))
    with pytest.raises(DataError, match="expected the item column 'nothing'"):
        Ratings.from_arrow(make(COLUMNS), columns=("userId", "nothing", "rating"))
    with pytest.raises(ConfigError, match="columns: expected three different columns"):
        Ratings.from_arrow(make(COLUMNS), columns=("userId", "rating"))


@pytest.mark.parametrize("value", [[[1, 2, 3]], np.ones((2, 3)), "path.csv", None])
def test_what_is_no_frame_is_refused(value):
    """The message says what takes columns."""
    with pytest.raises(ConfigError, match=r"expected a frame or table .* found .* Ratings\.from_columns takes columns"):
        Ratings.from_arrow(value)


def test_there_and_back():
    """`to_arrow` gives what `from_arrow` takes, with the ids of the ratings only."""
    ratings = Ratings.from_arrow(pa.table(COLUMNS))
    table = ratings.take(np.array([2, 0])).to_arrow()
    assert table.to_pydict() == {"user": [3, 3], "item": ["a", "b"], "rating": [4.0, 1.0]}
    again = Ratings.from_arrow(ratings.to_arrow())
    assert same(again, COLUMNS["userId"], COLUMNS["movieId"], COLUMNS["rating"])
    assert again.user_ids == ratings.user_ids


def test_there_and_back_by_pandas():
    """The same frame, whatever its index; nullable and categorical columns too."""
    pandas = pytest.importorskip("pandas")
    frame = Ratings.from_arrow(pa.table(COLUMNS)).to_pandas()
    assert frame.columns.tolist() == ["user", "item", "rating"]
    for given in (frame, frame.set_index(frame["rating"]), frame.astype({"user": "Int64", "item": "category"})):
        pandas.testing.assert_frame_equal(Ratings.from_pandas(given).to_pandas(), frame)


def test_only_the_columns_in_use_are_converted():
    """A column that Arrow has no type for is left alone; one that is in use is named as what cannot be converted."""
    frame = pandas_frame(COLUMNS).assign(what=[object(), 1, "x"])
    assert len(Ratings.from_pandas(frame)) == 3
    with pytest.raises(DataError, match=r"a column cannot be converted: .*what"):
        Ratings.from_pandas(frame, columns=("what", "movieId", "rating"))
