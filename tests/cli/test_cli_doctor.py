"""nbps doctor: what it says is what the machine has, and cleaning removes orphans only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nbps.cli.advice import advise, size
from nbps.runtime.segments import FOLDER, Segment, find_segments


@pytest.fixture
def leave_orphan():
    """Return a function that leaves a segment whose process has ended, as ``kill -9`` can."""
    code = (
        "import os; from nbps.runtime import segments as s; "
        "print(f'nbps_{s._pid_namespace()}_{os.getpid()}_{s._start_time(os.getpid())}_0_orphan')"
    )
    paths = []

    def leave() -> Path:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        paths.append(FOLDER / done.stdout.strip())
        paths[-1].write_bytes(bytes(5000))
        return paths[-1]

    yield leave
    for path in paths:
        path.unlink(missing_ok=True)


def test_clean_removes_orphans_only(nbps, leave_orphan):
    """Without --clean it is reported; with it, it is gone, and a living process' segment stays."""
    living = Segment("living", 4096)
    found = removed = {}
    try:
        # Every other job on the machine removes orphans too when it ends, so one may be gone before we look.
        for _ in range(10):
            orphan = leave_orphan()
            before = json.loads(nbps("doctor", "--json").stdout)
            found = {segment["name"]: segment for segment in before["shared_memory"]["segments"]}
            text = nbps("doctor").stdout
            after = json.loads(nbps("doctor", "--clean", "--json").stdout)
            removed = {segment["name"]: segment for segment in after["shared_memory"]["removed"]}
            if orphan.name in removed:
                break
        assert found[orphan.name]["bytes"] == removed[orphan.name]["bytes"] == 5000
        assert not found[orphan.name]["alive"]
        assert not found[orphan.name]["foreign"]
        assert found[living.name]["alive"]
        assert any("nbps doctor --clean" in problem for problem in before["problems"])
        assert orphan.name in text
        assert not orphan.exists()
        assert living.name in [segment.name for segment in find_segments()]
    finally:
        living.unlink()


def test_json_has_the_machine_in_it(nbps):
    """Numbers that can be had in another way are the same."""
    (line,) = nbps("doctor", "--json").stdout.splitlines()
    facts = json.loads(line)
    assert facts["processor"]["usable_cores"] == len(os.sched_getaffinity(0))
    assert facts["processor"]["compare_and_swap_bytes"] in (8, 16)
    status = os.statvfs("/dev/shm")
    assert facts["shared_memory"]["total_bytes"] == status.f_blocks * status.f_frsize
    assert set(facts["limits"]) >= {"open_files", "processes"}


def test_cache_folder_is_the_one_in_use(nbps, tmp_path):
    """NBPS_CACHE_DIR decides."""
    facts = json.loads(nbps("doctor", "--json", NBPS_CACHE_DIR=str(tmp_path)).stdout)
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
        "processor": {"usable_cores": 64, "quota_cores": 2.0, "compare_and_swap_bytes": 8},
        "limits": {"open_files": 100},
    }
    text = " ".join(advise(facts))
    for words in (
        "64 MiB",
        "--shm-size",
        "8 bytes at a time",
        "2 cores, but sees 64",
        "--workers",
        "ulimit -n",
    ):
        assert words in text
    facts["shared_memory"]["total_bytes"] = 0
    assert "There is no /dev/shm" in " ".join(advise(facts))


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 bytes"), (1536, "2 KiB"), (64 << 20, "64 MiB"), (3 << 40, "3072.0 GiB")]
)
def test_sizes_are_in_binary_units(count, text):
    """The units are those of df -h."""
    assert size(count) == text
