"""Real jobs of random shape for as long as you like: ``python -m nbps.testing --minutes 10 --seed 7``.

Each job has a random consistency model, tables, number of workers and pace; workers are stopped from outside, and in
some jobs one is killed. With ``--nodes`` every job runs on several nodes (`nbps.testing.chaos.network`), with trouble
in the network between them too. Job n of seed s is the job of seed s + n: what a violation prints replays it, up to its
timing.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import nbps
from nbps.testing.chaos.network import random_job, run_troubled
from nbps.testing.chaos.workers import Disturbance, Outcome, run_disturbed
from nbps.testing.consistency.history import Add, Entry, Read, Violation
from nbps.testing.consistency.probe import UNITS, Plan, probe_tables

_SHOWN = 5  # violations of one job that are printed


def run_job(seed: int) -> tuple[str, Outcome]:
    """Run the job of `seed`; return what it was, and what became of it."""
    draw = random.Random(seed)
    workers = draw.randint(1, 6)
    dtype = draw.choice(["int64", "int64", "int32", "float64", "float32"])
    s = draw.choice([0, 1, 2, 5])
    model: Any = draw.choice(
        [nbps.BSP(), nbps.SSP(s), nbps.ESSP(s), nbps.ASP(), nbps.VAP(draw.choice([5, 50]) * UNITS[dtype][0])]
    )
    modes = ["cached"] if isinstance(model, nbps.BSP) else ["cached", "direct", "exclusive"]
    access = draw.sample(modes, draw.randint(1, len(modes)))
    if isinstance(model, nbps.VAP) and "cached" not in access:
        access.append("cached")  # it bounds nothing else
    kills = draw.random() < 0.2
    plan = Plan(
        clocks=100_000 if kills else draw.choice([10, 50, 200]),
        operations=draw.choice([1, 3]),
        seed=seed,
        sleep_s=draw.choice([0.0, 0.0005, 0.004]),
        no_wait=draw.choice([0.0, 0.3, 1.0]),
        fresher=draw.choice([0.0, 0.3]),
        barriers=draw.choice([0.0, 0.1]),
    )
    disturbance = Disturbance(
        pause_s=draw.choice([0.0, 0.005, 0.05]),
        gap_s=draw.choice([0.002, 0.02]),
        kill_after_s=draw.random() if kills else None,
        seed=seed,
    )
    tables = probe_tables(workers, draw.randint(1, 5), access, dtype, draw.choice([None, None, 0, 2]))
    outcome = run_disturbed(workers, model, tables, plan, disturbance)
    return f"{workers} workers, {model}, {dtype} {'+'.join(access)}, {plan}, {disturbance}", outcome


class _Done(NamedTuple):
    """What one job was, and what came of it."""

    what: str
    entries: Sequence[Entry]
    violations: Sequence[Violation]
    toll: Mapping[str, int]  # of what was done to it, by name


def _on_one_box(seed: int) -> _Done:
    what, outcome = run_job(seed)
    toll = {"pauses": outcome.pauses, "workers killed": int(outcome.killed is not None)}
    return _Done(what, outcome.history.entries, outcome.violations, toll)


def _on_nodes(seed: int) -> _Done:
    job, transport, trouble = random_job(seed)
    outcome, violations, toll = run_troubled(job, transport, trouble)
    return _Done(f"{transport}, {trouble}, {job}", outcome.entries, violations, toll)


def main(arguments: list[str] | None = None) -> int:
    """Run jobs until the time is over; return 1 if one broke a promise."""
    parser = argparse.ArgumentParser(prog="python -m nbps.testing", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="begin no new job after so long")
    parser.add_argument("--jobs", type=int, default=sys.maxsize, help="run no more than so many jobs")
    parser.add_argument("--seed", type=int, default=0, help="of the first job; the next ones count on")
    parser.add_argument("--nodes", action="store_true", help="jobs of several nodes, as processes of this machine")
    chosen = parser.parse_args(arguments)
    if chosen.jobs < 1 or not chosen.minutes > 0:
        parser.error(f"expected --jobs >= 1 and --minutes > 0, found {chosen.jobs} and {chosen.minutes}")
    started = time.monotonic()
    done = reads = adds = violations = 0
    toll: Counter[str] = Counter()
    while done < chosen.jobs and (done == 0 or time.monotonic() < started + 60 * chosen.minutes):
        seed = chosen.seed + done
        one = _on_nodes(seed) if chosen.nodes else _on_one_box(seed)
        done += 1
        reads += sum(isinstance(entry, Read) for entry in one.entries)
        adds += sum(isinstance(entry, Add) for entry in one.entries)
        toll.update(one.toll)
        violations += len(one.violations)
        if one.violations:
            print(f"seed {seed}: {len(one.violations)} violations in {one.what}")  # noqa: T201
            for found in one.violations[:_SHOWN]:
                print(f"    {found.property}: {found.message}")  # noqa: T201
            nodes = " --nodes" if chosen.nodes else ""
            print(f"  replay: python -m nbps.testing{nodes} --jobs 1 --seed {seed}", flush=True)  # noqa: T201
    seconds = time.monotonic() - started
    done_to_them = ", ".join(f"{count} {what}" for what, count in toll.items())
    print(  # noqa: T201
        f"{done} jobs in {seconds:.0f} s: {reads:,} reads, {adds:,} additions, {done_to_them}, {violations} violations"
    )
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
