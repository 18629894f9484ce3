"""Connections between simulated nodes: when a frame arrives, if it does."""

from __future__ import annotations

import random

from nbps.core.messages import Frame, Push, Ship
from nbps.sim.scenario import Network

_HEADER_BYTES = 64


class Connections:
    """The connections between `nodes` nodes.

    Attributes
    ----------
    frames, bytes, lost : int
        Sent in all; lost ones are sent too.
    epochs : list of list of int
        How often the connection from one node to another has broken: the number of the one that stands.
    """

    def __init__(self, nodes: int, network: Network, generator: random.Random) -> None:
        self.frames = self.bytes = self.lost = 0
        self._network = network
        self._random = generator
        self._plain = not (network.loss or network.duplication or network.jitter_s or network.reordering)
        self._free = [0.0] * nodes  # when each node's network card has sent everything
        self._last: dict[tuple[int, int], float] = {}  # when the last frame of a pair arrives
        self._latency_s = [
            [network.latency_s * (1 + network.spread * generator.random()) for _ in range(nodes)] for _ in range(nodes)
        ]
        self.epochs = [[0] * nodes for _ in range(nodes)]
        self._cuts: dict[frozenset[int], int] = {}
        self._silent: dict[tuple[int, int], float] = {}  # pair -> until when its frames vanish

    def arrivals(self, source: int, target: int, frame: Frame, now: float) -> list[float]:
        """Return when `frame` arrives: once, not at all, or twice."""
        network, message, size = self._network, frame.message, _HEADER_BYTES + 8
        if type(message) is Ship or type(message) is Push:
            rows = message.rows
            size = _HEADER_BYTES + (len(rows) * (8 + int(rows[0][1].nbytes)) if rows else 0)
        self.frames += 1
        self.bytes += size
        start = self._free[source]
        start = self._free[source] = (start if start > now else now) + size / network.bandwidth
        earliest = start + self._latency_s[source][target]
        if self._plain:  # frames of a pair are in order by themselves
            return [earliest]
        draw, pair = self._random, (source, target)
        if network.loss and draw.random() < network.loss:
            self.lost += 1
            return []
        times = []
        copies = 2 if network.duplication and draw.random() < network.duplication else 1
        for _ in range(copies):
            at = earliest
            if network.jitter_s:
                at += draw.expovariate(1.0) * network.jitter_s
            if not (network.reordering and draw.random() < network.reordering):
                at = max(at, self._last.get(pair, 0.0))  # what was sent before arrives before
                self._last[pair] = at
            times.append(at)
        return times

    def passes(self, source: int, target: int, epoch: int, now: float) -> bool:
        """Whether a frame of connection number `epoch` still arrives."""
        return epoch == self.epochs[source][target] and not (
            self._silent and self._silent.get((source, target), 0.0) > now
        )

    def cut(self, a: int, b: int) -> None:
        """Break the connection of two nodes: what is on its way is gone."""
        pair = frozenset((a, b))
        self._cuts[pair] = self._cuts.get(pair, 0) + 1
        for source, target in ((a, b), (b, a)):
            self.epochs[source][target] += 1

    def heal(self, a: int, b: int) -> bool:
        """Take one cut back; return whether that was the last."""
        pair = frozenset((a, b))
        self._cuts[pair] -= 1
        return self._cuts[pair] == 0

    def silence(self, a: int, b: int, until: float) -> None:
        """Let frames between two nodes vanish for a while."""
        until = max(until, self._silent.get((a, b), 0.0))
        self._silent[a, b] = self._silent[b, a] = until
