"""What an agent reads from the board of clocks and writes to it, against a model of plain lists."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbps.agent.board import AgentBoard
from nbps.core.messages import BarrierReached, Committed, Needed, Refreshed
from nbps.errors import RemoteProtocolError
from nbps.kernels import board, layout

NODES, RANK = 2, 0


def agent_board(workers: int, bounded: bool) -> tuple[AgentBoard, np.ndarray]:
    sources = workers + NODES
    words = np.zeros(layout.board_words(sources, bounded, NODES), np.int64)
    words[layout.TIMEOUT + 1] = 1000
    words[layout.DOORBELL], words[layout.ONE] = -1, 1
    found = AgentBoard(words, workers, RANK, NODES, bounded)
    found.begin(0)
    return found, words


changes = st.lists(
    st.tuples(
        st.sampled_from(["clock", "arrive", "need", "ships", "want", "look", "look", "doze", "news", "news"]),
        st.integers(0, 2),
        st.integers(1, 3),
    ),
    max_size=40,
)


@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("workers", [1, 3])
def test_news_are_what_has_changed_since_the_last(workers, bounded):
    """Whatever workers do between looks, every change is told once, as it was at the last look, and nothing else."""

    @given(changes)
    def check(steps):
        found, words = agent_board(workers, bounded)
        sources = workers + NODES
        now = {name: [0] * workers for name in ("clock", "arrive", "need", "ships")}
        wants = 0

        def seen():
            return {name: min(each) if name == "arrive" else tuple(each) for name, each in now.items()}, wants

        told = looked = seen()
        for action, worker, amount in steps:
            worker %= workers
            if action in now:
                now[action][worker] += amount
                place = {
                    "clock": layout.committed(worker),
                    "arrive": layout.arrived(sources, worker),
                    "need": layout.needed(sources, worker),
                    "ships": layout.needed(sources, worker) + layout.SHIPS,
                }[action]
                words[place] = now[action][worker]
            elif action == "want":
                wants += 1
                words[layout.WANTED] = wants
            elif action in ("look", "doze"):
                looked = seen()
                if action == "look":
                    assert found.has_news() == (looked != told)
                else:
                    assert found.doze() == (looked == told)
                    assert words[layout.AGENT_SLEEPS] == (looked == told)
                    found.wake()
                    assert words[layout.AGENT_SLEEPS] == 0
            else:
                (before, wanted_before), (after, wanted_after) = told, looked
                expected = []
                if bounded and after["clock"] != before["clock"]:
                    expected.append(Committed(min(after["clock"]), after["clock"]))
                if not bounded and min(after["clock"]) > min(before["clock"]):
                    expected.append(Committed(min(after["clock"])))
                if after["arrive"] > before["arrive"]:
                    expected.append(BarrierReached(after["arrive"]))
                expected += [Needed(c) for c, d in zip(after["need"], before["need"], strict=True) if c > d]
                if bounded:
                    expected += [
                        Refreshed(k, c, last=False)
                        for k, (c, d) in enumerate(zip(after["ships"], before["ships"], strict=True))
                        if c != d
                    ]
                found.wanted = False
                assert found.news() == expected
                assert found.wanted == (wanted_after != wanted_before)
                told = looked

    check()


def test_news_stay_until_they_are_taken_and_wanted_until_it_is_taken_back():
    """Two looks before one call of `news` tell all of both."""
    found, words = agent_board(1, bounded=False)
    assert not found.has_news()
    words[layout.committed(0)], words[layout.WANTED] = 1, 1
    assert found.has_news()
    words[layout.needed(1 + NODES, 0)] = 4
    assert found.has_news()
    assert found.news() == [Committed(1), Needed(4)]
    assert found.wanted
    assert found.news() == []
    assert not found.has_news()
    assert found.wanted


def test_who_has_finished_is_told_apart():
    """The last word of a worker says that it refreshes no more."""
    found, words = agent_board(1, bounded=True)
    words[layout.needed(1 + NODES, 0) + layout.SHIPS] = layout.FINISHED
    assert not found.doze()
    assert found.news() == [Refreshed(0, layout.FINISHED, last=True)]


def test_a_run_that_begins_at_a_clock_has_no_news():
    """The driver has reset the board; what the run before said is forgotten."""
    found, words = agent_board(2, bounded=False)
    words[layout.committed(0)] = words[layout.committed(1)] = 9
    words[layout.WANTED] = 3
    assert found.has_news()
    found.news()
    words[layout.committed(0)] = words[layout.committed(1)] = 5
    words[layout.WANTED] = 0
    found.begin(5)
    assert not found.has_news()
    words[layout.committed(0)] = 6
    assert found.has_news()
    assert found.news() == []  # the lowest has not risen
    words[layout.committed(1)] = 7
    assert found.has_news()
    assert found.news() == [Committed(6)]


def test_what_the_core_publishes_lies_where_workers_look():
    """Shards, barriers, ships and what others have taken in, each in its slot and nowhere else."""
    found, words = agent_board(2, bounded=True)
    sources = 2 + NODES
    expected = words.copy()
    found.publish_shard(1, 7)
    expected[layout.committed(3)] = 7
    found.publish_arrived(0, 2, None)
    expected[layout.arrived(sources, 2)] = 2
    found.publish_arrived(1, 3, np.arange(16, dtype=np.uint8))
    expected[layout.arrived(sources, 3)] = 3
    summands = layout.sums(sources, bounded=True) + 3 * layout.SUM_WORDS  # odd barriers, node 1
    expected[summands : summands + 2].view(np.uint8)[:] = np.arange(16)
    found.publish_installs(3)
    expected[layout.INSTALLS] = 3
    found.publish_seen((4, 5))
    expected[layout.seen(sources, 0, 2)], expected[layout.seen(sources, 1, 2)] = 4, 5
    assert np.array_equal(words, expected)
    words[layout.WAITERS] = 1
    expected[layout.WAITERS] = 1
    for publish in (
        found.answer,
        found.abort,
        lambda: found.publish_installs(4),
        lambda: found.publish_arrived(1, 1, None),
        lambda: found.publish_seen((6, 5)),
    ):
        expected[layout.SEQUENCE] += 1
        publish()
        assert words[layout.SEQUENCE] == expected[layout.SEQUENCE]
    assert words[layout.ABORT] == 1
    assert words[layout.ONE] == 1


def test_what_a_node_adds_up_travels_with_its_arrival_and_only_then():
    """At a barrier without a sum nothing travels; at one with, the headers of all its workers and their elements."""
    found, words = agent_board(2, bounded=False)
    place = words[layout.sums(2 + NODES, bounded=False) :].reshape(2, NODES, layout.SUM_WORDS)

    def arrive(count):
        for worker in range(2):
            words[layout.arrived(2 + NODES, worker)] = count
        assert found.has_news()
        (event,) = found.news()
        return event

    assert arrive(1) == BarrierReached(1, None)
    place[0, RANK, : 2 * layout.SUM_HEADER] = 2, 3, 0, 0, 2, 3, 0, 1
    place[0, RANK, 2 * layout.SUM_HEADER : 2 * layout.SUM_HEADER + 6] = range(6)
    count, summands = arrive(2)
    assert count == 2
    assert summands.view(np.int64).tolist() == [2, 3, 0, 0, 2, 3, 0, 1, *range(6)]
    assert arrive(4) == BarrierReached(4, None)  # the same place, which holds what was added up before


def test_summands_that_are_too_long_are_refused():
    """What another node sends is at most what its part of the board holds; what is there stays."""
    found, words = agent_board(1, bounded=False)
    before = words.copy()
    with pytest.raises(RemoteProtocolError, match="node 1 sent summands of 32769 bytes; expected up to 32768"):
        found.publish_arrived(1, 1, np.ones(8 * layout.SUM_WORDS + 1, np.uint8))
    assert np.array_equal(words, before)


@pytest.fixture
def bell() -> Iterator[int]:
    """Make an eventfd that does not block."""
    descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    yield descriptor
    os.close(descriptor)


def test_a_ring_wakes_an_agent_that_sleeps_and_no_other(bell):
    """One write for any number of rings; none while the agent is awake."""
    found, words = agent_board(1, bounded=False)
    words[layout.DOORBELL] = bell
    board.ring(words)
    with pytest.raises(BlockingIOError):
        os.eventfd_read(bell)
    assert found.doze()
    words[layout.committed(0)] = 1
    board.ring(words)
    board.ring(words)
    assert os.eventfd_read(bell) == 1
    assert not found.doze()
    assert found.news() == [Committed(1)]
