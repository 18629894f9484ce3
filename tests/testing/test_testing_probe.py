"""The contract on nbps and on a toy of a third party, with every bug planted; workers that are stopped and killed."""

from __future__ import annotations

import functools
import re
import subprocess
import sys

import numpy as np
import pytest

import nbps
from nbps.testing import History, Violation, check
from nbps.testing import __main__ as command
from nbps.testing.chaos.network import Trouble, run_troubled
from nbps.testing.chaos.nodes import NodeJob, ProbeRun
from nbps.testing.chaos.workers import Disturbance, Outcome, run_disturbed
from nbps.testing.consistency.contract import ConsistencyContract
from nbps.testing.consistency.history import Read, Torn
from nbps.testing.consistency.probe import UNITS, Plan, decoded, probe_tables, run_on_job, run_probe
from support import toy, wrong


class TestJobsKeepTheContract(ConsistencyContract):
    """Worker processes on shared memory."""

    def run(self, program, workers, model, tables):
        return run_on_job(program, workers, model, tables)


class TestToyKeepsTheContract(ConsistencyContract):
    """Threads of one process with private copies, not of nbps: subclassed in ten lines."""

    left_out = ("VAP",)

    def run(self, program, workers, model, tables):
        return toy.run(program, workers, model, tables)


@pytest.mark.parametrize("bug", ["P1", "P2", "P3", "P4 lost", "P4 doubled", "P5", "drift"])
def test_each_bug_of_the_toy_is_found_by_its_name(bug):
    """Copies that are never refreshed, reads that go back, halves of two states, ...: each is told as what it is."""
    plan = Plan(clocks=12, sleep_s=0.002, barriers=0)
    run = functools.partial(toy.run, bug=bug)
    history = run_probe(run, 3, nbps.SSP(1), probe_tables(3, access=["cached"]), plan)
    assert bug[:2] in {found.property[:2] for found in check(history)}


@pytest.mark.parametrize("model", [nbps.SSP(1), nbps.ESSP(1)], ids=str)
def test_a_job_whose_workers_wait_too_little_is_found(model):
    """Planted in real workers: their gate opens three clocks too early."""

    def run(program, workers, model, tables):
        return run_on_job(functools.partial(wrong.impatient, program, 3), workers, model, tables)

    history = run_probe(run, 3, model, probe_tables(3), Plan(clocks=15, sleep_s=0.01, barriers=0, fresher=0))
    assert {found.property for found in check(history)} & {"P1", "drift"}


def test_a_job_whose_values_are_not_bounded_is_found():
    """Planted in real workers: they forget the value bound that they are checked against."""

    def run(program, workers, model, tables):
        return run_on_job(program, workers, nbps.ASP(), tables)

    tables = probe_tables(3, access=["cached"])
    plan = Plan(clocks=30, sleep_s=0.01, barriers=0, fresher=0, no_wait=0)
    history = run_probe(run, 3, nbps.VAP(4.0 * UNITS["int64"][0]), tables, plan)
    assert "VAP" in {found.property for found in check(history)}


@pytest.mark.parametrize("dtype", UNITS)
def test_halves_of_two_states_are_no_multiple(dtype):
    """An element with the low half of another count is told as torn, whatever the counts."""
    unit, limit = UNITS[dtype]
    half = {4: np.uint16, 8: np.uint32}[np.dtype(dtype).itemsize]
    counts = [*range(9), 100, 1000, limit - 1, limit]
    for one in counts:
        for other in counts:
            mixed = np.array([one * unit, other * unit], dtype)
            assert decoded(mixed, dtype) == (one, other)
            halves = mixed.view(half)
            halves[0] = halves[2]
            torn = mixed[0] not in (np.array([one, other]) * np.dtype(dtype).type(unit))
            found = decoded(mixed[:1], dtype)[0]
            # Mantissas of floats that differ by a power of two are the same: then the mixture is one of the two states.
            assert (found is None) == torn
            assert torn == (one != other) or dtype.startswith("float")


def test_what_is_not_a_number_is_torn():
    """NaN, infinity and negative values are no counts."""
    assert decoded(np.array([np.nan, np.inf, -1.0, 0.0]), "float64") == (None, None, None, 0)


