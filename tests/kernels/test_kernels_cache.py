"""The cache of machine code: damaged, unreadable, full, gone or shared, it never ends a job, and never crashes one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nbps import kernels
from nbps.kernels import cache
from support.mounts import disk, mounted, read_only

SOURCE = Path(kernels.__path__[0])
COMPILING = "nbps: compiling kernels for this machine (only once) ..."
_USE = """
import shutil, sys
import numpy as np
from nbps.kernels import cache, rows
from nbps.kernels.prepare import prepare

ids, out = np.ones(1, np.int64), np.zeros((1, 4), np.float32)
table = rows.TableKernel(np.arange(8, dtype=np.float32).reshape(2, 4), 0)
if "removed" in sys.argv:
    shutil.rmtree(cache.cache_folder())
requests = [(rows.first_bad_id, (ids, 2)), (rows.get_rows, (table, ids, out))]
prepare(requests[: 1 if "one" in sys.argv else 2])
rows.get_rows(table, ids, out)
print(out[0].tolist(), rows.first_bad_id(ids, 2), cache.cache_folder())
"""
RESULT = "[4.0, 5.0, 6.0, 7.0] -1"


def start(*arguments: str, prefix: tuple[str, ...] = (), cwd: object = None, **environment: object):
    """Start a process that prepares two kernels and calls them."""
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", _USE, *arguments],
        cwd=cwd,
        env={**os.environ, **{name: str(value) for name, value in environment.items()}},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> list[str]:
    """Return the lines on stderr of a process, which has computed the right result."""
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert out.startswith(RESULT), err
    return err.splitlines()


def use(root: Path, *arguments: str, prefix: tuple[str, ...] = (), **environment: object) -> list[str]:
    return finish(start(*arguments, prefix=prefix, NBPS_CACHE_DIR=root, **environment))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Return a folder in which the kernels lie compiled; tests work on copies."""
    root = tmp_path_factory.mktemp("compiled")
    said = use(root)
    assert said[0] == COMPILING
    assert re.fullmatch(r"nbps: compiled 2 kernels in \d+\.\d s", said[1])
    assert len(said) == 2
    return root


@pytest.fixture
def root(compiled, tmp_path):
    return shutil.copytree(compiled, tmp_path / "root")


def code_of(root: Path, name: str) -> Path:
    (path,) = root.glob(f"kernels-*/*{name}*.nbc")
    return path


# --------------------------------------------------------------------------- what is said


def test_what_lies_in_the_cache_is_loaded_without_a_word(root):
    """Also in a combination that no job has had: nothing is compiled, so nothing is said."""
    assert use(root) == []
    assert use(root, "one") == []


@pytest.mark.slow
def test_what_one_job_lacks_is_all_that_is_compiled(root):
    """A kernel whose file is gone is compiled, no other."""
    code_of(root, "first_bad_id").unlink()
    said = use(root)
    assert said[0] == COMPILING
    assert said[1].startswith("nbps: compiled 1 kernel in ")
    assert use(root) == []


# --------------------------------------------------------------------------- damaged files


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 0x10
    path.write_bytes(content)


def cut(path: Path, part: float) -> None:
    os.truncate(path, int(part * path.stat().st_size))


DAMAGES = {
    "emptied": lambda path: path.write_bytes(b""),
    "without its last byte": lambda path: os.truncate(path, path.stat().st_size - 1),
    "half of it": lambda path: cut(path, 0.5),
    "less than a checksum": lambda path: os.truncate(path, 7),
    "a bit of the checksum": lambda path: flip(path, 3),
    "a bit of the pickle": lambda path: flip(path, 40),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_as_none(tmp_path, capsys, monkeypatch, damage):
    """One line says which file it is; what is saved then is loaded again."""
    monkeypatch.setattr(cache, "_warned", set())
    files = cache.CodeFiles(tmp_path, "rows.get_rows-1")
    files.save("key", list(range(1000)))
    assert files.load("key") == list(range(1000))
    DAMAGES[damage](files.path("key"))
    assert files.load("key") is None
    assert files.load("key") is None
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"nbps: {files.path('key')} is damaged: compiling that kernel anew (nbps doctor looks at all of them)"
    )
    files.save("key", "anew")
    assert files.load("key") == "anew"


def test_a_file_of_something_else_is_as_none(tmp_path, capsys):
    """An intact file under another's name is not taken for it: two names can be one by chance."""
    files = cache.CodeFiles(tmp_path, "rows.get_rows-1")
    files.save("key", "code")
    files.path("key").rename(files.path("other"))
    assert files.load("other") is None
    assert capsys.readouterr().err == ""


