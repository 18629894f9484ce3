"""Compiled turns are the core: whatever happens, both do the same, and only what is rare is left to the core."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from nbps.agent.turns import may_enter
from nbps.core.messages import Arrived, Halt, Leaving, LinkDown, Pull, Saved, Stop, Terminate, Tick
from nbps.core.rules import FINISHED, NODES_LIMIT
from nbps.kernels.checksum import STATE_WORDS, checksum
from nbps.kernels.turns import loop, state
from nbps.transport.carriers.header import HEADER_BYTES, write_header
from support.agent_tables import batch_of
from support.mutants import mutants, plain
from support.turns import ROWS, WORKERS, Twins

peers = st.integers(1, 3)
few = st.sampled_from([0, 0, 0, 1, 1, 2, -1, 50])
ones = st.sampled_from([1, 1, 1, 1, 1, 1, 1, 0, 2])


class Turns(RuleBasedStateMachine):
    """Node 0 of two to four, whose workers and peers do what is frequent, and all that they may do besides."""

    turns = loop  # in which compiled turns are taken

    @initialize(nodes=st.integers(2, 4), window=st.integers(1, 5), every=st.sampled_from([0, 0, 0, 1, 3]))
    def start(self, nodes, window, every):
        """Begin a run."""
        self.twins = Twins(self.turns, nodes=nodes, window=window, every=every, window_bytes=200, failure_timeout_s=1e9)
        self.nodes = nodes
        self.clocks = [0] * WORKERS

    def peer(self, number):
        """Return one of the other nodes."""
        return 1 + (number - 1) % (self.nodes - 1)

    @rule(steps=st.lists(st.sampled_from([0, 1, 1, 1, 2]), min_size=WORKERS, max_size=WORKERS), ends=st.integers(0, 40))
    def commit(self, steps, ends):
        """Have workers publish clocks; seldom the last one."""
        self.clocks = [
            FINISHED if ends == 0 else min(FINISHED, clock + n) for clock, n in zip(self.clocks, steps, strict=True)
        ]
        self.twins.commit(*self.clocks)

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.2]))
    def wait(self, seconds):
        """Have time pass."""
        self.twins.now += seconds

    @rule(
        peer=peers,
        clocks=st.sampled_from([1, 1, 1, 1, 0, 2, -1]),
        batches=ones,
        more=few,
        skips=few,
        rows=st.integers(0, 9),
    )
    def push(self, peer, clocks, batches, more, skips, rows):
        """Have a peer push, mostly what it should."""
        peer = self.peer(peer)
        push = self.twins.push(peer, clocks, batches, rows_of(self.twins, 0) if rows == 0 else None)
        self.twins.hear(peer, self.twins.frame(peer, push, more, 0 if skips > 1 else skips))

    @rule(
        peer=peers, clocks=st.sampled_from([1, 1, 1, 1, 0, 2, -1]), ships=ones, lacks=st.sampled_from([0, 0, 1, -1]),
        answers=st.sampled_from([0, 0, 0, 0, 0, 1]), more=few, skips=few, rows=st.integers(0, 9),
    )  # fmt: skip
    def ship(self, peer, clocks, ships, lacks, answers, more, skips, rows):
        """Have a peer ship, mostly what it should."""
        peer = self.peer(peer)
        ship = self.twins.ship(peer, clocks, ships, lacks, answers, rows_of(self.twins, peer) if rows == 0 else None)
        self.twins.hear(peer, self.twins.frame(peer, ship, more, 0 if skips > 1 else skips))

    @rule(peer=peers, more=few)
    def acknowledge(self, peer, more):
        """Have a peer only acknowledge."""
        peer = self.peer(peer)
        if more == 50:  # all of it
            link = self.twins.core.node.links[peer]
            more = link.sent - link.acknowledged
        self.twins.hear(peer, self.twins.frame(peer, None, more))

    @rule(peer=peers, clocks=st.lists(st.integers(0, 1), min_size=2, max_size=6))
    def speak_at_once(self, peer, clocks):
        """Have several frames of a peer arrive together."""
        peer = self.peer(peer)
        first = self.twins.frame(peer, self.twins.push(peer, clocks[0]))
        push, clock = first.message, first.message.clock
        frames = [first]
        for n, more in enumerate(clocks[1:], 1):
            clock = min(FINISHED, clock + more)
            message = push._replace(number=push.number + n, clock=clock)
            frames.append(first._replace(number=first.number + n, message=message))
        self.twins.feed(peer, self.twins.framed(peer, *frames))

    @rule(peer=peers, what=st.integers(0, 30))
    def say_what_is_rare(self, peer, what):
        """Have a peer say something else."""
        peer, clock = self.peer(peer), self.twins.core.node.shard.clock
        said = [
            Pull(0),
            Pull(min(FINISHED, clock + 1)),
            Arrived(1),
            Arrived(2),
            Leaving(),
            Halt(min(FINISHED, clock + 2), 1),
            Stop(0, 0, "why"),
        ]
        if what < len(said):
            self.twins.hear(peer, self.twins.frame(peer, said[what]))

    @rule(
        peer=peers, kind=st.integers(0, 2), place=st.integers(0, 7), more=few,
        word=st.sampled_from([0, 1, 2, 3, 5, 257, FINISHED, -1]),
    )  # fmt: skip
    def say_almost(self, peer, kind, place, more, word):
        """Have a peer send a frame of which one number is another."""
        peer = self.peer(peer)
        message = [None, self.twins.push(peer), self.twins.ship(peer)][kind]
        data = bytearray(self.twins.framed(peer, self.twins.frame(peer, message, max(0, more))))
        payload = np.frombuffer(data, np.int64)[4:].copy()
        payload[place] = word
        self.twins.feed(peer, with_payload(data, payload))

    @rule(order=st.permutations([0, 1, 2, 3]), left_out=st.integers(0, 8))
    def end(self, order, left_out):
        """Have nodes come to the end of their run."""
        for rank in order[: left_out + 1]:
            if rank == 0:
                self.commit([0] * WORKERS, 0)
            elif rank < self.nodes:
                self.acknowledge(rank, 50)
                self.push(rank, -1, 1, 0, 0, 1)

    @rule(peer=peers, place=st.integers(0, 95), bit=st.integers(0, 7))
    def change_a_bit(self, peer, place, bit):
        """Have a frame arrive changed."""
        peer = self.peer(peer)
        data = bytearray(self.twins.framed(peer, self.twins.frame(peer, self.twins.push(peer))))
        data[place] ^= 1 << bit
        self.twins.feed(peer, bytes(data))

    @rule(peer=peers, cut=st.integers(1, 95))
    def arrive_in_parts(self, peer, cut):
        """Have a frame arrive in two parts."""
        peer = self.peer(peer)
        data = self.twins.framed(peer, self.twins.frame(peer, self.twins.ship(peer)))
        self.twins.feed(peer, data[:cut])
        self.twins.feed(peer, data[cut:])

    @rule(row=st.integers(0, ROWS - 1), chance=st.integers(0, 3))
    def change(self, row, chance):
        """Have a worker add to a row."""
        if chance == 0:
            self.twins.change(row)

    @rule(worker=st.integers(0, WORKERS - 1))
    def need(self, worker):
        """Have a worker wait for a clock."""
        self.twins.need(worker, min(FINISHED, min(self.clocks) + 1))

    @rule(what=st.integers(0, 40), peer=peers)
    def disturb(self, what, peer):
        """Have something happen of which only the core hears, or workers come to a barrier."""
        node, peer = self.twins.core.node, self.peer(peer)
        if what < 4:
            self.twins.tell(Tick())
        elif what == 4:
            self.twins.tell(LinkDown(peer))
        elif what < 7:
            self.twins.break_off(peer)
        elif what == 7:
            self.twins.arrive(1)
        elif what == 8:
            self.twins.tell(Terminate())
        elif what < 20 and node.unsaved:
            self.twins.tell(Saved())


def rows_of(twins, owner):
    """Return rows of `owner`, as they travel."""
    owners = twins.core.rows.owners[0]
    ids = np.flatnonzero(owners == owner)
    return batch_of((0, 2, ids.tolist(), np.ones((ids.size, 2), np.int64))) if ids.size else None


def with_payload(data, payload):
    """Return the bytes of a frame with another payload."""
    found = checksum(np.zeros(STATE_WORDS, np.uint64), payload.view(np.uint8), 0)
    write_header(memoryview(data), int.from_bytes(data[8:12], "little"), payload.nbytes, int(found))
    return bytes(data[:HEADER_BYTES]) + payload.tobytes()


TestTurns = Turns.TestCase
TestTurns.settings = settings(stateful_step_count=50)  # 100,000 events in the long profile


def test_what_both_know_is_the_same():
    """Numbers that stand in the core and in the arrays, and the first window of a node."""
    node = Twins(nodes=2).core.node
    assert node.told.maxlen == 2 * state.STORY
    assert state.NODES_LIMIT == NODES_LIMIT
    assert node.settings.window <= state.KEPT
    assert may_enter(node)


# --------------------------------------------------------------------------- mutants


def play(seed, turns, steps=60):
    """Let things happen at random, then the end of a run, with these compiled turns; return both nodes."""
    draw = random.Random(seed)
    machine = Turns()
    machine.turns = turns
    machine.start(nodes=draw.choice([2, 2, 3, 4]), window=draw.randint(1, 5), every=draw.choice([0, 0, 0, 1, 3]))
    for _ in range(steps):
        step(machine, draw)
    machine.end(draw.sample(range(4), 4), draw.randint(0, 8))
    return machine.twins


def step(machine, draw):
    """Let one thing happen: mostly what is frequent."""
    peer, more, skips = draw.randint(1, 3), draw.choice(_FEW), draw.choice(_FEW)
    clocks, next_one, rows = draw.choice([1, 1, 1, 1, 0, 2, -1]), draw.choice([1] * 12 + [0, 2]), draw.randint(0, 9)
    steps = [draw.choice([0, 1, 1, 1, 2]) for _ in range(WORKERS)]
    things = {
        "commit": (5, lambda: machine.commit(steps, draw.randint(0, 60))),
        "push": (5, lambda: machine.push(peer, clocks, next_one, more, skips, rows)),
        "ship": (5, lambda: machine.ship(peer, clocks, next_one, lacks(draw), draw.random() < 0.1, more, skips, rows)),
        "acknowledge": (2, lambda: machine.acknowledge(peer, draw.choice([*_FEW, 2]))),
        "say almost": (3, lambda: machine.say_almost(peer, draw.randrange(3), draw.randrange(8), more, word(draw))),
        "change a bit": (1, lambda: machine.change_a_bit(peer, draw.randrange(96), draw.randrange(8))),
        "arrive in parts": (1, lambda: machine.arrive_in_parts(peer, draw.randint(1, 95))),
        "speak at once": (1, lambda: machine.speak_at_once(peer, [draw.randint(0, 1) for _ in range(3)])),
        "say what is rare": (1, lambda: machine.say_what_is_rare(peer, draw.randint(0, 30))),
        "change": (1, lambda: machine.change(draw.randrange(ROWS), draw.randint(0, 3))),
        "need": (1, lambda: machine.need(draw.randrange(WORKERS))),
        "wait": (1, lambda: machine.wait(draw.choice([0.001, 0.2]))),
        "disturb": (1, lambda: machine.disturb(draw.randint(0, 40), peer)),
    }
    weights, happen = zip(*things.values(), strict=True)
    draw.choices(happen, weights)[0]()


_FEW = [0, 0, 0, 1, 1, 2, 2, -1, 50]


def lacks(draw):
    """Return how many batches of the node a ship does not hold."""
    return draw.choice([0, 0, 0, 1, -1])


def word(draw):
    """Return a number that a frame may hold where another one should be."""
    return draw.choice([0, 1, 2, 3, 5, 257, FINISHED, -1])


def test_much_is_common():
    """The games of this file are about what they should: half of what the core hears of is taken in compiled turns."""
    found = [play(seed, loop).compiled for seed in range(20)]
    assert sum(side.common for side in found) > sum(side.rare for side in found) > 100


def is_killed(made, games):
    """Return whether a game finds that these rules are not those of the core."""
    for seed in range(games):
        try:
            play(seed, made)
        except Exception:  # whatever a mutant does
            return True
    return False


def test_rules_in_plain_python_are_the_core_as_well():
    """They are what mutants are made of."""
    assert not is_killed(plain(), 20)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_mutant_dies():
    """Whatever is changed in the compiled rules, the games find it."""
    tried, alive = 0, []
    for text, made in mutants():
        tried += 1
        alive += [] if is_killed(made, 150) else [text]
    assert tried > 200
    assert alive == []
