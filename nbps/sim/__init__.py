"""The protocol in virtual time: many machines in one process, seeded, with everything that can go wrong.

The objects that decide are those of `nbps.core`, the same that run for real; memory, network and time are simulated.

>>> from nbps import SSP, sim
>>> outcome = sim.simulate(sim.Scenario(nodes=3, workers=2, clocks=5, consistency=SSP(1), seed=7))
>>> outcome.violations, outcome.adds > 0
((), True)
"""

from nbps.sim.node import SimNode
from nbps.sim.outcome import Outcome, simulate
from nbps.sim.scenario import Fault, Network, Scenario, Speed, random_scenario
from nbps.sim.simulation import Simulation, StuckError
from nbps.sim.worker import SimWorker

__all__ = [
    "Fault",
    "Network",
    "Outcome",
    "Scenario",
    "SimNode",
    "SimWorker",
    "Simulation",
    "Speed",
    "StuckError",
    "random_scenario",
    "simulate",
]
