"""The life of segments: created with their space, attached by name, unlinked by their owner, removed when orphaned."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nbps.errors import SharedMemoryError
from nbps.memory import segments
from nbps.memory.segments import FOLDER, Segment, attach, find_segments, remove_orphans
from support.mounts import disk, mounted


@pytest.fixture
def segment():
    """Make a segment of 1000 bytes."""
    made = Segment("test", 1000)
    yield made
    made.unlink()


def python(script: str, *arguments: str, **options) -> subprocess.CompletedProcess[str]:
    """Run a script in another process."""
    return subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, **options)


def test_a_segment_is_zeroed_shared_memory_of_its_size(segment):
    """All bytes are there, zero, and seen by everyone who attaches."""
    memory = attach(segment.name)
    assert memory.size == 1000
    assert not memory.any()
    attach(segment.name)[7] = 5
    assert memory[7] == 5
    assert segment.path.stat().st_blocks * 512 >= 1000  # its space is reserved, not only promised


def test_a_read_only_mapping_cannot_be_written(segment):
    """Writing through it is NumPy's own error."""
    memory = attach(segment.name, writable=False)
    with pytest.raises(ValueError, match="read-only"):
        memory[0] = 1


def test_unlink_removes_the_name_and_keeps_the_memory(segment):
    """Arrays over the segment stay valid, a second unlink does nothing, and attaching is an error that says so."""
    memory = attach(segment.name)
    memory[:] = 3
    segment.unlink()
    segment.unlink()
    assert not segment.path.exists()
    assert (memory == 3).all()
    with pytest.raises(SharedMemoryError, match=f"'{segment.name}' does not exist in /dev/shm; its job has ended"):
        attach(segment.name)


def test_the_name_says_who_owns_it():
    """Pid, start time, number and label; labels of any characters and length become part of a file name."""
    made = [Segment(label, 1) for label in ("plain", "a/b\n ü_" * 30, "")]
    try:
        found = {info.name: info for info in find_segments()}
        for segment in made:
            info = found[segment.name]
            assert re.fullmatch(r"nbps_\d+_\d+_\d+_\d+_[A-Za-z0-9.-]{0,64}", info.name)
            assert (info.pid, info.alive, info.foreign, info.bytes) == (os.getpid(), True, False, 1)
    finally:
        for segment in made:
            segment.unlink()


@pytest.mark.parametrize("size", [1 << 50, 2**63 - 1, 2**63, 2**70])
def test_a_size_beyond_the_machine_is_an_error_with_both_numbers(size):
    """Needed and free bytes are named, whether a file could have that size or not; nothing is left."""
    before = set(FOLDER.iterdir())
    with pytest.raises(SharedMemoryError, match=rf"'huge': needed {size:,} bytes, free [\d,]+ of [\d,]+ in /dev/shm"):
        Segment("huge", size)
    assert set(FOLDER.iterdir()) == before


_SMALL = """
import sys, pathlib, numpy as np
import nbps
from nbps.memory import segments
from nbps.errors import SharedMemoryError
def left():
    return sorted(path.name for path in pathlib.Path("/dev/shm").iterdir())
try:
    with nbps.Job([nbps.Table("fits", 1000, 100), nbps.Table("does not", 10_000, 100)], workers=1):
        print("started")
except SharedMemoryError as error:
    print(isinstance(error, MemoryError), error)
print(left())
# Space that somebody else takes between the look and the reservation.
segments.check_free = lambda label, size: None
try:
    segments.Segment("raced", 3 << 20)
except SharedMemoryError as error:
    print(error)
print(left())
with nbps.Job([nbps.Table("fits", 1000, 100)], workers=2) as job:
    job.run(lambda worker: worker.table("fits").inc(0, 1))
    try:
        job.run(lambda worker, data: None, np.zeros(1 << 20))
    except SharedMemoryError as error:
        print(error)
    print(job.run(lambda worker: float(worker.table("fits").get(0)[0])))
print(left())
"""


@pytest.mark.slow
def test_a_full_shared_memory_is_an_error_with_both_numbers():
    """In a /dev/shm of 2 MiB: tables, reservations and arguments that do not fit say so, nothing is left, no SIGBUS."""
    command = [*mounted(disk(FOLDER, "size=2m")), sys.executable, "-c", _SMALL]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert (done.returncode, len(lines)) == (0, 7), done
    number = r"needed ([\d,]+) bytes, free ([\d,]+) of 2,097,152 in /dev/shm; enlarge it .* or share less"
    assert re.match(f"True shared memory is too small for 'does not': {number}", lines[0])
    assert lines[1] == "[]"
    assert re.match("shared memory is too small for 'raced': needed 3,145,728 bytes, free 2,097,152 of", lines[2])
    assert lines[3] == "[]"
    assert re.match("shared memory is too small for 'arguments': needed 8,388,608 bytes", lines[4])
    assert lines[5:] == ["[2.0, 2.0]", "[]"]


