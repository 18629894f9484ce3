"""What is read on the board becomes events: every difference once, whatever happened between two looks."""

from __future__ import annotations

from nbps.core.messages import BarrierReached, Committed, Needed, Refreshed
from nbps.core.rules import FINISHED
from nbps.core.watch import Watch
from support.core_drivers import Typed


def test_a_look_tells_what_is_new():
    """The lowest clock and barrier when they rise, each clock that a worker waits for; nothing twice."""
    watch = Watch(2, bounded=False)
    look = (3, 1, [], [2, 0], [0, 0])
    assert watch.news(*look) == Typed([Committed(3), BarrierReached(1), Needed(2)])
    assert watch.news(*look) == []
    assert watch.news(3, 1, [], [2, 5], [9, 9]) == Typed([Needed(5)])
    assert watch.news(FINISHED, 1, [], [2, 5], [0, 0]) == Typed([Committed(FINISHED)])


def test_under_a_value_bound_every_commit_and_refresh_counts():
    """With the clocks of all workers; a worker that has finished refreshes no more."""
    watch = Watch(2, bounded=True)
    assert watch.news(0, 0, [1, 0], [0, 0], [0, 4]) == Typed([Committed(0, (1, 0)), Refreshed(1, 4)])
    assert watch.news(0, 0, [1, 0], [0, 0], [FINISHED, 4]) == Typed([Refreshed(0, FINISHED, last=True)])
    assert watch.news(1, 0, [1, 1], [0, 0], [FINISHED, 4]) == Typed([Committed(1, (1, 1))])


def test_a_run_that_begins_forgets_the_one_before():
    """Clocks and barriers begin anew, at the clock where the run starts."""
    watch = Watch(1, bounded=False)
    watch.news(FINISHED, FINISHED, [], [9], [0])
    watch.begin(4)
    assert watch.news(4, 0, [], [0], [0]) == []
    assert watch.news(5, 1, [], [5], [0]) == Typed([Committed(5), BarrierReached(1), Needed(5)])


def test_what_workers_add_up_at_a_barrier_goes_with_it():
    """It is asked for once, for the barrier that all have come to."""
    watch = Watch(1, bounded=False, summands=lambda barrier: f"of {barrier}")
    assert watch.news(0, 2, [], [0], [0]) == Typed([BarrierReached(2, "of 2")])
