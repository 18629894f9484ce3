"""The links of a node to all others: what it says goes out here, and here silent nodes are noticed."""

from __future__ import annotations

from collections.abc import Collection

from nbps.core.link import Link
from nbps.core.messages import Action, Message, Send, Stop
from nbps.core.settings import Settings
from nbps.errors import RemoteProtocolError


class Links(dict[int, Link]):
    """The links of node `settings.rank`, by peer; frames go to `out`, the actions of the event that is handled.

    Those to the nodes in `connected`, by default to all, are up. At most `window` frames are on their way to a peer.
    What was received is acknowledged at once if it is `half_window`; less goes with the next frame, or waits for
    `keep_alive`. `due` are peers for which something may wait for room: who finds none puts them there.
    """

    def __init__(self, settings: Settings, now: float, connected: Collection[int] | None) -> None:
        others = [node for node in range(settings.nodes) if node != settings.rank]
        up = others if connected is None else connected
        super().__init__({node: Link(node, settings.run, now, node in up) for node in others})
        self.out: list[Action] = []
        self.now = now
        self.due: set[int] = set()
        self.window = settings.window
        self.half_window = max(1, settings.window // 2)
        self._settings = settings
        self._looked_at = now  # for silent nodes

    @property
    def all_acknowledged(self) -> bool:
        """Whether every node has everything."""
        return not any(link.kept for link in self.values())

    def post(self, peer: int, message: Message) -> None:
        """Say something to `peer`, now or when there is a connection again."""
        link = self[peer]
        frame = link.send(message, self.now)
        if link.up:
            self.out.append(Send(peer, frame))

    def post_to_all(self, message: Message) -> None:
        """Say something to every other node."""
        for peer in self:
            self.post(peer, message)

    def has_room(self, peer: int) -> bool:
        """Whether less than a window is on its way to `peer`."""
        return len(self[peer].kept) < self.window

    def connect(self, peer: int) -> None:
        """Send everything again that may have been lost with the connection before."""
        self[peer].up = True
        self._send_again(self[peer])

    def disconnect(self, peer: int) -> None:
        """Keep what is said to `peer` from now on."""
        self[peer].up = False

    def answer(self, link: Link) -> None:
        """Acknowledge now, if there is a connection."""
        if link.up:
            self.out.append(Send(link.peer, link.answer(self.now)))

    def answer_owed(self) -> None:
        """Acknowledge everything that was received."""
        for link in self.values():
            if link.owed_at is not None:
                self.answer(link)

    def silent(self) -> list[tuple[Link, float]]:
        """Return the links on which nothing was heard for longer than `failure_timeout_s`, and for how long."""
        now, failure_timeout_s = self.now, self._settings.failure_timeout_s
        deaf_s, self._looked_at = now - self._looked_at, now
        if deaf_s > self._settings.heartbeat_s:
            for link in self.values():
                link.heard_at += deaf_s  # this node did not run, or was busy: others may well have spoken
        return [(link, now - link.heard_at) for link in self.values() if now - link.heard_at > failure_timeout_s]

    def keep_alive(self) -> None:
        """Send again what gets no answer, acknowledge what waits for it, and show that this node lives."""
        self.retry()
        now, ack_s, heartbeat_s = self.now, self._settings.ack_s, self._settings.heartbeat_s
        for link in self.values():
            if now - link.sent_at >= heartbeat_s or (link.owed_at is not None and now - link.owed_at >= ack_s):
                self.answer(link)

    def retry(self) -> None:
        """Send everything again where nothing has moved for `retry_s`."""
        now, retry_s = self.now, self._settings.retry_s
        for link in self.values():
            if link.kept and link.up and now - link.moved_at >= retry_s:
                self._send_again(link)

    def _send_again(self, link: Link) -> None:
        self.out += [Send(link.peer, frame) for frame in link.again(self.now)]

    def signs_of_life(self, now: float) -> list[Send]:
        """Return a frame for each node that has not heard from this one for a while."""
        late = [link for link in self.values() if link.up and now - link.sent_at >= self._settings.heartbeat_s]
        return [Send(link.peer, link.answer(now)) for link in late]

    def last_words(self, reason: str, now: float) -> list[Send]:
        """Return what tells the other nodes that this one cannot go on."""
        return [Send(peer, link.send(Stop(0, 0, reason), now)) for peer, link in self.items() if link.up]


def lost_by(source: int, stop: Stop, nodes: int) -> int | None:
    """Return the node, of `nodes`, that is lost as node `source` says, if any.

    Raises
    ------
    RemoteProtocolError
        If there is no such node.
    """
    if stop.lost > nodes:
        raise RemoteProtocolError(f"node {source} says that node {stop.lost - 1} is lost, of {nodes}")
    return stop.lost - 1 if stop.lost else None
