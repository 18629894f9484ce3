"""Jobs of random shape on several nodes, in every kind of trouble: ``python -m nbps.testing --nodes``.

Nodes are processes of this machine. Workers and agents are stopped for a while, the network between two nodes is cut,
delayed, held up and changed, or somebody is killed: a worker, an agent, a driver, a whole node. Then all other nodes
must end and name it; else every promise to the worker must have been kept, and all nodes end with the same rows.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import nbps
from nbps.testing.chaos.cluster import eventually
from nbps.testing.chaos.nodes import NodeJob, NodeOutcome, ProbeCluster, ProbeRun
from nbps.testing.consistency.history import Violation
from nbps.testing.consistency.probe import UNITS, Plan, probe_tables
from nbps.testing.transport.proxy import ChaosProxy
from nbps.transport.addresses import free_address

_FAILURE_S = 5.0  # who is silent for so long is lost; nobody is paused for half of it
_START_S = 20.0
_LIMIT_S = 120.0  # for all nodes to end: long, since a time limit is no promise
_TIDY_S = 10.0
_VICTIMS = ("worker", "agent", "driver", "node")


@dataclass(frozen=True)
class Trouble:
    """What is done to the nodes of a job.

    Attributes
    ----------
    seed : int
    gap_s : float
        Longest time between two things that are done.
    pause_s : float
        Longest pause of a worker or agent; 0 for none.
    network : bool
        Whether the last node's way to node 0 is spoiled.
    victim : {"worker", "agent", "driver", "node"}, optional
        Who of node `victim_node` is killed.
    victim_node : int
    kill_after_s : float
        So long after the first run began; or after the nodes were started, with `kill_early`.
    kill_early : bool
    """

    seed: int
    gap_s: float = 0.05
    pause_s: float = 0.0
    network: bool = False
    victim: str | None = None
    victim_node: int = 0
    kill_after_s: float = 0.0
    kill_early: bool = False


def random_job(seed: int) -> tuple[NodeJob, str, Trouble]:
    """Return a job, its transport, and what is to be done to it."""
    draw = random.Random(seed)
    workers = [draw.randint(1, 2) for _ in range(draw.choice([2, 2, 3]))]
    dtype = draw.choice(["int64", "int64", "int32", "float64", "float32"])
    s = draw.choice([0, 1, 2, 5])
    v0 = draw.choice([5, 50]) * UNITS[dtype][0]
    model: Any = draw.choice([nbps.BSP(), nbps.SSP(s), nbps.ESSP(s), nbps.ASP(), nbps.VAP(v0)])
    victim = draw.choice(_VICTIMS) if draw.random() < 0.4 else None
    transport = draw.choice(["tcp", "tcp", "shm"])
    trouble = Trouble(
        seed=seed,
        gap_s=draw.choice([0.02, 0.1]),
        pause_s=draw.choice([0.0, 0.02, 0.3]),
        network=transport == "tcp" and victim is None and draw.random() < 0.6,
        victim=victim,
        victim_node=draw.randrange(len(workers)),
        kill_after_s=2 * draw.random(),
        kill_early=draw.random() < 0.2,
    )
    runs = [
        ProbeRun(
            Plan(
                clocks=100_000 if victim is not None else draw.choice([10, 40, 100]),
                operations=draw.choice([1, 3]),
                seed=seed + n,
                sleep_s=draw.choice([0.0, 0.002, 0.01]),
                no_wait=draw.choice([0.0, 0.3, 1.0]),
                fresher=draw.choice([0.0, 0.3]),
                barriers=draw.choice([0.0, 0.1]),
            )
        )
        for n in range(1 if victim is not None else draw.randint(1, 4))
    ]
    options = {
        "failure_timeout_s": _FAILURE_S if not trouble.network else 2 * _LIMIT_S,
        "start_timeout_s": _START_S if trouble.kill_early else _LIMIT_S,
    }
    if draw.random() < 0.2:
        options["bandwidth_budget"] = 10.0 ** draw.uniform(4, 7)
    tables = _tables(draw, model, sum(workers), dtype)
    return NodeJob(model, tables, workers, runs, options=options), transport, trouble


def _tables(draw: random.Random, model: Any, workers: int, dtype: str) -> list[nbps.Table]:
    live = not isinstance(model, nbps.VAP)
    modes = ["cached", *["exclusive"] * live, *["direct"] * (live and not isinstance(model, nbps.BSP))]
    tables = []
    for mode in draw.sample(modes, draw.randint(1, len(modes))):
        rows = draw.choice([1, 5, 300])
        (table,) = probe_tables(workers, rows, [mode], dtype, draw.choice([None, None, 0, 2]))
        sharding: Any = draw.choice(["block", "hash"])
        replicate: Any = draw.choice(["clock", "read"]) if mode == "direct" else "clock"
        tables.append(dataclasses.replace(table, sharding=sharding, replicate=replicate))
    return tables


def run_troubled(job: NodeJob, transport: str, trouble: Trouble) -> tuple[NodeOutcome, list[Violation], Counter[str]]:
    """Carry out a job in trouble; return what came of it, every promise that was broken, and how often what was done.

    Besides those of `NodeOutcome`: that nodes end well, or name who was killed (``P7``), and that nothing is left.
    """
    toll = Counter({"pauses": 0, "cuts": 0, "flipped bits": 0, "kills": 0})
    arguments: dict[str, Any] = {"transport": transport}
    with contextlib.ExitStack() as stack:
        proxy = None
        if trouble.network:
            rendezvous = free_address()
            proxy = stack.enter_context(ChaosProxy(rendezvous, trouble.seed))
            arguments |= {"rendezvous": rendezvous, "seen_from": {len(job.workers) - 1: proxy.address}}
        cluster = stack.enter_context(ProbeCluster([job], len(job.workers), **arguments))
        cluster.start()
        found = _Troubler(cluster, proxy, trouble, toll).run()
        outcome = cluster.outcome(0)
        if not found and toll["kills"]:
            found = _misnamed(outcome, trouble)
        elif not found:
            found = [_raised(error) for error in outcome.errors if error]
            found += [Violation("P7", node.story(), None) for node in cluster.nodes if node.returncode and not found]
        return outcome, outcome.violations + found, toll


class _Troubler:
    """Makes trouble for the nodes of a cluster until they have ended."""

    def __init__(self, cluster: ProbeCluster, proxy: ChaosProxy | None, trouble: Trouble, toll: Counter[str]) -> None:
        self._cluster = cluster
        self._proxy = proxy
        self._trouble = trouble
        self._toll = toll
        self._random = random.Random(trouble.seed)
        self._pids: list[tuple[int, int]] = []  # nodes and their workers and agents

    def run(self) -> list[Violation]:
        """Make trouble; return that nodes did not end, or left something."""
        trouble, began = self._trouble, time.monotonic()
        if not trouble.kill_early or trouble.victim is None:
            self._wait_for_journals()
            began = time.monotonic()
        limit = began + _LIMIT_S
        while self._runs() and time.monotonic() < limit:
            time.sleep(self._random.random() * trouble.gap_s)
            if trouble.victim is not None and time.monotonic() > began + trouble.kill_after_s:
                self._kill(trouble.victim)
                if self._toll["kills"]:
                    break
            else:
                self._random.choice([self._pause, self._spoil])()
        if self._proxy is not None:
            self._toll["cuts"], self._toll["flipped bits"] = self._proxy.cuts, self._proxy.flips
            self._proxy.heal()
        return self._end()

    def _runs(self) -> bool:
        return any(node.returncode is None for node in self._cluster.nodes)

    def _wait_for_journals(self) -> None:
        folder, workers = self._cluster.folder / "0-0", sum(self._cluster.jobs[0].workers)
        with contextlib.suppress(TimeoutError):  # told later
            eventually(lambda: len(list(folder.iterdir())) == workers or not self._runs(), "all to run")
        for rank, node in enumerate(self._cluster.nodes):
            self._pids += [(rank, process.pid) for process in node.processes() if process.role in ("worker", "agent")]

    def _kill(self, victim: str) -> None:
        node = self._cluster.nodes[self._trouble.victim_node]
        if victim == "node":
            node.kill()
            self._toll["kills"] = 1
        elif pids := node.pids(victim):
            self._toll["kills"] = int(node.send_to(self._random.choice(pids), signal.SIGKILL))

    def _pause(self) -> None:
        if self._trouble.pause_s and self._pids:
            rank, pid = self._random.choice(self._pids)
            node = self._cluster.nodes[rank]
            if node.send_to(pid, signal.SIGSTOP):
                self._toll["pauses"] += 1
                time.sleep(self._random.random() * self._trouble.pause_s)
                node.send_to(pid, signal.SIGCONT)

    def _spoil(self) -> None:
        proxy, draw = self._proxy, self._random
        if proxy is None:
            return
        which: Any = draw.choice(["up", "down"])
        steps: list[Callable[[], object]] = [
            lambda: proxy.delay(0.02 * draw.random(), 0.02 * draw.random()),
            lambda: proxy.cut(draw.randrange(1, 4000), which),
            lambda: proxy.cut(draw.randrange(1, 4000), which),
            proxy.cut,
            lambda: proxy.flip(1, 4000, which),
            lambda: proxy.stall(0.5 * draw.random(), which),
            lambda: proxy.refuse(0.3 * draw.random()),
            lambda: proxy.rate(10.0 ** draw.uniform(4, 7), which),
            proxy.heal,
        ]
        draw.choice(steps)()

    def _end(self) -> list[Violation]:
        cluster = self._cluster
        try:
            for node in cluster.nodes:
                node.wait(_LIMIT_S)
        except TimeoutError as error:
            return [Violation("P7", f"the job does not end: {error}", None)]
        with contextlib.suppress(TimeoutError):
            eventually(lambda: not self._left(), "all to be gone", _TIDY_S)
        return [Violation("left", what, None) for what in self._left()]

    def _left(self) -> list[str]:
        left = self._cluster.left_behind()
        if self._toll["kills"] and self._trouble.victim == "node":  # nobody is there who could remove its segments
            left = [what for what in left if not what.startswith(f"node {self._trouble.victim_node}: segment ")]
        return left


def _raised(error: Exception) -> Violation:
    return Violation("P7", f"nobody was killed, and the job ended with {type(error).__name__}: {error}", None)


def _misnamed(outcome: NodeOutcome, trouble: Trouble) -> list[Violation]:
    """Return who did not name the node that somebody was killed on."""
    found = []
    for rank, error in enumerate(outcome.errors):
        own = rank == trouble.victim_node
        gone = own and trouble.victim in ("driver", "node")
        if not gone and (error is None or (not own and f"node {trouble.victim_node}" not in str(error))):
            text = f"{trouble.victim} of node {trouble.victim_node} was killed; expected node {rank} to say so"
            found.append(Violation("P7", f"{text}, found {type(error).__name__}: {error}", None))
    return found
