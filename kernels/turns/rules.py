"""The rules of `nbps.core` for common events, on records. Beside each stands what it is the same as.

A rule is two functions: one tells whether the event is common, which changes nothing, the other does it. What is common
where some rule has asked, `nbps.agent.turns.may_enter` says: a run in the middle, ESSP, all links up, nothing waits for
room or for a clock, no halt has begun.

What is called in one place is inlined early: else it is compiled once for itself and once in each caller of callers.
"""

from __future__ import annotations

import numpy as np

from ..board import tick
from ..jit import kernel
from ..layout import FINISHED, HEADER_LINES, LINE
from ..system import word_at
from .frames import (
    ACKNOWLEDGED,
    FIRST,
    FOURTH,
    FRAME_BYTES,
    KIND,
    NOTHING,
    NUMBER,
    NUMBERS,
    PUSH,
    RUN,
    SECOND,
    SHIP,
    THIRD,
    payload,
    write_header,
)
from .state import COMMITTED, KEPT, NEEDED, RECEIVED, STORY

# --------------------------------------------------------------------------- the workers have committed a clock


@kernel(early=True)
def commit(state, clock, now):
    """`Node._on_committed`, if `clock` is common; return whether it is."""
    if not is_common_commit(state, clock):
        return False
    node = state.node[0]
    remember(node, now, COMMITTED)[1] = clock
    for rank in range(node.nodes):
        if rank != node.rank:  # `Replica.push`
            peer = state.peers[rank]
            peer.batches += 1
            post(node, peer, now, PUSH, peer.batches, clock, 0, 0)
    hear(state, node.rank, clock, now)
    return True


@kernel(early=True)
def is_common_commit(state, clock):
    """Tell whether every node can be told of the next `clock` now; no row goes with it, nothing is saved or ends."""
    node, peers = state.node[0], state.peers
    messages = 2 if lowest_with(state, node.rank, clock) > node.shard_clock else 1
    for rank in range(node.nodes):
        if rank != node.rank:
            room = node.window - (peers[rank].sent - peers[rank].acknowledged)
            if peers[rank].is_full != 0 or room < messages:
                return False
    return clock < FINISHED and not is_checkpoint(node, clock) and not has_changes(state.tables)


@kernel(early=True)
def need(node, clock, now):
    """`Node._on_needed`: owners that ship at every clock need not be asked."""
    remember(node, now, NEEDED)[1] = clock


# --------------------------------------------------------------------------- a frame has come


