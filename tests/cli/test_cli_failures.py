"""The command's failures: one line, an exit code, no traceback unless asked for."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from nbps.cli.options import FormatName
from nbps.data.ratings.formats import FORMATS
from nbps.errors import DataError


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--workers", "0"], "--workers"),
        (["--workers", "x"], "--workers"),
        (["--rank", "-1"], "--rank"),
        (["--epochs", "0"], "--epochs"),
        (["--epochs", "1.5"], "--epochs"),
        (["--learning-rate", "fast"], "--learning-rate"),
        (["--staleness", "-1"], "--staleness"),
        (["--consistency", "lazy"], "'lazy'"),
        (["--schedule", "x"], "'rotate', 'cached', 'direct'"),
        (["--test-fraction", "1"], "0 <= x < 1, found 1"),
        (["--learning-rate", "0"], "finite number > 0, found 0"),
        (["--learning-rate", "nan"], "finite number > 0, found nan"),
        (["--regularization", "inf"], "finite number >= 0, found inf"),
        (["--consistency", "asp"], "--schedule cached or --schedule direct"),
        (["--early-stopping", "0"], "--early-stopping"),
        (["--early-stopping", "2", "--test-fraction", "0"], "--test-fraction is 0"),
        (["--consistency", "bsp", "--staleness", "2"], "bsp has none"),
        (["--format", "csv"], "there is no --data"),
        (["--data", "a", "--test", "b", "--test-fraction", "0.5"], "exclude each other"),
        (["--no-such-option"], "--no-such-option"),
    ],
)
def test_wrong_usage_has_exit_code_2(nbps, arguments, words):
    """Each message names the option, in plain words."""
    done = nbps("train", "mf", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert not re.search("Value error|Input should|unable to parse", done.stderr)
    assert done.stdout == ""


def test_an_error_is_one_line(nbps, tmp_path):
    """What a script finds on standard error is one line however long the message, and exit code 1."""
    path = tmp_path / ("long" * 40)
    done = nbps("train", "mf", "--data", path, COLUMNS="40")
    assert done.returncode == 1
    assert done.stdout == ""
    line = done.stderr.splitlines()[-1]
    assert line.startswith("error: cannot read ratings from ")
    assert str(path) in line
    assert "there is no such file" in line


@pytest.mark.slow
def test_a_start_that_fails_is_one_short_line(process, data_file):
    """What the process that starts the workers raised is told without its traceback, which --debug shows."""
    cramped = {"NBPS_CACHE_DIR": "", "NUMBA_DISABLE_JIT": "1"}
    done = process("train", "mf", "--data", data_file, "--workers", 1, **cramped)
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith("error: the workers could not be started: ")
    assert "NUMBA_DISABLE_JIT is set" in line
    assert len(line) < 250
    assert "Traceback" not in done.stderr
    assert "supervisor.py" in process("train", "mf", "--data", data_file, "--workers", 1, "--debug", **cramped).stderr


def test_a_bad_line_reaches_the_user(nbps, tmp_path):
    """The line number of a bad rating is in the message."""
    (tmp_path / "u.data").write_text("1\t2\t3\n2\t1\tx\n")
    done = nbps("train", "mf", "--data", tmp_path / "u.data")
    assert done.returncode == 1
    assert "line 2: expected a number as rating, found 'x'" in done.stderr


def test_debug_shows_the_traceback(nbps, process, tmp_path):
    """The option and the variable both do."""
    arguments = ["train", "mf", "--data", tmp_path / "x"]
    with pytest.raises(DataError, match="cannot read"):
        nbps(*arguments, "--debug")
    done = process(*arguments, NBPS_DEBUG="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "DataError: cannot read" in done.stderr


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path / "file", "expected a folder, found a file"),
        (lambda path: path / "file" / "model", "Not a directory"),
        (lambda path: "/proc/model", "cannot write in '/proc'"),
    ],
)
def test_an_unwritable_folder_is_found_before_training(nbps, tmp_path, make, words):
    """No time is spent on a model that cannot be saved: even the missing data file is not looked for."""
    (tmp_path / "file").touch()
    done = nbps("train", "mf", "--data", tmp_path / "absent", "--out", make(tmp_path))
    assert done.returncode == 1
    assert words in done.stderr
    assert "Name another folder" in done.stderr


def test_version_and_help(nbps):
    """Both succeed and print to standard output; no arguments at all is wrong usage."""
    assert nbps("--version").stdout.startswith("nbps ")
    for arguments in (["--help"], ["-h"], ["train", "--help"], ["train", "mf", "--help"], ["doctor", "-h"]):
        done = nbps(*arguments)
        assert done.returncode == 0
        assert "Usage: nbps" in done.stdout
    assert "doctor" in nbps("--help").stdout
    assert nbps().returncode == 2


def test_help_does_not_import_what_is_slow():
    """Numba, Arrow and rich's tables wait until a command needs them."""
    code = "import sys, nbps.cli; print(sorted({'numba', 'pyarrow', 'llvmlite'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_formats_are_those_of_the_reader():
    """The command's list of formats is written out so that it need not be imported."""
    assert tuple(FormatName) == FORMATS
