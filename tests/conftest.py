"""Rules for every test: Hypothesis profiles, nothing left behind, and where the real data sets lie."""

from __future__ import annotations

import gc
import io
import itertools
import os
import signal
import sys
import threading
from collections.abc import Generator, Iterator
from multiprocessing import resource_tracker
from pathlib import Path

import cloudpickle
import hypothesis
import pytest

from nbps.memory.segments import find_segments
from nbps.runtime import forkserver

_PASSED = pytest.StashKey[bool]()
# Nodes, drivers and workers of tests are processes of their own: they find `support` too.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))

_BESIDE_THE_PROJECT = Path(__file__).resolve().parents[1].parent / "shared" / "data"

# No deadlines: a kernel is compiled within its first example, and no outcome depends on speed.
hypothesis.settings.register_profile("default", max_examples=30, deadline=None)
hypothesis.settings.register_profile("ci", max_examples=100, deadline=None, derandomize=True)
hypothesis.settings.register_profile("long", max_examples=5000, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_configure() -> None:
    """Have the processes that tests start take signals, however the tests themselves were started.

    A shell that is not at a terminal has what it starts with ``&`` ignore SIGINT, and ``nohup`` SIGHUP; whoever is
    started from there ignores them as well, in Python without a `KeyboardInterrupt`. An empty handler ignores them here
    all the same, but ``exec`` does not hand it on.
    """
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda number, frame: None)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Have every process of pytest-xdist begin with slow tests: a slow one at the end would keep one busy alone.

    ``worksteal`` gives each a part of the list, of equal length and as it stands; who is done takes from the end of
    another's. So slow files are dealt to the parts, those with a time limit of their own first, and quick tests
    follow in each.
    """
    parts = getattr(config, "workerinput", {}).get("workercount", 1)
    quick = iter([item for item in items if not item.get_closest_marker("slow")])
    by_file: dict[Path, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("slow"):
            by_file.setdefault(item.path, []).append(item)
    files = sorted(by_file.values(), key=_time_limit_s, reverse=True)
    ordered: list[pytest.Item] = []
    for part in range(parts):
        ordered += itertools.chain.from_iterable(files[part::parts])
        ordered += itertools.islice(quick, max(0, len(items) * (part + 1) // parts - len(ordered)))
    items[:] = [*ordered, *quick]


def _time_limit_s(items: list[pytest.Item]) -> float:
    """Return the longest that one of the tests has for itself; 0 if none has."""
    return max((mark.args[0] for item in items for mark in item.iter_markers("timeout")), default=0)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Have the garbage collector leave alone what stays: else each time it looks through all tests and packages."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real data sets; skips the test where it is absent."""
    folder = Path(os.environ.get("NBPS_DATA", _BESIDE_THE_PROJECT))
    if not folder.is_dir():
        pytest.skip(f"no data sets in {folder}; set NBPS_DATA to their folder")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _functions_of_test_files_travel() -> None:
    """Let workers get functions of test files as they are: they cannot import these files, which import pytest."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__.partition(".")[0]])


@pytest.fixture(scope="session", autouse=True)
def _helpers_that_stay() -> None:
    """Start what is started once and kept: Python's resource tracker, the fork server, and Arrow's descriptors."""
    resource_tracker.ensure_running()
    forkserver.current()
    import pyarrow as pa
    import pyarrow.csv

    pa.array([1]).sum()
    pyarrow.csv.read_csv(io.BytesIO(b"a\n1\n"))


def _segments() -> set[str]:
    return {f"segment {found.name}" for found in find_segments() if found.pid == os.getpid()}


def _processes() -> set[str]:
    tracker = resource_tracker._resource_tracker._pid  # type: ignore[attr-defined]
    stay = {tracker, forkserver._current.pid}  # type: ignore[union-attr]
    found = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            children = (task / "children").read_text().split()
        except FileNotFoundError:  # a thread that ended meanwhile; Python joins them a little before the kernel
            continue
        for child in children:
            if int(child) not in stay:
                found.add(f"process {child}")  # without its name, which changes a little after it began
    return found


def _named(what: str) -> str:
    kind, _, pid = what.partition(" ")
    if kind != "process":
        return what
    # Ended between the two reads, it is a zombie, and has a name: its parent, which is this process, did not wait.
    return f"{what} ({Path(f'/proc/{pid}/comm').read_text().strip()})"


def _threads() -> set[str]:
    return {f"thread {thread.name}" for thread in threading.enumerate()}


def _descriptors() -> set[str]:
    found = set()
    stay = {str(number) for number in forkserver._current.descriptors}  # type: ignore[union-attr]
    for link in Path("/proc/self/fd").iterdir():
        if link.name in stay:
            continue
        try:
            found.add(f"descriptor {link.name} -> {link.readlink()}")
        except FileNotFoundError:  # the one that listed the folder
            continue
    return found


def _everything() -> set[str]:
    return _segments() | _processes() | _threads() | _descriptors()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember whether the test itself passed."""
    report = yield
    if report.when == "call":
        item.stash[_PASSED] = report.passed
    return report


@pytest.fixture(autouse=True)
def _nothing_left_behind(_helpers_that_stay: None, request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a segment, process, thread or file descriptor behind."""
    before = _everything()
    yield
    if not request.node.stash.get(_PASSED, False):
        return  # its traceback holds what its frames held
    left = _everything() - before
    if left:  # an exception that the test caught may still hold what its frames held
        gc.collect()
        left = _everything() - before
    assert not left, f"left behind: {sorted(map(_named, left))}"
