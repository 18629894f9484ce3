"""The same tests in other modes of the kernels, which a process chooses when it starts; the cache of code."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nbps import kernels

HERE = Path(__file__).parent
FILES = [
    "test_kernels_atomics.py",
    "test_kernels_relaxed.py",
    "test_kernels_rows.py",
    "test_kernels_replica.py",
    "test_kernels_ring.py",
    "test_kernels_board.py",
]
SOURCE = Path(kernels.__path__[0])


def run(command: list[str], **environment: str) -> str:
    """Output of a command that ends well."""
    done = subprocess.run(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=HERE,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("mode", "files"),
    [
        ({"NUMBA_DISABLE_JIT": "1"}, FILES[:5]),
        ({"NUMBA_BOUNDSCHECK": "1", "NBPS_TEST_DTYPES": "float32,int64"}, FILES[:5]),
        ({"NBPS_CAS_BYTES": "8", "NBPS_TEST_DTYPES": "float32,int64"}, FILES[1:3]),
    ],
    ids=["plain Python", "bounds checks", "narrow compare-and-swap"],
)
def test_kernels_pass_their_tests_in_every_mode(mode, files):
    """Without the JIT, with bounds checks, and with 8-byte packs the kernels agree with their twins as well."""
    run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files], **mode)


def test_narrow_packs_lose_no_update():
    """Under contention the 8-byte form is exact as well."""
    run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_kernels_contention.py", "-k", "float32"],
        NBPS_CAS_BYTES="8", NBPS_TEST_DTYPES="float32")  # fmt: skip


def test_a_wrong_pack_width_is_named(tmp_path):
    """NBPS_CAS_BYTES accepts 8 and 16 and names what else it found."""
    done = subprocess.run(
        [sys.executable, "-c", "import nbps.kernels.relaxed"],
        env={**os.environ, "NBPS_CAS_BYTES": "12"}, capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert "NBPS_CAS_BYTES is '12'; expected 8 or 16" in done.stderr


_FLUSH = """
import numpy as np
from copied import jit, replica, rows
parent = np.zeros((1, 5), np.float32)
values, base, scratch = np.ones((1, 5), np.float32), np.zeros((1, 5), np.float32), np.zeros(5, np.float32)
replica.flush(values, base, parent, rows.NOBODY_LOOKS, 0, scratch, np.zeros(0))
print(parent[0].tolist(), sum(replica.flush.stats.cache_hits.values()), jit.cache_folder().name)
"""


def test_a_change_in_a_callee_is_never_hidden_by_the_cache(tmp_path):
    """Machine code is loaded again while the kernels stay the same, and made anew when any file changes."""
    shutil.copytree(SOURCE, tmp_path / "copied", ignore=shutil.ignore_patterns("__pycache__"))
    environment = {"NBPS_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", _FLUSH]
    first, again = (run(command, **environment).split("]") for _ in range(2))
    assert first[0] == again[0] == "[1.0, 1.0, 1.0, 1.0, 1.0"
    assert (first[1].split()[0], again[1].split()[0]) == ("0", "1")

    callee = tmp_path / "copied" / "rows.py"  # `flush`, in replica.py, calls add_row_lossless in rows.py
    callee.write_text(callee.read_text().replace("add_relaxed(row, j, delta[j])", "add_relaxed(row, j, 3 * delta[j])"))
    changed = run(command, **environment).split("]")
    assert "3.0" in changed[0]
    assert changed[1].split()[0] == "0"
    assert changed[1].split()[1] != first[1].split()[1]


def test_bounds_checked_code_has_a_folder_of_its_own():
    """NUMBA_BOUNDSCHECK=1 neither loads nor leaves code for runs without it."""
    command = [sys.executable, "-c", "from nbps.kernels import jit; print(jit.cache_folder().name)"]
    assert run(command) != run(command, NUMBA_BOUNDSCHECK="1")


def test_a_cache_folder_that_cannot_be_made_is_replaced(tmp_path):
    """Where the chosen folder cannot be written, machine code goes to the temporary folder and kernels still run."""
    (tmp_path / "file").write_text("")
    output = run(
        [sys.executable, "-c", "from nbps.kernels import jit; print(jit.cache_folder())"],
        NBPS_CACHE_DIR=str(tmp_path / "file"), TMPDIR=str(tmp_path),
    )  # fmt: skip
    assert output.startswith(str(tmp_path))