def test_no_flipped_bit_or_cut_gets_through(root):
    """1,000 of them, anywhere in a kernel's file: what is damaged is not even unpickled."""
    path = code_of(root, "first_bad_id")
    content, random = path.read_bytes(), np.random.default_rng(0)
    assert cache._intact(path) is not None
    for n in range(1000):
        changed = bytearray(content)
        changed[random.integers(len(content))] ^= 1 << random.integers(8)
        path.write_bytes(changed[: random.integers(len(content))] if n % 10 == 0 else changed)
        assert cache._intact(path) is None


def test_damaged_kernels_run_and_are_mended(root):
    """Empty files, and a bit of machine code: one line names one, results are right, and the next start is silent."""
    paths = sorted(root.glob("kernels-*/*.nbc"))
    for path in paths[1:]:
        path.write_bytes(b"")
    flip(paths[0], paths[0].read_bytes().index(b"\x7fELF") + 700)
    assert len(paths) > 1
    (line,) = use(root)
    assert re.fullmatch(r"nbps: \S+\.nbc is damaged: compiling that kernel anew \(nbps doctor .*\)", line)
    assert use(root) == []


@pytest.mark.slow
@pytest.mark.skipif(
    os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root reads everything, and there is no setpriv"
)
def test_an_unreadable_file_is_compiled_anew(root):
    """It says so, and replaces the file."""
    path = code_of(root, "get_rows")
    path.chmod(0)
    weak = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.geteuid() == 0 else ()
    said = use(root, prefix=weak)
    assert said == [f"nbps: cannot read {path} (Permission denied): compiling that kernel anew"]
    assert use(root, prefix=weak) == []


@pytest.mark.slow
def test_a_folder_in_the_place_of_a_file_is_compiled_around(root):
    """It can be neither read nor replaced: both is said, and the kernel runs."""
    path = code_of(root, "get_rows")
    path.unlink()
    path.mkdir()
    said = use(root)
    assert said[0] == f"nbps: cannot read {path} (Is a directory): compiling that kernel anew"
    assert said[1].startswith(f"nbps: cannot keep compiled kernels in {path.parent} (Is a directory): every start")
    assert len(said) == 2
    assert not list(path.parent.glob("*.tmp"))


@pytest.mark.slow
def test_a_job_runs_although_its_cache_is_damaged(tmp_path):
    """The first thing found from outside: ``: > .../kernels-*/*get_rows*`` ended every job for good."""
    program = tmp_path / "program.py"
    program.write_text(
        "import nbps\n"
        "def add(worker):\n"
        "    worker.table('t').inc(0, 1.0)\n"
        "with nbps.Job([nbps.Table('t', rows=2, width=1)], workers=2) as job:\n"
        "    job.run(add)\n"
        "    print(job.table('t').to_numpy()[0, 0])\n"
    )
    environment = {**os.environ, "NBPS_CACHE_DIR": str(tmp_path)}
    outcomes = []
    for _ in range(3):
        done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, check=True)
        outcomes.append((done.stdout, len(done.stderr.splitlines())))
        if len(outcomes) == 1:
            for path in tmp_path.glob("kernels-*/*get_rows*"):
                path.write_bytes(b"")
    assert outcomes == [("2.0\n", 2), ("2.0\n", 1), ("2.0\n", 0)]


# --------------------------------------------------------------------------- folders


@pytest.mark.slow
def test_without_room_kernels_run_all_the_same(tmp_path):
    """A full disk keeps nothing, and says so once; no part of a file is left."""
    said = use(tmp_path, prefix=mounted(disk(tmp_path, "size=32k,mode=700")))
    assert said[0] == COMPILING
    assert said[1].startswith(f"nbps: cannot keep compiled kernels in {tmp_path}/kernels-")
    assert "(No space left on device): every start compiles them again; mend that, or set NBPS_CACHE_DIR" in said[1]
    assert said[2].startswith("nbps: compiled 2 kernels in ")
    assert len(said) == 3


@pytest.mark.slow
def test_a_read_only_folder_is_replaced(tmp_path):
    """Machine code goes to the temporary folder then."""
    chosen, temporary = tmp_path / "chosen", tmp_path / "temporary"
    chosen.mkdir()
    temporary.mkdir()
    prefix = mounted(disk(chosen, "ro"))
    assert use(chosen, prefix=prefix, TMPDIR=temporary)[0] == COMPILING
    assert len(list(temporary.glob("nbps-cache-*/kernels-*/*.nbc"))) > 1


def test_without_any_folder_kernels_run_all_the_same(tmp_path):
    """Neither the chosen nor the temporary folder can be made: nothing is kept, and that is said."""
    (tmp_path / "file").touch()
    (tmp_path / f"nbps-cache-{os.getuid()}").touch()
    said = use(tmp_path / "file", TMPDIR=tmp_path)
    assert "(every time, as no folder for them can be used: see nbps doctor)" in said[0]
    assert said[1].startswith("nbps: compiled 2 kernels in ")
    assert len(said) == 2


