"""A broken or hostile peer: whatever batch it sends, nothing beside the tables is touched; an error changes nothing."""

from __future__ import annotations

import os

import numpy as np
import pytest

from nbps.agent.batch import Shape, new_batch, values_bytes
from nbps.agent.encodings import BFLOAT16, FLOAT16, LARGEST
from nbps.errors import RemoteProtocolError
from support.agent_tables import Fence, Kind, TestNode, batch_of

KINDS = [
    Kind("floats", 20, 3, "float32"),
    Kind("counts", 9, 2, "int64", "hash"),
    Kind("sparse", 16, 5, "float64", (4,), replicate="read"),
]
MUTATIONS = 1_000_000 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 4_000  # of each kind of call


class Target:
    """Node 0 of two between canaries, and batches that node 1 might well send."""

    def __init__(self):
        self.fence = Fence()
        self.node = TestNode(0, 2, KINDS, self.fence)
        self.mine = [np.flatnonzero(owners == 0) for owners in self.node.owners]
        self.others = [np.flatnonzero(owners == 1) for owners in self.node.owners]
        self.unapplied = self.full(self.others)
        for n, ids in enumerate(self.others):
            for row in ids:
                self.node.add(n, row, 1)
        self.start = self.fence.state()

    def full(self, ids):
        """Return additions of ones to all these rows."""
        return batch_of(
            *[
                (n, kind.width, list(ids[n]), np.ones((ids[n].size, kind.width), kind.dtype))
                for n, kind in enumerate(KINDS)
            ]
        )

    def packed(self, ids):
        """Return additions in fewer bytes."""
        shapes = [
            Shape(0, LARGEST, ids[0].size, 3, 4, 2), Shape(2, FLOAT16, ids[2].size, 5, 8), Shape(0, BFLOAT16, 1, 3, 4)
        ]  # fmt: skip
        batch, parts = new_batch(shapes)
        for shape, part in zip(shapes, parts, strict=True):
            part.ids[:] = ids[shape.table][: shape.rows]
            part.values[:] = 0
            assert part.values.size == values_bytes(shape)
        return batch

    def listed(self, ids):
        """Return these rows without values."""
        return batch_of(*[(n, kind.width, list(ids[n]), None) for n, kind in enumerate(KINDS)])

    def calls(self):
        """Return what a peer can make this node do with a batch, and a valid batch for it."""
        memory = self.node.memory
        return {
            "apply": (lambda rows: memory.apply(1, rows), [self.full(self.mine), self.packed(self.mine)]),
            "check": (memory.check, [self.full(self.mine), self.packed(self.mine)]),
            "install": (
                lambda rows: memory.install(1, rows, [self.unapplied.copy()], 0),
                [self.full(self.others), self.packed(self.others)],
            ),
            "subscribe": (lambda rows: memory.subscribe(1, rows), [self.listed(self.mine)]),
            "unsubscribe": (lambda rows: memory.unsubscribe(1, rows), [self.listed(self.mine)]),
        }

    def try_out(self, call, batch):
        """Hand over a batch; return whether it was taken. Fails if it did what no batch may."""
        batch = batch.copy()
        try:
            with np.errstate(all="ignore"):
                call(batch)
        except RemoteProtocolError:
            assert self.fence.state() == self.start, "refused, but something changed"
            return False
        assert self.fence.is_whole(), "wrote beside the tables"
        self.fence.restore(self.start)
        return True


