"""What a node must know, and its limits."""

from __future__ import annotations

from dataclasses import dataclass

from nbps.core.terms import Terms


@dataclass(frozen=True)
class Settings:
    """What a node must know.

    Attributes
    ----------
    rank, nodes : int
    terms : Terms
    readers : int
        Local workers with private copies, whose refreshing counts under VAP.
    run : int
        Number of the run; frames of another one are not for this node.
    clock : int
        Where the job starts: 0, or the clock of the checkpoint that the rows come from.
    window : int
        Messages to one peer that may be unacknowledged before pushes and ships to it wait, batches that may be
        unapplied, and rounds that not everybody has taken in (VAP). What waits is not lost: later batches bring it.
    window_bytes : int
        Unapplied batches for one peer may have so many bytes before the next waits; one of any size may be on its way.
    retry_s : float
        Everything unacknowledged is sent again after so long without progress; infinite where connections lose nothing
        as long as they stand.
    ack_s : float
        What was received is acknowledged after so long, if nothing else was sent meanwhile, or when it is half a
        window.
    heartbeat_s : float
        A node sends at least so often on every link.
    failure_timeout_s : float
        A node not heard for so long is lost, and the job ends; infinite to wait for it.
    copies : int
        Copies of the rows that may be there to be saved: one that is written, and one that waits.
    """

    rank: int
    nodes: int
    terms: Terms
    readers: int = 0
    run: int = 0
    clock: int = 0
    window: int = 64
    window_bytes: int = 128 << 20
    retry_s: float = 0.5
    ack_s: float = 0.125
    heartbeat_s: float = 1.0
    failure_timeout_s: float = 30.0
    copies: int = 2
