"""What is run: sizes, conditions, models. Every number that was chosen stands here, with its reason."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np

import nbps
from papers.costs import Costs
from papers.records import Setting, Straggler

# The papers' regime for factorization: 8 workers that add up what each learnt from the same factors (BSP) must not
# overshoot. Computed exactly, in one process, on ml-1m at rank 32: at a tenth of the data a clock BSP diverges from a
# step of 0.02 on, at a twentieth from 0.04, at a fortieth from 0.06. One worker does best with 0.02 over 20 epochs,
# with 0.03 over 8.
STEP = 0.02
CLOCKS_PER_EPOCH = 40
STEPS = (0.02, 0.04, 0.06, 0.08)  # of the map of divergence
SINGLE = "single"
HEADLINE = 4.0  # the staleness whose cases are printed and drawn first: chosen before the first full run


@dataclass(frozen=True)
class Size:
    """Sizes of all runs of one application on one backend; the defaults are those of factorization on real processes.

    Attributes
    ----------
    rank : int
        Columns of the shared table, where that is open: factors, topics.
    epochs, clocks_per_epoch, snapshots : int
    step : float
        Step size of all but the map.
    target_epochs : float
        The target objective is what the single worker has reached after so many epochs: half of them, so that slower
        ones can reach it too.
    bounds : tuple of int
        Staleness of SSP and ESSP.
    steps, map_bounds : tuple
        Step sizes and staleness of the map of divergence, whose runs end at `target_epochs`.
    conditions, map_conditions : tuple of str
        Names of the conditions of all figures, and of the map.
    nodes : int
        Simulated machines, among which `workers` are dealt out; 1 for real runs.
    workers, own_cores : int
        Workers of the paced conditions; workers of the condition without any sleep.
    pace_s : float
        Paced workers sleep until a clock has lasted so long: each then computes as on a slower core of its own, and all
        at the same time. Without it two cores take eight workers in turn, and he who computes next already sees what
        the one before added: staleness would be hidden. Long beside the CPU time of a clock on ml-1m, 0.3 ms with its
        exchange, so that two real cores hold eight workers.
    vap_v0 : tuple of float
        Bounds of VAP. In one clock an element of ml-1m's items moves by 0.06 at most (computed exactly, BSP): 1 lets a
        worker have a clock in transit to the end of the run, 0.25 to clock 17 only; from then on it waits in each.
    hogwild : bool
        Whether Hogwild is run: where later additions make good those that it loses.
    """

    rank: int = 32
    epochs: int = 6
    clocks_per_epoch: int = CLOCKS_PER_EPOCH
    snapshots: int = 40
    step: float = STEP
    target_epochs: float = 3
    bounds: tuple[int, ...] = (0, 1, 2, 4, 8, 16)
    steps: tuple[float, ...] = STEPS
    map_bounds: tuple[int, ...] = (1, 4, 16)
    nodes: int = 1
    workers: int = 8
    own_cores: int = 2
    pace_s: float = 0.003
    conditions: tuple[str, ...] = ("cores", "even", "constant", "random")
    map_conditions: tuple[str, ...] = ("even", "random")
    vap_v0: tuple[float, ...] = (0.25, 1.0)
    hogwild: bool = True

    @property
    def clocks(self) -> int:
        """Clocks of a run."""
        return self.epochs * self.clocks_per_epoch

    @property
    def target_clock(self) -> int:
        """Clock of the target, at which the map's runs end as well."""
        return int(self.target_epochs * self.clocks_per_epoch)


FULL = Size()
SMOKE = Size(
    rank=8,
    epochs=2,
    clocks_per_epoch=5,
    snapshots=5,
    target_epochs=1,
    bounds=(0, 4),
    steps=(0.02,),
    map_bounds=(4,),
    workers=3,
    pace_s=0.001,
    conditions=("random",),
    map_conditions=("random",),
    vap_v0=(1.0,),
)

# LDA: a clock is a tenth of the documents, as in the papers. On kos with 50 topics that is 5,800 tokens and 0.5 ms of a
# core, to which the exchange of all counts adds 0.4: at 12 ms two cores hold eight workers. The likelihood rises fast
# for ten epochs, then slowly for hundreds: runs end before.
LDA = Size(
    rank=50,
    epochs=16,
    clocks_per_epoch=10,
    snapshots=32,
    target_epochs=8,
    bounds=(0, 1, 4, 16),
    steps=(),
    pace_s=0.012,
    conditions=("cores", "even", "random"),
    map_conditions=(),
    vap_v0=(),
    hogwild=False,
)
# Lasso: eight workers that each explain the same residual explain it eight times. Computed exactly, in one process, on
# 500 x 40,000: with whole steps and a fortieth of the columns a clock BSP first makes the objective worse, and lazy
# copies of s = 1 diverge; with half steps and an eightieth those of s = 4 come after BSP, those of s = 16 diverge. A
# clock takes 0.1 ms of a core with its exchange. Two workers without sleeps end after 20 ms, too soon to tell anything.
LASSO = Size(
    epochs=6,
    clocks_per_epoch=80,
    step=0.5,
    bounds=(0, 1, 4, 16),
    steps=(0.25, 0.5, 1.0),
    pace_s=0.002,
    conditions=("even", "random"),
    map_conditions=("random",),
    vap_v0=(),
    hogwild=False,
)
SMOKE_LDA = replace(SMOKE, rank=5, steps=(), map_conditions=(), vap_v0=(), hogwild=False)
SMOKE_LASSO = replace(SMOKE_LDA, step=0.5)

