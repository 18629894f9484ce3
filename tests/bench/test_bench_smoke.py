"""Every benchmark runs once at a tiny size: they cannot rot. Nothing here depends on speed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"


def run(tmp_path: Path, name: str, *arguments: str) -> dict:
    run_program(tmp_path, f"{name}.py", *arguments)
    return json.loads((tmp_path / f"{name}.json").read_text())


def run_program(tmp_path: Path, program: str, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, str(BENCH / program), "--smoke", "--out", str(tmp_path), *arguments],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clock", "startup", "mf_scale", "transports"])
def test_benchmark_runs_and_writes_its_result(tmp_path, name):
    """A smoke run ends well and writes samples of every quantity."""
    result = run(tmp_path, name)
    assert result["smoke"]
    assert result["machine"]["cores"] >= 1
    assert all(line["samples"] for line in result["results"])


@pytest.mark.slow
def test_kernels_are_exact_under_contention(tmp_path):
    """Two processes that add to the same rows lose nothing, as the benchmark itself checks."""
    lines = run(tmp_path, "kernels")["results"]
    wrong = [line["median"] for line in lines if line["name"].startswith("wrong sums")]
    assert wrong == [0]


@pytest.mark.slow
def test_comparison_runs_with_every_schedule_and_the_yardstick(tmp_path):
    """The comparison trains what is always there, and says of a missing program that it is missing."""
    peers = "nbps,nbps-cached,nbps-direct,yardstick,libmf"
    result = run(tmp_path, "mf", "--peers", peers, "--libmf", str(tmp_path / "absent"))
    assert set(result["systems"]) == {"nbps", "nbps-cached", "nbps-direct", "yardstick"}
    assert "not found" in result["missing"]["libmf"]


@pytest.mark.slow
def test_commands_are_timed_by_phase_and_beside_libmf(tmp_path):
    """Of each format that is compared; LIBMF is a program that does nothing, or is said to be missing."""
    program = tmp_path / "mf-train"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    names = [line["name"] for line in run(tmp_path, "command", "--libmf", str(program))["results"]]
    for kind in ("Parquet", "CSV"):
        assert {f"nbps, {kind}", f"nbps, {kind}, of libmf's time", f"nbps, {kind}, peak"} <= set(names)
    assert names.count("  of it: train") == names.count("  of it: ids") == 2
    assert {"libmf", "libmf, peak", "nbps --help", "nbps doctor", "import nbps"} <= set(names)


@pytest.mark.slow
def test_defaults_are_judged_and_compared_with_others(tmp_path):
    """Every set has errors on both parts, and other constants have an error relative to the defaults on each."""
    result = run(tmp_path, "defaults")
    for one in result["sets"].values():
        assert {"validation", "test", "stopped_early", "biases_alone"} <= set(one)
    assert all(line["by_set"].keys() == result["sets"].keys() for line in result["others"])


@pytest.mark.slow
def test_libmf_takes_smaller_steps_at_large_ranks_and_tables_name_its_build(tmp_path):
    """What it was run with is what the result says."""
    program = tmp_path / "mf-train"
    program.write_text(f"#!/bin/sh\necho $* > {tmp_path}/arguments\nprintf '0 1.1 0.9 1\\n1 0.9 0.8 1\\n'\n")
    program.chmod(0o755)
    for rank, options in ((32, "-l2 0.05 -r 0.1"), (100, "-l2 0.05 -r 0.05")):
        given = ("--peers", "libmf", "--libmf", str(program), "--libmf-build", "AVX", "--rank", str(rank))
        assert run(tmp_path, "mf", *given)["options"] == {"libmf": f"AVX build, {options}"}
        assert (tmp_path / "arguments").read_text().startswith(options)


@pytest.mark.slow
@pytest.mark.parametrize(("peer", "package"), [("torch", "torch"), ("ray", "ray")])
def test_peer_runs_where_it_is_installed(tmp_path, peer, package):
    """A peer from PyPI trains through the common interface."""
    pytest.importorskip(package)
    assert run(tmp_path, "mf", "--peers", peer)["systems"][peer]["best_test_rmse"]["samples"]


@pytest.mark.slow
def test_times_of_libmf_are_read_from_its_lines(tmp_path):
    """Its own times are used where it prints them; else the times at which its lines arrive."""
    lines = {
        "timed": "T 0.5 0.5    0       1.0587       0.9328   1.2e+06\\nT 7.5e-01 2.5e-1  1  0.9 0.8 1e+06",
        "plain": "   0       1.0587       0.9328   1.2e+06\\n   1       0.9237       0.8   1e+06",
    }
    for kind, text in lines.items():
        program = tmp_path / kind
        program.write_text(f"#!/bin/sh\nprintf 'iter  tr_rmse va_rmse obj\\n{text}\\n'\n")
        program.chmod(0o755)
        epochs = run(tmp_path, "mf", "--peers", "libmf", "--libmf", str(program))["systems"]["libmf"]["epochs"][0]
        assert [epoch["test_rmse"] for epoch in epochs] == [0.9328, 0.8]
        assert (epochs[1]["train_seconds"] == 0.75) == (kind == "timed")


def test_a_package_that_the_experiments_lack_is_named_with_what_installs_it(tmp_path):
    """One line instead of a traceback, also for --help; a PIL that fails as an absent one stands for that."""
    (tmp_path / "PIL.py").write_text("raise ModuleNotFoundError(name='PIL')")
    done = subprocess.run(
        [sys.executable, str(BENCH / "papers"), "--help"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 1
    line = "python bench/papers needs PIL, which is not installed here: pip install '.[bench]'"
    assert done.stderr.splitlines() == [line]


@pytest.mark.slow
def test_experiments_of_the_papers_draw_every_figure_and_answer_every_question(tmp_path):
    """Real processes and simulated ones run under each model; each figure has its drawing and its numbers."""
    pytest.importorskip("matplotlib")
    run_program(tmp_path, "papers")
    written = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    numbers = {name for names in written["papers"]["figures"] for name in names.split(", ")}
    assert {path.stem for path in tmp_path.glob("*.png")} == numbers
    verdicts = written["papers"]["verdicts"]
    assert all(verdict["cases"] for backend in ("real", "simulated") for verdict in verdicts[backend])
    assert all(run["differential"]["counts"] for run in written["runs"]["runs"])
    assert {run["backend"] for run in written["runs"]["runs"]} == {"real", "simulated"}
    # Every real run with copies was simulated again, and compared.
    compared = {(run["condition"], run["model"]) for run in written["runs"]["runs"] if run["backend"] == "real"}
    again = {(condition, one["model"]) for condition, grid in numbers_of(written).items() for one in grid.values()}
    assert again == {key for key in compared if key[1] not in ("Hogwild", "single")}


def numbers_of(written: dict) -> dict:
    return written["papers"]["figures"]["7_agreement"]


@pytest.mark.slow
def test_rows_as_arrays_do_what_the_simulator_s_rows_do():
    """The memory of the papers' simulated machines and that of `nbps.sim` give the same runs, to the bit."""
    done = subprocess.run([sys.executable, "-c", SAME_RUNS, str(BENCH)], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


SAME_RUNS = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
import nbps
from nbps.sim import Scenario, Simulation, Speed
from papers.rows import ArrayMemory

def program(worker):
    draw = np.random.default_rng(worker.rank)
    for clock in range(8):
        row = int(draw.integers(12))
        seen = yield from worker.get(row)
        yield from worker.compute(0.01 * draw.random())
        worker.inc(row, (draw.standard_normal(3) - 0.1 * seen).astype(np.float32))
        yield from worker.clock()

class Arrays(Simulation):
    memory_class = ArrayMemory

def run(simulation_class, model):
    scenario = Scenario(nodes=3, workers=2, clocks=8, consistency=model, rows=4, cached=True)
    simulation = simulation_class(scenario, program, np.zeros((12, 3), np.float32))
    simulation.run()
    return simulation

for model in (nbps.BSP(), nbps.SSP(1), nbps.ESSP(1), nbps.ASP(), nbps.VAP(4.0)):
    ours, theirs = run(Arrays, model), run(Simulation, model)
    assert ours.now == theirs.now and ours.events == theirs.events
    assert ours.connections.bytes == theirs.connections.bytes
    np.testing.assert_array_equal(ours.final(), theirs.final())
    assert theirs.final().any()
    for one, other in zip(ours.workers, theirs.workers):
        np.testing.assert_array_equal(one.copy.values, other.copy.values)
"""
