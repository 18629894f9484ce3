"""What is simulated: the cluster, its workers' speeds, its network, and what goes wrong."""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass, field

from nbps.checks import FINITE, real, whole
from nbps.consistency import ASP, BSP, ESSP, SSP, VAP, Consistency, check_consistency, terms_of
from nbps.core.settings import Settings
from nbps.core.terms import Terms
from nbps.errors import ConfigError

_MOST_WORKERS = 1_000_000
_MOST_RUNS = 999
_MOST_ELEMENTS = 50_000_000  # every node has a copy of every row: a few gigabytes
SPEEDS = ("constant", "exponential", "uniform")


def _at_least_zero(owner: object, *names: str) -> None:
    for name in names:
        real(f"{type(owner).__name__}: {name}", getattr(owner, name), "a finite number >= 0", FINITE)


def _probability(owner: object, *names: str) -> None:
    for name in names:
        real(f"{type(owner).__name__}: {name}", getattr(owner, name), "a probability, 0 to 1", 1)


@dataclass(frozen=True)
class Speed:
    """How long a worker computes in a clock.

    Parameters
    ----------
    mean_s : float
        Mean of the distribution, in virtual seconds.
    kind : {"constant", "exponential", "uniform"}
        ``uniform`` is from half the mean to one and a half.
    straggler_probability, straggler_factor : float
        In each clock a worker is slower by the factor with this probability (random stragglers).
    slow_worker, slow_factor : int, float
        One worker that is always slower by a factor; -1 for none.
    slow_every : int
        That worker is slow only in every n-th clock (periodic straggler).
    """

    mean_s: float = 0.01
    kind: str = "constant"
    straggler_probability: float = 0.0
    straggler_factor: float = 10.0
    slow_worker: int = -1
    slow_factor: float = 1.0
    slow_every: int = 1

    def __post_init__(self) -> None:
        if self.kind not in SPEEDS:
            raise ConfigError(f"Speed: kind is {self.kind!r}; expected one of {', '.join(SPEEDS)}")
        _at_least_zero(self, "mean_s", "straggler_factor", "slow_factor")
        _probability(self, "straggler_probability")
        whole("Speed: slow_every", self.slow_every, 1)

    def draw(self, worker: int, clock: int, generator: random.Random) -> float:
        """Return how long `worker` computes in `clock`."""
        seconds = self.mean_s
        if self.kind == "exponential":
            seconds = generator.expovariate(1.0) * seconds
        elif self.kind == "uniform":
            seconds *= 0.5 + generator.random()
        if self.straggler_probability and generator.random() < self.straggler_probability:
            seconds *= self.straggler_factor
        if worker == self.slow_worker and clock % self.slow_every == 0:
            seconds *= self.slow_factor
        return seconds


