"""The same tests in other modes of the kernels, which a process chooses when it starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
PYTEST = [sys.executable, "-m", "pytest", "-n0", "-q", "-p", "no:cacheprovider"]
FILES = [
    "test_kernels_atomics.py",
    "test_kernels_relaxed.py",
    "test_kernels_rows.py",
    "test_kernels_claims.py",
    "test_kernels_copies.py",
    "test_kernels_ring.py",
    "test_kernels_board.py",
]


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
        ({"NUMBA_DISABLE_JIT": "1"}, FILES[:6]),
        ({"NUMBA_BOUNDSCHECK": "1", "NBPS_TEST_DTYPES": "float32"}, FILES[:6]),  # indices are alike for all dtypes
        ({"NBPS_CAS_BYTES": "8", "NBPS_TEST_DTYPES": "float32,int64"}, FILES[1:3]),
    ],
    ids=["plain Python", "bounds checks", "narrow compare-and-swap"],
)
def test_kernels_pass_their_tests_in_every_mode(mode, files):
    """Without the JIT, with bounds checks, and with 8-byte packs the kernels agree with their twins as well."""
    run([*PYTEST, *files], **mode)


def test_narrow_packs_lose_no_update():
    """Under contention the 8-byte form is exact as well."""
    run([*PYTEST, "test_kernels_contention.py", "-k", "float32"], NBPS_CAS_BYTES="8", NBPS_TEST_DTYPES="float32")


def test_a_wrong_pack_width_is_named(tmp_path):
    """NBPS_CAS_BYTES accepts 8 and 16 and names what else it found."""
    done = subprocess.run(
        [sys.executable, "-c", "import nbps.kernels.relaxed"],
        env={**os.environ, "NBPS_CAS_BYTES": "12"}, capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert "NBPS_CAS_BYTES is '12'; expected 8 or 16" in done.stderr
