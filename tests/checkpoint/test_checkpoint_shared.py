"""A folder that changes while it is looked at, and checkpoints of several jobs that have one number."""

from __future__ import annotations

import pytest

from nbps.checkpoint.load import latest, newest_of_lineages
from nbps.checkpoint.store import LocalStore
from nbps.errors import CheckpointError
from support.checkpoint_cases import save


def saved_at_once(folder, *attempts):
    """Save a checkpoint of each of the `attempts` into `folder`, all with the same number."""
    for attempt in attempts:
        save(folder / attempt, attempt, 1, 1)
        next((folder / attempt).iterdir()).rename(folder / f"clock-000000000001-{attempt}")
        (folder / attempt).rmdir()


def test_two_newest_checkpoints_of_one_job_are_none(tmp_path):
    """A copied folder claims the same place; neither is taken, but each can be named."""
    saved_at_once(tmp_path, "x.one", "x.two")
    with pytest.raises(CheckpointError, match="both claim to be checkpoint 1 of one job; name the folder of one"):
        latest(tmp_path)
    assert latest(tmp_path / "clock-000000000001-x.two").attempt == "x.two"


@pytest.mark.parametrize("skipped", [None, []])
def test_jobs_that_save_at_once_both_have_a_newest_checkpoint(tmp_path, skipped):
    """They count alike; of equal ones the last by name is taken, and what lists all has the same first."""
    saved_at_once(tmp_path, "y", "x", "a")
    assert latest(tmp_path, skipped).attempt == "y"
    assert [path[-2:] for _, path in newest_of_lineages(tmp_path).values()] == ["-y", "-x", "-a"]


@pytest.mark.parametrize("skipped", [None, []])
@pytest.mark.parametrize("step", ["list", "read"])
def test_a_checkpoint_that_is_replaced_while_it_is_looked_for(tmp_path, monkeypatch, step, skipped):
    """Its job has completed another by then, and removed it: that one is found."""
    save(tmp_path, "a", 1, 1)
    look, looks = getattr(LocalStore, step), []

    def replaced(store, path="", *arguments):
        if path and not looks:
            looks.append(path)
            save(tmp_path, "a", 2, 1, keep=1)
        return look(store, path, *arguments)

    monkeypatch.setattr(LocalStore, step, replaced)
    assert latest(tmp_path, skipped).clock == 2
    assert looks
    assert not skipped
