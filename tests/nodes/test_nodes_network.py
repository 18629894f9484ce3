"""Two nodes with a proxy between them that misbehaves: nothing is lost, doubled or seen too late."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest

import nbps
from nbps.testing.chaos.cluster import eventually
from nbps.testing.chaos.nodes import NodeJob, NodeOutcome, ProbeCluster, ProbeRun
from nbps.testing.consistency.probe import Plan
from nbps.testing.transport.proxy import ChaosProxy
from nbps.transport.addresses import free_address
from support import planted_nodes, probing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
# Many rows, so that frames are long enough to be cut and changed in the middle.
PLAN = Plan(clocks=30, operations=3, sleep_s=0.015)


def spoil(proxy, draw):
    """Do one thing to the connection of the nodes, and wait a moment."""
    which = draw.choice(["up", "down"])
    match draw.choice(["delay", "cut", "cut", "cut at once", "flip", "stall", "refuse", "heal"]):
        case "delay":
            proxy.delay(0.01 * draw.random(), jitter_s=0.01 * draw.random())
        case "cut":
            proxy.cut(draw.randrange(1, 3000), which)
        case "cut at once":
            proxy.cut()
        case "flip":
            proxy.flip(1, within_bytes=2000, which=which)
        case "stall":  # half open: nobody is told anything
            proxy.stall(0.4 * draw.random(), which)
        case "refuse":
            proxy.refuse(0.2 * draw.random())
            proxy.cut()
        case "heal":
            proxy.heal()
    time.sleep(0.1 * draw.random())


def cut_late(proxy, draw):
    """Break the connection while what was received is not acknowledged yet."""
    proxy.delay(0.02)
    time.sleep(0.1 + 0.1 * draw.random())
    proxy.cut()


def run_spoiled(job: NodeJob, spoil: Callable[..., None], seed: int) -> tuple[NodeOutcome, int, int]:
    """Carry out a job on two nodes behind such a proxy; return what came of it, and how often it cut and flipped."""
    rendezvous, draw = free_address(), random.Random(seed)
    with (
        ChaosProxy(rendezvous, seed) as proxy,
        ProbeCluster([job], 2, rendezvous=rendezvous, seen_from={1: proxy.address}) as cluster,
    ):
        cluster.start()
        eventually(
            lambda: all(list((cluster.folder / "0-0").glob(f"{rank}.*")) for rank in range(sum(job.workers))), "a run"
        )
        while all(node.returncode is None for node in cluster.nodes):
            spoil(proxy, draw)
        proxy.heal()
        assert cluster.wait() == [0, 0]
        eventually(lambda: not cluster.left_behind(), "all to be gone", 10)
        return cluster.outcome(0), proxy.cuts, proxy.flips


def test_a_network_that_cuts_delays_stalls_and_flips_bits_breaks_no_promise():
    """P1 to P5 and exact ends over two runs, though connections break in the middle of frames, again and again."""
    runs = [ProbeRun(PLAN), ProbeRun(PLAN)]
    job = NodeJob(nbps.SSP(1), probing.node_tables(3, 60), [2, 1], runs, options={"failure_timeout_s": 20})
    outcome, cuts, flips = run_spoiled(job, spoil, seed=1)
    assert outcome.errors == [None, None]
    assert outcome.violations == []
    assert cuts > 5
    assert flips > 0


def test_what_a_new_connection_brings_again_must_not_be_taken_again():
    """With that fault planted the checks find it: they would notice."""
    plan = Plan(clocks=10, operations=3, sleep_s=0.015)
    job = NodeJob(
        nbps.ESSP(1), probing.node_tables(3, 60), [2, 1], [ProbeRun(plan)], preload=planted_nodes.plant_repetition,
        options={"failure_timeout_s": 10},
    )  # fmt: skip
    found: list[object] = []
    for seed in range(5):
        outcome, _, _ = run_spoiled(job, cut_late, seed)
        found += outcome.violations + [error for error in outcome.errors if error is not None]
        if found:
            break
    assert found
