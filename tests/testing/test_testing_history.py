"""The checker accepts every legal history and finds each broken promise, by its name."""

from __future__ import annotations

import math
import subprocess
import sys

import hypothesis.strategies as st
import pytest
from hypothesis import given

from nbps.testing import Add, History, Passed, Read, Torn, check
from support import histories

T = "t"


def found(history):
    return sorted({violation.property for violation in check(history)})


def read(worker, clock, values, time, staleness=math.inf, visible=None, **more):
    return Read(worker, clock, T, 0, values, staleness, time, visible, **more)


def add(worker, clock, time, count=1):
    return Add(worker, clock, T, 0, count, time)


# Worker 0 adds 1, 2 and 4 in its clocks 0, 1 and 2; what follows is a read of worker 1 at clock 3.
ADDED = [add(0, 0, 0.0, 1), add(0, 1, 1.0, 2), add(0, 2, 2.0, 4), Passed(0, 3, 3.0)]

READS = {
    "everything": ([read(1, 3, (7, 0), 9.0, staleness=0, visible=3)], []),
    "as old as allowed": ([read(1, 3, (3, 0), 9.0, staleness=1)], []),
    "no bound": ([read(1, 3, (0, 0), 9.0)], []),
    "too old": ([read(1, 3, (1, 0), 9.0, staleness=1)], ["P1"]),
    "less than was reported": ([read(1, 3, (3, 0), 9.0, visible=3)], ["visible"]),
    "own addition missing": ([add(1, 3, 8.0), read(1, 3, (7, 0), 9.0)], ["P2"]),
    "own addition twice": ([add(1, 3, 8.0), read(1, 3, (7, 2), 9.0)], ["P2"]),
    "going back": ([read(1, 3, (7, 0), 8.0), read(1, 3, (3, 0), 9.0)], ["P3"]),
    "going back, in the copy of another worker": ([read(1, 3, (7, 0), 8.0), read(2, 3, (3, 0), 9.0)], []),
    "more than was ever added": ([read(1, 3, (8, 0), 9.0)], ["P4"]),
    "before it was added": ([read(1, 0, (7, 0), 1.5)], ["P4"]),
    "while it is added": ([read(1, 0, (7, 0), 2.0)], []),
    "a later addition without an earlier one": ([read(1, 3, (2, 0), 9.0)], ["P4"]),
    "torn": ([Torn(1, 3, T, 0, 0, 2**32, 2**32 + 1, 9.0)], ["P5"]),
    "torn at the end": ([Torn(-1, -1, T, 0, 0, 2**32, 2**32 + 1, math.inf)], ["P5"]),
}


@pytest.mark.parametrize("name", READS)
def test_a_read_is_judged(name):
    """One read, or two, that break one promise or none."""
    entries, expected = READS[name]
    workers = 1 + max(entry.worker for entry in [*entries, ADDED[0]] if entry.worker >= 0)
    wide = [e._replace(values=e.values + (0,) * (max(workers, 2) - 2)) if isinstance(e, Read) else e for e in entries]
    assert found(History(max(workers, 2), ADDED + wide)) == expected


@pytest.mark.parametrize(
    ("final", "lost", "expected"),
    [
        ((7, 0), set(), []),
        ((3, 0), set(), ["P4"]),
        ((9, 0), set(), ["P4"]),
        ((7, 1), set(), ["P4"]),
        ((7, 0), {0}, []),
        ((8, 0), {0}, ["P4"]),
        ((3, 0), {0}, ["P4"]),  # it had come to clock 3, so its clocks before were committed
    ],
)
def test_the_end_is_judged(final, lost, expected):
    """Sums are exact, or for a worker that died lie between what it committed and what it added."""
    history = History(2, list(ADDED), {(T, 0): final}, lost=lost)
    assert found(history) == expected


def test_a_dead_worker_may_have_left_its_last_clock():
    """What it added in the clock in which it died may be there, or a first part of it."""
    entries = [*ADDED, add(0, 3, 4.0, 8), add(0, 3, 5.0, 16)]
    judged = {n: found(History(2, entries, {(T, 0): (n, 0)}, lost={0})) for n in (7, 15, 31, 23)}
    assert judged == {7: [], 15: [], 31: [], 23: ["P4"]}


def test_a_row_that_is_missing_or_filled_by_nobody_is_told():
    """The end has all rows that were added to, and nothing in others."""
    assert found(History(2, list(ADDED), {})) == ["P4"]
    assert found(History(2, [], {(T, 1): (0, 1)})) == ["P4"]


@pytest.mark.parametrize(("passed", "expected"), [(1.4, ["drift"]), (1.5, []), (2.0, [])])
def test_a_worker_that_was_let_in_too_early_is_found(passed, expected):
    """Worker 1 may enter clock 2 under staleness 1 only when worker 0 has left clock 0, where it last is at 1.5."""
    entries = [add(0, 0, 1.0), add(0, 0, 1.5), Passed(1, 2, passed), add(0, 1, 3.0)]
    assert found(History(2, entries, staleness=1)) == expected


