"""Which node owns which row: all rows have one owner, and all nodes as many rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbps.core.rules import NODES_LIMIT
from nbps.tables.sharding import row_owners


@given(st.integers(0, 500), st.integers(1, NODES_LIMIT), st.sampled_from(["block", "hash"]))
def test_every_row_has_an_owner_that_exists(rows, nodes, sharding):
    """One for each row, among the nodes, and the same whoever asks."""
    owners = row_owners(rows, nodes, sharding)
    assert (owners.shape, owners.dtype) == ((rows,), np.uint8)
    assert (owners < nodes).all()
    assert np.array_equal(owners, row_owners(rows, nodes, sharding))


@given(st.integers(0, 500), st.integers(1, NODES_LIMIT))
def test_blocks_are_consecutive_and_even(rows, nodes):
    """Loads differ by one row at most, and owners ascend."""
    owners = row_owners(rows, nodes, "block")
    load = np.bincount(owners, minlength=nodes)
    assert load.max() - load.min() <= 1
    assert (np.diff(owners.astype(int)) >= 0).all()


@pytest.mark.parametrize("nodes", [2, 3, 7, 64])
@pytest.mark.parametrize("stride", [1, 2, 3, 64, 1000])
def test_hashed_rows_spread_evenly_in_all_usual_strides(nodes, stride):
    """Of any 200 x nodes rows at one distance each node owns its share within 15 %; random owners: 20 % at least."""
    owners = row_owners(200 * nodes * stride, nodes, "hash")[::stride]
    load = np.bincount(owners, minlength=nodes)
    assert np.abs(load - 200).max() <= 30


@pytest.mark.parametrize("nodes", [2, 5])
def test_hashed_neighbours_are_apart(nodes):
    """A run of often used rows is not on one node: no node owns more than four in a row."""
    owners = row_owners(100_000, nodes, "hash")
    runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[-1], owners.astype(int), [-1]]))))
    assert runs.max() <= 4


@given(st.data(), st.integers(1, 8), st.integers(0, 50))
def test_first_rows_are_those_that_were_given(data, nodes, rows):
    """Node n owns what lies between its first row and that of the next, perhaps nothing."""
    starts = sorted(data.draw(st.lists(st.integers(0, rows), min_size=nodes - 1, max_size=nodes - 1)))
    owners = row_owners(rows, nodes, tuple(starts))
    expected = [sum(start <= row for start in starts) for row in range(rows)]
    assert owners.tolist() == expected
