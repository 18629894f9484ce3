"""Rows of two and three nodes that exchange them by hand, in any order the core allows, against sums of integers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbps.agent.batch import sections
from nbps.agent.encodings import BFLOAT16, FLOAT16, LARGEST
from nbps.agent.memory import NodeMemory
from support.agent_tables import Exchange, Kind, TestNode, batch_of

KINDS = [
    Kind("floats", 11, 3, "float32"),
    Kind("doubles", 5, 1, "float64", "hash"),
    Kind("counts", 17, 2, "int64", "hash"),
    Kind("small", 6, 5, "int32"),
]
actions = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "push", "important", "ship", "deliver", "deliver"]),
        st.integers(0, 2),
        st.integers(0, 2),
        st.integers(0, 3),
        st.integers(0, 16),
        st.integers(1, 50),
    ),
    max_size=60,
)


def carry_out(exchange, taken, exact=True):
    """Do what was drawn, where it can be done; look after each step at what every node must see of itself."""
    nodes = len(exchange.nodes)
    for action, a, b, table, row, amount in taken:
        a, b, table = a % nodes, b % nodes, table % len(exchange.kinds)
        if action == "add":
            exchange.add(
                a, table, row % exchange.kinds[table].rows, amount * np.arange(1, exchange.kinds[table].width + 1)
            )
        elif a == b:
            continue
        elif action == "push":
            exchange.push(a, b, exact)
        elif action == "important":
            exchange.push(a, b, bytes_limit=amount)
        elif action == "ship":
            exchange.ship(a, b)
        else:
            exchange.deliver(a, b)
        for rank in range(nodes):
            exchange.check_own(rank)


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [2, 3])
def test_all_nodes_come_to_the_exact_sum(nodes):
    """Several tables and dtypes, batches in flight both ways; each node sees its own additions after every step."""

    @given(actions, st.integers(0, 11))
    def check(taken, first):
        kinds = [KINDS[0], *KINDS[1:], Kind("tuple", 11, 2, "float32", (first,) * (nodes - 1))]
        exchange = Exchange(nodes, kinds)
        carry_out(exchange, taken)
        exchange.settle()
        exchange.check_equal()

    check()


@given(actions)
def test_nobody_is_told_of_what_only_it_added(taken):
    """An owner ships a row to a node only if somebody else has added to it."""
    exchange = Exchange(3, KINDS)
    carry_out(exchange, taken)
    exchange.settle()
    for _, node, table, row in exchange.told:
        others = [rank for rank in range(3) if rank != node]
        assert exchange.added[table][others, row].any(), (node, table, row)


def test_own_batches_that_a_ship_does_not_hold_stay_in_the_rows():
    """Two are on their way when values come that hold neither, then others that hold the first."""
    exchange = Exchange(2, KINDS[:1])
    exchange.add(0, 0, 0, np.full(3, 100))
    exchange.ship(0, 1)
    for delta in (1, 2):
        exchange.add(1, 0, 0, np.full(3, delta))
        exchange.push(1, 0)
    exchange.add(1, 0, 0, np.full(3, 4))  # and one that is not sent
    exchange.deliver(0, 1)
    assert (exchange.nodes[1].values[0][0] == 107).all()
    exchange.deliver(1, 0)
    exchange.add(0, 0, 0, np.full(3, 200))
    exchange.ship(0, 1)
    exchange.deliver(0, 1)
    assert (exchange.nodes[1].values[0][0] == 307).all()
    exchange.settle()
    exchange.check_equal()


def test_a_row_is_shipped_once_for_each_change():
    """Who was told of a row is not told again before it changes."""
    exchange = Exchange(3, KINDS[:1])
    exchange.add(0, 0, 0, np.ones(3))
    exchange.settle()
    assert sorted(exchange.told) == [(0, 1, 0, 0), (0, 2, 0, 0)]
    exchange.settle()
    assert len(exchange.told) == 2
    exchange.add(1, 0, 0, np.ones(3))
    exchange.settle()
    assert sorted(exchange.told[2:]) == [(0, 0 + 2, 0, 0)]
    assert exchange.nodes[0].memory.rows_sent == 3
    assert exchange.nodes[1].memory.rows_sent == 1
    assert exchange.nodes[0].memory.rows_received == 1


@given(st.integers(0, 2**32), st.sampled_from(["float32", "float64"]))
def test_floats_end_alike_to_the_bit_however_they_round(seed, dtype):
    """What rounding leaves in a difference is sent in the end: base + (values - base) is not always the values."""
    random = np.random.default_rng(seed)
    exchange = Exchange(3, [Kind("floats", 12, 5, dtype)])
    for turn in range(3):
        for node in exchange.nodes:
            for row in range(12):
                for _ in range(3):
                    size = 10.0 ** random.integers(-8, 8)
                    node.add(0, row, random.standard_normal(5) * size)
        for pair in exchange.pairs if turn < 2 else ():
            exchange.push(*pair, exact=False)
        if random.random() < 0.5:
            exchange.drain()
            for pair in exchange.pairs:
                exchange.ship(*pair)
    exchange.settle()
    for node in exchange.nodes[1:]:
        assert node.values[0].tobytes() == exchange.nodes[0].values[0].tobytes()


def test_what_an_addition_rounds_away_is_rounded_on_both_nodes():
    """Adding 1e-8 - 1.0 to 1.0 gives 0.0 in float32, at the owner and, as soon as it is taken, in the replica."""
    exchange = Exchange(2, [Kind("floats", 2, 1, "float32")])
    exchange.nodes[1].add(0, 0, 1.0)
    exchange.settle()
    exchange.nodes[1].values[0][0] = np.float32(1e-8)
    exchange.nodes[1].dirty[0][0] = 1
    exchange.push(1, 0, exact=False)
    assert exchange.nodes[1].values[0][0, 0] == 0
    exchange.settle()
    assert exchange.nodes[0].values[0][0, 0] == exchange.nodes[1].values[0][0, 0] == 0


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_infinity_stays_infinity():
    """A row that holds it sends no NaN with its next addition: inf - inf is no difference."""
    exchange = Exchange(2, [Kind("floats", 2, 2, "float32")])
    for _ in range(3):
        exchange.nodes[1].add(0, 0, [np.inf, 1])
        exchange.push(1, 0, exact=False)
        exchange.settle()
    for node in exchange.nodes:
        assert node.values[0][0].tolist() == [np.inf, 3]


def test_nan_reaches_everybody():
    """One that computes NaN finds it everywhere."""
    exchange = Exchange(3, [Kind("floats", 2, 2, "float32")])
    exchange.nodes[1].add(0, 0, [np.nan, 1])
    exchange.settle()
    for node in exchange.nodes:
        assert np.array_equal(node.values[0][0], [np.nan, 1], equal_nan=True)


# --------------------------------------------------------------------------- fewer bytes


PACKED = [
    Kind("halves", 9, 4, "float32", encoding=FLOAT16),
    Kind("brains", 9, 3, "float64", "hash", encoding=BFLOAT16),
    Kind("largest", 9, 6, "float32", encoding=LARGEST, kept=2),
    Kind("whole", 9, 2, "int64"),
]


@given(actions)
def test_additions_in_fewer_bytes_come_whole_in_the_end(taken):
    """However a batch rounds, sums are exact after a collection that is; nothing comes twice meanwhile."""
    exchange = Exchange(2, PACKED)
    carry_out(exchange, [one for one in taken if one[0] != "ship"], exact=False)
    exchange.settle()
    exchange.check_equal()


def test_rounded_additions_agree_to_the_rounding():
    """Before the end the owner has each value to a relative 2**-11 (float16) and 2**-8 (bfloat16)."""
    exchange = Exchange(2, [PACKED[0], Kind("brains", 9, 3, "float64", encoding=BFLOAT16)])
    random = np.random.default_rng(0)
    for table, bits in ((0, 11), (1, 8)):
        delta = random.standard_normal(exchange.kinds[table].width) * 100
        exchange.nodes[1].add(table, 0, delta)
        exchange.push(1, 0, exact=False)
        exchange.drain()
        found = exchange.nodes[0].values[table][0]
        assert (np.abs(found - delta) <= np.abs(delta) * 2.0**-bits).all()
        assert (found != delta).any()


def test_only_the_largest_elements_travel_and_the_rest_follows():
    """Two of six in the first batch, two more with the row's next addition, all in the end."""
    exchange = Exchange(2, [PACKED[2]])
    exchange.nodes[1].add(0, 0, [1, -9, 2, 8, 3, 7])
    exchange.push(1, 0, exact=False)
    exchange.drain()
    assert exchange.nodes[0].values[0][0].tolist() == [0, -9, 0, 8, 0, 0]
    assert not exchange.push(1, 0, exact=False)
    exchange.nodes[1].add(0, 0, [1, 0, 0, 0, 0, 0])
    exchange.push(1, 0, exact=False)
    exchange.drain()
    assert exchange.nodes[0].values[0][0].tolist() == [0, -9, 0, 8, 3, 7]
    exchange.settle()
    assert exchange.nodes[0].values[0][0].tolist() == [2, -9, 2, 8, 3, 7]


