"""One description of a table: nodes, checkpoints, workers and agents are told all of it, whatever its fields are."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import nbps
from nbps.job import open as opening
from nbps.job.checkpoints import definitions, read_checkpoint
from nbps.job.cluster import place_of
from nbps.tables.definition import TableDefinition

UNUSUAL = {
    "name": "unusual",
    "rows": 6,
    "width": 3,
    "dtype": "float64",
    "access": "cached",
    "staleness": 1,
    "check_finite": True,
    "sharding": (2,),
    "replicate": "run",
    "compress": 0.5,
}


def told(worker):
    """Return the definition that this worker's table was made from."""
    return worker.table("unusual").definition


def test_no_field_of_a_table_is_left_at_its_default_here():
    """A field that is added to a table is added above: then the tests below see whether it gets lost anywhere."""
    fields = {field.name: field.default for field in dataclasses.fields(TableDefinition)}
    assert fields.keys() == UNUSUAL.keys()
    assert all(UNUSUAL[name] != default for name, default in fields.items())


def test_every_field_reaches_the_card_of_a_node():
    """So nodes that define a table differently refuse each other, whatever the difference."""
    nodes = nbps.Nodes(count=2, rank=0, rendezvous="127.0.0.1:1")
    job = nbps.Job([nbps.Table(**UNUSUAL)], 1, nodes=nodes)
    card = place_of(job.settings, 0, None, {"unusual": np.zeros((6, 3))}).card
    (entry,) = card["tables"]
    assert entry == {**UNUSUAL, "sharding": [2], "initial values": entry["initial values"]}


def test_every_field_reaches_the_workers_and_the_agent(tmp_path, monkeypatch):
    """Each of them has the definition itself, without the initial values, which may be large."""
    specs = []

    def kept(**fields):
        specs.append(AgentSpec(**fields))
        return specs[-1]

    AgentSpec = opening.AgentSpec
    monkeypatch.setattr(opening, "AgentSpec", kept)
    table = nbps.Table(**{**UNUSUAL, "sharding": (), "init": np.ones((6, 3))})
    with nbps.Job([table], 2, checkpoints=nbps.Checkpoints(tmp_path, every=9)) as job:
        assert job.run(told) == [table.definition] * 2
    assert [placed.definition for placed in specs[0].tables] == [table.definition]
    assert specs[0].save.tables == definitions([table])
    assert table.definition == TableDefinition(**{**UNUSUAL, "sharding": ()})


def test_every_field_comes_back_from_a_checkpoint(tmp_path):
    """A resumed job has the tables that were saved."""
    table = nbps.Table(**{**UNUSUAL, "sharding": ()})
    with nbps.Job([table], 1) as job:
        job.checkpoint(tmp_path)
    (again,), _ = read_checkpoint(tmp_path, None)
    assert again.definition == table.definition


def test_first_rows_of_nodes_may_be_any_sequence():
    """A range, a list or an array of whole numbers; they are kept as a tuple, which can be compared."""
    for starts in ([2, 4], range(2, 5, 2), np.array([2, 4])):
        assert nbps.Table("t", 6, 1, sharding=starts).sharding == (2, 4)


@pytest.mark.parametrize(
    ("table", "shown"),
    [
        (nbps.Table("t", 3, 2), "Table('t', rows=3, width=2)"),
        (
            nbps.Table("t", 3, 2, dtype="int64", sharding=[1], init=np.ones((3, 2))),
            "Table('t', rows=3, width=2, dtype='int64', sharding=(1,))",
        ),
    ],
)
def test_a_table_shows_what_is_not_usual(table, shown):
    """And no initialiser, which has no text that says anything."""
    assert repr(table) == shown
