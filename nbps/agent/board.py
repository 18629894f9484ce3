"""The board of clocks as the agent of a node reads and writes it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nbps.core.messages import Event
from nbps.core.watch import Watch
from nbps.errors import RemoteProtocolError
from nbps.kernels import board, layout

Bytes = npt.NDArray[np.uint8]


class AgentBoard:
    """The board of node `rank` of `nodes`, with `workers` workers; the core calls what `nbps.core.memory.Board` has."""

    def __init__(self, words: npt.NDArray[np.int64], workers: int, rank: int, nodes: int, bounded: bool) -> None:
        self.words = words
        summands = words[layout.sums(workers + nodes, bounded) :]
        self._summands = summands.reshape(2, nodes, layout.SUM_WORDS)
        self._rank = rank
        self._nodes = nodes
        self._workers = workers
        self._sources = workers + nodes
        self._watch = Watch(workers, bounded, self._summands_of)
        self.seen = np.zeros(layout.survey_words(workers), np.int64)  # as looked at last
        self.told = self.seen.copy()  # what the core knows of it
        self._is_new = False  # whether they differ
        self.wanted = False  # whether workers want rows; whatever asks for them takes it back

    # ----------------------------------------------------------------- what the core calls

    def publish_shard(self, owner: int, clock: int) -> None:
        """Set the committed slot of a shard, and wake the workers that may go on."""
        slot = layout.committed(self._workers + owner)
        board.tick(self.words, layout.committed(0), self._sources, slot, clock)

    def publish_arrived(self, node: int, count: int, summands: Bytes | None) -> None:
        """Set the barrier slot of a node, whose workers add up `summands`.

        Raises
        ------
        RemoteProtocolError
            If they are more than `_summands_of` makes.
        """
        if summands is not None:
            part = self._summands[count % 2, node].view(np.uint8)
            if summands.size > part.size:
                raise RemoteProtocolError(
                    f"node {node} sent summands of {summands.size} bytes; expected up to {part.size}"
                )
            part[: summands.size] = summands
        board.publish(self.words, layout.arrived(self._sources, self._workers + node), count)

    def hold(self, clock: int) -> int:
        """Hold workers at `clock` and later ones; return the clock that one may come to before it heeds that."""
        return int(board.hold(self.words, clock, self._workers, self._sources))

    def publish_installs(self, count: int) -> None:
        """Count the ships that are in the rows."""
        board.publish(self.words, layout.INSTALLS, count)

    def publish_seen(self, clocks: Sequence[int]) -> None:
        """Say what other nodes have taken in."""
        first = layout.seen(self._sources, 0, 0)
        committed = np.array(clocks, np.int64)
        board.publish_seen(self.words, first, self._sources, self._workers, self._workers, committed)

    # ----------------------------------------------------------------- what the agent asks

    def begin(self, clock: int) -> None:
        """Forget the run before; the driver has reset the board to `clock`."""
        first = layout.SURVEY_HEAD
        self.told[:] = 0
        self.told[layout.SURVEY_LOWEST] = clock
        self.told[first : first + self._workers] = clock
        self._watch.begin(clock)

    def news(self) -> list[Event]:
        """Return what the workers have done, as `has_news` or `doze` saw it, since the last call."""
        if not self._is_new:
            return []
        self._is_new = False
        self.wanted |= bool(self.seen[layout.SURVEY_WANTED] != self.told[layout.SURVEY_WANTED])
        self.told[:] = self.seen
        return self._look(self.seen)

    def catch_up(self, is_new: bool) -> None:
        """Go on after compiled turns, which have changed `told`, or `seen` if something else `is_new`."""
        self._look(self.told)
        self._is_new = is_new

    def _look(self, survey: npt.NDArray[np.int64]) -> list[Event]:
        """Return what a survey says that none before did."""
        workers, first, words = self._workers, layout.SURVEY_HEAD, survey.tolist()
        return self._watch.news(
            words[layout.SURVEY_LOWEST],
            words[layout.SURVEY_ARRIVED],
            words[first : first + workers],
            words[first + workers : first + 2 * workers],
            words[first + 2 * workers :],
        )

    def _summands_of(self, count: int) -> Bytes | None:
        """Return a copy of what this node's workers add up at barrier `count`, if other nodes need it.

        They wait for the answer, so it stays as it is. What is wrong with it their readers see: it travels as it is.
        """
        if self._nodes == 1:
            return None
        part, workers = self._summands[count % 2, self._rank], self._workers
        headers = part[: workers * layout.SUM_HEADER].reshape(workers, layout.SUM_HEADER)
        adding = headers[headers[:, layout.SUM_BARRIER] == count]
        if adding.size == 0:
            return None
        words = workers * (layout.SUM_HEADER + int(adding[:, layout.SUM_ELEMENTS].max()))
        summands: Bytes = part[:words].copy().view(np.uint8)
        return summands

    def has_news(self) -> bool:
        """Whether `news` would say something."""
        self._is_new = board.differs(self.words, self._workers, self._sources, self.told, self.seen)
        return self._is_new

    def doze(self) -> bool:
        """Announce that the agent sleeps; False if there is news."""
        self._is_new = not board.doze(self.words, self._workers, self._sources, self.told, self.seen)
        return not self._is_new

    def wake(self) -> None:
        """Take the announcement back."""
        self.words[layout.AGENT_SLEEPS] = 0

    def answer(self) -> None:
        """Wake workers that wait for rows."""
        board.publish(self.words, layout.ONE, 1)

    @property
    def is_aborted(self) -> bool:
        """Whether the job is ending."""
        return bool(self.words[layout.ABORT])

    def abort(self) -> None:
        """Make every wait of the workers end at once."""
        board.publish(self.words, layout.ABORT, 1)
