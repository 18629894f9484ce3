"""nbps doctor: what it says is what the machine has, and cleaning removes orphans only."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from nbps.cli.advice import advise, size
from nbps.memory import segments
from nbps.runtime.cores import usable_cores


def _left_by_a_dead_process() -> str:
    """Return the name of a segment whose process has ended, as ``kill -9`` leaves one."""
    code = (
        "import os; from nbps.memory import segments as s; "
        "print(f'nbps_{s._pid_namespace()}_{os.getpid()}_{s._start_time(os.getpid())}_0_orphan')"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_clean_removes_orphans_only(nbps, tmp_path, monkeypatch):
    """Without --clean it is reported; with it, it is gone, and a living process' segment stays."""
    # Not in /dev/shm, where every other job of the machine removes orphans too.
    monkeypatch.setattr(segments, "FOLDER", tmp_path)
    orphan = tmp_path / _left_by_a_dead_process()
    orphan.write_bytes(bytes(5000))
    name = f"nbps_{segments._pid_namespace()}_{os.getpid()}_{segments._start_time(os.getpid())}_0_living"
    living = tmp_path / name
    living.write_bytes(bytes(4096))
    before = json.loads(nbps("doctor", "--json").stdout)
    found = {segment["name"]: segment for segment in before["shared_memory"]["segments"]}
    assert found[orphan.name]["bytes"] == 5000
    assert not found[orphan.name]["alive"]
    assert not found[orphan.name]["foreign"]
    assert found[living.name]["alive"]
    assert any("nbps doctor --clean" in problem for problem in before["problems"])
    assert orphan.name in nbps("doctor").stdout
    after = json.loads(nbps("doctor", "--clean", "--json").stdout)
    assert [segment["name"] for segment in after["shared_memory"]["removed"]] == [orphan.name]
    assert [segment["name"] for segment in after["shared_memory"]["segments"]] == [living.name]
    assert not any("left over" in problem for problem in after["problems"])
    assert not orphan.exists()
    assert living.exists()


def test_orphans_of_other_users(nbps, tmp_path, monkeypatch):
    """What --clean may not remove is said to be there still."""
    monkeypatch.setattr(segments, "FOLDER", tmp_path)
    monkeypatch.setattr(segments, "remove_orphans", list)
    (tmp_path / _left_by_a_dead_process()).write_bytes(bytes(5000))
    (problem,) = [text for text in json.loads(nbps("doctor", "--clean", "--json").stdout)["problems"] if "left" in text]
    assert "1 segments (5 KiB) are left over from killed processes of other users" in problem


def test_clean_in_the_real_folder(process):
    """A process cleans ``/dev/shm`` and leaves what is alive."""
    living = segments.Segment("living", 4096)
    orphan = segments.FOLDER / _left_by_a_dead_process()
    try:
        orphan.write_bytes(bytes(5000))
        facts = json.loads(process("doctor", "--clean", "--json").stdout)
        assert not orphan.exists()
        assert living.name in [segment["name"] for segment in facts["shared_memory"]["segments"]]
        assert living.path.exists()
    finally:
        living.unlink()
        orphan.unlink(missing_ok=True)


def test_json_has_the_machine_in_it(nbps):
    """Numbers that can be had in another way are the same."""
    (line,) = nbps("doctor", "--json").stdout.splitlines()
    facts = json.loads(line)
    assert facts["processor"]["usable_cores"] == usable_cores()
    assert facts["processor"]["compare_and_swap_bytes"] in (8, 16)
    status = os.statvfs("/dev/shm")
    assert facts["shared_memory"]["total_bytes"] == status.f_blocks * status.f_frsize
    assert set(facts["limits"]) >= {"open_files", "processes"}


def test_cache_folder_is_the_one_in_use(process, tmp_path):
    """NBPS_CACHE_DIR decides."""
    facts = json.loads(process("doctor", "--json", NBPS_CACHE_DIR=str(tmp_path)).stdout)
    assert facts["compiler_cache"]["folder"].startswith(str(tmp_path))
    assert facts["compiler_cache"]["bytes"] == 0


def test_text_is_readable(nbps):
    """Every section has its line."""
    done = nbps("doctor")
    assert done.returncode == 0
    for word in ("shared memory", "segments", "processor", "cores", "compiled kernels", "open files"):
        assert word in done.stdout


def test_advice_for_a_poor_machine():
    """Each problem names the number and the remedy."""
    facts = {
        "shared_memory": {"folder": "/dev/shm", "total_bytes": 64 << 20, "segments": []},
        "processor": {"compare_and_swap_bytes": 8},
        "limits": {"open_files": 100},
    }
    text = " ".join(advise(facts))
    for words in ("64 MiB", "--shm-size", "8 bytes at a time", "ulimit -n"):
        assert words in text
    facts["shared_memory"]["total_bytes"] = 0
    assert "There is no /dev/shm" in " ".join(advise(facts))


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 bytes"), (1536, "2 KiB"), (64 << 20, "64 MiB"), (3 << 40, "3072.0 GiB")]
)
def test_sizes_are_in_binary_units(count, text):
    """The units are those of df -h."""
    assert size(count) == text
