"""Each part of the benchmark of several nodes runs once at a tiny size: it cannot rot. No outcome depends on speed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

BENCH = Path(__file__).parents[2] / "bench"


def run_part(tmp_path: Path, part: str) -> dict:
    command = [sys.executable, str(BENCH / "nodes.py"), "--smoke", "--out", str(tmp_path), "--only", part]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    return json.loads((tmp_path / f"nodes_{part}.json").read_text())


def values(result: dict) -> dict[str, float]:
    return {line["name"]: line["median"] for line in result["results"]}


@pytest.mark.parametrize("part", ["rows", "clock"])
def test_part_about_nodes_runs_and_writes_its_result(tmp_path, part):
    """A smoke run ends well and writes samples of every quantity; the part itself compares rows on both sides."""
    result = run_part(tmp_path, part)
    assert result["smoke"]
    assert all(line["samples"] for line in result["results"])


def test_bytes_on_the_wire_follow_the_rows_that_changed(tmp_path):
    """As many changed rows take as many bytes in a table ten times the size, and ten times as many about ten times."""
    found = values(run_part(tmp_path, "bytes"))
    assert found["bytes, 1% of 2,000 rows over 10% of 200"] == pytest.approx(1, rel=0.05)
    few, many = (
        found[f"a node sends in a clock, 2,000 rows, {share} changed by both nodes"] for share in ("10%", "100%")
    )
    assert 8 < many / few < 11


def test_factorization_on_two_nodes_learns_what_one_node_does(tmp_path):
    """Both shapes train the same data, and end with the same error within the tolerance."""
    found = values(run_part(tmp_path, "mf"))
    assert found["test RMSE, 2 nodes and 1, apart"] <= 0.002


def test_soak_looks_at_every_process_and_loses_nothing(tmp_path):
    """Workers, agents, drivers and supervisors of both nodes are sampled; the link was cut, every addition counted."""
    result = run_part(tmp_path, "soak")
    found = values(result)
    roles = {f"node {rank}, {role}" for rank in range(2) for role in ("driver", "supervisor", "worker", "agent")}
    assert roles <= set(result["samples"])
    assert found["connections cut"] >= 1
    assert result["connections"] >= 2
    assert found["additions lost or doubled"] == 0