@dataclass(frozen=True)
class Network:
    """How frames travel between nodes.

    Parameters
    ----------
    latency_s, jitter_s : float
        A frame takes latency + an exponential draw of mean jitter + its bytes over the bandwidth.
    spread : float
        Connections differ: each has a latency of its own, up to ``1 + spread`` times as long.
    bandwidth : float
        Bytes per second that a node can send.
    loss, duplication, reordering : float
        Probability that a frame is lost, arrives twice, or may overtake others on its connection. Frames on different
        connections overtake each other anyway.
    """

    latency_s: float = 50e-6
    jitter_s: float = 0.0
    spread: float = 0.0
    bandwidth: float = 1.25e9
    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0

    @property
    def longest_s(self) -> float:
        """A time that hardly any frame is under way for, queues left out."""
        return self.latency_s * (1 + self.spread) + 20 * self.jitter_s

    def __post_init__(self) -> None:
        _at_least_zero(self, "latency_s", "jitter_s", "spread")
        _probability(self, "loss", "duplication", "reordering")
        if not self.bandwidth > 0:
            raise ConfigError(f"Network: bandwidth is {self.bandwidth!r}; expected bytes per second > 0")
        if self.loss >= 0.9:
            raise ConfigError(f"Network: loss is {self.loss!r}; expected less than 0.9, or nothing ever arrives")


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong at a time.

    Parameters
    ----------
    kind : {"pause_worker", "pause_node", "cut", "partition", "crash_worker", "crash_node", "terminate"}
        ``cut`` breaks the connection of two nodes, which both notice; in a ``partition`` frames vanish silently;
        ``terminate`` has the job saved, and ended, as SIGTERM of a node does.
    at_s, for_s : float
        When, and for how long (not for crashes).
    who : int
        Worker (counted over all nodes) or node.
    other : int
        The other node of a cut or partition.
    """

    kind: str
    at_s: float
    for_s: float
    who: int
    other: int = 0

    def __post_init__(self) -> None:
        if self.kind not in FAULTS:
            raise ConfigError(f"Fault: kind is {self.kind!r}; expected one of {', '.join(FAULTS)}")
        _at_least_zero(self, "at_s", "for_s")


FAULTS = ("pause_worker", "pause_node", "cut", "partition", "crash_worker", "crash_node", "terminate")


@dataclass(frozen=True)
class Scenario:
    """One simulated run, and nothing else decides what happens in it.

    Parameters
    ----------
    nodes, workers : int
        Machines, and workers on each.
    clocks : int
        Units of work of each worker.
    consistency : BSP, SSP, ESSP, ASP or VAP
    seed : int
    rows : int
        Rows owned by each node.
    cached : bool
        Workers have private copies (access mode ``cached``), else they use the live rows of their node (``direct``).
    sparse : bool
        A node keeps fresh only rows that its workers have read, and evicts some now and then; live rows only.
    wait : bool
        ``clock(wait=)``.
    preemption : float
        Probability that others may go on between two steps of one operation on memory or board.
    barrier_every, checkpoint_every : int
        In clocks; 0 for never.
    runs : int
        How often all workers run the program, one after the other.
    disk_s : float
        Writing the rows of a checkpoint takes up to so long.
    restart : bool
        Start again from the last checkpoint when the job has ended because of a crash.
    window, window_bytes, retry_s, heartbeat_s, failure_timeout_s
        See `nbps.core.settings.Settings`.
    """

    nodes: int = 1
    workers: int = 2
    clocks: int = 10
    consistency: Consistency = field(default_factory=ESSP)
    seed: int = 0
    rows: int = 2
    cached: bool = False
    sparse: bool = False
    wait: bool = True
    preemption: float = 0.0
    barrier_every: int = 0
    checkpoint_every: int = 0
    runs: int = 1
    disk_s: float = 0.0
    restart: bool = False
    speed: Speed = Speed()
    network: Network = Network()
    faults: tuple[Fault, ...] = ()
    window: int = 64
    window_bytes: int = 128 << 20
    retry_s: float = 0.05
    heartbeat_s: float = 0.2
    failure_timeout_s: float = 30.0

    def __post_init__(self) -> None:
        for name in ("nodes", "workers", "clocks", "rows"):
            whole(f"Scenario: {name}", getattr(self, name), 1)
        for name in ("barrier_every", "checkpoint_every", "seed"):
            whole(f"Scenario: {name}", getattr(self, name), 0)
        whole("Scenario: runs", self.runs, 1, _MOST_RUNS)
        _at_least_zero(self, "disk_s")
        whole("Scenario: window", self.window, 2)
        whole("Scenario: window_bytes", self.window_bytes, 1)
        check_consistency(self.consistency, "Scenario")
        _probability(self, "preemption")
        if self.size > _MOST_WORKERS or self.nodes * self.rows * min(self.size, self.nodes) > _MOST_ELEMENTS:
            raise ConfigError(
                f"Scenario: {self.nodes} nodes with {self.workers} workers and {self.rows} rows each; expected at most "
                f"{_MOST_WORKERS:,} workers, and {_MOST_ELEMENTS:,} rows times nodes"
            )
        for fault in self.faults:
            if fault.kind in ("cut", "partition") and fault.who == fault.other:
                raise ConfigError(f"Scenario: {fault.kind} of node {fault.who} from itself; expected another node")
            if fault.kind in ("pause_node", "terminate") and self.nodes == 1:
                raise ConfigError(f"Scenario: {fault.kind} is for a node's agent, which a single machine has none of")
            limit = self.size if fault.kind.endswith("worker") else self.nodes
            whole(f"Scenario: {fault.kind}: who", fault.who, 0, limit - 1)
            whole(f"Scenario: {fault.kind}: other", fault.other, 0, self.nodes - 1)
        if self.sparse and self.cached:
            raise ConfigError("Scenario: sparse rows are read live; expected cached=False with sparse=True")
        if isinstance(self.consistency, BSP) and not self.cached:
            raise ConfigError("Scenario: BSP needs private copies: live rows show the running clock; set cached=True")

    @property
    def may_end(self) -> int:
        """How often the job may end before its workers do: crashes, and silence beyond `failure_timeout_s`."""
        limit_s = self.failure_timeout_s - self.heartbeat_s - self.network.longest_s
        ends = [
            f.kind.startswith(("crash", "terminate")) or (f.kind != "pause_worker" and f.for_s >= limit_s)
            for f in self.faults
        ]
        return sum(ends) + (limit_s <= 0)

    @property
    def patience_s(self) -> float:
        """So long after workers did something last nothing will happen any more."""
        longest_s = max((fault.for_s for fault in self.faults), default=0.0)
        return self.failure_timeout_s + longest_s + 30 + 100 * self.network.longest_s

    @property
    def size(self) -> int:
        """Workers on all nodes."""
        return self.nodes * self.workers

    @property
    def terms(self) -> Terms:
        """What the core must know of the consistency model."""
        return terms_of(self.consistency, self.checkpoint_every)

    def settings(self, rank: int, run: int, clock: int) -> Settings:
        """Return what node `rank` must know for run number `run`, which starts at `clock`."""
        return Settings(
            rank=rank,
            nodes=self.nodes,
            terms=self.terms,
            readers=self.workers if self.cached else 0,
            run=run,
            clock=clock,
            window=self.window,
            window_bytes=self.window_bytes,
            retry_s=self.retry_s,
            ack_s=self.retry_s / 4,
            heartbeat_s=self.heartbeat_s,
            failure_timeout_s=self.failure_timeout_s,
        )

    @property
    def tick_s(self) -> float:
        """How often a node hears that time has passed."""
        return min(self.retry_s, self.heartbeat_s) / 4


def random_scenario(seed: int) -> Scenario:
    """Draw a small scenario in which much goes wrong; the same seed gives the same one."""
    draw = random.Random(seed)
    cached = draw.random() < 0.5
    staleness = draw.choice([0, 0, 1, 1, 2, 3])
    models: list[Consistency] = [SSP(staleness), SSP(staleness), ESSP(staleness), ESSP(staleness), ASP()]
    models += [VAP(draw.choice([1.0, 2.0, 6.0]))] * 2
    models += [BSP()] if cached else []
    nodes, workers, clocks = draw.choice([1, 2, 2, 3, 3, 4]), draw.choice([1, 2, 3]), draw.randint(3, 8)
    if nodes == 1:
        workers += 1
    scenario = Scenario(
        nodes=nodes,
        workers=workers,
        clocks=clocks,
        consistency=draw.choice(models),
        seed=seed,
        rows=draw.choice([1, 1, 2]),
        cached=cached,
        sparse=not cached and draw.random() < 0.4,
        wait=draw.random() < 0.7,
        preemption=draw.choice([0.0, 0.1, 0.3, 0.3]),
        barrier_every=draw.choice([0, 0, 3]),
        checkpoint_every=draw.choice([0, 0, 2, 3]),
        speed=Speed(
            kind=draw.choice(SPEEDS),
            straggler_probability=draw.choice([0.0, 0.1]),
            slow_worker=draw.choice([-1, 0]),
            slow_factor=draw.choice([3.0, 10.0]),
            slow_every=draw.choice([1, 3]),
        ),
        network=Network(
            latency_s=draw.choice([50e-6, 50e-6, 2e-3, 20e-3]),
            jitter_s=draw.choice([0.0, 5e-3]),
            spread=draw.choice([0.0, 20.0]),
            loss=draw.choice([0.0, 0.0, 0.05, 0.2]),
            duplication=draw.choice([0.0, 0.1]),
            reordering=draw.choice([0.0, 0.0, 0.2]),
        ),
        window=draw.choice([2, 4, 64]),
        failure_timeout_s=3.0,
    )
    faults, restart = _random_faults(scenario, draw)
    order = random.Random(f"terminate/{seed}")
    if scenario.nodes > 1 and order.random() < 0.1:
        at_s = order.random() * scenario.clocks * scenario.speed.mean_s
        faults += (Fault("terminate", at_s, 0.0, order.randrange(scenario.nodes)),)
        restart = True
    window_bytes = draw.choice([1, 40, 128 << 20])
    runs = 1 if draw.random() < 0.7 else draw.choice([2, 3])
    return dataclasses.replace(
        scenario,
        faults=faults,
        restart=restart,
        window_bytes=window_bytes,
        runs=runs,
        clocks=-(-scenario.clocks // runs),
        disk_s=draw.choice([0.0, 0.01, 0.3]),
    )


def _random_faults(scenario: Scenario, draw: random.Random) -> tuple[tuple[Fault, ...], bool]:
    kinds = ["pause_worker", "pause_worker"]
    if scenario.nodes > 1:
        kinds += ["pause_node", "cut", "cut", "partition"]
    crashes = ["crash_worker"] + (["crash_node"] if scenario.nodes > 1 else [])
    faults = []
    span = scenario.clocks * scenario.speed.mean_s * 2
    for _ in range(draw.choice([0, 0, 1, 2, 3])):
        kind = draw.choice(kinds)
        who = draw.randrange(scenario.size if kind == "pause_worker" else scenario.nodes)
        other = (who + 1 + draw.randrange(max(1, scenario.nodes - 1))) % scenario.nodes
        faults.append(Fault(kind, draw.random() * span, draw.choice([0.005, 0.05, 0.5]), who, other))
    restart = draw.random() < (0.4 if scenario.checkpoint_every else 0.1)
    if restart or draw.random() < 0.04:
        kind = draw.choice(crashes)
        who = draw.randrange(scenario.size if kind == "crash_worker" else scenario.nodes)
        faults.append(Fault(kind, draw.random() * span, 0.0, who))
    return tuple(faults), restart
