"""Batches of rows: what goes in comes out, and what is none is refused before anything is read out of its range."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbps.agent.batch import Shape, batch_limit, cut, new_batch, sections, values_bytes
from nbps.agent.encodings import AS_IT_IS, BFLOAT16, FLOAT16, LARGEST, ONLY_IDS
from nbps.errors import ProtocolError

ITEMSIZES, WIDTHS = [4, 8, 4], [3, 1, 17]


@st.composite
def batches(draw):
    """Draw a batch that is filled, what each section was made for and how many rows were filled."""
    shapes = []
    for table in draw(st.lists(st.integers(0, 2), min_size=1, max_size=4)):
        encoding = draw(st.sampled_from([AS_IT_IS, ONLY_IDS, FLOAT16, BFLOAT16, LARGEST]))
        kept = draw(st.integers(1, WIDTHS[table])) if encoding == LARGEST else 0
        shapes.append(Shape(table, encoding, draw(st.integers(0, 9)), WIDTHS[table], ITEMSIZES[table], kept))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    batch, parts = new_batch(shapes)
    content = []
    for part in parts:
        part.ids[:] = np.sort(random.choice(1000, part.ids.size, replace=False))
        part.values[:] = random.integers(0, 256, part.values.size)
        content.append((part.ids.tolist(), part.values.tobytes()))
    return batch, shapes, content


@given(batches())
def test_a_batch_comes_out_as_it_went_in(drawn):
    """Tables, encodings, widths, ids and values of every section, in memory of exactly the size that was foretold."""
    batch, shapes, content = drawn
    assert batch.size == batch_limit(shapes)
    found = sections(batch.copy(), ITEMSIZES, WIDTHS)
    assert [(part.ids.tolist(), part.values.tobytes()) for part in found] == content
    assert [part[:4] for part in found] == [(shape.table, shape.encoding, shape.width, shape.kept) for shape in shapes]
    for part in found:
        assert part.ids.__array_interface__["data"][0] % 8 == 0


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=4))
def test_a_batch_that_was_cut_has_the_rows_that_came(drawn):
    """Of each section the first rows that were filled are left; none at all is no batch."""
    shapes = [Shape(table, AS_IT_IS, max(rows, count), WIDTHS[table], ITEMSIZES[table]) for table, rows, count in drawn]
    counts = [min(rows, count) for _, rows, count in drawn]
    batch, parts = new_batch(shapes)
    for n, part in enumerate(parts):
        part.ids[:], part.values[:] = np.arange(part.ids.size), n + 1
    short = cut(batch, counts)
    if not any(counts):
        assert short is None
        return
    assert short.size <= batch.size
    for n, (part, count) in enumerate(zip(sections(short, ITEMSIZES, WIDTHS), counts, strict=True)):
        assert part.ids.tolist() == list(range(count))
        assert part.values.size == values_bytes(shapes[n]._replace(rows=count))
        assert (part.values == n + 1).all()


def test_the_last_section_does_not_travel_at_its_full_length():
    """What was not filled behind the last row stays at home: it may be nearly all."""
    batch, parts = new_batch([Shape(0, AS_IT_IS, 1000, 3, 4)])
    parts[0].ids[:], parts[0].values[:] = np.arange(1000), 0
    assert cut(batch, [1]).size < batch.size - 11_000


def test_values_begin_at_multiples_of_64_bytes():
    """They can be handed to Arrow as they are."""
    batch, parts = new_batch([Shape(0, AS_IT_IS, 5, 3, 4), Shape(2, AS_IT_IS, 3, 17, 4)])
    start = batch.__array_interface__["data"][0]
    assert [(part.values.__array_interface__["data"][0] - start) % 64 for part in parts] == [0, 0]


HUGE = [-1, -(2**63), 2**63 - 1, 2**61, 2**60 + 1, 2**32]
HEADS = {  # word of the head and what is wrong there, in a batch of two sections
    "a count of sections": (0, [*HUGE, 3, 4097]),
    "a table": (1, [*HUGE, 3, 1]),
    "an encoding": (2, [*HUGE, 6]),
    "a count of rows": (3, [*HUGE, 6, 7, 1000]),
    "a width": (4, [*HUGE, 0, 2, 4]),
    "what is kept": (5, [*HUGE, 4]),
    "where ids begin": (6, [*HUGE, 0, 8, 112, 121, 128 + 4]),
    "where values begin": (7, [*HUGE, 0, 8, 128, 160, 191, 193, 2**63 - 8]),
    "where ids of the second begin": (13, [*HUGE, 0, 128, 192, 248, 640]),
    "where values of the second begin": (14, [*HUGE, 192, 256, 280, 504, 640]),
}


def two_sections() -> np.ndarray:
    """Five rows of table 0, at bytes 128 and 192, and four of table 2, at 256 and 320."""
    batch, parts = new_batch([Shape(0, AS_IT_IS, 5, 3, 4), Shape(2, AS_IT_IS, 4, 17, 4)])
    for part in parts:
        part.ids[:], part.values[:] = np.arange(part.ids.size), 0
    return batch


@pytest.mark.parametrize("name", HEADS)
def test_a_wrong_number_in_the_head_is_refused(name):
    """Every number that leads out of the batch, or over what another section holds, or that names nothing."""
    word, values = HEADS[name]
    sections(two_sections(), ITEMSIZES, WIDTHS)
    for value in values:
        batch = two_sections()
        assert batch[: 15 * 8].view(np.int64)[word] != value
        batch[: 15 * 8].view(np.int64)[word] = value
        with pytest.raises(ProtocolError, match="batch"):
            sections(batch, ITEMSIZES, WIDTHS)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_batch_are_refused(content):
    """Of any length; the only one of them that may pass says that it has no section, or begins as a batch does."""
    batch = np.frombuffer(content, np.uint8)
    try:
        found = sections(batch, ITEMSIZES, WIDTHS)
    except ProtocolError:
        return
    assert len(found) == int(batch[:8].view(np.int64)[0])


def test_a_batch_that_was_cut_off_is_refused_at_every_length():
    """Every byte that is missing is missed."""
    batch, parts = new_batch([Shape(0, AS_IT_IS, 5, 3, 4)])
    parts[0].ids[:], parts[0].values[:] = np.arange(5), 0
    end = 128 + 60  # of the values; filler is behind
    sections(batch[:end], ITEMSIZES, WIDTHS)
    for size in range(end):
        with pytest.raises(ProtocolError, match="batch"):
            sections(batch[:size].copy(), ITEMSIZES, WIDTHS)