@kernel
def take_frame(state, source, frame, now):
    """`Node._on_received`, if `frame` of node `source` is common; return whether it is."""
    if not is_common_frame(state, source, frame):
        return False
    node, peer = state.node[0], state.peers[source]
    event = remember(node, now, RECEIVED)
    event[1] = source
    for k in range(frame.size):
        event[2 + k] = frame[k]
    if frame[ACKNOWLEDGED] > peer.acknowledged:  # from here on `Link.accept`
        peer.acknowledged = frame[ACKNOWLEDGED]
        peer.moved_at = now
    peer.heard_at = now
    if frame[KIND] != NOTHING:
        if np.isnan(peer.owed_at):
            peer.owed_at = now
        if frame[NUMBER] == peer.received + 1:
            peer.received = frame[NUMBER]
            if frame[KIND] == PUSH:  # `Shard.push`
                peer.applied = frame[FIRST]
                hear(state, source, frame[SECOND], now)
            else:
                install(state, source, frame)
    if peer.received - peer.told >= max(1, node.window // 2):
        answer(node, peer, now)
    return True


@kernel
def is_common_frame(state, source, frame):
    """Tell whether `frame` is an acknowledgement, or a push or ship without rows, that may be and needs no more."""
    node, peer, kind = state.node[0], state.peers[source], frame[KIND]
    fields = frame[FIRST] | frame[SECOND] | frame[THIRD] | frame[FOURTH]
    signs = frame[NUMBER] | frame[ACKNOWLEDGED] | fields  # negative if one of them is
    if frame[RUN] != node.run or signs < 0 or frame[ACKNOWLEDGED] > peer.sent:
        return False
    if kind == NOTHING:
        return frame[NUMBER] == 0 and fields == 0
    is_next = frame[NUMBER] == peer.received + 1  # if not, it has come before, or one before it was lost
    if kind == PUSH:
        is_push = frame[NUMBER] != 0 and frame[THIRD] | frame[FOURTH] == 0
        return is_push and (not is_next or is_common_push(state, source, frame))
    return kind == SHIP and frame[NUMBER] != 0 and (not is_next or is_common_ship(peer, frame))


@kernel(early=True)
def is_common_push(state, source, push):
    """Tell whether a batch is the next one, and every node can be told of the shard's clock if it rises by it."""
    node, peers, clock = state.node[0], state.peers, push[SECOND]
    if push[FIRST] != peers[source].applied + 1 or clock < peers[source].clock:
        return False
    lowest = lowest_with(state, source, clock)
    if lowest <= node.shard_clock:
        return True
    for rank in range(node.nodes):
        if rank != node.rank:
            has = push[ACKNOWLEDGED] if rank == source else 0  # the frame says that, too
            if peers[rank].sent - max(has, peers[rank].acknowledged) >= node.window:
                return False
    return lowest < FINISHED and not is_checkpoint(node, lowest) and not has_changes(state.tables)


@kernel(early=True)
def is_common_ship(peer, ship):
    """Tell whether a ship is the next one, and contains no batch that is kept until one does."""
    is_next = ship[FIRST] == peer.installed + 1 and ship[SECOND] >= peer.visible  # `Replica._check`
    is_possible = is_next and ship[THIRD] <= peer.batches and ship[FOURTH] <= peer.requests
    return is_possible and ship[THIRD] < peer.first_unapplied


@kernel(early=True)
def install(state, owner, ship):
    """`Replica.install` without rows."""
    peer = state.peers[owner]
    peer.installed = ship[FIRST]
    if ship[SECOND] != peer.visible:
        peer.visible = ship[SECOND]
        publish_shard(state, owner, ship[SECOND])


# --------------------------------------------------------------------------- the shard


@kernel
def lowest_with(state, source, clock):
    """Return the lowest clock of all nodes if that of `source` were `clock`."""
    for rank in range(state.node[0].nodes):
        if rank != source:
            clock = min(clock, state.peers[rank].clock)
    return clock


@kernel
def hear(state, source, clock, now):
    """`Shard._hear`, `Shard._advance` and `Shard.ship`, where no row has changed and there is room for all ships."""
    node = state.node[0]
    state.peers[source].clock = clock
    lowest = lowest_with(state, source, clock)
    if lowest > node.shard_clock:
        node.shard_clock = lowest
        publish_shard(state, node.rank, lowest)
        for rank in range(node.nodes):
            if rank != node.rank:
                peer = state.peers[rank]
                peer.ships += 1
                post(node, peer, now, SHIP, peer.ships, lowest, peer.applied, peer.answered)


@kernel(early=True)
def publish_shard(state, owner, clock):
    """`AgentBoard.publish_shard`."""
    node = state.node[0]
    slot = (HEADER_LINES + node.workers + owner) * LINE
    tick(state.board, HEADER_LINES * LINE, node.workers + node.nodes, slot, clock)


@kernel(early=True)
def is_checkpoint(node, clock):
    """`nbps.core.rules.is_checkpoint`, of a clock after the first that is not the end of a run."""
    return node.checkpoint_every > 0 and clock % node.checkpoint_every == 0


@kernel(early=True)
def has_changes(tables):
    """Tell whether a row of the node was changed, or another node is to be told of one."""
    for n in range(tables.size):
        table = tables[n]
        if any_word(table.marks, table.mark_words) or any_word(table.pending, table.pending_words):
            return True
    return False


@kernel
def any_word(place, count):
    """Tell whether one of `count` words from the address `place` on is not 0."""
    for n in range(count):  # noqa: SIM110  (Numba compiles no generator expressions)
        if word_at(place + 8 * n) != 0:
            return True
    return False


# --------------------------------------------------------------------------- the links


@kernel
def post(node, peer, now, kind, first, second, third, fourth):
    """`Link.send`: say something to a peer."""
    if peer.sent == peer.acknowledged:
        peer.moved_at = now
    peer.sent += 1
    kept = peer.kept[peer.sent % KEPT]
    kept[0], kept[1], kept[2], kept[3], kept[4], kept[5] = kind, peer.received, first, second, third, fourth
    write(node, peer, now, kind, peer.sent, first, second, third, fourth)


@kernel(early=True)
def answer(node, peer, now):
    """`Link.answer`: acknowledge now."""
    write(node, peer, now, NOTHING, 0, 0, 0, 0, 0)


@kernel
def write(node, peer, now, kind, number, first, second, third, fourth):
    """Put a frame behind what is to be sent to a peer; it says what was received."""
    frame = payload(peer.outgoing, peer.unsent)
    frame[KIND], frame[RUN], frame[NUMBER], frame[ACKNOWLEDGED] = kind, node.run, number, peer.received
    frame[FIRST], frame[SECOND], frame[THIRD], frame[FOURTH] = first, second, third, fourth
    write_header(peer.outgoing, peer.unsent, peer.frames_sent, node.checksum)
    peer.unsent += FRAME_BYTES
    peer.frames_sent = (peer.frames_sent + 1) % NUMBERS
    peer.owed_at = np.nan
    peer.told = peer.received
    peer.sent_at = now


@kernel(early=True)
def remember(node, now, kind):
    """Note an event for the node's story; return where its numbers go, behind what it is."""
    n = node.events % STORY
    node.events += 1
    node.told_at[n] = now
    event = node.story[n]
    event[0] = kind
    return event