def mutated(batch, random):
    """Change a few numbers of a batch: of its head most often, of its ids, or any bytes."""
    batch = batch.copy()
    words = batch[: batch.size // 8 * 8].view(np.int64)
    head = 1 + 7 * int(words[0])
    for _ in range(random.integers(1, 3)):
        kind = random.integers(6)
        if kind < 3:
            at = random.integers(head) if kind else random.integers(words.size)
            here, known = int(words[at]), int(words[random.integers(head)])
            values = [0, 1, 2, 3, 4, 5, 8, -1, -8, 64, 2**31, 2**62, -(2**63), 2**63 - 8, known]
            values += [here + 8, here - 8, here + 64, here + 1, here - 1, here // 2]
            words[at] = min(max(values[random.integers(len(values))], -(2**63)), 2**63 - 1)
        elif kind == 3:
            at = random.integers(batch.size)
            batch[at : at + random.integers(1, 9)] = random.integers(256)
        elif kind == 4:
            a, b = random.integers(words.size, size=2)
            words[a], words[b] = words[b], words[a]
        else:
            return batch[: random.integers(batch.size + 1)]
    return batch


@pytest.mark.slow
@pytest.mark.parametrize("name", ["apply", "check", "install", "subscribe", "unsubscribe"])
def test_no_batch_makes_a_node_write_beside_its_tables(name):
    """20,000 mutated batches in all: each is refused and changes nothing, or does what a batch may do."""
    target = Target()
    call, valid = target.calls()[name]
    assert all(target.try_out(call, batch) for batch in valid)
    random = np.random.default_rng(len(name))
    taken = sum(target.try_out(call, mutated(valid[n % len(valid)], random)) for n in range(MUTATIONS))
    assert 0.02 * MUTATIONS < taken < 0.8 * MUTATIONS, taken


def words_of(batch):
    return batch[: batch.size // 8 * 8].view(np.int64)


def test_values_that_lie_on_ids_are_refused():
    """Ids are checked, then own additions go into the values: were they the ids, the next write went anywhere."""
    target = Target()
    row = int(target.others[2][0])
    batch = batch_of((2, 5, [row], np.ones((1, 5), "float64")))
    words_of(batch)[7] = words_of(batch)[6]  # its one id is also its first value
    with pytest.raises(RemoteProtocolError, match="ids, then values"):
        target.node.memory.install(1, np.append(batch, np.zeros(64, np.uint8)), [target.unapplied.copy()], 0)
    assert target.fence.state() == target.start


def test_sections_that_share_memory_are_refused():
    """The values of one section must not be the ids of the next, which were checked before they change."""
    target = Target()
    first, second = target.others[2][:5], target.others[2][5:10]
    batch = batch_of((2, 5, list(first), np.ones((5, 5))), (2, 5, list(second), np.ones((5, 5))))
    words = words_of(batch)
    assert target.try_out(lambda rows: target.node.memory.install(1, rows, [target.unapplied], 0), batch)
    words[7] = words[13]
    assert not target.try_out(lambda rows: target.node.memory.install(1, rows, [target.unapplied], 0), batch)


WRONG_IDS = {
    "repeated": [3, 3],
    "not ascending": [4, 3],
    "negative": [-1, 3],
    "of the other node": [3, 12],
    "beyond the table": [3, 20],
    "far beyond": [3, 2**62],
    "the least number": [-(2**63), 3],
}


@pytest.mark.parametrize("name", WRONG_IDS)
def test_ids_that_cannot_be_are_refused_and_named(name):
    """In either order of sections, before the first is applied."""
    target = Target()
    good = (1, 2, [int(target.mine[1][0])], np.ones((1, 2), "int64"))
    bad = (0, 3, WRONG_IDS[name], np.ones((2, 3), "float32"))
    for parts in ((good, bad), (bad, good)):
        batch = batch_of(*parts)
        for call in (
            lambda rows: target.node.memory.apply(1, rows),
            lambda rows: target.node.memory.subscribe(1, rows),
        ):
            with pytest.raises(RemoteProtocolError, match=r"'floats' has row .* expected ascending rows of node 0"):
                call(batch)
            assert target.fence.state() == target.start


def test_rows_that_the_sender_does_not_own_are_not_installed():
    """A node may ship its own rows only."""
    target = Target()
    with pytest.raises(RemoteProtocolError, match="expected ascending rows of node 1"):
        target.node.memory.install(1, target.full(target.mine), [], 0)
    assert target.fence.state() == target.start


@pytest.mark.parametrize("last", [0, 1])
def test_an_encoding_that_a_table_cannot_have_is_refused_before_anything_is_applied(last):
    """Integers in 16 bits, additions without values, and columns that are not there."""
    target = Target()
    columns = target.packed(target.mine)
    words_of(columns)[words_of(columns)[7] // 8] = 3 << 32  # the second column of the first row, of three
    numbers, parts = new_batch([Shape(0, 0, 1, 3, 4), Shape(1, FLOAT16, 1, 2, 8)][:: 1 if last else -1])
    for part in parts:
        part.ids[:] = target.mine[part.table][0]
        part.values[:] = 1
    good = (0, 3, [0], np.ones((1, 3), "float32"))
    nothing = batch_of(*[good, (2, 5, [0], None)][:: 1 if last else -1])
    for batch in (columns, numbers, nothing):
        with pytest.raises(RemoteProtocolError, match="values in encoding"):
            target.node.memory.apply(1, batch)
        assert target.fence.state() == target.start