_OWNER = """
import os, pathlib, signal, sys
from nbps.memory import segments
segments.FOLDER = pathlib.Path(sys.argv[1])
names = [segments.Segment(label, 10).name for label in ("one", "two")]
print(*names, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_only_segments_of_dead_owners_are_removed(tmp_path, monkeypatch):
    """What a killed process left goes; what a living one has, what another pid namespace owns, and other files stay."""
    # Not in /dev/shm, where every other job of the machine removes orphans too.
    monkeypatch.setattr("nbps.memory.segments.FOLDER", tmp_path)
    segment = Segment("test", 1000)
    names = python(_OWNER, str(tmp_path)).stdout.split()
    assert len(names) == 2
    foreign = tmp_path / re.sub(r"^nbps_\d+", "nbps_1", names[0])
    other = tmp_path / "nbps_of_somebody_else"
    reused = tmp_path / re.sub(
        r"^(nbps_\d+)_\d+_\d+", rf"\1_{os.getpid()}_1", names[0]
    )  # our pid, started at another time
    for path in (foreign, other, reused):
        path.touch()
    state = {info.name: (info.alive, info.foreign) for info in find_segments()}
    assert [state[name] for name in names] == [(False, False)] * 2
    assert state[foreign.name] == (False, True)
    assert state[segment.name] == (True, False)
    assert other.name not in state
    assert {info.name for info in remove_orphans()} == {*names, reused.name}
    assert sorted(tmp_path.iterdir()) == sorted([segment.path, foreign, other])
    segment.unlink()


def test_what_could_not_be_removed_is_not_reported(tmp_path, monkeypatch):
    """A segment of another user, which only that user may remove, is not a removed one."""
    monkeypatch.setattr("nbps.memory.segments.FOLDER", tmp_path)
    names = python(_OWNER, str(tmp_path)).stdout.split()
    unlink = Path.unlink

    def refuse(path):
        if path.name == names[0]:
            raise PermissionError
        unlink(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        removed = {info.name for info in remove_orphans()}
    assert (names[0] in removed, names[1] in removed) == (False, True)
    assert names[0] in {info.name for info in remove_orphans()}


def test_a_zombie_is_not_a_living_owner(tmp_path, monkeypatch):
    """A killed owner whose parent has not waited for it yet counts as dead."""
    monkeypatch.setattr("nbps.memory.segments.FOLDER", tmp_path)
    process = subprocess.Popen([sys.executable, "-c", _OWNER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    names = process.stdout.read().split()
    while "\nState:\tZ" not in Path(f"/proc/{process.pid}/status").read_text():
        pass
    assert {info.name: info.alive for info in find_segments() if info.name in names} == dict.fromkeys(names, False)
    process.wait()
    process.stdout.close()


_ATTACHER = """
import sys
from nbps.memory.segments import attach, find_segments
memory = attach(sys.argv[1])
memory[0] += 1
print([info.alive for info in find_segments() if info.name == sys.argv[1]])
if sys.argv[2] == "kill":
    import os, signal
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("end", ["exit", "kill"])
def test_a_process_that_attaches_deletes_nothing(segment, end):
    """Whether it exits or is killed, the segment and its contents stay, and nothing is printed about leaks."""
    done = python(_ATTACHER, segment.name, end)
    assert done.stderr == ""
    assert segment.path.exists()
    assert attach(segment.name)[0] == 1


_FORKER = """
import os, sys
from nbps.memory.segments import Segment
segment = Segment("mine", 10)
if os.fork() == 0:
    sys.exit()
os.wait()
print(segment.path.exists())
segment.unlink()
"""


def test_a_fork_of_the_owner_deletes_nothing():
    """A child that exits in good order leaves its parent's segments."""
    done = python(_FORKER)
    assert (done.stdout, done.stderr) == ("True\n", "")


_NOBODY = """
import os
from nbps.memory.segments import Segment, find_segments, remove_orphans
os.setgid(65534)
os.setuid(65534)
segment = Segment("mine", 10)
remove_orphans()
print([(found.alive, found.foreign) for found in find_segments() if found.name == segment.name])
segment.unlink()
print(segment.path.exists())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_segments_of_a_process_that_was_root_are_its_own():
    """It may look into little of /proc/self any more, but still tells its own segments from those of a container."""
    done = python(_NOBODY)
    assert (done.stdout, done.stderr) == ("[(True, False)]\nFalse\n", "")


def test_start_time_is_read_behind_any_command_name(tmp_path):
    """A process whose name holds spaces and parentheses is still recognised by its start time."""
    program = tmp_path / "a) 0 (b"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "60"]) as process:
        try:
            while Path(f"/proc/{process.pid}/comm").read_text() != "a) 0 (b\n":
                pass
            ticks = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19]
            assert segments._start_time(process.pid) == int(ticks)
        finally:
            process.kill()
    assert segments._start_time(process.pid) is None


def test_usage_is_that_of_the_file_system(segment):
    """Size and free bytes, as statvfs counts them."""
    usage = segments.shared_memory_usage()
    assert 0 < usage.free_bytes <= usage.total_bytes
    assert usage.total_bytes == np.prod(
        [os.statvfs("/dev/shm").f_frsize, os.statvfs("/dev/shm").f_blocks], dtype=object
    )
