"""The loop of compiled turns: the same as `nbps.agent.process.Agent._turn`, as long as all that happens is common."""

from __future__ import annotations

import errno

import numpy as np

from ..board import differs, doze
from ..jit import Request, kernel
from ..layout import (
    AGENT_SLEEPS,
    SURVEY_ARRIVED,
    SURVEY_HEAD,
    SURVEY_LOWEST,
    SURVEY_WANTED,
    board_words,
    survey_words,
)
from ..system import (
    READABLE,
    clear_bell,
    monotonic,
    receive_bytes,
    send_bytes,
    wait_ready,
    what_is_ready,
    yield_slice,
)
from .frames import FRAME_BYTES, NUMBERS, is_whole, payload
from .rules import commit, need, take_frame
from .state import BELL, OUTGOING_BYTES, new_state

TIME, BOARD, SOCKETS = range(3)  # why turns end

_AT_MOST = 2 * FRAME_BYTES  # what one event has to say to one peer
_AGAIN, _INTERRUPTED = -errno.EAGAIN, -errno.EINTR


@kernel
def take_turns(state, tick_at, spin_s, sleep_ms):
    """Look at board and sockets and do what is common, until time is `tick_at` or something is not.

    After something has happened it spins for `spin_s` seconds, then it sleeps for `sleep_ms` at most.

    Returns
    -------
    int
        `TIME`; `BOARD`, if `State.seen` is a look at the board that was not taken in; or `SOCKETS`, if something came
        that is left to its connection, or to whoever else has a descriptor, or a connection did not take all.
    """
    node = state.node[0]
    workers, sources = node.workers, node.workers + node.nodes
    now = monotonic(node.scratch)
    spin_until = now + spin_s
    while now < tick_at:
        worked = False
        if differs(state.board, workers, sources, state.told, state.seen):
            if not take_news(state, now):
                return BOARD
            if not flush(state):
                return SOCKETS
            worked = True
        sleeps = not worked and now >= spin_until
        if sleeps and not doze(state.board, workers, sources, state.told, state.seen):
            continue
        ready = wait_ready(node.polled[: node.descriptors], sleep_ms if sleeps else 0)
        if sleeps:
            state.board[AGENT_SLEEPS] = 0
        now = monotonic(node.scratch)
        if ready > 0:
            is_common = take_ready(state, now)
            if not flush(state) or not is_common:
                return SOCKETS
            worked = True
        if worked:
            spin_until = now + spin_s
        elif not sleeps:
            yield_slice()  # to a worker, say, that this very wait is for
    return TIME


@kernel(early=True)
def take_news(state, now):
    """`AgentBoard.news`, if all that is new is common; return whether it is."""
    told, seen, workers = state.told, state.seen, state.node[0].workers
    if seen[SURVEY_ARRIVED] != told[SURVEY_ARRIVED] or seen[SURVEY_WANTED] != told[SURVEY_WANTED]:
        return False
    if seen[SURVEY_LOWEST] > told[SURVEY_LOWEST] and not commit(state, seen[SURVEY_LOWEST], now):
        return False
    for worker in range(workers):
        needed = SURVEY_HEAD + workers + worker
        if seen[needed] > told[needed]:
            need(state.node[0], seen[needed], now)
    for k in range(seen.size):
        told[k] = seen[k]
    return True


@kernel(early=True)
def take_ready(state, now):
    """Take what is ready; return whether all of it was common. What was not is still there, in socket or buffer."""
    node = state.node[0]
    for n in range(node.descriptors):
        events, whose = what_is_ready(node.polled[n, 1]), node.whose[n]
        if events == 0:
            continue
        if whose == BELL:
            clear_bell(node.polled[n, 0], node.scratch)
        elif whose < 0 or events != READABLE or not receive(state, whose, now):
            return False
    return True


@kernel(early=True)
def receive(state, source, now):
    """Take the frames that have come from `source`; return whether all of them were whole and common."""
    peer = state.peers[source]
    count = receive_bytes(peer.descriptor, peer.incoming)
    if count <= 0:
        is_over = count not in (_AGAIN, _INTERRUPTED)
        peer.error = -count if is_over else 0
        return not is_over
    peer.bytes_received += count
    peer.begin, peer.end = 0, count
    return take_frames(state, source, now)


@kernel(early=True)
def take_frames(state, source, now):
    """Take the frames in the buffer of `source`; return whether all of them were whole and common."""
    node, peer = state.node[0], state.peers[source]
    while peer.begin < peer.end:
        is_next = is_whole(peer.incoming, peer.begin, peer.end, peer.frames_received, node.checksum)
        if not is_next or not make_room(state):
            return False
        if not take_frame(state, source, payload(peer.incoming, peer.begin), now):
            return False
        peer.begin += FRAME_BYTES
        peer.frames_received = (peer.frames_received + 1) % NUMBERS
    return True


@kernel(early=True)
def make_room(state):
    """See to it that there is room for what one more event has to say to each peer; return whether there is."""
    for rank in range(state.node[0].nodes):
        if state.peers[rank].unsent + _AT_MOST > OUTGOING_BYTES:
            return flush(state)
    return True


@kernel
def flush(state):
    """Send what is to be sent, in one call for each peer; return whether everything was taken."""
    done = True
    for rank in range(state.node[0].nodes):
        peer = state.peers[rank]
        if peer.unsent > 0:
            sent = send_bytes(peer.descriptor, peer.outgoing, 0, peer.unsent)
            if sent < 0:
                peer.error = -sent if sent not in (_AGAIN, _INTERRUPTED) else 0
                sent = 0
            peer.bytes_sent += sent
            peer.unsent -= sent
            for k in range(peer.unsent):
                peer.outgoing[k] = peer.outgoing[sent + k]
            done = done and peer.unsent == 0
    return done


def requests() -> list[Request]:
    """Return the loop, which ends at once."""
    words, survey = np.zeros(board_words(2, bounded=False), np.int64), np.zeros(survey_words(1), np.int64)
    return [(take_turns, (new_state(1, 0, words, survey, survey.copy()), 0.0, 0.0, 0))]