def test_the_probe_reads_adds_and_enters_every_clock():
    """It would prove nothing if it did nothing: all tables are read and added to, by all, with and without a bound."""
    plan = Plan(clocks=20, operations=3)
    history = run_probe(toy.run, 3, nbps.SSP(2), probe_tables(3), plan)
    kinds = {(type(entry).__name__, entry.worker) for entry in history.entries}
    assert kinds == {(kind, worker) for kind in ("Add", "Read", "Passed") for worker in range(3)}
    reads = [entry for entry in history.entries if isinstance(entry, Read)]
    assert {(entry.worker, entry.table) for entry in reads} == {
        (worker, table) for worker in range(3) for table in ("direct", "cached", "exclusive")
    }
    assert {entry.staleness for entry in reads} == {0, 1, 2}
    assert max(entry.clock for entry in reads) == 19
    assert not any(isinstance(entry, Torn) for entry in history.entries)
    assert len(history.final) == 9


# --------------------------------------------------------------------------- stopped and killed workers


@pytest.mark.parametrize("model", [nbps.SSP(1), nbps.ESSP(2)], ids=str)
def test_paused_workers_keep_the_promises(model):
    """Workers are stopped from outside again and again, in the middle of whatever they do."""
    plan = Plan(clocks=40, sleep_s=0.004)
    outcome = run_disturbed(3, model, probe_tables(3), plan, Disturbance(pause_s=0.02, seed=1))
    assert outcome.violations == []
    assert outcome.pauses > 0
    assert outcome.killed is None


@pytest.mark.timeout(60)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_killed_worker_ends_the_job_and_corrupts_nothing(seed):
    """Kill -9 from outside: the job says who, and tables hold what was committed and at most what was added."""
    plan = Plan(clocks=100_000, sleep_s=0.001)
    outcome = run_disturbed(3, nbps.ESSP(1), probe_tables(3), plan, Disturbance(kill_after_s=0.1 * seed, seed=seed))
    assert outcome.violations == []
    assert outcome.killed is not None
    assert outcome.history.lost == {0, 1, 2}
    assert len({entry.worker for entry in outcome.history.entries}) == 3


@pytest.mark.slow
def test_the_command_line_runs_jobs_and_says_how_to_replay_them():
    """``python -m nbps.testing`` for one short job."""
    done = subprocess.run(
        [sys.executable, "-m", "nbps.testing", "--jobs", "1", "--seed", "5"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 job" in done.stdout
    assert "0 violations" in done.stdout


@pytest.mark.slow
def test_the_command_line_runs_jobs_of_several_nodes():
    """Three short jobs, of which one has trouble in the network, if there is time for it."""
    done = subprocess.run(
        [sys.executable, "-m", "nbps.testing", "--nodes", "--jobs", "3", "--seed", "100"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.fullmatch(r"3 jobs in \d+ s: ([\d,]+) reads, .* pauses, \d+ cuts, .* 0 violations\n", done.stdout)
    assert found is not None, done.stdout
    assert int(found[1].replace(",", "")) > 1000


@pytest.mark.slow
def test_trouble_reaches_the_network_and_the_processes():
    """A job that takes seconds is paused and cut, its worker is killed in the end, and all that is told."""
    runs = [ProbeRun(Plan(clocks=100_000, operations=1, seed=1, sleep_s=0.002))]
    job = NodeJob(
        nbps.ESSP(1), probe_tables(2, 5, ["direct"], "int64", None), [1, 1], runs, options={"failure_timeout_s": 5.0}
    )
    trouble = Trouble(seed=3, gap_s=0.02, pause_s=0.02, network=True, victim="worker", victim_node=1, kill_after_s=2.0)
    outcome, violations, toll = run_troubled(job, "tcp", trouble)
    assert violations == []
    assert len(outcome.entries) > 100
    assert toll["pauses"] > 0
    assert toll["cuts"] > 0
    assert toll["kills"] == 1


def test_a_violation_is_printed_with_the_command_that_replays_it(monkeypatch, capsys):
    """The seed is that of the job, not of the first one; the exit status is 1."""
    outcomes = [Outcome(History(1), told, 0, None) for told in ([], [Violation("P1", "too old", None)])]
    monkeypatch.setattr(command, "run_job", lambda seed: ("a job", outcomes[seed - 7]))
    assert command.main(["--jobs", "2", "--seed", "7"]) == 1
    printed = capsys.readouterr().out
    assert "seed 8: 1 violations in a job" in printed
    assert "P1: too old" in printed
    assert "replay: python -m nbps.testing --jobs 1 --seed 8" in printed
