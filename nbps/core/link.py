"""One end of a link between two nodes: every message arrives exactly once and in order.

The connection below may break, lose, repeat and reorder frames. Messages are numbered; the receiver takes the next
number only, and tells the last one it took with every frame it sends. What was not acknowledged is kept and sent again,
all of it, when the connection comes back or nothing moves for a while. Every run has links of its own: frames of
another one are not taken.
"""

from __future__ import annotations

from nbps.core.messages import Frame, Message
from nbps.errors import LocalProtocolError, RemoteProtocolError


class Link:
    """The link of a node to node `peer` in run number `run`; frames may be sent at once if it is `up`.

    Attributes
    ----------
    sent : int
        Number of the last message sent.
    acknowledged : int
        Number of the last that the peer is known to have; 0 <= acknowledged <= sent.
    kept : list of Frame
        Messages acknowledged + 1 to sent, in order; few, so that a list is smaller and faster than a deque.
    received : int
        Number of the last message taken from the peer; falls only by `give_back`.
    told : int
        `received`, as the last frame sent has said; 0 <= told <= received.
    owed_at : float or None
        When the first message came, taken or refused, after the last frame that was sent; None if none did.
    up : bool
        Frames may be sent; while False they are only kept.
    heard_at, sent_at, moved_at : float
        When a frame arrived, one was sent, and the peer last acknowledged something new or had nothing to acknowledge.
    """

    __slots__ = (
        "acknowledged", "heard_at", "kept", "moved_at", "owed_at", "peer", "received", "run", "sent", "sent_at", "told",
        "up",
    )  # fmt: skip

    def __init__(self, peer: int, run: int, now: float, up: bool = True) -> None:
        self.peer = peer
        self.run = run
        self.sent = self.acknowledged = self.received = self.told = 0
        self.kept: list[Frame] = []
        self.owed_at: float | None = None
        self.up = up
        self.heard_at = self.sent_at = self.moved_at = now

    def send(self, message: Message, now: float) -> Frame:
        """Give `message` its number, keep it, and return the frame to send."""
        if not self.kept:
            self.moved_at = now
        self.sent += 1
        frame = Frame(self.run, self.sent, self.received, message)
        self.kept.append(frame)
        if len(self.kept) != self.sent - self.acknowledged:  # looked at in production, too: a comparison a message
            raise LocalProtocolError(self._broken(f"{len(self.kept)} messages"))
        self.owed_at = None
        self.told = self.received
        self.sent_at = now
        return frame

    def answer(self, now: float) -> Frame:
        """Return a frame that only acknowledges, and shows that this node lives."""
        self.owed_at = None
        self.told = self.received
        self.sent_at = now
        return Frame(self.run, 0, self.received, None)

    def again(self, now: float) -> list[Frame]:
        """Return everything not acknowledged."""
        self.moved_at = self.sent_at = now
        return [Frame(self.run, frame.number, self.received, frame.message) for frame in self.kept]

    def forget(self) -> None:
        """Keep nothing for a peer that is gone in good order: it needs nothing any more."""
        self.kept.clear()
        self.acknowledged = self.sent

    def accept(self, frame: Frame, now: float) -> Message | None:
        """Take what `frame` acknowledges; return its message if it is the next one, else None.

        Raises
        ------
        RemoteProtocolError
            If it acknowledges what was never sent. Nothing of it was taken.
        """
        run, number, acknowledged, message = frame
        if run != self.run:
            return None
        if acknowledged > self.acknowledged:
            if acknowledged > self.sent:
                raise RemoteProtocolError(
                    f"node {self.peer} acknowledges message {acknowledged}; expected at most {self.sent}, the last sent"
                )
            del self.kept[: acknowledged - self.acknowledged]
            self.acknowledged = acknowledged
            self.moved_at = now
        self.heard_at = now
        if number == 0:
            return None
        if self.owed_at is None:
            self.owed_at = now
        if number != self.received + 1:
            return None  # a repetition, or one before it was lost: it will be sent again
        self.received = number
        return message

    def hear(self, now: float) -> None:
        """Take note that the peer lives: it said something of another run."""
        self.heard_at = now

    def give_back(self) -> None:
        """Take the message that was accepted last for not received: it could not be used, and may come again intact."""
        self.received -= 1

    def validate(self) -> None:
        """Raise `LocalProtocolError` if a field breaks its invariant."""
        numbers = [frame.number for frame in self.kept]
        if numbers != list(range(self.acknowledged + 1, self.sent + 1)):
            raise LocalProtocolError(self._broken(f"messages {numbers}"))

    def _broken(self, kept: str) -> str:
        return f"link to node {self.peer} keeps {kept}; expected {self.acknowledged + 1} to {self.sent}"