# --------------------------------------------------------------------------- early additions


def test_important_takes_what_changes_rows_most():
    """Rows by the largest difference beside their largest value; the rest stays marked, and no zero is sent."""
    exchange = Exchange(2, [Kind("floats", 16, 2, "float32")])
    node = exchange.nodes[1]
    for row, value in enumerate([100, 1, 10, 1]):
        exchange.add(1, 0, row, np.full(2, value))
    exchange.settle()
    for row, delta in enumerate([10, 1, 2, 0]):
        exchange.add(1, 0, row, np.full(2, delta))
    batch = node.memory.important(0, 2 * (8 + 8))
    assert exchange.sections(batch)[0].ids.tolist() == [1, 2]  # of 0.1, 1, 0.2 and no difference
    assert node.dirty[0][:4].tolist() == [1, 0, 0, 1]
    assert exchange.sections(node.memory.important(0, 1))[0].ids.size == 1


def test_important_takes_less_than_a_row_as_one_row_and_nothing_as_nothing():
    """However small the limit, the most important row goes; without a marked row there is no batch."""
    node = TestNode(1, 2, [Kind("floats", 16, 2, "float32"), Kind("counts", 4, 1, "int64")])
    assert node.memory.important(0, 1000) is None
    node.add(0, 3, 5)
    node.add(0, 4, 0.25)
    node.add(1, 1, 1)
    found = sections(node.memory.important(0, 1), node.memory._itemsizes, node.memory._widths)
    assert [(part.table, part.ids.tolist()) for part in found] == [(0, [3])]


