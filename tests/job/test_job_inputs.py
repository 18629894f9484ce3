"""Bad input to tables, jobs and consistency models: each has an error of ours."""

from __future__ import annotations

import dataclasses
import math
import operator
import threading

import numpy as np
import pytest

import nbps
from nbps.errors import ConfigError, DataError, JobClosedError, TableError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": ""}, "name is ''; expected 1 to 128 characters"),
        ({"name": "x" * 129}, "expected 1 to 128 characters"),
        ({"name": 3}, "name is 3"),
        ({"rows": 0}, "table 't': rows is 0; expected a whole number from 1"),
        ({"rows": -1}, "rows is -1"),
        ({"rows": 1.5}, "rows is 1.5"),
        ({"width": 2**31}, "width is 2147483648; expected a whole number from 1 to 2147483647"),
        ({"dtype": "float16"}, "dtype is 'float16'; expected one of float32, float64, int32, int64"),
        ({"dtype": "nonsense"}, "dtype is 'nonsense'"),
        ({"access": "private"}, "access is 'private'; expected one of direct, cached, exclusive"),
        ({"staleness": -1}, "table 't': staleness is -1; expected a whole number"),
        ({"staleness": 1.5}, "staleness is 1.5"),
        ({"staleness": math.nan}, "staleness is nan"),
        ({"staleness": True}, "staleness is True"),
        ({"init": np.zeros((2, 3))}, r"table 't': init has shape \(2, 3\); expected \(1, 1\), rows and width, or a n"),
        ({"init": [0.0]}, r"init has shape \(1,\); expected \(1, 1\)"),
    ],
    ids=str,
)
def test_a_table_that_cannot_be(options, message):
    """Every field is checked when the table is described."""
    with pytest.raises(ConfigError, match=message):
        nbps.Table(**{"name": "t", "rows": 1, "width": 1, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers is 0; expected a whole number from 1 to 819"),
        ({"workers": 820}, "Job: workers is 820; expected a whole number from 1 to 819"),
        ({"workers": 1.5}, "workers is 1.5"),
        ({"workers": "2"}, "workers is '2'"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": None}, "seed is None"),
        ({"record_staleness": 1}, "record_staleness is 1; expected True or False"),
        ({"preload": "numpy"}, "preload is 'numpy'; expected a function without arguments"),
        ({"nodes": 2}, r"nodes is 2; expected nbps.Nodes\(count, rank"),
        ({"clock_timeout_s": 0}, "clock_timeout_s is 0; expected seconds > 0"),
        ({"clock_timeout_s": "1"}, "clock_timeout_s is '1'"),
        ({"clock_timeout_s": math.nan}, "clock_timeout_s is nan"),
        ({"consistency": nbps.BSP}, "consistency is the class BSP; expected an object"),
        ({"consistency": "essp"}, "consistency is 'essp'"),
        ({"tables": None}, "expected a sequence of nbps.Table, found None"),
        ({"tables": ["t"]}, "found 't'"),
        (
            {"consistency": nbps.BSP(), "tables": [nbps.Table("t", 1, 1)]},
            r"Job: BSP\(\) with table 't', access 'direct': direct rows show .* expected access='cached', or",
        ),
        (
            {"consistency": nbps.VAP(1), "tables": [nbps.Table("t", 1, 1), nbps.Table("u", 1, 1, access="exclusive")]},
            r"Job: VAP\(v0=1.0\) with table 't', access 'direct', and none that is cached: .* expected access='cached'",
        ),
        ({"tables": nbps.Table("t", 1, 1)}, r"expected a sequence of nbps.Table, found Table\("),
        ({"tables": [nbps.Table("t", 1, 1), nbps.Table("t", 2, 2)]}, "two tables are called 't'; names must differ"),
    ],
)
def test_a_job_that_cannot_be(options, message):
    """Every argument is checked before anything is made."""
    with pytest.raises(ConfigError, match=message):
        nbps.Job(**{"tables": [], **options})


@pytest.mark.parametrize("model", [nbps.SSP, nbps.ESSP])
def test_staleness_is_a_whole_number_of_any_kind_or_infinite(model):
    """NumPy integers and whole floats count as what they are; all else is refused."""
    assert [model(s).staleness for s in (0, 2.0, np.int64(3), np.float32(1), math.inf)] == [0, 2, 3, 1, math.inf]
    for wrong in (-1, 0.5, math.nan, "1", None, True, 10**400):
        with pytest.raises(ConfigError, match=f"{model.__name__}: staleness is"):
            model(wrong)


def refused(worker):
    """Carry out calls that must fail; return their errors, and the table's rows to show that nothing was added."""
    floats, whole, checked = worker.table("floats"), worker.table("whole"), worker.table("checked")
    exclusive, cached = worker.table("exclusive"), worker.table("cached")
    calls = {
        "unknown": lambda: worker.table("nothing"),
        "too large": lambda: floats.get([0, 5]),
        "negative": lambda: floats.inc([0, -1], 1),
        "far": lambda: floats.get(np.array([2**64 - 1], np.uint64)),
        "far int": lambda: floats.get(2**70),
        "float id": lambda: floats.get(0.0),
        "bool id": lambda: floats.get([True, False]),
        "two-dimensional ids": lambda: floats.get([[0]]),
        "text id": lambda: floats.inc("0", 1),
        "no id": lambda: floats.get(None),
        "width": lambda: floats.inc([0, 1], np.ones((2, 2))),
        "count": lambda: floats.inc([0, 1], np.ones((1, 3))),
        "one row": lambda: floats.inc([0, 1], np.ones(2)),
        "three dimensions": lambda: floats.inc([0], np.ones((1, 1, 3))),
        "float into int": lambda: whole.inc(0, 0.5),
        "too large for int": lambda: whole.inc(0, 2**40),
        "complex": lambda: floats.inc(0, 1j),
        "text": lambda: floats.inc(0, "a"),
        "nan": lambda: checked.inc([1, 0], [[0, 0, 0], [0, np.nan, 0]]),
        "overflow": lambda: checked.inc(0, np.inf),
        "index": lambda: floats[0],
        "index to write": lambda: operator.setitem(cached, 0, 1),
        "iteration": lambda: list(exclusive),
        "put direct": lambda: floats.put(0, 1),
        "put cached": lambda: cached.put(0, 1),
        "put id": lambda: exclusive.put(9, 1),
        "staleness": lambda: floats.get(0, staleness=-1),
    }
    found = {}
    for what, call in calls.items():
        try:
            call()
        except (TableError, ConfigError) as error:
            found[what] = str(error)
    return found, sum(
        float(np.abs(t.get(range(t.shape[0]))).sum()) for t in (floats, whole, checked, exclusive, cached)
    )


def test_bad_calls_on_a_table_are_refused_and_add_nothing():
    """Unknown tables, bad ids, bad deltas and misplaced puts: the message names the table and what was expected."""
    tables = [
        nbps.Table("floats", 5, 3),
        nbps.Table("whole", 5, 3, dtype="int32"),
        nbps.Table("checked", 5, 3, check_finite=True),
        nbps.Table("exclusive", 5, 3, access="exclusive"),
        nbps.Table("cached", 5, 3, access="cached"),
    ]
    with nbps.Job(tables, workers=1) as job:
        ((found, total),) = job.run(refused)
        with pytest.raises(TableError, match="unknown table 'nothing'; this job's tables: 'floats', 'whole'"):
            job.table("nothing")
    ids = "table 'floats': expected an integer id or a one-dimensional array of them, found dtype {} and shape {}"
    deltas = "table 'floats': deltas have shape {}; expected {}, (3,) or a number"
    index = "table '{}': a WorkerTable takes no indices; use get(ids) to read rows and inc(ids, deltas) to add to them"
    put = "table '{}': put() overwrites what other workers add; use inc(), or access='exclusive'"
    assert found == {
        "unknown": "unknown table 'nothing'; this job's tables: 'floats', 'whole', 'checked', 'exclusive', 'cached'",
        "too large": "table 'floats': id 5 at position 1 is out of range; expected 0 <= id < 5",
        "negative": "table 'floats': id -1 at position 1 is out of range; expected 0 <= id < 5",
        "far": "table 'floats': id 18446744073709551615 at position 0 is out of range; expected 0 <= id < 5",
        "far int": ids.format("object", "()"),
        "float id": ids.format("float64", "()"),
        "bool id": ids.format("bool", "(2,)"),
        "two-dimensional ids": ids.format("int64", "(1, 1)"),
        "text id": ids.format("<U1", "()"),
        "no id": ids.format("object", "()"),
        "width": deltas.format("(2, 2)", "(2, 3)"),
        "count": deltas.format("(1, 3)", "(2, 3)"),
        "one row": deltas.format("(2,)", "(2, 3)"),
        "three dimensions": deltas.format("(1, 1, 3)", "(1, 3)"),
        "float into int": "table 'whole': deltas have dtype float64; expected int32",
        "too large for int": "table 'whole': deltas from 1099511627776 to 1099511627776; "
        "expected numbers that fit int32",
        "complex": "table 'floats': deltas have dtype complex128; expected float32",
        "text": "table 'floats': deltas have dtype <U1; expected float32",
        "nan": "table 'checked': delta for row 0, column 1 is nan; expected finite numbers (check_finite is on)",
        "overflow": "table 'checked': delta for row 0, column 0 is inf; expected finite numbers (check_finite is on)",
        "index": index.format("floats"),
        "index to write": index.format("cached"),
        "iteration": index.format("exclusive"),
        "put direct": put.format("floats"),
        "put cached": put.format("cached"),
        "put id": "table 'exclusive': id 9 at position 0 is out of range; expected 0 <= id < 5",
        "staleness": found["staleness"],
    }
    assert found["staleness"].startswith("table 'floats'.get: staleness is -1; expected a whole number")
    assert total == 0


def test_empty_ids_are_a_batch_of_none():
    """Lists and arrays without elements read and add nothing."""

    def nothing(worker):
        table = worker.table("t")
        table.inc([], np.empty((0, 3)))
        return table.get([]).shape, table.get(np.empty(0, np.int32)).shape

    with nbps.Job([nbps.Table("t", 2, 3)], workers=1) as job:
        assert job.run(nothing) == [((0, 3), (0, 3))]


def test_a_closed_job_and_its_tables_say_so(tmp_path):
    """Tables, runs and a second start of a job that ended: each names what to do; close() may be called twice."""
    job = nbps.Job([nbps.Table("t", 1, 1)], workers=1)
    for early in (lambda: job.table("t"), lambda: job.run(print), job.report):
        with pytest.raises(JobClosedError, match="with job"):
            early()
    with job:
        table = job.table("t")
    job.close()
    uses = [table.to_numpy, table.to_arrow, lambda: table.save(tmp_path / "t"), lambda: table.path]
    for late in uses:
        with pytest.raises(JobClosedError, match=r"table 't': the job was closed.*to_numpy\(\) or save\(\)"):
            late()
    for late in (lambda: job.table("t"), lambda: job.run(print), job.__enter__):
        with pytest.raises(JobClosedError):
            late()
    assert job.report().workers[0].clocks == 0


@pytest.mark.parametrize(
    ("dtype", "init", "error", "message"),
    [
        ("int32", nbps.init.normal(), ConfigError, "init.normal: expected a float table, found dtype int32"),
        ("int32", nbps.init.uniform(0, 2**40), ConfigError, "expected a range with whole numbers of dtype int32"),
        ("int64", nbps.init.uniform(0.2, 0.8), ConfigError, "expected a range with whole numbers"),
        ("int32", nbps.init.constant(0.5), ConfigError, "numbers that fit dtype int32"),
        ("int32", nbps.init.constant(2**31), ConfigError, "fit dtype int32, found 2147483648 to"),
        ("int64", nbps.init.constant(np.inf), ConfigError, "fit dtype int64"),
        ("int64", nbps.init.constant(np.nan), ConfigError, "fit dtype int64"),
        ("float32", nbps.init.from_array(np.ones((3, 2))), ConfigError, r"expected shape \(2, 3\), found \(3, 2\)"),
        ("float32", [["a", "b", "c"]] * 2, ConfigError, "found dtype <U1"),
        ("float32", nbps.init.from_file("/nothing/here"), DataError, "/nothing/here: expected an Arrow IPC file"),
    ],
)
def test_initial_values_that_do_not_fit(dtype, init, error, message):
    """An initialiser that cannot fill its table is refused, with the table's name in a note."""
    with (
        pytest.raises(error, match=message) as caught,
        nbps.Job([nbps.Table("t", 2, 3, dtype=dtype, init=init)], workers=1),
    ):
        pass
    assert caught.value.__notes__ == ["while initialising table 't'"]


@pytest.mark.parametrize(
    ("dtype", "init", "message"),
    [
        ("float32", nbps.init.constant(1e300), r"init.constant\(1e\+300\): expected numbers that fit dtype float32"),
        ("float32", -1e39, "expected numbers that fit dtype float32, found larger ones"),
        ("float32", [[1e300, 0, 0]] * 2, "initial values: expected numbers that fit dtype float32, found larger ones"),
        (
            "float32",
            nbps.init.uniform(0, 1e300),
            r"init.uniform\(0, 1e\+300\): expected numbers that fit dtype float32",
        ),
        ("float32", nbps.init.normal(0, 1e39), r"init.normal\(0, 1e\+39\): expected numbers that fit dtype float32"),
        ("float64", np.nan, "row 0, column 0 is nan; expected finite numbers .check_finite is on."),
        ("float32", [[0, 0, 0], [0, -np.inf, 0]], "row 1, column 1 is -inf; expected finite numbers"),
    ],
)
def test_initial_values_that_would_not_be_finite(dtype, init, message):
    """What is too large for the dtype is always refused, NaN and infinity where check_finite is on."""
    table = nbps.Table("t", 2, 3, dtype=dtype, init=init, check_finite=True)
    with pytest.raises(ConfigError, match=message):
        table.fill(np.zeros((2, 3), dtype), 0)
    if "check_finite" in message or "inf" in message:
        dataclasses.replace(table, check_finite=False).fill(np.zeros((2, 3), dtype), 0)


@pytest.mark.parametrize("arguments", [(1, 1), (2, 1), (0, math.inf), (math.nan, 1)])
def test_a_range_that_is_none(arguments):
    """uniform() and normal() check their numbers when they are described."""
    with pytest.raises(ConfigError, match=r"init\.uniform"):
        nbps.init.uniform(*arguments)
    with pytest.raises(ConfigError, match=r"init\.normal"):
        nbps.init.normal(0, -1)


def test_a_job_closed_by_another_thread_says_so():
    """run() ends with JobClosedError, without waiting for the end of the run."""

    def work(worker):
        for _ in range(10_000_000):
            worker.clock()

    job = nbps.Job([], workers=2, consistency=nbps.BSP())
    with job:
        closer = threading.Timer(0.3, job.close)
        closer.start()
        with pytest.raises(JobClosedError, match="another thread closed the job"):
            job.run(work)
        closer.join()
