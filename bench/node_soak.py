"""A long run of two nodes whose connection is cut now and then, to see whether the memory of any process grows.

The nodes exchange rows of a live and of a cached table in run after run, with checkpoints; their link goes through a
proxy that closes it. Every second the memory and descriptors of every process are looked at.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from measure import Line, Options
from node_jobs import PROGRAMS

from nbps.testing.chaos.cluster import Cluster, Node
from nbps.testing.transport.proxy import ChaosProxy
from nbps.transport.addresses import free_address

_GROWTH_MB = 1.0  # beyond it memory is not flat
_WARM = 0.2  # share of the time that does not count
_END_S = 120.0


def measure_soak(given: Options) -> tuple[list[Line], dict[str, Any]]:
    """Run for the given minutes; return lines, and all samples."""
    seconds = 4.0 if given.smoke else 60 * given.arguments.minutes
    pause_s, cut_s = (0.2, 1.0) if given.smoke else (1.0, 5.0)
    rendezvous = free_address()
    with tempfile.TemporaryDirectory(prefix="bench-soak-") as folder, ChaosProxy(rendezvous) as proxy:
        arguments = {
            "seconds": seconds,
            "folder": folder,
            "rows": given.size(20_000, 200),
            "clocks": given.size(400, 40),
        }
        command = ["soak", json.dumps(arguments)]
        with Cluster(PROGRAMS, 2, command, rendezvous=rendezvous, seen_from={1: proxy.address}) as cluster:
            cluster.start()
            for node in cluster.nodes:
                node.until("running")
            samples = watch(cluster.nodes, proxy, seconds, pause_s, cut_s)
            if any(cluster.wait(_END_S)):
                raise RuntimeError("\n".join(node.story() for node in cluster.nodes))
            ends = [json.loads(node.output.splitlines()[-1]) for node in cluster.nodes]
        cuts, connections = proxy.cuts, proxy.accepted
    lost = [abs(amount) for end in ends for amount in end["lost"].values()]
    lines = growth(samples)
    lines.append(Line("connections cut", "", [float(cuts)], 1.0, at_least=True))
    lines.append(Line("additions lost or doubled", "", [float(sum(lost))], 0.0))
    lines.append(Line("clocks", "", [float(ends[0]["clocks"])]))
    return lines, {"samples": samples, "connections": connections, "ends": ends}


def watch(
    nodes: list[Node], proxy: ChaosProxy, seconds: float, pause_s: float, cut_s: float
) -> dict[str, list[dict[str, float]]]:
    """Look at all processes until the time is over, and cut the connection now and then."""
    samples: dict[str, list[dict[str, float]]] = {}
    start = time.monotonic()
    cut_at = start + cut_s
    while (now := time.monotonic()) < start + seconds:
        if now >= cut_at:
            cut_at += cut_s
            proxy.cut()
        for node in nodes:
            for process in node.processes():
                with contextlib.suppress(OSError, KeyError):  # it has ended; a zombie has no memory
                    found = {"at_s": now - start, **look_at(process.pid)}
                    samples.setdefault(f"node {node.rank}, {process.role}", []).append(found)
        time.sleep(pause_s)
    return samples


def look_at(pid: int) -> dict[str, float]:
    """Return memory in MB, of its own and with what it shares, and the number of descriptors of a process."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    descriptors = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    return {
        "own_mb": int(fields["RssAnon"].split()[0]) / 1024,
        "rss_mb": int(fields["VmRSS"].split()[0]) / 1024,
        "descriptors": descriptors,
        "threads": int(fields["Threads"]),
    }


def growth(samples: dict[str, list[dict[str, float]]]) -> list[Line]:
    """Say how the memory of every process changed, after a warm-up."""
    lines = []
    for name, series in sorted(samples.items()):
        at = np.array([sample["at_s"] for sample in series])
        warm = at >= _WARM * at[-1]
        for what, key in (("own memory", "own_mb"), ("RSS", "rss_mb")):
            values = np.array([sample[key] for sample in series])[warm]
            slope = float(np.polyfit(at[warm], values, 1)[0]) if values.size > 1 else 0.0
            part = max(1, values.size // 10)
            first, last = float(values[:part].mean()), float(values[-part:].mean())
            note = f"{first:.1f} MB at first, {last:.1f} at the end; slope {3600 * slope:+.1f} MB/h"
            lines.append(Line(f"{what} of {name} grew by", "MB", [last - first], _GROWTH_MB, note=note))
        descriptors = [sample["descriptors"] for sample in series]
        lines.append(
            Line(f"descriptors of {name}, most", "", [max(descriptors)], note=f"at the end {descriptors[-1]:g}")
        )
    return lines
