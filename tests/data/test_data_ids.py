"""IdMap: codes do not depend on the order of rows, and unknown ids are named."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbps.data import IdMap
from nbps.errors import ConfigError

integers = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=50) | st.lists(st.integers(-9, 40), max_size=50)
# Surrogates are not text that a file can hold.
strings = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=50)


@given(integers | strings)
def test_codes_are_the_ranks_of_the_sorted_ids(column):
    """Compare with Python's own sort and a dict."""
    ids, codes = IdMap.of(column)
    expected = sorted(set(column))
    assert ids.ids.to_pylist() == expected
    rank = {identifier: code for code, identifier in enumerate(expected)}
    assert codes.dtype == np.int32
    assert codes.tolist() == [rank[identifier] for identifier in column]
    assert ids.decode(codes).tolist() == column
    assert ids.encode(column).tolist() == codes.tolist()


@given(integers | strings, st.randoms())
def test_the_map_does_not_depend_on_row_order(column, random):
    """A shuffled column gives an equal map."""
    shuffled = list(column)
    random.shuffle(shuffled)
    assert IdMap.of(shuffled)[0] == IdMap.of(column)[0]


@pytest.mark.parametrize(
    "column",
    [
        np.array([30, 10, 20], np.int16),
        np.array([30, 10, 20], np.uint64),
        pa.array([30, 10, 20], pa.int32()),
        pa.chunked_array([[30], [10, 20]]),
        pa.array([30, 10, 20]).dictionary_encode(),
        (30, 10, 20),
        iter([30, 10, 20]),
    ],
)
def test_integer_columns_of_every_kind(column):
    """NumPy, Arrow and plain Python columns give the same map."""
    ids, codes = IdMap.of(column)
    assert ids.ids.to_pylist() == [10, 20, 30]
    assert codes.tolist() == [2, 0, 1]


@given(st.lists(st.lists(st.integers(-9, 40) | st.integers(-(2**31), 2**31 - 1), max_size=9), max_size=5))
def test_short_integers_in_chunks(chunks):
    """Columns as files are read: 32 bits, in chunks, some of them empty, codes by tables or by hashing."""
    column = pa.chunked_array(chunks, pa.int32())
    ids, codes = IdMap.of(column)
    expected, inverse = np.unique(np.array(column.to_pylist(), np.int64), return_inverse=True)
    assert ids.is_integer
    assert ids.ids.to_pylist() == expected.tolist()
    assert codes.tolist() == inverse.tolist()
    assert ids.find(column).tolist() == codes.tolist()


@pytest.mark.parametrize(
    "column",
    [
        np.array(["b", "a"]),
        np.array(["b", "a"], object),
        pa.array(["b", "a"], pa.large_string()),
        pa.chunked_array([["b"], ["a"]]).dictionary_encode(),
    ],
)
def test_string_columns_of_every_kind(column):
    """NumPy and Arrow strings give the same map."""
    ids, codes = IdMap.of(column)
    assert ids.ids.to_pylist() == ["a", "b"]
    assert codes.tolist() == [1, 0]


def test_one_id_counts_as_a_sequence_of_one():
    """A lone string is an id, not a sequence of characters."""
    assert IdMap.of(["ab", "a", "b"])[0].encode("ab").tolist() == [1]
    assert IdMap.of([7, 9])[0].encode(9).tolist() == [1]
    assert IdMap.of([7, 9])[0].decode(1).tolist() == [9]


def test_digits_and_integers_are_the_same_id():
    """Ids typed on a command line are found in both kinds of map."""
    assert IdMap.of([7, 9])[0].find(["9", "x", "09", "-7"]).tolist() == [1, -1, -1, -1]
    assert IdMap.of(["7", "x"])[0].find([7, 8]).tolist() == [0, -1]


def test_unknown_integers_are_named_with_their_neighbours():
    """The message has the unknown id and known ones near it."""
    ids, _ = IdMap.of([10, 20, 30, 40])
    with pytest.raises(ConfigError, match=r"unknown id: 31\. The 4 known ids are integers from 10 to 40; .* 30, 40"):
        ids.encode([10, 31])
    with pytest.raises(ConfigError, match=r"unknown id: 99\. .* 40\."):
        ids.encode(99)


def test_unknown_digits_are_named_as_integers():
    """In a map of integers digits are shown without quotes; other text cannot be close to anything."""
    ids, _ = IdMap.of([10, 20])
    with pytest.raises(ConfigError, match=r"unknown id: 0\. .*close to 0: 10, 20"):
        ids.encode("0")
    with pytest.raises(ConfigError, match=r"unknown id: 'bob'\. .* are integers from 10 to 20\. Use"):
        ids.encode("bob")


def test_unknown_strings_are_named_with_similar_ones():
    """The message has the unknown id and known ones that look like it."""
    ids, _ = IdMap.of(["anna", "bert", "carla"])
    with pytest.raises(ConfigError, match=r"unknown id: 'ana'.*close to 'ana': 'anna'"):
        ids.encode(["ana"])


def test_many_unknown_ids_are_counted():
    """Only the first few of many unknown ids are listed."""
    with pytest.raises(ConfigError, match=r"unknown ids \(100 of them\): 0, 1, 2, 3, 4, \.\.\."):
        IdMap.of([1000, 2000])[0].encode(range(100))


def test_find_gives_minus_one_for_unknown():
    """The lenient lookup does not raise."""
    assert IdMap.of([1, 3])[0].find([3, 2, 1]).tolist() == [1, -1, 0]
    assert IdMap.of([])[0].find([3]).tolist() == [-1]


@pytest.mark.parametrize("codes", [[-1], [2], [0, 5]])
def test_decode_refuses_codes_outside_the_map(codes):
    """A negative code is an error, not an index from the end."""
    with pytest.raises(ConfigError, match=r"codes from 0 to 1, found"):
        IdMap.of([5, 6])[0].decode(codes)


@pytest.mark.parametrize("column", [[1.5], [b"x"], [1, "a"], [None, None], [[1]]])
def test_other_ids_are_refused(column):
    """Floats, bytes, mixtures and lists are no ids."""
    with pytest.raises(ConfigError):
        IdMap.of(column)


@pytest.mark.parametrize(
    "column", [[1, None, 2], ["a", None], np.array([1.0, np.nan]), np.array(["a", np.nan], object), pa.array([1, None])]
)
def test_missing_ids_are_named(column):
    """None and NaN, by what the column is called and the first place."""
    with pytest.raises(ConfigError, match=r"users: .* found 1 missing \(None or NaN\), the first at index 1"):
        IdMap.of(column, "users")


def test_floats_are_called_as_numpy_calls_them():
    """Arrow's name for them is double."""
    with pytest.raises(ConfigError, match="integers or strings, found float64"):
        IdMap.of(np.array([1.0]))


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (pa.array([2, 1]), "ascending"),
        (pa.array([1, 1]), "ascending"),
        (pa.array([1, None]), "missing"),
        (pa.array([1.0]), "int64 or string"),
    ],
)
def test_the_constructor_checks_its_array(ids, words):
    """A map that binary search would misread cannot be made."""
    with pytest.raises(ConfigError, match=words):
        IdMap(ids)


@pytest.mark.parametrize("column", [[1, 2, 3], ["a", "b"]])
def test_a_map_survives_pickling(column):
    """Maps travel to worker processes."""
    ids, _ = IdMap.of(column)
    copy = pickle.loads(pickle.dumps(ids))
    assert copy == ids
    assert hash(copy) == hash(ids)
    assert copy.encode(column).tolist() == ids.encode(column).tolist()
