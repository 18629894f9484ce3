"""Additions in fewer bytes: what is sent is near what was added, never infinite without need, and nothing is lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nbps.agent.batch import Shape, values_bytes
from nbps.agent.encodings import BFLOAT16, FLOAT16, LARGEST, columns_of, compress, expand

DTYPES = ["float32", "float64"]


def packed(deltas, encoding, kept=0):
    """Return what travels, and what its receiver reads."""
    n, width = deltas.shape
    out = np.empty(values_bytes(Shape(0, encoding, n, width, deltas.itemsize, kept)), np.uint8)
    sent = compress(deltas, encoding, kept, out)
    assert np.array_equal(expand(out, encoding, n, width, kept, deltas.dtype), sent, equal_nan=True)
    assert sent.dtype == deltas.dtype
    return out, sent


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("encoding", "bits", "least"), [(FLOAT16, 11, 2.0**-14), (BFLOAT16, 8, 2.0**-126)], ids=["float16", "bfloat16"]
)
def test_rounding_is_to_the_nearest(encoding, bits, least, dtype):
    """The error is at most half a unit in the last place, for normal numbers that do not overflow."""

    @given(st.floats(-65504, 65504, width=32), st.integers(1, 3), st.integers(1, 9))
    def check(value, n, width):
        deltas = np.full((n, width), value, dtype)
        error = np.abs(packed(deltas, encoding)[1].astype(np.float64) - value)
        assert (error <= max(abs(value), least) * 2.0**-bits).all()

    check()


@given(hnp.arrays(np.uint16, (3, 5), elements=st.integers(0, 0xFFFF)))
def test_what_bfloat16_can_say_comes_unchanged(words):
    """All its numbers, infinities apart, to the bit; ties go to the even neighbour."""
    values = (words.astype(np.uint32) << 16).view(np.float32)
    sent = packed(values, BFLOAT16)[1]
    finite = np.isfinite(values)
    assert sent[finite].tobytes() == values[finite].tobytes()
    assert np.isnan(sent[np.isnan(values)]).all()
    half = np.float32(1 + 2**-8), np.float32(1 + 3 * 2**-8)
    assert packed(np.array([half]), BFLOAT16)[1].tolist() == [[1.0, 1 + 2**-6]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("encoding", "largest"), [(FLOAT16, 65504.0), (BFLOAT16, (2 - 2**-7) * 2.0**127)], ids=["float16", "bfloat16"]
)
def test_what_is_too_large_is_sent_in_part(encoding, largest, dtype):
    """The largest number there is, with its sign, so that the rest can follow: infinity could not be taken back."""
    values = [1e5, -1e5, np.finfo(dtype).max, -np.finfo(dtype).max, np.inf, -np.inf, np.finfo(np.float32).max]
    sent = packed(np.array([values], dtype), encoding)[1][0]
    assert np.isfinite(sent).all()
    expected = np.clip(np.array(values, np.float64), -largest, largest)
    assert np.abs(sent / expected - 1).max() < 2.0**-8


@pytest.mark.parametrize("encoding", [FLOAT16, BFLOAT16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize("word", [0x7FC00000, 0xFFFFFFFF, 0x7F800001, 0xFF800001])
def test_nan_stays_nan(encoding, word):
    """Of any payload, also where its highest bits are those of infinity."""
    values = np.array([[word, 0]], np.uint32).view(np.float32)
    sent = packed(values, encoding)[1]
    assert np.isnan(sent[0, 0])
    assert sent[0, 1] == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_largest_elements_of_each_row_are_sent_as_they_are(dtype):
    """As many as are kept, none smaller than one that is not; all others are zero."""

    @given(st.integers(1, 4), st.integers(1, 9), st.integers(0, 2**32), st.data())
    def check(n, width, seed, data):
        kept = data.draw(st.integers(1, width))
        values = np.random.default_rng(seed).integers(-9, 10, (n, width)).astype(dtype)
        out, sent = packed(values, LARGEST, kept)
        columns = columns_of(out, LARGEST, n, kept)
        assert (columns < width).all()
        for row, chosen, found in zip(values, columns, sent, strict=True):
            assert len(set(chosen.tolist())) == kept
            assert np.array_equal(found[chosen], row[chosen])
            left = np.delete(row, chosen)
            assert not np.delete(found, chosen).any()
            assert not left.size or np.abs(left).max() <= np.abs(row[chosen]).min()

    check()


@pytest.mark.parametrize(("encoding", "kept"), [(FLOAT16, 0), (BFLOAT16, 0), (LARGEST, 1)])
def test_no_rows_and_one_column_can_be_packed(encoding, kept):
    """The smallest there is."""
    assert packed(np.empty((0, 3), np.float32), encoding, kept)[1].shape == (0, 3)
    assert packed(np.ones((2, 1), np.float32), encoding, kept)[1].tolist() == [[1], [1]]


def test_only_one_encoding_names_columns():
    """There is nothing to check in the others."""
    assert columns_of(np.zeros(8, np.uint8), FLOAT16, 1, 2) is None