# --------------------------------------------------------------------------- rows that are fetched


@pytest.mark.parametrize("replicate", ["read", "run"])
def test_rows_that_nobody_asked_for_come_when_a_run_ends(replicate):
    """No ship of a run names them; the last one brings all."""
    exchange = Exchange(2, [Kind("sparse", 8, 2, "float32", replicate=replicate)])
    exchange.add(0, 0, 1, np.ones(2))
    exchange.ship(0, 1)
    assert exchange.told == []
    exchange.settle()
    exchange.check_equal()


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "read", "read", "fetch", "let go", "push", "ship", *["deliver"] * 3]),
            st.integers(0, 1), st.integers(0, 15), st.integers(1, 9),
        ), max_size=80,
    )
)  # fmt: skip
def test_a_row_that_is_here_is_kept_fresh(taken):
    """A row of another node can be read only if it holds all that its owner had shipped of it, or more."""
    kinds = [Kind("sparse", 16, 1, "int64", replicate="read")]
    exchange = Exchange(2, kinds)
    for action, a, row, amount in taken:
        b, node = 1 - a, exchange.nodes[a]
        if action == "add":
            exchange.add(a, 0, row, np.array([amount]))
        elif action == "read":
            # What the owner has when a ship is asked for and everything on the link has come.
            if node.fetch(0, row) and node.owners[0][row] == b:
                exchange.ship(b, a)
                while exchange.wire[b, a]:
                    exchange.deliver(b, a)
                unsent = node.values[0][row] - node.memory._tables[0].base[row]
                in_flight = sum(
                    int(part.values.view(np.int64)[part.ids == row].sum())
                    for number, rows in exchange.unapplied[a, b]
                    if number > exchange.applied[b, a]
                    for part in exchange.sections(rows)
                )
                expected = exchange.nodes[b].values[0][row] + unsent + in_flight
                assert node.values[0][row] == expected, "a row that is here is not kept fresh"
        elif action == "fetch":
            exchange.fetch(a)
        elif action == "let go":
            exchange.let_go(a)
        elif action == "push":
            exchange.push(a, b)
        elif action == "ship":
            exchange.ship(a, b)
        else:
            exchange.deliver(a, b)
    for rank in range(2):  # who wants a row gets it
        for row in range(16):
            exchange.nodes[rank].fetch(0, row)
    for rank in range(2):
        exchange.fetch(rank)
    exchange.drain()
    assert all(exchange.nodes[rank].fetch(0, row) for rank in range(2) for row in range(16))
    exchange.settle()
    exchange.check_equal()


