"""Checkpoints and what can end them: a kill before every step, a full disk; and what they take of memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import checkpoint_cases
import pytest
from checkpoint_cases import contents, folder_in_memory, folders, loaded, same, save

from nbps.runtime.checkpoint import latest

SCRIPT = [sys.executable, checkpoint_cases.__file__]


@pytest.fixture
def memory_path():
    """Make a folder in memory."""
    with folder_in_memory() as folder:
        yield folder


def test_killed_at_any_step_the_old_or_the_new_checkpoint_is_there(memory_path):
    """One process per step of saving; what each leaves loads as the old or the new one, and the next life goes on."""
    done = subprocess.run([*SCRIPT, "kill", memory_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    steps = int(done.stdout)
    expected = {100: contents(100), 120: contents(2)}
    found = []
    for number in range(1, steps + 2):
        root = memory_path / str(number)
        manifest = latest(root)
        assert same(loaded(manifest), expected[manifest.clock])
        found.append(manifest.clock)
        save(root, "three", 120, 3, seed=3, keep=1)
        assert (latest(root).attempt, latest(root).nodes) == ("three", 3)
        assert same(loaded(latest(root)), contents(3))
        assert folders(root) == ["clock-000000000120-three"]
    # Six files and a manifest, each opened, written, synced, closed and moved, and its folder synced; then removals.
    assert steps > 70
    assert found == sorted(found)
    assert found.count(120) > 15


@pytest.fixture
def small_disk(tmp_path):
    """Return the start of a command that runs in a mount namespace where `tmp_path` is a disk of 8 MB."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("mounting a small disk needs root and unshare")
    mount = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=8m none "$0" && exec "$@"', str(tmp_path)]
    if subprocess.run([*mount, "true"], capture_output=True).returncode:
        pytest.skip("this container does not allow mounts")
    return mount


def test_a_full_disk_leaves_what_was_there(small_disk, tmp_path):
    """Known before, found while writing rows, or while completing: an error with numbers, nothing partial left."""
    done = subprocess.run([*small_disk, *SCRIPT, "full", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before, during, completing = done.stdout.splitlines()
    assert f"{tmp_path}/clock-000000000002-two: the disk is too full: needed 1,009,024 bytes, free " in before
    assert f"{tmp_path}/clock-000000000003-two: the disk is too full: needed 1,009,024 bytes; make room" in during
    assert "manifest-000000002.json: [Errno 28] No space left on device" in completing


def test_memory_stays_far_below_a_copy(tmp_path):
    """A table of 128 MB is written and loaded with a few pieces of memory."""
    done = subprocess.run([*SCRIPT, "memory", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    writing, loading = map(float, done.stdout.split())
    assert writing < 40
    assert loading < 100
