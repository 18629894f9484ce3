"""Functions that no other process can import: their tracebacks show the user's lines, wherever the script runs."""

from __future__ import annotations

import linecache
import subprocess
import sys
from pathlib import Path

import pytest

import nbps

_FAILING = '''
import traceback

class Model:
    def fit(self):
        raise ValueError("method")  # line of a method

    @staticmethod
    def load():
        raise ValueError("static")  # line of a static method

    @property
    def size(self):
        raise ValueError("property")  # line of a property

def stop(text):
    raise ValueError(text)  # line of a function

def outer(text):
    def inner():
        raise ValueError(text)  # line of a nested function
    return inner

def yields():
    yield 1
    raise ValueError("generator")  # line of a generator

closure = outer("closure")
short = lambda: stop("lambda")  # line of a lambda
listed = lambda: [stop("comprehension") for _ in range(1)]  # line of a comprehension

def work(worker):
    """Return the traceback of everything that can fail."""
    found = []
    calls = [Model().fit, Model.load, lambda: Model().size, outer("nested"), closure, lambda: list(yields())]
    for call in [*calls, short, listed]:
        try:
            call()
        except ValueError:
            found.append(traceback.format_exc())
    return found
'''
_LINES = [line.strip() for line in _FAILING.splitlines() if "# line of" in line]


def missing(tracebacks: list[str], filename: str) -> list[str]:
    """Lines of the source that no traceback shows, and tracebacks without the file's name."""
    return [line for line in _LINES if not any(line in text for text in tracebacks)] + [
        text for text in tracebacks if f'File "{filename}", line' not in text
    ]


def test_tracebacks_of_a_notebook_cell_show_its_lines(tmp_path):
    """The source of a cell is nowhere but in the driver: every kind of function takes its lines to the workers."""
    filename = str(tmp_path / "ipykernel_7" / "1234.py")  # as IPython names it; there is no such file
    linecache.cache[filename] = (len(_FAILING), None, _FAILING.splitlines(keepends=True), filename)
    cell: dict = {"__name__": "__main__"}
    exec(compile(_FAILING, filename, "exec"), cell)
    with nbps.Job([], workers=1) as job:
        (tracebacks,) = job.run(cell["work"])
    del linecache.cache[filename]
    assert len(tracebacks) == 8
    assert missing(tracebacks, filename) == []


_SCRIPT = """
import concurrent.futures, multiprocessing, sys
import nbps
{failing}

def start():
    with nbps.Job([], workers=1) as job:
        (tracebacks,) = job.run(work)
        try:
            job.run(lambda worker: Model().fit())
        except ValueError as error:
            return tracebacks + error.__notes__

if __name__ == "__main__":
    if sys.argv[1] == "driver":
        tracebacks = start()
    else:
        context = multiprocessing.get_context(sys.argv[1])
        with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
            tracebacks = pool.submit(start).result()
    print(repr(tracebacks))
"""


@pytest.mark.slow
@pytest.mark.parametrize("process", ["driver", "spawn", "forkserver", "fork"])
def test_tracebacks_of_a_script_show_its_lines(tmp_path, process):
    """Also where the job is opened by a child of the script, in which ``__main__`` has another name."""
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT.format(failing=_FAILING))
    done = subprocess.run([sys.executable, script, process], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    tracebacks = eval(done.stdout)
    assert len(tracebacks) == 9
    assert missing(tracebacks, str(script)) == []


def test_a_function_that_a_worker_returns_keeps_its_file():
    """Results travel as calls do."""

    def make(worker):
        return lambda: 1 / 0

    with nbps.Job([], workers=1) as job:
        (returned,) = job.run(make)
    assert Path(returned.__code__.co_filename) == Path(__file__)
