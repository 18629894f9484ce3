"""Whole jobs on several nodes of this machine: empty clocks, bytes by rows that changed, matrix factorization.

Each measurement starts the nodes anew, as processes that run ``node_programs.py``.
"""

from __future__ import annotations

import json
import secrets
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from measure import Line, Options, in_turn

from nbps.testing.chaos.cluster import Cluster

PROGRAMS = Path(__file__).with_name("node_programs.py")
_CLOCK_US = {2: 60.0, 4: 200.0}  # by nodes, over TCP
_SAME_BYTES = 1.05  # of as many changed rows in a table ten times the size
_MF_SHARE = 0.7  # of the ratings per second of one node
_RMSE_APART = 0.002
_LIMIT_S = 600.0


def play(program: str, arguments: dict[str, Any], nodes: int, transport: str = "tcp") -> list[dict[str, Any]]:
    """Run a program on so many nodes; return what each one says."""
    rendezvous = f"bench-{secrets.token_hex(4)}" if transport == "shm" else None
    command = [program, json.dumps(arguments)]
    with Cluster(PROGRAMS, nodes, command, transport=transport, rendezvous=rendezvous) as cluster:
        cluster.start()
        if any(cluster.wait(_LIMIT_S)):
            raise RuntimeError("\n".join(node.story() for node in cluster.nodes))
        return [json.loads(node.output.splitlines()[-1]) for node in cluster.nodes]


# --------------------------------------------------------------------------- empty clocks


def measure_clocks(given: Options) -> list[Line]:
    """Time empty clocks of nodes with one worker each, and what their agents compute for them."""
    counts = (2,) if given.smoke else (2, 4)
    cases = [(nodes, transport) for transport in ("tcp", "shm") for nodes in counts]
    arguments = {"clocks": given.size(3_000, 20)}
    candidates = {f"{nodes} nodes, {name}": partial(play, "clock", arguments, nodes, name) for nodes, name in cases}
    found = in_turn(candidates, given.repeats)
    lines = []
    for (nodes, transport), (name, runs) in zip(cases, found.items(), strict=True):
        target = _CLOCK_US[nodes] if transport == "tcp" else None
        lines.append(Line(f"empty clock, {name}", "us", [max(node["us"] for node in run) for run in runs], target))
        for what, key in (("computes", "agent_us"), ("of it in the kernel", "agent_system_us")):
            used = [statistics.mean(node[key] for node in run) for run in runs]
            lines.append(Line(f"an agent {what} in an empty clock, {name}", "us", used))
    return lines


# --------------------------------------------------------------------------- bytes


def measure_bytes(given: Options) -> list[Line]:
    """Count bytes between two nodes in clocks in which a share of the rows changes, for two sizes of the table."""
    shares = [0.0, 0.01, 0.1, 1.0]
    sizes = [given.size(10_000, 200), given.size(100_000, 2_000)]
    clocks = given.size(50, 3)

    def count(rows: int) -> list[dict[str, Any]]:
        return play("bytes", {"rows": rows, "width": 32, "shares": shares, "clocks": clocks}, 2)

    found = in_turn({f"{rows:,} rows": partial(count, rows) for rows in sizes}, given.repeats)
    sent: dict[tuple[int, float], list[float]] = {}
    lines = []
    for rows, runs in zip(sizes, found.values(), strict=True):
        for n, share in enumerate(shares):
            name = f"{rows:,} rows, {share:.0%} changed by both nodes"
            sent[rows, share] = [sum(node["bytes"][n] for node in run) / 2e3 for run in runs]
            lines.append(Line(f"a node sends in a clock, {name}", "KB", sent[rows, share]))
            times = [max(node["seconds"][n] for node in run) * 1e6 for run in runs]
            lines.append(Line(f"a clock takes, {name}", "us", times))
    small, large = sizes
    ratios = [many / few for few, many in zip(sent[small, 0.1], sent[large, 0.01], strict=True)]
    lines.append(Line(f"bytes, 1% of {large:,} rows over 10% of {small:,}", "x", ratios, _SAME_BYTES))
    return lines


# --------------------------------------------------------------------------- factorization


def measure_factorization(given: Options) -> list[Line]:
    """Train on two nodes with a worker each, and on one with two, in turn."""
    arguments = {
        "data": None if given.smoke or given.arguments.data is None else str(given.arguments.data.resolve()),
        "epochs": given.size(10, 2),
        "rank": given.size(32, 8),
        "small": given.smoke,
    }
    shapes = {"1 node x 2 workers": (1, 2), "2 nodes x 1 worker": (2, 1)}

    def train(nodes: int, workers: int) -> tuple[float, float]:
        """Return median speed after the first epoch, and the last error."""
        found = play("factorize", {**arguments, "workers": workers}, nodes)
        slowest = [max(seconds) for seconds in zip(*(node["seconds"] for node in found), strict=True)]
        errors = {node["rmse"][-1] for node in found}
        if len(errors) != 1:
            raise RuntimeError(f"the nodes of one training report different errors: {errors}")
        return found[0]["ratings"] / statistics.median(slowest[1:]) / 1e6, errors.pop()

    candidates: dict[str, Callable[[], tuple[float, float]]] = {
        name: partial(train, *shape) for name, shape in shapes.items()
    }
    runs = in_turn(candidates, given.repeats)
    one, two = runs.values()
    lines = [Line(f"matrix factorization, {name}", "M ratings/s", [speed for speed, _ in runs[name]]) for name in runs]
    lines += [Line(f"test RMSE, {name}", "", [error for _, error in runs[name]]) for name in runs]
    shares = [speed / alone for (alone, _), (speed, _) in zip(one, two, strict=True)]
    apart = [abs(error - alone) for (_, alone), (_, error) in zip(one, two, strict=True)]
    return [
        *lines,
        Line("matrix factorization, 2 nodes over 1", "x", shares, _MF_SHARE, at_least=True),
        Line("test RMSE, 2 nodes and 1, apart", "", apart, _RMSE_APART),
    ]
