"""Checkpoints and what can end them: a kill before every step, a full disk; and what they take of memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nbps.checkpoint import store as checkpoint_store
from nbps.checkpoint.load import latest, remove
from support import checkpoint_cases
from support.checkpoint_cases import contents, folder_in_memory, folders, loaded, same, save

SCRIPT = [sys.executable, checkpoint_cases.__file__]


@pytest.fixture
def memory_path():
    """Make a folder in memory."""
    with folder_in_memory() as folder:
        yield folder


@pytest.mark.slow
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
        for complete in {path.parent for path in root.glob("*/manifest-*")}:  # half removed is incomplete
            assert same(loaded(latest(complete)), expected[latest(complete).clock])
        save(root, "job.three", 120, 3, seed=3, keep=1)
        assert (latest(root).attempt, latest(root).nodes) == ("job.three", 3)
        assert same(loaded(latest(root)), contents(3))
        assert folders(root) == ["clock-000000000120-job.three"]
    # Six files and a manifest, each opened, written, synced, closed and moved, and its folder synced; then removals.
    assert steps > 70
    assert found == sorted(found)
    assert found.count(120) > 15


class RecordingOs:
    """The module `os`, which records what is removed, moved and synced, by the last name in its path."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        function = getattr(os, name)
        if name not in ("unlink", "rmdir", "fsync", "replace", "mkdir"):
            return function

        def call(*args):
            last = Path(f"/proc/self/fd/{args[0]}").readlink() if name == "fsync" else Path(args[-1])
            self.calls.append((name, last.name))
            return function(*args)

        return call


@pytest.fixture
def recorded(monkeypatch):
    """Record what the store does to the disk."""
    recording = RecordingOs()
    monkeypatch.setattr(checkpoint_store, "os", recording)
    return recording.calls


def test_a_checkpoint_ceases_to_exist_before_its_files_do(tmp_path, recorded):
    """The manifest goes first, and that is on the disk before the next file goes."""
    save(tmp_path, "a", 1, 2)
    recorded.clear()
    remove(checkpoint_store.open_store(tmp_path), "clock-000000000001-a")
    assert recorded[0] == ("unlink", "manifest-000000001.json")
    assert [name for name, _ in recorded] == ["unlink", "fsync", *["unlink"] * 6, "rmdir"]
    assert folders(tmp_path) == []


def test_everything_is_on_the_disk_before_what_relies_on_it(tmp_path, recorded):
    """Each file is synced before it gets its name, its folder after that; data, then parts, then the manifest."""
    save(tmp_path / "root", "a", 1, 1)
    folder = "clock-000000000001-a"
    assert recorded[: recorded.index(("mkdir", folder))] == [("mkdir", "root"), ("fsync", tmp_path.name)]
    names = [
        "node-0000-0000-items.arrow",
        "node-0000-0001-----t--1.arrow",
        "node-0000.json",
        "manifest-000000001.json",
    ]
    expected = [("mkdir", folder), ("fsync", "root")]
    for name in names:
        expected += [("fsync", f".{name}.part"), ("replace", name), ("fsync", folder)]
    assert recorded[recorded.index(("mkdir", folder)) :] == expected


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
