"""Checkpoints of jobs: whose they are, which one a job goes on from, and that it goes on taking them."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

import nbps
from nbps.checkpoint.format import encode_manifest
from nbps.errors import CheckpointError, JobClosedError

TABLES = [nbps.Table("t", 2, 2, dtype="int64")]


def count(worker, clocks):
    """Add 1 to the worker's column in each clock."""
    while worker.current_clock < clocks:
        worker.table("t").inc(0, [int(worker.rank == column) for column in range(2)])
        worker.clock()


def train(folder, clocks, every=10, keep=3):
    """Run a job of one worker that takes checkpoints; return their lineage."""
    with nbps.Job(TABLES, workers=1, checkpoints=nbps.Checkpoints(folder, every, keep)) as job:
        job.run(count, clocks)
        return job.table("t").to_numpy()[0, 0]


def clocks_of(folder):
    """Clocks of the complete checkpoints by their lineage, in the order in which they were completed."""
    found = {}
    for path in sorted(Path(folder).glob("clock-*/manifest-*"), key=lambda path: path.name):
        _, clock, attempt = path.parent.name.split("-", 2)
        found.setdefault(attempt.partition("-")[0].partition(".")[0], []).append(int(clock))
    return list(found.values())


def test_a_new_job_leaves_the_checkpoints_of_another_alone_and_says_so(tmp_path, capfd):
    """`keep` counts its own; the job that resumes gets the newest, is told of the other, and can be given that."""
    train(tmp_path / "compiles", 0)  # which is said, where no test before did
    capfd.readouterr()
    train(tmp_path, 55)
    assert capfd.readouterr().err == ""
    train(tmp_path, 25, keep=1)
    assert clocks_of(tmp_path) == [[30, 40, 50], [20]]
    (first,), (second,) = ([path.name for path in tmp_path.glob(f"clock-*0{clock}-*")] for clock in (50, 20))
    assert capfd.readouterr().err == (
        f"nbps: checkpoints: {tmp_path} holds those of 1 other job, the newest {tmp_path}/{first}; they stay, and "
        f"keep= counts this job's only. To go on from them: Job.resume\n"
    )
    assert nbps.Job.resume(tmp_path).resumed.clock == 20
    assert capfd.readouterr().err == (
        f"nbps: {tmp_path}/{second} is the newest checkpoint there; other jobs' newest: {tmp_path}/{first}; "
        f"Job.resume(path of a checkpoint) takes any of them\n"
    )
    assert nbps.Job.resume(tmp_path / first).resumed.clock == 50
    assert capfd.readouterr().err == ""


def test_of_two_jobs_that_saved_at_once_it_is_said_which_is_taken(tmp_path, capfd):
    """Each is the first in its folder, until the two folders are one."""
    paths = []
    for part in ("one", "two"):
        train(tmp_path / part, 15)
        (path,) = (tmp_path / part).glob("clock-*")
        paths.append(path.rename(tmp_path / path.name))
    first, second = sorted(paths)
    assert nbps.Job.resume(tmp_path).resumed.path == str(second)
    assert capfd.readouterr().err == (
        f"nbps: {second} is the newest checkpoint there (so is {first}: equals are taken by name); other jobs' newest: "
        f"{first}; Job.resume(path of a checkpoint) takes any of them\n"
    )


def test_a_resumed_job_goes_on_taking_checkpoints(tmp_path, capfd):
    """Into the same folder, with the plan it had, of the same lineage; every clock counts once; or as it is told."""
    train(tmp_path / "a", 25, every=10, keep=2)
    train(tmp_path / "a", 15)
    newest = next((tmp_path / "a").glob("clock-000000000020-*"))
    capfd.readouterr()
    with nbps.Job.resume(newest, workers=1) as job:
        assert job.settings.checkpoints == nbps.Checkpoints(str(tmp_path / "a"), every=10, keep=2)
        job.run(count, 45)
        assert job.table("t").to_numpy()[0].tolist() == [45, 0]
    assert clocks_of(tmp_path / "a") == [[10], [30, 40]]
    assert capfd.readouterr().err == ""
    with nbps.Job.resume(tmp_path / "a", workers=1, checkpoints=nbps.Checkpoints(tmp_path / "b", 7, None)) as job:
        job.run(count, 60)
    assert clocks_of(tmp_path / "b") == [[42, 49, 56]]
    with nbps.Job.resume(tmp_path / "b", workers=1, checkpoints=None) as job:
        job.run(count, 100)
    assert clocks_of(tmp_path / "b") == [[42, 49, 56]]
    assert clocks_of(tmp_path / "a") == [[10], [30, 40]]


