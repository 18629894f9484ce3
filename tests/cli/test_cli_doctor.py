"""nbps doctor: what it says is what the machine has, and cleaning removes what is left over or damaged, only that."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys

import pytest

from nbps.cli.advice import advise, size
from nbps.kernels import cache
from nbps.memory import segments
from nbps.runtime.cores import usable_cores


@pytest.fixture(autouse=True)
def _folders_of_its_own(tmp_path, monkeypatch):
    """Keep ``--clean`` away from what this machine has in its caches."""
    monkeypatch.setenv("NBPS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(cache, "cache_roots", lambda: (tmp_path / "cache", tmp_path / "temporary"))
    cache.chosen_folder.cache_clear()
    yield
    cache.chosen_folder.cache_clear()


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


def _filled_cache(tmp_path):
    """Return the folder in use, with an intact, a damaged and a half-written file, and one of another version."""
    folder, other = tmp_path / "cache" / f"kernels-{cache.source_hash()}", tmp_path / "cache" / f"kernels-{'0' * 16}"
    for path in (folder, other):
        path.mkdir(mode=0o700, parents=True)
        cache.CodeFiles(path, "intact").save("key", b"code")
        (path / "get_rows.nbc").write_bytes(b"")
    (folder / "left.nbc.0.tmp").write_bytes(b"half")
    os.utime(folder / "left.nbc.0.tmp", (0, 0))
    (folder / "new.nbc.1.tmp").write_bytes(b"half")  # somebody may be writing it
    return folder, other


def test_clean_removes_damaged_and_outdated_kernels(nbps, tmp_path):
    """Without --clean they are told apart and stay; with it, what is of use stays, and a job's part of a file."""
    folder, other = _filled_cache(tmp_path)
    before = json.loads(nbps("doctor", "--json").stdout)
    assert before["compiler_cache"]["damaged"] == {
        "get_rows.nbc": "its checksum is another",
        "left.nbc.0.tmp": "left by a process that was killed",
    }
    assert list(before["compiler_cache"]["outdated"]) == [str(other)]
    (problem,) = [text for text in before["problems"] if "damaged" in text]
    assert problem.startswith(f"2 of the files in {folder} are damaged (get_rows.nbc: its checksum is another; left")
    assert problem.endswith("Remove them: nbps doctor --clean.")
    assert "in 1 folders of other versions (--clean removes them)" in nbps("doctor").stdout
    after = json.loads(nbps("doctor", "--clean", "--json").stdout)
    assert after["compiler_cache"]["removed"] == [
        str(folder / "get_rows.nbc"), str(folder / "left.nbc.0.tmp"), str(other)
    ]  # fmt: skip
    assert (after["compiler_cache"]["damaged"], after["compiler_cache"]["outdated"]) == ({}, {})
    assert not any("damaged" in text for text in after["problems"])
    assert not other.exists()
    assert len(list(folder.glob("intact-*.nbc"))) == 1
    assert (folder / "new.nbc.1.tmp").exists()
    assert "removed" not in nbps("doctor", "--clean").stdout


def test_clean_leaves_a_folder_into_which_a_process_compiles(nbps, tmp_path):
    """It says so; what is no folder of kernels is not looked at."""
    _, other = _filled_cache(tmp_path)
    (tmp_path / "cache" / "kernels-of-my-own").mkdir()
    (tmp_path / "cache" / f"kernels-{'1' * 16}").symlink_to(tmp_path)
    with (other / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        facts = json.loads(nbps("doctor", "--clean", "--json").stdout)
    assert facts["compiler_cache"]["kept"] == {str(other): "a process compiles into it right now"}
    assert list(facts["compiler_cache"]["outdated"]) == [str(other)]
    assert (other / "get_rows.nbc").exists()
    assert (tmp_path / "cache" / "kernels-of-my-own").exists()
    assert tmp_path.exists()


def test_clean_says_what_it_cannot_remove(nbps, tmp_path):
    """A file that is a folder goes too; one that stays is a problem."""
    folder, _ = _filled_cache(tmp_path)
    (folder / "rows.nbc").mkdir()
    facts = json.loads(nbps("doctor", "--clean", "--json").stdout)
    assert str(folder / "rows.nbc") in facts["compiler_cache"]["removed"]
    assert not (folder / "rows.nbc").exists()


def test_a_cache_that_cannot_be_used_is_a_problem(nbps, tmp_path, monkeypatch):
    """One that is replaced by the temporary folder as well; both name the folder and the reason."""
    (tmp_path / "cache").write_text("")
    (problem,) = [text for text in json.loads(nbps("doctor", "--json").stdout)["problems"] if "kernels" in text]
    assert problem.startswith(f"Compiled kernels are kept in {tmp_path}/temporary/kernels-")
    assert f"({tmp_path}/cache/kernels-{cache.source_hash()}: Not a directory)" in problem
    monkeypatch.setattr(cache, "cache_roots", lambda: (tmp_path / "cache",))
    cache.chosen_folder.cache_clear()
    (problem,) = [text for text in json.loads(nbps("doctor", "--json").stdout)["problems"] if "kernels" in text]
    assert problem.startswith("Compiled kernels cannot be kept (")
    assert "set NBPS_CACHE_DIR to a folder that only you can write to" in problem
    assert "in no folder" in nbps("doctor").stdout


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
        "compiler_cache": {"folder": "/cache", "rejected": [], "damaged": {}, "free_bytes": 1 << 20},
    }
    text = " ".join(advise(facts))
    for words in ("64 MiB", "--shm-size", "8 bytes at a time", "ulimit -n", "1 MiB are free for compiled"):
        assert words in text
    facts["shared_memory"]["total_bytes"] = 0
    assert "There is no /dev/shm" in " ".join(advise(facts))


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 bytes"), (1536, "2 KiB"), (64 << 20, "64 MiB"), (3 << 40, "3072.0 GiB")]
)
def test_sizes_are_in_binary_units(count, text):
    """The units are those of df -h."""
    assert size(count) == text
