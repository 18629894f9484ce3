"""nbps sim: a readable and a JSON result, replay of what failed, bad input named."""

from __future__ import annotations

import json

import pytest

from nbps.core import worker


def test_a_run_is_printed_and_its_command_replays_it(nbps):
    """The JSON names violations, figures and the command; that command gives the same event log."""
    options = ["--nodes", 3, "--clocks", 8, "--staleness", 1, "--model", "ssp", "--seed", 4, "--cached", "--loss", 0.1]
    options += ["--fault", "cut:0.02:0.05:0:1", "--fault", "pause_worker:0.01:0.1:3"]
    done = nbps("sim", *options, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["violations"] == []
    assert result["reads"] > 0
    assert result["frames_lost"] > 0
    assert set(result["differentials"]) <= {"0", "-1"}
    again = nbps(*result["replay"].split()[1:])
    assert result["log"] in again.stdout
    assert "0 violations" in again.stdout


@pytest.mark.parametrize("model", ["bsp", "ssp", "essp", "asp", "vap"])
def test_every_model_runs(nbps, model):
    """On two nodes of two workers, with no violation."""
    done = nbps("sim", "--nodes", 2, "--model", model, "--clocks", 5)
    assert done.returncode == 0, done.stderr
    assert "0 violations" in done.stdout


@pytest.mark.parametrize(
    "options",
    [
        ["--compute", 100],
        ["--compute", 5, "--slow-worker", 30],
        ["--fault", "partition:0.01:60:0:1"],
        ["--latency", 31],
        ["--model", "vap", "--value-bound", "5e-324", "--cached"],
        ["--fault", "cut:0.01:5:0:1", "--fault", "cut:0.02:0.01:0:1"],
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_slow_clusters_and_long_silence_are_no_violation(nbps, options):
    """Computing for long is not being stuck, and a job may end that hears nothing for longer than it waits."""
    done = nbps("sim", "--nodes", 2, *options)
    assert done.returncode == 0, done.stdout
    assert "0 violations" in done.stdout


def test_random_schedules_run_in_several_processes(nbps):
    """What they found is summed up."""
    done = nbps("sim", "--schedules", 45, "--jobs", 2, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["schedules"] == 45
    assert result["failed"] == []


def test_a_failing_seed_prints_the_command_that_replays_it(nbps, monkeypatch):
    """With a planted fault the exit code is 1, and the printed command fails in the same way."""
    monkeypatch.setattr(worker, "is_too_old", lambda visible, clock, s: visible < clock - s - 1)
    done = nbps("sim", "--schedules", 30, "--jobs", 1)
    assert done.returncode == 1
    replay = next(line.split("replay: ")[1] for line in done.stdout.splitlines() if "replay: " in line)
    again = nbps(*replay.split()[1:])
    assert again.returncode == 1
    assert "P1: " in again.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fault", "cut:soon:1:0:1"], "expected KIND:AT:FOR:WHO"),
        (["--fault", "flood:0:1:0:1"], "kind is 'flood'"),
        (["--fault", "crash_node:0:0:7", "--nodes", 2], "crash_node: who is 7"),
        (["--model", "vap", "--value-bound", "-1"], "VAP: v0 is -1.0"),
        (["--fault", "cut:0.02:0.1:0", "--nodes", 2], "cut of node 0 from itself"),
        (["--fault", "pause_node:0.02:0.1:0"], "a single machine has none of"),
        (["--schedules", 3, "--nodes", 7], "random schedules draw what nodes would set"),
        (["--nodes", 10**9], "expected at most 1,000,000 workers"),
        (["--staleness", "-1"], "--staleness"),
        (["--sparse", "--cached"], "sparse rows are read live"),
    ],
)
def test_bad_input_is_named(nbps, options, message):
    """One line says what, expected and found."""
    done = nbps("sim", *options)
    assert done.returncode in (1, 2)
    assert message in " ".join(done.stderr.replace("│", " ").split())
