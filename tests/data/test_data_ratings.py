"""Ratings: columns are checked, splits are reproducible and keep the maps."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa
import pytest

from nbps.data import IdMap, Ratings, arrays
from nbps.errors import ConfigError


@pytest.fixture
def ratings() -> Ratings:
    rng = np.random.default_rng(1)
    return Ratings.from_columns(rng.integers(0, 30, 500), rng.integers(0, 20, 500), rng.integers(1, 6, 500))


def test_split_is_the_documented_one(ratings):
    """The reference results of the data sets are for exactly this split."""
    train, test = ratings.split(0.1, 0)
    mask = np.random.default_rng(0).random(500) < 0.1
    for part, rows in ((train, ~mask), (test, mask)):
        np.testing.assert_array_equal(part.users, ratings.users[rows])
        np.testing.assert_array_equal(part.items, ratings.items[rows])
        np.testing.assert_array_equal(part.values, ratings.values[rows])
        assert part.user_ids is ratings.user_ids
        assert part.item_ids is ratings.item_ids
    assert len(ratings.split(0.1)[1]) == len(test)


def test_columns_are_gone_through_in_parts(ratings, monkeypatch):
    """Splits, counts and maps are the same in parts of whatever length; a split in place gives the same parts."""
    whole, table = ratings.split(0.1, 0), ratings.to_arrow()
    for size in (1, 7, 499):
        monkeypatch.setattr(arrays, "_PART", size)
        again = Ratings.from_table(table)
        assert again.users.tolist() == ratings.users.tolist()
        assert again.item_ids == ratings.item_ids
        assert again.user_counts.tolist() == np.bincount(ratings.users, minlength=30).tolist()
        assert again.item_counts.tolist() == np.bincount(ratings.items, minlength=20).tolist()
        for in_place in (False, True):
            for part, expected in zip(again.split(0.1, 0, in_place), whole, strict=True):
                assert part.users.tolist() == expected.users.tolist()
                assert part.items.tolist() == expected.items.tolist()
                assert part.values.tolist() == expected.values.tolist()


def test_a_table_that_was_given_stays_as_it_is():
    """Codes take the memory of what was read from a file, not of what somebody keeps."""
    columns = {"user": np.array([3, 9, 3], np.int32), "item": np.array([7, 7, 5], np.int32)}
    table = pa.table({**{name: pa.array(ids) for name, ids in columns.items()}, "rating": np.ones(3, np.float32)})
    kept = Ratings.from_arrow(table)
    kept.values[:] = 2
    assert table.to_pydict() == {"user": [3, 9, 3], "item": [7, 7, 5], "rating": [1, 1, 1]}
    taken = Ratings.from_table(table, in_place=True)
    assert taken.users.tolist() == kept.users.tolist() == table["user"].to_pylist() == [0, 1, 0]
    assert taken.items.tolist() == kept.items.tolist() == table["item"].to_pylist() == [1, 1, 0]


def test_work_on_all_cores_is_all_done_or_fails():
    """By as many threads as Arrow has; what one of them raises is raised."""
    done = np.zeros(50, int)

    def work(task: int) -> None:
        done[task] += 1
        if done.sum() == 60:
            raise RuntimeError("the tenth of the second fifty")

    arrays.on_all_cores(work, range(50))
    assert done.tolist() == [1] * 50
    with pytest.raises(RuntimeError, match="the tenth"):
        arrays.on_all_cores(work, range(50))


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_split_refuses_fractions_out_of_range(ratings, fraction):
    """The message names the argument and the value."""
    with pytest.raises(ConfigError, match=rf"test_fraction: .*found {fraction}"):
        ratings.split(fraction, 0)


def test_split_refuses_an_empty_part(ratings):
    """Too small a fraction is an error, not an average over nothing later."""
    with pytest.raises(ConfigError, match=r"500 ratings leaves 500 to train and 0 to test"):
        ratings.split(1e-9, 0)


def test_take_accepts_a_mask_and_indices(ratings):
    """Both ways of choosing rows give contiguous copies."""
    mask = ratings.values > 3
    for part in (ratings.take(mask), ratings.take(np.flatnonzero(mask))):
        assert len(part) == mask.sum()
        assert part.values.flags.c_contiguous
        np.testing.assert_array_equal(part.items, ratings.items[mask])


def test_recode_maps_by_id_and_counts_what_it_drops():
    """Ratings of other data keep their meaning in the codes of the first."""
    train = Ratings.from_columns(["a", "b", "d"], [1, 2, 3], [1, 2, 3])
    other = Ratings.from_columns(["d", "c", "a", "a"], [3, 1, 9, 2], [5, 4, 3, 2])
    test, dropped = other.recode(train.user_ids, train.item_ids)
    assert dropped == 2
    assert test.user_ids.decode(test.users).tolist() == ["d", "a"]
    assert test.item_ids.decode(test.items).tolist() == [3, 2]
    assert test.values.tolist() == [5, 2]
    assert test.shape == train.shape


def test_recode_between_integers_and_strings():
    """A test file whose ids are all digits fits a training file with some that are not."""
    train = Ratings.from_columns(["1", "2", "x"], [1, 2, 3], [1, 2, 3])
    test, dropped = Ratings.from_columns([1, 3], ["1", "2"], [5, 4]).recode(train.user_ids, train.item_ids)
    assert (len(test), dropped) == (1, 1)


def test_columns_are_checked():
    """Wrong dtypes, lengths, codes and values never reach a kernel."""
    ids, codes = IdMap.of([1, 2])
    values = np.ones(2, np.float32)
    good = (codes, codes, values, ids, ids)
    assert len(Ratings(*good)) == 2
    for place, bad, words in (
        (0, codes.astype(np.int64), r"users: expected int32 .* found int64"),
        (1, codes[:1], r"items: expected int32 of shape \[2\], found int32 of shape \[1\]"),
        (2, values.astype(np.float64), r"values: expected float32"),
        (2, np.ones(4, np.float32)[::2], r"values: .*contiguous"),
        (0, codes + np.int32(1), r"users: expected codes from 0 to 1, found 1 to 2"),
        (1, codes - np.int32(1), r"items: expected codes from 0 to 1, found -1 to 0"),
        (2, np.array([1, np.nan], np.float32), r"values: .*found nan at index 1"),
    ):
        columns = list(good)
        columns[place] = bad
        with pytest.raises(ConfigError, match=words):
            Ratings(*columns)


def test_columns_of_different_lengths():
    """The message counts all three."""
    for columns, words in (
        (([1, 2, 3], [1, 2, 3], [1, 2]), "3 users, 3 items, 2 values"),
        (([1], [], [1]), "1 users, 0"),
    ):
        with pytest.raises(ConfigError, match=f"{words}.* expected equally many"):
            Ratings.from_columns(*columns)


def test_columns_are_writable_and_own_their_memory(ratings):
    """Kernels are compiled for one kind of array, whatever the ratings came from."""
    for column in (ratings.users, ratings.items, ratings.values):
        assert column.flags.writeable
        assert column.flags.c_contiguous


def test_ratings_survive_pickling(ratings):
    """Ratings travel to worker processes."""
    copy = pickle.loads(pickle.dumps(ratings))
    assert copy.user_ids == ratings.user_ids
    np.testing.assert_array_equal(copy.values, ratings.values)
    assert repr(copy) == "Ratings(500 ratings, 30 users, 20 items)"