@pytest.mark.parametrize(
    ("value", "began", "expected"),
    [(5, 9.0, []), (2, 9.0, []), (0, 9.0, ["VAP"]), (0, 3.0, []), (0, None, []), (0, 3.5, ["VAP"])],
)
def test_what_a_read_lacks_under_a_value_bound(value, began, expected):
    """Worker 0, let into clock 4 at 3.0 with 5 committed, may have 6 / sqrt(4) = 3 in transit from then on."""
    entries = [add(0, 1, 0.0, 2), add(0, 2, 1.0, 3), Passed(0, 4, 3.0), Passed(1, 0, 2.0)]
    history = History(2, [*entries, read(1, 0, (value, 0), 10.0, began=began)], value_bound=6.0)
    assert found(history) == expected


def test_messages_say_what_which_expected_and_found():
    """A violation can be understood without the history."""
    late = check(History(2, [*ADDED, read(1, 3, (1, 0), 9.0, staleness=1)]))[0]
    assert late.message == (
        "worker 1 at clock 3: row 0 of table 't' shows 1 of worker 0; "
        "expected at least 3, from its clocks < 2, staleness 1"
    )
    assert late.entry.time == 9.0


@pytest.mark.parametrize("entry", [read(2, 0, (0, 0), 0.0), read(0, 0, (0,), 0.0), add(-1, 0, 0.0)])
def test_a_history_that_makes_no_sense_is_refused(entry):
    """A worker that does not exist, or a row of another width."""
    with pytest.raises(ValueError, match="expected"):
        check(History(2, [entry]))


def test_times_that_are_all_the_same_conclude_nothing():
    """Where machines have clocks of their own and times are set to 0, only what needs no time is checked."""
    timeless = [entry._replace(time=0.0) for entry in reversed(ADDED)]
    early = [Passed(1, 9, 0.0), read(1, 9, (7, 0), 0.0)]
    history = History(2, early + sorted(timeless, key=lambda entry: entry.clock), staleness=0, value_bound=0.1)
    assert found(history) == []


@given(st.integers(0, 2**32), st.sampled_from([0, 1, 3, math.inf]), st.integers(1, 4))
def test_legal_histories_are_accepted(seed, staleness, workers):
    """Whatever the schedule and however adversarial the reads."""
    assert check(histories.legal(seed, workers, staleness=staleness)) == []


@given(st.integers(0, 2**32), st.sampled_from([0, 1, 3]), st.data())
def test_one_change_to_a_legal_history_is_found(seed, staleness, data):
    """An addition lost, doubled or counted wrongly, a value too low or too high, a clock entered too early."""
    history = histories.legal(seed, staleness=staleness)
    entries = history.entries
    adds = [n for n, entry in enumerate(entries) if isinstance(entry, Add)]
    reads = [n for n, entry in enumerate(entries) if isinstance(entry, Read)]
    if not adds or not reads:
        return
    n, m = data.draw(st.sampled_from(adds)), data.draw(st.sampled_from(reads))
    addition, seen = entries[n], entries[m]
    column = data.draw(st.integers(0, history.workers - 1))
    kind = data.draw(st.sampled_from(["lost", "doubled", "count", "high", "own", "late", "final"]))
    if kind == "lost":
        del entries[n]
    elif kind == "doubled":
        entries.insert(n, addition)
    elif kind == "count":
        entries[n] = addition._replace(count=addition.count + 1)
    elif kind == "final":
        history.final["t", 0] = tuple(value + (k == column) for k, value in enumerate(history.final["t", 0]))
    else:
        if kind == "own":
            column, value = seen.worker, seen.values[seen.worker] + 1
        elif kind == "high":
            value = sum(entry.count for entry in entries if isinstance(entry, Add)) + 1
        else:
            needed = sum(
                entry.count
                for entry in entries
                if isinstance(entry, Add)
                and (entry.worker, entry.row) == (column, seen.row)
                and entry.clock < seen.clock - seen.staleness
            )
            if needed == 0:
                return
            value = needed - 1
        values = (*seen.values[:column], value, *seen.values[column + 1 :])
        entries[m] = seen._replace(values=values)
    own = kind == "own" or (kind == "high" and column == seen.worker)
    assert {"late": "P1"}.get(kind, "P2" if own else "P4") in found(history)


def test_the_checker_is_light_to_import():
    """The simulator imports it: neither NumPy nor Numba nor pytest comes along, beyond what nbps itself needs."""
    script = (
        "import sys, nbps; before = set(sys.modules); import nbps.testing.consistency.history; "
        "print(sorted({'numpy', 'numba', 'pyarrow', 'pytest', 'nbps.job.job'} & set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
