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
def test_the_lasso_is_timed_beside_its_peers(tmp_path):
    """Each ends at the gap that was asked for, as the benchmark measures it."""
    lines = run(tmp_path, "lasso", "--peers", "nbps,scikit-learn")["lines"]
    assert {line["problem"] for line in lines} == {"dense 40 x 300", "generated 71 x 4,088", "sparse 200 x 400"}
    assert {line["peer"] for line in lines} == {"nbps", "scikit-learn"}
    assert all(line["gap"] <= 1.1e-4 and line["seconds"]["samples"] for line in lines)


@pytest.mark.slow
def test_topics_are_timed_beside_tomotopy(tmp_path):
    """Both learn the same from the same documents, as far as so few passes go."""
    pytest.importorskip("tomotopy")
    run_program(tmp_path, "lda.py", "--topics", "5")
    found = json.loads((tmp_path / "lda_generated_5.json").read_text())["results"]
    lines = {line["name"]: line["median"] for line in found}
    assert lines["nbps, held out"] == pytest.approx(lines["tomotopy, held out"], rel=0.1)


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
