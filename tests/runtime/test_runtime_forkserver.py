"""Jobs after the first fork from a process that has everything loaded: each still starts as if it were the first."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nbps
from nbps.errors import WorkerDiedError, WorkerError
from nbps.job.ahead import load_ahead
from nbps.runtime import forkserver
from nbps.runtime.descriptors import beside, renumber


def ask(function, *args, workers=1, **options):
    """Return what `function` returns in the workers of a job of its own."""
    with nbps.Job([], workers=workers, **options) as job:
        return job.run(function, *args)


def ancestors(worker):
    """Pids and names of this process and those above it, up to the fork server."""
    found, pid = [], os.getpid()
    while not found or found[-1][1] != "nbps-forkserver":
        found.append((pid, Path(f"/proc/{pid}/comm").read_text().strip()))
        assert Path(f"/proc/{pid}/cmdline").read_text().strip("\0") == found[-1][1]
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return found


def test_jobs_share_one_server_and_processes_have_names():
    """Workers, supervisor and server are called what they are; another job has another supervisor, the same server."""
    first, second = (ask(ancestors, workers=2) for _ in range(2))
    for chains in (first, second):
        assert [[name for _, name in chain] for chain in chains] == [
            [f"nbps-worker-{rank}", "nbps-supervisor", "nbps-forkserver"] for rank in range(2)
        ]
    pids = [{chain[level][0] for chain in [*first, *second]} for level in range(3)]
    assert [len(each) for each in pids] == [4, 2, 1]
    assert pids[2] == {forkserver.current().pid}


def surroundings(worker):
    """Return what a process inherits, as this one has it."""
    return {
        "variables": {name: os.environ.get(name) for name in ("NOW", "BEFORE", "OMP_NUM_THREADS")},
        "folder": Path.cwd(),
        "path": sys.path,
        "umask": os.umask(0),
        "cores": os.sched_getaffinity(0),
        "limit": resource.getrlimit(resource.RLIMIT_CORE),
        "ignored": signal.getsignal(signal.SIGUSR2) is signal.SIG_IGN,
        "blocked": signal.SIGUSR1 in signal.pthread_sigmask(signal.SIG_BLOCK, ()),
    }


def test_workers_have_the_surroundings_of_their_own_start(tmp_path, monkeypatch):
    """Environment, folder, search path, umask, cores, limits and signals are the driver's at that time, not before."""
    monkeypatch.setenv("BEFORE", "1")
    server = forkserver.current().pid
    ask(surroundings)
    monkeypatch.delenv("BEFORE")
    monkeypatch.setenv("NOW", "2")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    core, limits = min(os.sched_getaffinity(0)), resource.getrlimit(resource.RLIMIT_CORE)
    with contextlib.ExitStack() as undo:
        undo.callback(os.umask, os.umask(0o027))
        undo.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0))
        os.sched_setaffinity(0, {core})
        undo.callback(resource.setrlimit, resource.RLIMIT_CORE, limits)
        resource.setrlimit(resource.RLIMIT_CORE, (0, limits[1]))
        undo.callback(signal.signal, signal.SIGUSR2, signal.signal(signal.SIGUSR2, signal.SIG_IGN))
        undo.callback(signal.pthread_sigmask, signal.SIG_SETMASK, signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        (found,) = ask(surroundings)
    assert found == {
        "variables": {"NOW": "2", "BEFORE": None, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
        "folder": tmp_path,
        "path": sys.path,
        "umask": 0o027,
        "cores": {core},
        "limit": (0, limits[1]),
        "ignored": True,
        "blocked": True,
    }
    assert forkserver.current().pid == server


def test_workers_print_where_the_driver_prints_now(tmp_path, capfd):
    """Descriptors 0 to 2 are those of the time at which the job starts, and the server holds none of them open."""

    def say(worker, text):
        sys.stdout.write(f"{text}\n")
        sys.stderr.write(f"{text}\n")
        os.system(f"echo shell {text}")
        return sys.stdin.read()

    ask(say, "first")
    assert sorted(capfd.readouterr().out.splitlines()) == ["first", "shell first"]
    kept = [os.dup(number) for number in range(3)]
    reading, writing = os.pipe()
    try:
        (tmp_path / "in").write_text("given")
        given = os.open(tmp_path / "in", os.O_RDONLY)
        for number, descriptor in enumerate((given, writing, writing)):
            os.dup2(descriptor, number)
        (read,) = ask(say, "second")
    finally:
        for number, descriptor in enumerate(kept):
            os.dup2(descriptor, number)
        for descriptor in (*kept, writing, given):
            os.close(descriptor)
    with os.fdopen(reading) as pipe:  # ends, since nobody else has the other end
        assert sorted(pipe.read().split("\n")) == ["", "second", "second", "shell second"]
    assert read == "given"


def test_a_job_in_a_folder_that_is_gone(tmp_path, monkeypatch):
    """Workers are in no folder either, as any other process that is started there."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert ask(lambda worker: Path("/proc/self/cwd").readlink().name) == ["gone (deleted)"]


def test_a_preload_is_seen_by_its_own_job_alone():
    """What it changes in modules and variables is not there in the next job."""

    def change():
        import math

        math.changed = True
        os.environ["NBPS_CHANGED"] = "1"

    def look(worker):
        import math

        return hasattr(math, "changed"), "NBPS_CHANGED" in os.environ

    assert ask(look, preload=change) == [(True, True)]
    assert ask(look) == [(False, False)]


def test_what_is_loaded_ahead_is_there_for_every_job():
    """What fails there, or a server that was killed meanwhile, keeps no job from starting."""
    assert ask(lambda worker: "colorsys" in sys.modules) == [False]
    load_ahead({("float32", "exclusive", False)}, False, 0, [(importlib.import_module, ("colorsys",))])
    assert ask(lambda worker: "colorsys" in sys.modules) == [True]
    load_ahead(set(), False, 0, [(importlib.import_module, ("there_is_no_such_module",))])
    assert ask(lambda worker: "colorsys" in sys.modules) == [True]
    server = forkserver.current()
    os.kill(server.pid, signal.SIGKILL)
    while server.runs():
        time.sleep(0.01)
    server.load((importlib.import_module, ("colorsys",)))
    assert ask(lambda worker: "colorsys" in sys.modules) == [False]


def test_a_module_that_was_edited_is_imported_anew(tmp_path, monkeypatch):
    """Each job sees the file as it is, also one that has just been written."""

    def use(worker):
        import edited

        return edited.VERSION

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for version in range(2):
        (tmp_path / "edited.py").write_text(f"VERSION = {version}  #{' ' * version}\n")
        assert ask(use) == [version]


@pytest.mark.parametrize(
    ("name", "value"),
    [("NBPS_CACHE_DIR", "2"), ("NBPS_CAS_BYTES", "8"), ("NUMBA_OPT", "2"), ("OMP_NUM_THREADS", "2")],
)
def test_a_server_of_another_environment_is_not_used(name, value, monkeypatch):
    """Variables that libraries read when they are loaded cost a new server, and the old one ends."""
    old = forkserver.current()
    pid = old.pid
    monkeypatch.setenv(name, value)
    new = forkserver.current()
    assert new.pid != pid
    del old
    assert not Path(f"/proc/{pid}").exists()
    monkeypatch.undo()
    assert forkserver.current().pid not in (pid, new.pid)


def test_a_job_outlasts_the_replacement_of_its_server(monkeypatch):
    """A job that is open when a server of another kind is started goes on, and ends in good order."""
    with nbps.Job([], workers=2) as job:
        monkeypatch.setenv("NUMBA_OPT", "2")
        forkserver.current()
        monkeypatch.undo()
        forkserver.current()
        assert job.run(lambda worker: worker.rank) == [0, 1]
        (((_, _), (_, _), (server, _)),) = {tuple(chain[-3:]) for chain in job.run(ancestors)[:1]}
    assert server != forkserver.current().pid


def test_threads_open_jobs_at_once():
    """Each gets a job of its own."""
    results = {}

    def start(number):
        results[number] = ask(lambda worker: (number, worker.rank), workers=2)

    threads = [threading.Thread(target=start, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: [(number, 0), (number, 1)] for number in range(4)}


def test_a_killed_server_ends_its_jobs_and_is_replaced():
    """The job that runs says that its processes were killed; the next one starts a new server."""
    with nbps.Job([], workers=2) as job:
        pid = forkserver.current().pid
        with pytest.raises(WorkerDiedError, match="killed together with the process that watches it"):
            job.run(lambda worker: os.kill(pid, signal.SIGKILL) if worker.rank == 0 else signal.pause())
    assert ask(lambda worker: worker.rank) == [0]
    assert forkserver.current().pid != pid


def test_a_server_killed_between_two_jobs_is_replaced():
    """The next job starts a new one, or says that it ended just now; never a raw error of the system."""
    for _ in range(5):
        pid = forkserver.current().pid
        os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(WorkerDiedError):  # the kernel still takes it down
            ask(str)
        while forkserver.current().pid == pid:
            pass  # until the test's time limit
        assert ask(lambda worker: worker.rank) == [0]


def supervisors():
    """Pids of those that the server of this process has forked, and that run."""
    server = forkserver.current().pid
    return Path(f"/proc/{server}/task/{server}/children").read_text().split()


def test_a_server_keeps_nothing_of_jobs_that_ended():
    """After five jobs it has no children, and as many descriptors as before."""

    def descriptors():
        return len(list(Path(f"/proc/{forkserver.current().pid}/fd").iterdir()))

    ask(str)
    before = descriptors()  # perhaps one more than it keeps: it tells the end of a job a little before it forgets it
    for _ in range(5):
        ask(str, workers=3)
    while supervisors() or descriptors() > before:
        time.sleep(0.01)
    assert Path(f"/proc/{forkserver.current().pid}").exists()


@pytest.mark.parametrize("planted", ["Surroundings.of_now", "send_descriptors"])
def test_a_start_that_fails_in_the_driver_leaves_no_supervisor(planted, monkeypatch):
    """Neither before nor after it was forked: it would wait for the driver's end."""
    fork = forkserver.ForkServer.fork

    def fork_and_wait(*arguments):
        forked = fork(*arguments)
        while not supervisors():
            time.sleep(0.01)
        return forked

    def fail(*arguments):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(forkserver.ForkServer, "fork", fork_and_wait)
    monkeypatch.setattr(f"nbps.runtime.group.{planted}", fail)
    with pytest.raises(WorkerError, match="Too many open files"), nbps.Job([], workers=1):
        pass
    while supervisors():
        time.sleep(0.01)


def test_a_worker_has_no_descriptors_of_others(tmp_path):
    """Beside 0 to 2: its socket, and what tells the driver's death; programs that it starts get none of these."""

    def look(worker):
        numbers = [number for number in range(3, 100) if Path(f"/proc/self/fd/{number}").is_symlink()]
        own = [Path(f"/proc/self/fd/{number}").readlink().name for number in numbers]
        started = subprocess.run(["ls", "/proc/self/fd"], stdout=subprocess.PIPE, text=True, close_fds=False).stdout
        return [name.split(":")[0] for name in own], started.split()

    with nbps.Job([], workers=3), nbps.Job([], workers=3) as job:
        for own, started in job.run(look):
            assert sorted(own)[-1] == "socket"
            assert own.count("socket") == 1
            assert sorted(map(int, started))[:3] == [0, 1, 2]
            assert len(started) == 4  # the last is the folder that ls reads


_CHILD = """
import os, sys
import nbps
from nbps.runtime import forkserver

def ask(function):
    with nbps.Job([], workers=1) as job:
        return job.run(function)

ask(str)
parents = forkserver.current().pid
with nbps.Job([], workers=1) as job:
    pid = os.fork()
    if pid == 0:
        own = ask(lambda worker: os.getppid())
        print("child", own != [parents], forkserver.current().pid != parents, flush=True)
        sys.exit()
    os.waitpid(pid, 0)
    print("parent", job.run(lambda worker: worker.rank), forkserver.current().pid == parents, flush=True)
"""


def test_a_fork_of_the_driver_has_a_server_of_its_own():
    """A job of the child neither uses nor ends its parent's server, and both leave without a word."""
    done = subprocess.run([sys.executable, "-W", "always", "-c", _CHILD], capture_output=True, text=True, timeout=60)
    assert done.stdout == "child True True\nparent [0] True\n"
    assert "ResourceWarning" not in done.stderr
    assert done.returncode == 0


_IDLE = """
import os, signal, sys
import nbps
from nbps.runtime import forkserver
with nbps.Job([], workers=1) as job:
    job.run(str)
print(forkserver.current().pid, flush=True)
if sys.argv[1] == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
elif sys.argv[1] == "exec":
    os.execv("/bin/sleep", ["sleep", "0.2"])
"""


@pytest.mark.parametrize("end", ["exit", "kill", "exec"])
def test_the_server_ends_with_its_driver(end):
    """At its exit, when it is killed, and when another program takes its place: at once where it can be waited for."""
    done = subprocess.run([sys.executable, "-c", _IDLE, end], stdout=subprocess.PIPE, text=True, timeout=60)
    server = Path(f"/proc/{int(done.stdout)}/comm")
    while end != "exit" and server.exists():  # nobody waited for it
        time.sleep(0.01)
    assert not server.exists()


def open_descriptors():
    return {link.name for link in Path("/proc/self/fd").iterdir()}


@given(st.data())
def test_descriptors_get_any_numbers(data):
    """Whatever numbers files have and are to have: each ends up under its own, and the others are closed."""
    base = 200  # numbers that nobody else has in this process
    numbers = data.draw(st.lists(st.integers(base, base + 9), unique=True, max_size=6))
    sources = data.draw(st.permutations(range(base, base + 10)))[: len(numbers)]
    files = []
    try:
        for number, source in enumerate(sources):
            file = os.memfd_create(str(number))
            os.dup2(file, source, inheritable=False)
            os.close(file)
            files.append(os.fstat(source).st_ino)
        before = open_descriptors()
        renumber(sources, numbers)
        assert [os.fstat(number).st_ino for number in numbers] == files
        after = open_descriptors()
        assert after - {str(number) for number in numbers} == before - {str(source) for source in sources}
        assert beside(base, [base + 1]) == base
    finally:
        os.closerange(base, base + 10)