@pytest.mark.slow
def test_without_any_disk_kernels_run_all_the_same():
    """In a container all of whose folders are read-only, the temporary ones as well."""
    prefix = mounted(*(read_only(path) for path in map(Path, ("/tmp", "/var/tmp", "/usr/tmp")) if path.is_dir()))
    said = finish(start(prefix=prefix, cwd="/proc", NBPS_CACHE_DIR="/proc/nowhere"))
    assert "(every time, as no folder for them can be used: see nbps doctor)" in said[0]
    assert len(said) == 2


@pytest.mark.slow
def test_a_folder_that_is_removed_meanwhile_is_made_again(root):
    """As ``nbps doctor --clean`` of another version does: what a running process compiles then is kept."""
    said = use(root, "removed")
    assert said[0] == COMPILING
    assert len(said) == 2
    (folder,) = root.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert use(root) == []


def test_two_processes_at_once_compile_once(tmp_path):
    """The second waits for the first, and loads what it has compiled."""
    both = [start(NBPS_CACHE_DIR=tmp_path) for _ in range(2)]
    said = [finish(process) for process in both]
    assert sorted(map(len, said)) == [0, 2]


@pytest.mark.slow
def test_two_processes_at_once_mend_a_damaged_file(root):
    """Each takes its own, whichever stays."""
    code_of(root, "get_rows").write_bytes(b"damaged")
    for process in [start(NBPS_CACHE_DIR=root) for _ in range(2)]:
        assert len(finish(process)) <= 1
    assert use(root) == []


@pytest.mark.slow
def test_a_cache_folder_that_cannot_be_made_is_replaced(tmp_path):
    """Where the chosen folder cannot be written, machine code goes to the temporary folder."""
    (tmp_path / "file").write_text("")
    said = use(tmp_path / "file", TMPDIR=tmp_path)
    assert said[0] == COMPILING
    assert len(list(tmp_path.glob("nbps-cache-*/kernels-*/*.nbc"))) > 1


@pytest.mark.slow
def test_others_cannot_put_machine_code_there(tmp_path):
    """A folder that others can write to is not used."""
    (folder,) = {code_of(tmp_path, "get_rows").parent for _ in [use(tmp_path, TMPDIR=tmp_path)]}
    folder.chmod(0o777)
    assert use(tmp_path, TMPDIR=tmp_path)[0] == COMPILING
    assert list(tmp_path.glob("nbps-cache-*/kernels-*/*.nbc"))


# --------------------------------------------------------------------------- what decides the machine code


def run(command: list[str], **environment: str) -> str:
    return subprocess.run(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


_FLUSH = """
import numpy as np
from copied import cache, copies, rows
parent = np.zeros((1, 5), np.float32)
values, base, scratch = np.ones((1, 5), np.float32), np.zeros((1, 5), np.float32), np.zeros(5, np.float32)
copies.flush(values, base, rows.TableKernel(parent, 1), 0, scratch, np.zeros(0))
print(parent[0].tolist(), sum(copies.flush.stats.cache_hits.values()), cache.cache_folder().name)
"""


@pytest.mark.slow
def test_a_change_in_a_callee_is_never_hidden_by_the_cache(tmp_path):
    """Machine code is loaded again while the kernels stay the same, and made anew when any file changes."""
    shutil.copytree(SOURCE, tmp_path / "copied", ignore=shutil.ignore_patterns("__pycache__"))
    environment = {"NBPS_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", _FLUSH]
    first, again = (run(command, **environment).split("]") for _ in range(2))
    assert first[0] == again[0] == "[1.0, 1.0, 1.0, 1.0, 1.0"
    assert (first[1].split()[0], again[1].split()[0]) == ("0", "1")

    callee = tmp_path / "copied" / "rows.py"  # `flush`, in copies.py, calls add_row_lossless in rows.py
    callee.write_text(callee.read_text().replace("add_relaxed(row, j, delta[j])", "add_relaxed(row, j, 3 * delta[j])"))
    changed = run(command, **environment).split("]")
    assert "3.0" in changed[0]
    assert changed[1].split()[0] == "0"
    assert changed[1].split()[1] != first[1].split()[1]


def test_bounds_checked_code_has_a_folder_of_its_own():
    """NUMBA_BOUNDSCHECK=1 neither loads nor leaves code for runs without it."""
    command = [sys.executable, "-c", "from nbps.kernels import cache; print(cache.cache_folder().name)"]
    assert run(command) != run(command, NUMBA_BOUNDSCHECK="1")