def test_workers_are_woken_when_their_rows_have_come():
    """Once, when the request is answered, not before."""
    calls = []
    kind = Kind("sparse", 4, 1, "int64", replicate="read")
    node = TestNode(0, 2, [kind], on_answer=lambda: calls.append(node.fetch(0, 3)))
    assert not node.fetch(0, 3)
    assert node.fetch(0, 0), "an owned row is always here"
    [(owner, rows)] = node.memory.wanted()
    assert owner == 1
    assert node.memory.wanted() == []
    node.memory.want(1, rows, 7)
    ship = batch_of((0, 1, [3], np.array([[5]])))
    node.memory.install(1, ship.copy(), [], 6)
    assert calls == []
    node.memory.install(1, ship.copy(), [], 7)
    assert calls == [True]
    assert node.values[0][3, 0] == 5
    node.memory.install(1, ship.copy(), [], 7)
    assert len(calls) == 1


def test_requests_of_the_run_before_are_not_answered_in_the_next():
    """Their numbers begin anew."""
    node = TestNode(0, 2, [Kind("sparse", 4, 1, "int64", replicate="read")])
    node.fetch(0, 3)
    [(_, rows)] = node.memory.wanted()
    node.memory.want(1, rows, 1)
    node.memory.forget_requests()
    node.memory.install(1, batch_of((0, 1, [2], np.array([[5]]))), [], 1)
    assert not node.fetch(0, 3)


def test_rows_that_are_saved_are_copies_of_the_owned_ones():
    """Additions after the checkpoint's clock are not in them."""
    node = TestNode(1, 2, [Kind("a", 4, 1, "int64"), Kind("b", 4, 2, "float32", (1,))])
    rows = node.memory.copy_owned()
    node.add(0, 3, 1)
    assert {name: ids.tolist() for name, (ids, _) in rows.items()} == {"a": [2, 3], "b": [1, 2, 3]}
    assert not any(values.any() for _, values in rows.values())


def test_the_last_of_64_nodes_has_a_bit_of_its_own():
    """Every node but the source is told of an addition."""
    node = TestNode(0, 64, [Kind("a", 64, 1, "int64")])
    assert isinstance(node.memory, NodeMemory)
    node.memory.apply(63, batch_of((0, 1, [0], np.array([[5]]))))
    assert [node.memory.gather(other, False) is not None for other in range(1, 64)] == [True] * 62 + [False]
