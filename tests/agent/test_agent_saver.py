"""The thread that writes checkpoints of a running job: failing disks, slow ones, and an end in the middle."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from nbps.agent.saver import Saver
from nbps.agent.spec import SavePlan
from nbps.checkpoint.load import latest
from nbps.checkpoint.writer import CheckpointWriter
from nbps.errors import CheckpointError

TABLES = {"a": {"rows": 4, "width": 2, "dtype": "float32"}}


@pytest.fixture(autouse=True)
def _close_savers(monkeypatch):
    """Close what a test that failed has left open: Python would wait for its thread for good."""
    made = []
    begin = Saver.__init__
    monkeypatch.setattr(Saver, "__init__", lambda self, *arguments: made.append(self) or begin(self, *arguments))
    yield
    for saver in made:
        saver.close()


def rows_of(rank: int, clock: int, nodes: int = 1):
    own = np.arange(rank * 4 // nodes, (rank + 1) * 4 // nodes)
    return {"a": (own, np.full((own.size, 2), clock, "float32"))}


class Notes:
    """Counts what a saver tells, and waits for it."""

    def __init__(self) -> None:
        self.count = 0
        self.changed = threading.Condition()

    def __call__(self) -> None:
        with self.changed:
            self.count += 1
            self.changed.notify_all()

    def await_count(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.count >= count, 60)


def test_checkpoints_are_written_and_told(tmp_path):
    """Each one completely, with the run that it belongs to."""
    notes = Notes()
    saver = Saver(SavePlan(tmp_path, 1, 2, TABLES), "life", 0, 1, notes)
    assert saver.written == 0
    for clock in (1, 2, 3):
        saver.save(5, clock, rows_of(0, clock))
    notes.await_count(3)
    assert saver.written == 3
    assert saver.error is None
    found = latest(tmp_path)
    assert (found.clock, found.state) == (3, {"run": 5, "every": 1, "keep": 2, "user": None})
    assert len(list(tmp_path.glob("clock-*"))) == 2
    saver.close()
    saver.close()


def test_clocks_that_come_again_in_another_run_are_written_again(tmp_path):
    """Runs are attempts of their own."""
    notes = Notes()
    saver = Saver(SavePlan(tmp_path, 1, None, TABLES), "life", 0, 1, notes)
    saver.save(0, 1, rows_of(0, 1))
    saver.save(1, 1, rows_of(0, 2))
    saver.close()
    assert saver.error is None
    assert latest(tmp_path).state["run"] == 1


def test_a_disk_that_fails_is_told_and_nothing_more_is_written(tmp_path):
    """The first error stays; later rows are not written, and nobody waits for them."""
    (tmp_path / "file").write_text("no folder")
    notes = Notes()
    saver = Saver(SavePlan(tmp_path / "file", 1, None, TABLES), "life", 0, 1, notes)
    for clock in range(1, 6):
        saver.save(0, clock, rows_of(0, clock))
    notes.await_count(5)
    assert saver.written == 5
    assert isinstance(saver.error, CheckpointError)
    first = saver.error
    saver.save(0, 6, rows_of(0, 6))
    notes.await_count(6)
    assert saver.error is first
    saver.close()


def test_rows_that_are_none_are_an_error_of_the_job(tmp_path):
    """Whatever goes wrong in the thread is told, and does not end it unseen."""
    notes = Notes()
    saver = Saver(SavePlan(tmp_path, 1, None, TABLES), "life", 0, 1, notes)
    saver.save(0, 1, {"b": rows_of(0, 1)["a"]})
    notes.await_count(1)
    assert "given the tables ['b']" in str(saver.error)
    saver.close()


def test_rows_wait_in_order_while_a_disk_or_another_node_is_slow(tmp_path):
    """Nobody is held up here: how many copies may wait is decided by the protocol core, which hears of each one."""
    notes = Notes()
    saver = Saver(SavePlan(tmp_path, 1, None, TABLES), "life", 0, 2, notes)
    other = CheckpointWriter(tmp_path, "life-run0", 1, 2, TABLES)
    for clock in (1, 2, 3):
        saver.save(0, clock, rows_of(0, clock, 2))
    assert (notes.count, saver.written) == (0, 0), "node 1 has written nothing yet"
    for clock in (1, 2, 3):
        other.write(clock, rows_of(1, clock, 2))
    notes.await_count(3)
    assert saver.written == 3
    saver.close()
    assert latest(tmp_path).clock == 3


def test_an_end_in_the_middle_leaves_no_checkpoint_and_no_thread(tmp_path):
    """Who waits for a part that never comes gives up; what is incomplete is nobody's checkpoint."""
    saver = Saver(SavePlan(tmp_path, 1, None, TABLES), "life", 0, 2, lambda: None)
    for clock in (1, 2):
        saver.save(0, clock, rows_of(0, clock, 2))
    saver.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "nbps-saver"]
    with pytest.raises(CheckpointError):
        latest(tmp_path)
    assert saver.error is None
