"""Simulated schedules keep every promise; the same seed gives the same run; bad input is refused."""

from __future__ import annotations

import dataclasses
import math
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

import nbps
from nbps.core.worker import ALL, Await, Group
from nbps.sim import Fault, Network, Scenario, Simulation, Speed, StuckError, random_scenario, simulate
from nbps.sim.memory import SimMemory
from nbps.sim.timeline import Timeline

SCHEDULES = int(os.environ.get("NBPS_SCHEDULES", "2000"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_random_schedules_keep_every_promise():
    """Delay, loss, repetition, reordering, cuts, partitions, pauses, crashes, restarts: no violation of P1 to P5."""
    seen: Counter[str] = Counter()
    for seed in range(SCHEDULES):
        scenario = random_scenario(seed)
        outcome = simulate(scenario)
        assert outcome.violations == (), f"nbps sim --schedules 1 --seed {seed}: {outcome.violations[0]}"
        seen.update([type(scenario.consistency).__name__], reads=outcome.reads, restarts=outcome.restarts)
    # The sample has everything in it that it speaks of.
    assert min(seen[name] for name in ("BSP", "SSP", "ESSP", "ASP", "VAP")) > 0
    assert seen["reads"] > 20 * SCHEDULES
    assert seen["restarts"] > 0


def test_a_job_that_is_told_to_end_is_saved_exactly():
    """At whatever clock it halts, under every model: what starts again from there holds every addition once."""
    restarts = 0
    for seed in range(200):
        scenario = random_scenario(seed)
        if scenario.nodes == 1:
            continue
        span_s = scenario.clocks * scenario.runs * scenario.speed.mean_s
        orders = [Fault("terminate", span_s * share, 0.0, seed % scenario.nodes) for share in (0.6, 0.7)]
        kept = [fault for fault in scenario.faults if not fault.kind.startswith("crash")]
        scenario = dataclasses.replace(scenario, faults=(*kept, *orders[: 1 + seed % 2]), restart=True)
        outcome = simulate(scenario, validate=True)
        assert outcome.violations == (), f"{scenario}: {outcome.violations[0]}"
        restarts += outcome.restarts
    assert restarts > 50


def test_invariants_hold_after_every_step():
    """With validate=True every object of the core is checked after every event."""
    for seed in range(100):
        assert simulate(random_scenario(seed), validate=True).violations == ()


def test_the_same_seed_gives_the_same_run_in_every_process():
    """The hash over all events does not depend on the process or on Python's hash seed; another seed gives another."""
    script = "from nbps.sim import *; print(*[simulate(random_scenario(s)).log for s in (5, 6)])"
    runs = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }  # fmt: skip
    here = [simulate(random_scenario(seed)).log for seed in (5, 6)]
    assert runs == {" ".join(here) + "\n"}
    assert here[0] != here[1]


def test_many_workers_on_many_nodes():
    """With a column per node every read is compared with what it must and may hold; the sums are exact."""
    scenario = Scenario(nodes=12, workers=10, clocks=12, consistency=nbps.ESSP(1), speed=Speed(kind="exponential"))
    outcome = simulate(scenario)
    assert outcome.violations == ()
    assert outcome.reads == outcome.adds == 12 * 10 * 12
    assert set(outcome.differentials) <= {0, -1}
    assert 0 < outcome.wait_share < 1


@pytest.mark.parametrize(("fault", "word"), [("install", "at least"), ("apply", "at most")])
def test_with_many_workers_wrong_reads_are_found(fault, word, monkeypatch):
    """Values that are not taken in are missed at least once; additions that are made twice are seen before the end."""
    original = SimMemory.apply
    broken = {"install": lambda *_: None, "apply": lambda *arguments: [original(*arguments) for _ in range(2)]}
    monkeypatch.setattr(SimMemory, fault, broken[fault])
    found = simulate(Scenario(nodes=12, workers=10, clocks=12, consistency=nbps.ESSP(1))).violations
    assert any(violation.property == "P1" and word in violation.message for violation in found)


def test_events_of_one_time_happen_in_the_order_of_their_making():
    """Also those that are made at that very time: they come after what was made for it before."""
    timeline, seen = Timeline(), []

    def happen(name):
        seen.append((timeline.now, name))
        if name == "b":
            timeline.schedule(1.0, 0, "e")
            timeline.schedule(0.5, 0, "f")
            timeline.schedule(0.5, 0, "g")

    timeline.handlers = (happen,)
    for at, name in ((1.0, "a"), (0.5, "b"), (0.5, "c"), (1.0, "d")):
        timeline.schedule(at, 0, name)
    while timeline.next_kind() is not None:
        assert timeline.step()
    assert not timeline.step()
    assert seen == [(0.5, "b"), (0.5, "c"), (0.5, "f"), (0.5, "g"), (1.0, "a"), (1.0, "d"), (1.0, "e")]


@pytest.mark.parametrize("model", [nbps.SSP(2), nbps.ESSP(2)], ids=str)
def test_without_trouble_the_reported_staleness_is_what_the_rows_show(model):
    """One addition a clock to one row: the lowest column minus the reader's clock is the reported differential."""
    shown: Counter[int] = Counter()

    def program(worker):
        column = np.eye(worker.size, dtype=np.int64)[worker.rank]
        for clock in range(20):
            row = yield from worker.get(0)
            if worker.size > 1:
                others = [int(n) for k, n in enumerate(row) if k != worker.rank]
                shown[min(0, min(others) - clock)] += 1
            worker.inc(0, column)
            yield from worker.compute(0.01 * (1 + worker.random.random()))
            yield from worker.clock()

    scenario = Scenario(nodes=1, workers=4, clocks=20, consistency=model, cached=True, rows=1)
    simulation = Simulation(scenario, program, np.zeros((1, 4), np.int64))
    simulation.run()
    reported: Counter[int] = Counter()
    for worker in simulation.workers:
        reported.update(worker.differentials)
    assert reported == shown
    assert len(reported) > 1


def test_eager_reads_are_fresher_than_lazy_ones():
    """On the same cluster and seed ESSP's mean staleness is at most SSP's, under the same bound (Dai et al.)."""
    for seed in range(3):
        cluster = Scenario(
            nodes=4, workers=2, clocks=30, seed=seed, rows=2, speed=Speed(kind="exponential"), cached=seed == 2
        )
        eager, lazy = (simulate(dataclasses.replace(cluster, consistency=m(4))) for m in (nbps.ESSP, nbps.SSP))
        assert eager.mean_differential > lazy.mean_differential
        assert min(*eager.differentials, *lazy.differentials) >= -4


def float_program(worker):
    """Additions of floats that depend on what was read."""
    generator = np.random.default_rng(worker.rank)
    for _ in range(6):
        for row in range(3):
            seen = yield from worker.get(row)
            step = 0.1 * generator.standard_normal(seen.size) - 0.3 * seen
            worker.inc(row, step)
        yield from worker.compute(worker.random.random() * 0.02)
        yield from worker.clock()


def test_strict_bsp_gives_the_same_bits_whatever_the_timing():
    """Over three nodes with other speeds, delays, losses and interruptions the rows end with the same bits."""
    ends = set()
    for seed in range(8):
        scenario = Scenario(
            nodes=3, workers=2, clocks=6, consistency=nbps.BSP(), seed=seed, rows=1, cached=True, preemption=0.2,
            network=Network(jitter_s=0.01, spread=5.0, loss=0.1, reordering=0.2),
        )  # fmt: skip
        simulation = Simulation(scenario, float_program, np.ones((3, 5)))
        simulation.run()
        ends.add(simulation.final().tobytes())
    assert len(ends) == 1


def test_asynchronous_runs_do_not_give_the_same_bits():
    """The same program without strict BSP ends differently, so the test above can fail."""
    ends = set()
    for seed in range(4):
        scenario = Scenario(nodes=3, workers=2, clocks=6, consistency=nbps.ASP(), seed=seed, rows=1, cached=True)
        simulation = Simulation(scenario, float_program, np.ones((3, 5)))
        simulation.run()
        ends.add(simulation.final().tobytes())
    assert len(ends) > 1


def test_a_crash_without_restart_ends_the_job_with_its_reason():
    """The node that is gone is named after the failure timeout; with a restart the job goes on from a checkpoint."""
    crash = Fault("crash_node", 0.055, 0.0, 1)
    scenario = Scenario(nodes=3, workers=2, clocks=12, faults=(crash,), checkpoint_every=2, failure_timeout_s=2.0)
    outcome = simulate(scenario)
    assert outcome.violations == ()
    assert outcome.ended == "node 1 crashed"
    again = simulate(dataclasses.replace(scenario, restart=True))
    assert again.violations == ()
    assert (again.ended, again.restarts) == (None, 1)


@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize("model", [nbps.BSP(), nbps.ESSP(0), nbps.ASP()], ids=str)
def test_who_is_at_its_end_holds_nobody_up_in_a_barrier(model, wait):
    """Worker 1 has less to do; its last commit waits for worker 0 (BSP: for its turn), which waits in a barrier."""

    def program(worker):
        for unit in range(3 - worker.rank):
            if unit:
                yield from worker.barrier()
            worker.inc(0, np.ones(1, np.int64))
            yield from worker.clock(wait)

    scenario = Scenario(nodes=1, workers=2, consistency=model, cached=True, rows=1)
    simulation = Simulation(scenario, program, np.zeros((1, 1), np.int64))
    simulation.run()
    assert simulation.final().item() == 5


def test_workers_that_wait_for_nobody_are_reported_as_stuck():
    """A program that leaves a barrier out is named with its clock."""

    def program(worker):
        yield from worker.clock()
        if worker.rank == 0:
            yield from worker.barrier()
        else:
            yield Await(Group.COMMITTED, 0, ALL, 99, "a clock that never comes")

    simulation = Simulation(Scenario(workers=2, consistency=nbps.ASP()), program, np.zeros((2, 1)))
    with pytest.raises(StuckError, match="worker 0 at clock 1"):
        simulation.run()


@pytest.mark.parametrize(("nodes", "workers"), [(1, 4), (2, 1), (2, 2), (3, 2)])
def test_a_value_bound_holds_nobody_up_whose_readers_wait_in_a_barrier(nodes, workers):
    """VAP: only worker 0 commits; a ship that moves no clock wakes the others, which take it in and say so."""

    def program(worker):
        for _ in range(2 if worker.rank == 0 else 0):
            worker.inc(0, np.ones(1))
            yield from worker.clock()
        yield from worker.barrier()

    scenario = Scenario(nodes=nodes, workers=workers, consistency=nbps.VAP(1.0), cached=True, rows=1)
    simulation = Simulation(scenario, program, np.zeros((nodes, 1)))
    simulation.run()
    assert simulation.final()[0] == 2
    assert simulation.now < 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"nodes": 0}, "nodes is 0"),
        ({"clocks": 1.5}, "clocks is 1.5"),
        ({"window": 1}, "window is 1"),
        ({"consistency": nbps.BSP()}, "BSP needs private copies"),
        ({"consistency": "ssp"}, "consistency is 'ssp'"),
        ({"sparse": True, "cached": True}, "sparse rows are read live"),
        ({"preemption": 2}, "preemption is 2"),
        ({"faults": (Fault("cut", 0, 1, 5),)}, "cut: who is 5"),
    ],
)
def test_bad_scenarios_are_refused(arguments, message):
    """What, expected and found are named before anything runs."""
    with pytest.raises(nbps.errors.ConfigError, match=message):
        Scenario(**arguments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Speed(kind="fast"), "kind is 'fast'"),
        (lambda: Speed(mean_s=math.nan), "mean_s is nan"),
        (lambda: Network(loss=0.95), "loss is 0.95"),
        (lambda: Network(bandwidth=0), "bandwidth is 0"),
        (lambda: Fault("fire", 0, 1, 0), "kind is 'fire'"),
        (lambda: Fault("cut", -1, 1, 0), "at_s is -1"),
    ],
)
def test_bad_parts_of_scenarios_are_refused(make, message):
    """Speeds, networks and faults check themselves."""
    with pytest.raises(nbps.errors.ConfigError, match=message):
        make()