def test_checkpoints_between_runs_are_of_the_job_too(tmp_path):
    """They count with those that it takes while it runs, and a job that goes on from one has its plan."""
    with nbps.Job(TABLES, workers=1, checkpoints=nbps.Checkpoints(tmp_path, 10, 2)) as job:
        job.run(count, 25)
        job.checkpoint(tmp_path, state="mine")
        job.checkpoint(tmp_path / "apart", keep=4)
    assert clocks_of(tmp_path) == [[10, 20, 0]]
    resumed = nbps.Job.resume(tmp_path).resumed
    assert (resumed.run, resumed.clock, resumed.state) == (1, 0, "mine")
    assert resumed.plan == nbps.Checkpoints(str(tmp_path), 10, 2)
    assert nbps.Job.resume(tmp_path / "apart").settings.checkpoints == nbps.Checkpoints(str(tmp_path / "apart"), 10, 4)
    with nbps.Job(TABLES, workers=1) as job:
        job.checkpoint(tmp_path / "none", keep=1)
        job.checkpoint(tmp_path / "none", keep=1)
    assert clocks_of(tmp_path / "none") == [[0]]
    assert nbps.Job.resume(tmp_path / "none").settings.checkpoints is None


def test_nothing_runs_or_is_saved_while_another_thread_saves(tmp_path):
    """What is written is one state of the tables; afterwards the job goes on."""
    writing, go_on = threading.Event(), threading.Event()

    class Slow(dict):
        """A state that is being written until it may go on."""

        def items(self):
            writing.set()
            go_on.wait(60)
            return super().items()

    with nbps.Job([nbps.Table("t", 1, 1)], workers=1) as job:
        saver = threading.Thread(target=job.checkpoint, args=(tmp_path / "during", Slow(a=1)))
        saver.start()
        assert writing.wait(60)
        try:
            with pytest.raises(JobClosedError, match="another thread runs or saves this job"):
                job.run(lambda worker: worker.table("t").inc(0, 1))
            with pytest.raises(JobClosedError, match="expected an open job that is not running"):
                job.checkpoint(tmp_path)
        finally:
            go_on.set()
            saver.join()
        job.run(lambda worker: worker.table("t").inc(0, 1))
        job.checkpoint(tmp_path / "after")
    assert saved(tmp_path / "during") == 0
    assert saved(tmp_path / "after") == 1


def saved(path):
    """Return the one element of the table saved at `path`."""
    with nbps.Job.resume(path, workers=1) as job:
        return job.table("t").to_numpy().item()


def test_a_damaged_newest_checkpoint(tmp_path, capfd):
    """Is an error that names older ones; where that is asked for, the newest intact one is taken, and it says so."""
    train(tmp_path, 35)
    data = next(tmp_path.glob("clock-000000000030-*/*.arrow"))
    content = bytearray(data.read_bytes())
    content[300] ^= 1
    data.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"t\.arrow: bytes .*sizes: clock-000000000020-.*, clock-000000000010-"):
        nbps.Job.resume(tmp_path, workers=1).__enter__()
    capfd.readouterr()
    with nbps.Job.resume(tmp_path, newest_intact=True, workers=1) as job:
        assert job.resumed.clock == 20
        job.run(count, 30)
        assert job.table("t").to_numpy()[0].tolist() == [30, 0]
    told = capfd.readouterr().err
    assert told.startswith(f"nbps: passed over: {data}: bytes 0 to ")
    assert told.count("\n") == 1


def test_a_checkpoint_of_before_plans_were_kept_loads(tmp_path):
    """Its manifest says the run and no more: the job goes on from it and takes no checkpoints by itself."""
    train(tmp_path, 25)
    for path in tmp_path.glob("*/manifest-*"):
        checkpoint = json.loads(path.read_text())["checkpoint"]
        checkpoint["state"] = {"run": checkpoint["state"]["run"]}
        path.write_bytes(encode_manifest(checkpoint))
    with nbps.Job.resume(tmp_path, workers=1) as job:
        assert (job.resumed.clock, job.resumed.run, job.settings.checkpoints) == (20, 0, None)
        job.run(count, 35)
        assert job.table("t").to_numpy()[0].tolist() == [35, 0]
    assert clocks_of(tmp_path) == [[10, 20]]
