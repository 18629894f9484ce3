"""A simulated machine: memory, board, and with several machines an agent, which drives `nbps.core.runs.Runs`.

The agent takes one event at a time. What happens meanwhile, or while the machine is stopped, waits: events in its
inbox, and what its workers did on the board, at which it looks when it was rung.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

import numpy.typing as npt

from nbps.core.messages import Action, Begin, Event, Evicted, Touched
from nbps.core.runs import Phase, Runs
from nbps.core.watch import Watch
from nbps.sim.board import SimBoard
from nbps.sim.memory import SimMemory


class World(Protocol):
    """What is around a machine: time, and what carries out what its agent asks for."""

    now: float

    def carry_out(self, node: SimNode, actions: list[Action]) -> None:
        """Carry out what the agent of `node` asks for."""


class SimNode:
    """Machine `rank`.

    Attributes
    ----------
    runs : Runs or None
        None for the only machine of a job, which has no agent.
    run : int
        Which of the job's runs its workers are in, or were in last.
    stopped_until : float
        Its agent does nothing before.
    fetching : dict
        Workers that wait for rows, by row.
    saved : dict
        Owned rows by run and clock of the checkpoint, as they are on its disk.
    disk_free_at : float
        When everything is written that was asked for.
    """

    def __init__(self, rank: int, memory: SimMemory, board: SimBoard, runs: Runs | None, world: World) -> None:
        self.rank = rank
        self.memory = memory
        self.board = board
        self.runs = runs
        self.run = 0
        self.alive = True
        self.stopped_until = 0.0
        self.fetching: dict[int, list[Any]] = {}
        self.saved: dict[tuple[int, int], npt.NDArray[Any]] = {}
        self.disk_free_at = 0.0
        self._world = world
        self._watch = Watch(board.workers, board.bounded)
        self._inbox: deque[Event] = deque()
        self._wanted: deque[Touched | Evicted] = deque()  # rows that workers want, or no longer
        self._is_rung = False
        self._is_busy = False

    def begin(self, run: int, clock: int) -> None:
        """Begin a run at `clock`: its workers start."""
        self.run = run
        self.board.reset(clock)
        if self.runs is not None:
            self._watch.begin(clock)
            self.tell(Begin())

    def want(self, event: Touched | Evicted) -> None:
        """Have a row kept fresh, or no longer."""
        self._wanted.append(event)
        self.ring()

    def ring(self) -> None:
        """Have the agent look at the board, now or when it comes to it."""
        if self.runs is not None:
            self._is_rung = True
            self.turn()

    def tell(self, event: Event) -> None:
        """Hand an event to the agent, after those that it has not come to yet."""
        if self._inbox or self._is_busy or not self.alive or self.stopped_until > self._world.now:
            self._inbox.append(event)
        else:
            self._handle(event)
        if self._inbox or self._is_rung:
            self.turn()

    def turn(self) -> None:
        """Have the agent do what there is to do, unless it is busy or stopped."""
        while (self._inbox or self._is_rung) and not self._is_busy and self.alive:
            if self.stopped_until > self._world.now:
                return
            if self._inbox:
                self._handle(self._inbox.popleft())
            else:
                self._is_rung = False
                self._look()

    def _look(self) -> None:
        """Look at the board; before a run begins, and when the job is over, nothing on it is for the agent."""
        runs = self.runs
        assert runs is not None
        if runs.phase is not Phase.RUNNING:
            return
        for event in self._watch.news(*self.board.survey()):
            if runs.phase is Phase.RUNNING:
                self._handle(event)
        while self._wanted and runs.phase is Phase.RUNNING:
            self._handle(self._wanted.popleft())

    def _handle(self, event: Event) -> None:
        assert self.runs is not None
        world = self._world
        self._is_busy = True
        world.carry_out(self, self.runs.handle(event, world.now))
        self._is_busy = False
        if type(event) is Begin:
            self._is_rung = True  # workers may have been faster
