"""Checkpoints of several jobs in one folder, and damaged ones among older intact ones: nothing is taken unasked."""

from __future__ import annotations

import json

import pytest

from nbps.checkpoint.format import encode_manifest
from nbps.checkpoint.load import latest, newest_of_life, newest_of_lineages
from nbps.checkpoint.progress import Progress
from nbps.checkpoint.writer import CheckpointWriter
from nbps.errors import CheckpointError
from support.checkpoint_cases import TABLES, contents, folders, loaded, part_of, same, save


def damage(root, attempt, name="*items.arrow"):
    """Flip a bit in a file of the checkpoints of `attempt`."""
    path = next(root.glob(f"clock-*-{attempt}/{name}"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def test_keep_counts_and_removes_only_what_is_of_its_lineage(tmp_path):
    """Three of another job stay beside the one that is kept, and so does what that job is just writing."""
    for clock in (700, 800, 900):
        save(tmp_path, "other", clock, 1, keep=3)
    CheckpointWriter(tmp_path, "other.second", 1, 2, TABLES).write(950, part_of(contents(0), 1, 2))
    others = folders(tmp_path)
    for attempt in ("job", "job.second", "job.second-run1"):
        save(tmp_path, attempt, 10, 1, keep=1)
        assert folders(tmp_path) == [f"clock-000000000010-{attempt}", *others]
    save(tmp_path, "other.second", 950, 1, keep=1)
    assert folders(tmp_path) == ["clock-000000000010-job.second-run1", "clock-000000000950-other.second"]


def test_lineages_and_lives_have_a_newest(tmp_path):
    """By when they were completed, whatever the clocks; what is not complete does not count."""
    for attempt, clock in (("a", 3), ("b", 9), ("a.x-run0", 2), ("b-saved1", 1), ("a.x-run1", 1)):
        save(tmp_path, attempt, clock, 1)
    CheckpointWriter(tmp_path, "c", 0, 1, TABLES).write(20, part_of(contents(0), 0, 1))
    newest = newest_of_lineages(tmp_path)
    assert list(newest.items()) == [
        ("a", (5, f"{tmp_path}/clock-000000000001-a.x-run1")), ("b", (4, f"{tmp_path}/clock-000000000001-b-saved1")),
    ]  # fmt: skip
    assert newest_of_life(tmp_path, "a") == f"{tmp_path}/clock-000000000003-a"
    assert newest_of_life(tmp_path, "a.x") == f"{tmp_path}/clock-000000000001-a.x-run1"
    assert newest_of_life(tmp_path, "c") is None
    assert latest(newest["b"][1]).lineage == "b"


@pytest.fixture
def three(tmp_path):
    """Make a folder with clocks 1, 2 and 3 of two lives of a job, and one of another job between them."""
    save(tmp_path, "job", 1, 2)
    save(tmp_path, "job", 2, 2)
    save(tmp_path, "other", 50, 2)
    save(tmp_path, "job.second", 3, 2)
    return tmp_path


@pytest.mark.parametrize("name", ["manifest-*", "node-0001.json", "*items.arrow"])
def test_a_damaged_newest_is_an_error_that_names_older_ones(three, name):
    """Whether its manifest, a part or data is damaged; those of another job are not offered."""
    damage(three, "job.second", name)
    with pytest.raises(CheckpointError, match="older ones of its lineage") as told:
        loaded(latest(three))
    text = str(told.value)
    assert "are intact, by their manifests and sizes: clock-000000000002-job, clock-000000000001-job. Job.res" in text
    assert "newest_intact=True" in text
    assert "other" not in text


def test_an_older_one_that_is_damaged_is_not_named(three):
    """As far as its manifest and sizes tell; where none is left, that is said."""
    damage(three, "job.second")
    next(three.glob("clock-000000000002-job/*items.arrow")).unlink()
    with pytest.raises(CheckpointError, match=r"and sizes: clock-000000000001-job\. Job\.resume"):
        loaded(latest(three))
    damage(three, "job", "../clock-000000000001-job/manifest-*")
    with pytest.raises(CheckpointError, match="has no older one of its lineage that is intact"):
        loaded(latest(three))


@pytest.mark.parametrize("name", ["manifest-*", "node-0001.json", "*items.arrow"])
def test_the_newest_intact_one_is_taken_where_it_is_asked_for(three, name):
    """Every byte is verified before it is chosen; what was damaged is told; another job's is never taken."""
    skipped = []
    assert latest(three, skipped).clock == 3
    assert skipped == []
    damage(three, "job.second", name)
    found = latest(three, skipped)
    assert (found.clock, found.attempt) == (2, "job")
    assert same(loaded(found), contents(2))
    assert len(skipped) == 1
    assert "clock-000000000003-job.second" in str(skipped[0])
    assert latest(f"{three}/clock-000000000003-job.second", []).clock == 2
    for path in three.glob("clock-*-job/*items.arrow"):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"no checkpoint of its lineage is intact:\n.*\n.*\n.*clock-000000000001"):
        latest(three, [])


def test_a_manifest_without_a_plan_says_only_where_the_job_stood(tmp_path):
    """As those were written before plans were kept; what is not what it should be is an error with a place."""
    assert Progress.from_json({"run": 5}, "old") == Progress(5, 0, None, None)
    assert Progress.from_json({"run": 5, "user": [1]}, "old") == Progress(5, 0, None, [1])
    assert Progress.from_json(None, "none") == Progress(0)
    assert Progress.from_json(Progress(1, 100, 3, "x").to_json(), "new") == Progress(1, 100, 3, "x")
    for state in ({"run": -1}, {"run": "1"}, {"every": 1.5}, {"keep": 0}):
        with pytest.raises(CheckpointError, match=f"here: {next(iter(state))} is "):
            Progress.from_json(state, "here")
    save(tmp_path, "a", 1, 1)
    path = next(tmp_path.glob("*/manifest-*"))
    checkpoint = json.loads(path.read_text())["checkpoint"]
    assert path.read_bytes() == encode_manifest(checkpoint)
    assert set(checkpoint) == {"nbps", "serial", "clock", "attempt", "nodes", "tables", "state", "parts"}
