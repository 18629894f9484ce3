"""The state of a node as compiled turns have it: records and arrays, filled at the beginning and read at the end."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..checksum import STATE_WORDS
from .frames import WORDS

NODES_LIMIT = 64  # as many as there can be (`nbps.core.rules`)
KEPT = 64  # messages to a peer that may not be acknowledged yet
STORY = 16  # events that are remembered, as many as a node tells of (`nbps.core.node`)
OUTGOING_BYTES = 1 << 14
INCOMING_BYTES = 1 << 16  # as many as a connection reads at once

COMMITTED, NEEDED, RECEIVED = range(3)  # kinds of events
BELL, ANY = -1, -2  # whose descriptor it is, if not a peer's

_POLLED_LIMIT = NODES_LIMIT + 3  # with the doorbell, the driver and the mesh


def _record(**fields: Any) -> np.dtype[Any]:
    """Make the type of records with these fields, of numbers (`int`, `float`) or arrays of them."""
    return np.dtype([(name, *(kind if isinstance(kind, tuple) else (kind,))) for name, kind in fields.items()], True)


NODE = _record(
    rank=int,
    nodes=int,
    workers=int,
    run=int,
    window=int,
    checkpoint_every=int,
    shard_clock=int,
    events=int,  # that were taken
    descriptors=int,  # in `polled`
    story=(int, (STORY, 2 + WORDS)),  # event n at n modulo STORY: its kind, then its clock, or its source and frame
    told_at=(float, STORY),  # when
    polled=(np.int32, (_POLLED_LIMIT, 2)),  # (`nbps.kernels.system.wait_ready`)
    whose=(int, _POLLED_LIMIT),  # of each the peer, `BELL` or `ANY`
    checksum=(np.uint64, STATE_WORDS),  # scratch
    scratch=(int, 2),
)

PEER = _record(
    # `nbps.core.link.Link`; `owed_at` is not a number for None.
    owed_at=float,
    heard_at=float,
    sent_at=float,
    moved_at=float,
    sent=int,
    acknowledged=int,
    received=int,
    told=int,
    # `nbps.core.replica.Replica`
    batches=int,  # `number`
    visible=int,  # `clock`
    installed=int,  # `ships`
    requests=int,
    first_unapplied=int,  # number of the first batch that is kept for it; `FINISHED` if none is
    is_full=int,  # whether no batch may be sent
    # `nbps.core.shard.Shard`; of the own node only the first
    clock=int,
    applied=int,
    ships=int,
    answered=int,
    # the connection
    descriptor=int,
    frames_sent=int,
    frames_received=int,
    bytes_sent=int,
    bytes_received=int,
    error=int,
    unsent=int,  # bytes in `outgoing`
    begin=int,  # of what is not taken of `incoming`, and its end
    end=int,
    kept=(int, (KEPT, 6)),  # message n at n modulo KEPT: its kind, what it acknowledged, and its numbers
    outgoing=(np.uint8, OUTGOING_BYTES),
    incoming=(np.uint8, INCOMING_BYTES),
)

# Addresses of int64 words that are 0 where nothing has changed, and how many there are: marks, and pending rows.
TABLE = _record(marks=int, mark_words=int, pending=int, pending_words=int)


class State(NamedTuple):
    """The state of a node of so many.

    Attributes
    ----------
    node : NODE[1]
    peers : PEER[nodes]
    tables : TABLE[tables]
    board, told, seen : int64[n]
        The board, what the node knows of it, and the last look at it (`nbps.kernels.board.survey`).
    """

    node: Any
    peers: Any
    tables: Any
    board: Any
    told: Any
    seen: Any


def new_state(nodes: int, tables: int, board: Any, told: Any, seen: Any) -> State:
    """Make the state of a node; the board and the looks at it are its agent's."""
    counts = (1, NODE), (nodes, PEER), (tables, TABLE)
    node, peers, changes = (np.zeros(count, kind).view(np.recarray) for count, kind in counts)
    return State(node, peers, changes, board, told, seen)
