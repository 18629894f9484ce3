"""The end of a run at a clock that nobody knew before: the rows are saved there, and the job ends.

A node that is told to end (`Terminate`) holds its workers at their next clocks and says which clock they come to at
most; the others, when they hear of it, do the same. The highest of these bounds is the clock of the halt: as soon as a
node knows all of them, it lets its workers go on up to that clock, where they stay. Nobody can be past it, for each
worker was held before it, so the rows that are saved there hold exactly the updates from clocks below it, under every
consistency model.

No node decides: all find the same clock. It is known to a shard in time, since a node says its bound before it says
that its workers have come to it, on the same link. Only of a node whose workers have finished the bound may come later
than the clock that it says: a shard waits for that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from nbps.core.memory import Board
from nbps.core.messages import Halt, Message
from nbps.core.replica import Replica
from nbps.core.rules import FINISHED
from nbps.errors import RemoteProtocolError

_AT_ONCE = 1  # every clock that a worker comes to is as high


class Halting:
    """The halt of node `rank`; its `replicas` leave nothing for a later batch as soon as it has begun.

    Attributes
    ----------
    clocks : list of int
        Clock of each node, as the node's shard has heard it.
    begun : bool
        Whether the workers of this node are held, now or later.
    bounds : list of int or None
        For each node the clock that its workers come to at most, or would have, had they not finished; None as long as
        it has not said so.
    asked : set of int
        Nodes that were told to end.
    clock : int or None
        At which the rows are saved and the job ends, when all bounds are known.
    """

    def __init__(
        self,
        rank: int,
        clocks: list[int],
        replicas: Mapping[int, Replica],
        board: Board,
        tell: Callable[[Message], None],
    ) -> None:
        self.clocks = clocks
        self.begun = False
        self.bounds: list[int | None] = [None] * len(clocks)
        self.asked: set[int] = set()
        self.clock: int | None = None
        self._rank = rank
        self._replicas = replicas
        self._board = board
        self._tell = tell

    def begin(self, asked: bool) -> None:
        """Hold the workers of this node, because it was `asked` to end or another one was; once."""
        if self.begun:
            return
        self.begun = True
        if asked:
            self.asked.add(self._rank)
        for replica in self._replicas.values():
            replica.halting = True
        self.bounds[self._rank] = bound = self._board.hold(_AT_ONCE)
        self._tell(Halt(bound, asked))
        self._agree()

    def hear(self, source: int, halt: Halt) -> None:
        """Take the bound of node `source`."""
        reached = 0 if self.clocks[source] == FINISHED else self.clocks[source]
        if self.bounds[source] is not None or halt.bound <= reached:
            raise RemoteProtocolError(
                f"node {source} halts at clock {halt.bound} at most; expected that once, and more than {reached}, "
                f"where it is"
            )
        self.bounds[source] = halt.bound
        if halt.asked:
            self.asked.add(source)
        self.begin(asked=False)
        self._agree()

    def may_be_at(self, clock: int) -> bool:
        """Whether `clock`, to which all nodes have come, may be that of the halt, which is not known yet."""
        return self.begun and self.clock is None and clock >= max(bound or 0 for bound in self.bounds)

    def story(self) -> str:
        """Say why the job ends, and what is left of it."""
        names = " and ".join(f"node {node}" for node in sorted(self.asked))
        return f"SIGTERM of {names}: the job was saved at clock {self.clock}, and ends"

    def _agree(self) -> None:
        known = [bound for bound in self.bounds if bound is not None]
        if len(known) == len(self.bounds):
            self.clock = max(known)
            self._board.hold(self.clock)
