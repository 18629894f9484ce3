"""What a user sees of jobs, workers, tables and reports: in a terminal, in a notebook, and as NumPy arrays."""

from __future__ import annotations

import html.parser

import numpy as np
import pytest

import nbps


class _Tags(html.parser.HTMLParser):
    """Counts cells, and checks that what is opened is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def look(worker):
    """Return what a worker shows of itself and its tables, and the arrays that NumPy makes of them."""
    worker.table("t").inc(1, [1, 2])
    worker.clock()
    worker.barrier()
    table = worker.table("t")
    arrays = np.asarray(table), np.asarray(table, "float32"), table + np.zeros((3, 2), np.int64)
    arrays[0][...] = -1  # a copy
    try:
        table.__array__(copy=False)  # as numpy.asarray(table, copy=False) calls it from NumPy 2 on
        refused = ""
    except ValueError as error:
        refused = str(error)
    names = list(worker.tables)
    with pytest.raises(TypeError):
        worker.tables["u"] = table
    return repr(worker), repr(table), names, arrays, refused, np.array(table).tolist()


@pytest.mark.parametrize("access", ["direct", "cached"])
def test_numpy_and_repr_of_a_worker_and_its_tables(access):
    """asarray(table) is a copy of all rows, as fresh as get() would give them."""
    tables = [nbps.Table("t", 3, 2, dtype="int64", access=access), nbps.Table("<b>", 1, 1)]
    with nbps.Job(tables, workers=2, consistency=nbps.SSP(0)) as job:
        for rank, (worker, table, names, arrays, refused, again) in enumerate(job.run(look)):
            assert worker == f"<Worker {rank} of 2, at clock 1>"
            assert table == f"<WorkerTable 't': 3 x 2 int64, {access}>"
            assert names == ["t", "<b>"]
            assert [array.dtype for array in arrays] == ["int64", "float32", "int64"]
            assert arrays[1].tolist() == arrays[2].tolist() == again == [[0, 0], [2, 4], [0, 0]]
            assert refused == "table 't': numpy.asarray(table, copy=False); its rows are copied, leave copy=False out"
        assert np.asarray(job.table("t")).tolist() == [[0, 0], [2, 4], [0, 0]]
        assert np.asarray(job.table("t"), "float64").dtype == "float64"


def test_a_job_and_its_tables_say_what_they_are(tmp_path):
    """Before, while and after it runs; tables show their first rows in a notebook, with no markup of their names."""
    job = nbps.Job([nbps.Table("<b>", 30, 20, init=1.5)], workers=1)
    said = "<Job: 1 worker, ESSP(staleness=2), tables '<b>'; {}>"
    assert repr(job) == said.format("not started")
    with job:
        assert repr(job) == said.format("open")
        table = job.table("<b>")
        assert repr(table) == "<JobTable '<b>': 30 x 20 float32, direct>"
        shown = table._repr_html_()
        assert "<b>" not in shown
        assert "&lt;b&gt;" in shown
        assert "and 20 more rows" in shown
        tags = _Tags(shown).seen
        assert (tags.count("tr"), tags.count("td")) == (10, 10 * 13)
        assert "1.5" in shown
    assert repr(job) == said.format("closed")
    assert repr(table) == "<JobTable '<b>': 30 x 20 float32, direct; its job was closed>"
    with pytest.raises(nbps.errors.JobClosedError):
        np.asarray(table)


@pytest.mark.parametrize("model", [nbps.ESSP(1), nbps.VAP(3)], ids=str)
def test_a_report_is_a_table(model):
    """In a terminal with a line for each worker, in a notebook with a row; the last expression of a cell shows it."""

    def work(worker):
        worker.clock()

    with nbps.Job([nbps.Table("t", 1, 1, access="cached")], workers=2, consistency=model) as job:
        job.run(work)
        report = job.report()
    first, heading, *lines = str(report).splitlines()
    assert repr(report) == str(report)
    assert first == str(model)
    assert heading.split()[:3] == ["worker", "clocks", "compute"]
    assert [line.split()[:2] for line in lines] == [["0", "1"], ["1", "1"]]
    assert len({len(line) for line in (heading, *lines)}) == 1
    tags, columns = _Tags(report._repr_html_()).seen, 6 + (model == nbps.VAP(3))
    assert (tags.count("tr"), tags.count("th"), tags.count("td")) == (3, columns, 2 * columns)


def test_dir_shows_what_is_public():
    """No imported helpers: what ``dir(nbps)`` and an editor offer is what there is to use."""
    shown = dir(nbps)
    assert {"Job", "Table", "Worker", "models", "data", "__version__"} <= set(shown)
    assert all(getattr(nbps, name) is not None for name in shown)
    assert not {"Any", "Path", "sys", "importlib", "annotations", "TYPE_CHECKING"} & set(shown)