# The papers' clusters, in virtual time: 64 nodes of 8 workers, with ml-1m: its users are 12 for each of 512 workers
# (those of ml-100k less than 2), a clock 49 ratings of each. Rank 8: 512 copies of the items, kept twice, are 121 MB. A
# simulated clock takes 0.2 s, most of it for 8,000 frames, so runs are of two epochs, for which one worker does better
# with a step of 0.03; the target is what it has at three quarters.
CLUSTER = Size(
    rank=8,
    epochs=2,
    snapshots=20,
    step=0.03,
    target_epochs=1.5,
    bounds=(0, 2, 4, 8, 16),
    steps=(0.03, 0.045, 0.06),
    map_bounds=(4, 16),
    nodes=64,
    workers=512,
    conditions=("even", "constant", "random"),
    map_conditions=("random",),
    vap_v0=(),
)
# VAP makes every commit of every worker a round of all nodes with all nodes, two million frames a clock at 64 nodes:
# too costly to enforce, as Dai et al. thought. It is compared on 8 nodes of 2 workers.
SMALL_CLUSTER = replace(
    CLUSTER,
    bounds=(0, 4),
    steps=(),
    nodes=8,
    workers=16,
    conditions=("random",),
    map_conditions=(),
    vap_v0=FULL.vap_v0,
)
SMOKE_CLUSTER = replace(SMOKE, nodes=2, workers=4, vap_v0=())

# Of the real runs "even" on the project's two cores, for who runs the simulator alone.
COSTS = Costs(*(np.array([seconds]) for seconds in (0.00302, 0.00316, 0.0003, 0.0)), 0.00015, 0.00004)


@dataclass(frozen=True)
class Condition:
    """Where the models run against each other.

    Attributes
    ----------
    name, title : str
        For JSON and for people.
    workers : int
    pace_s : float
    straggler : Straggler
    """

    name: str
    title: str
    workers: int
    pace_s: float
    straggler: Straggler

    def setting(self, model: str, bound: float | None = None, step: float = STEP) -> Setting:
        """Return the setting of a model; the single worker does the work of all at the pace of one."""
        if model == SINGLE:
            pace = self.pace_s * self.workers
            return Setting(model, bound, 1, step, Straggler(), pace)
        return Setting(model, bound, self.workers, step, self.straggler, self.pace_s)


def conditions(size: Size) -> list[Condition]:
    """Return the conditions of all figures.

    Of the stragglers: ``constant`` halves the speed of one worker; ``random`` stops each worker for five clocks once in
    twenty, so that a third of BSP's clocks meet at least one of eight.
    """
    pace, workers = size.pace_s, size.workers
    paced = f"{workers} workers, {1e3 * pace:g} ms a clock"
    if size.nodes > 1:
        paced = f"{size.nodes} nodes x {workers // size.nodes} workers, {1e3 * pace:g} ms a clock"
    constant, random = Straggler("constant", pace), Straggler("random", 5 * pace, 0.05)
    known = {
        "cores": Condition("cores", f"{size.own_cores} workers, no sleeps", size.own_cores, 0.0, Straggler()),
        "even": Condition("even", f"{paced}, no straggler", workers, pace, Straggler()),
        "constant": Condition("constant", f"{paced}; {constant}", workers, pace, constant),
        "random": Condition("random", f"{paced}; {random}", workers, pace, random),
    }
    return [replace(known[name], name=_named(size, name)) for name in size.conditions]


def _named(size: Size, condition: str) -> str:
    """Return the name of a condition among those of all backends."""
    return condition if size.nodes == 1 else f"{size.nodes}x{size.workers // size.nodes} {condition}"


def models(size: Size) -> list[tuple[str, float | None]]:
    """Return the models compared: (name, bound). ESSP(0) would be SSP(0): both refresh at every clock."""
    found: list[tuple[str, float | None]] = [("BSP", None)]
    found += [("SSP", s) for s in size.bounds]
    found += [("ESSP", s) for s in size.bounds if s > 0]
    found.append(("ASP", None))
    if hasattr(nbps, "VAP"):
        found += [("VAP", v0) for v0 in size.vap_v0]
    if size.hogwild and size.nodes == 1:  # one table that all write into is not to be had on several machines
        found.append(("Hogwild", None))
    return [*found, (SINGLE, None)]


def grid(size: Size) -> dict[tuple[str, str], Setting]:
    """Return what runs: models by the names of condition and model."""
    settings = [(c.name, c.setting(model, bound, size.step)) for c in conditions(size) for model, bound in models(size)]
    found = {(name, setting.label): setting for name, setting in settings}
    # The single worker of all paced conditions is the same one: it runs once.
    twice = [c.name for c in conditions(size) if c.pace_s > 0][1:]
    return {(name, label): setting for (name, label), setting in found.items() if label != SINGLE or name not in twice}


def divergence(size: Size) -> dict[tuple[str, str, float], Setting]:
    """Return staleness x step size for SSP and ESSP."""
    found = {}
    for condition in conditions(size):
        if condition.name in [_named(size, name) for name in size.map_conditions]:
            for step, s, model in itertools.product(size.steps, size.map_bounds, ("SSP", "ESSP")):
                setting = condition.setting(model, s, step)
                found[condition.name, setting.label, step] = setting
    return found
