"""Checkpoints: what some nodes write any number loads; attempts never mix; the newest is the last completed."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pytest

from nbps.checkpoint import rows as checkpoint_rows
from nbps.checkpoint.load import latest, load
from nbps.checkpoint.writer import CheckpointWriter
from nbps.errors import CheckpointError
from support import checkpoint_cases
from support.checkpoint_cases import TABLES, contents, folders, loaded, part_of, same, save

ROOTS = {
    "path": lambda path: path / "new" / "root",
    "text": lambda path: str(path / "what? 100%, été"),
    "uri": lambda path: f"file://{path}/root",
    "local": lambda path: pafs.SubTreeFileSystem(str(path), pafs.LocalFileSystem()),
    "memory": lambda path: pafs._MockFileSystem(),
    "tree": lambda path: pafs.SubTreeFileSystem("bucket/folder", pafs._MockFileSystem()),
}


def one_table(dtype="float32", rows=5, width=2):
    return {"t": {"rows": rows, "width": width, "dtype": dtype}}


@pytest.mark.parametrize("make", ROOTS.values(), ids=ROOTS)
def test_a_checkpoint_comes_back_from_any_root(make, tmp_path):
    """Paths, URIs and file systems: what was written is loaded, bit by bit, with definitions and state."""
    root = make(tmp_path)
    state = {"epoch": 3, "loss": [0.1, None, float("inf")], "é": {"": True}}
    for clock in (100, 120, 140):
        save(root, "a", clock, 2, state=state, keep=2)
    manifest = latest(root)
    assert (manifest.clock, manifest.attempt, manifest.nodes, manifest.serial) == (140, "a", 2, 3)
    assert (manifest.tables, manifest.state) == (TABLES, state)
    assert same(loaded(manifest), contents(140))


@pytest.mark.parametrize("make", list(ROOTS.values())[:3], ids=list(ROOTS)[:3])
def test_the_path_of_a_manifest_opens_that_checkpoint(make, tmp_path):
    """Every node of a job that resumes is told one path, also of an older checkpoint; a manifest pickles."""
    root = make(tmp_path)
    save(root, "a", 1, 2)
    older = latest(root)
    save(root, "a", 2, 2)
    for path in (older.path, Path(older.path) if "://" not in older.path else f"{older.path}/"):
        assert latest(path).clock == 1
        assert same(loaded(pickle.loads(pickle.dumps(latest(path)))), contents(1))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64"])
@pytest.mark.parametrize("piece_bytes", [1, 100, 1 << 20])
@pytest.mark.parametrize("small_bytes", [1, 1 << 20], ids=["threads", "alone"])
def test_every_dtype_and_cut_comes_back(dtype, piece_bytes, small_bytes, tmp_path, monkeypatch):
    """Files of one piece, of a few, and of one for each row give what was written, whatever the bits mean."""
    monkeypatch.setattr(checkpoint_rows, "PIECE_BYTES", piece_bytes)
    monkeypatch.setattr(checkpoint_rows, "_SMALL_BYTES", small_bytes)
    tables = one_table(dtype, 101, 3)
    save(tmp_path, "a", 7, 3, tables=tables)
    assert same(loaded(latest(tmp_path)), contents(7, tables))


def test_one_three_and_two_nodes_take_turns(tmp_path):
    """Each life of the job has another number of nodes and resumes from the one before; rows go by their number."""
    made = contents(0)
    for nodes in (1, 3, 2):
        writers = [CheckpointWriter(tmp_path, f"life-{nodes}", rank, nodes, TABLES) for rank in range(nodes)]
        for rank, writer in enumerate(writers):
            writer.write(10, part_of(made, rank, nodes))
        assert writers[0].complete(10, 60, lambda: False)
        assert latest(tmp_path).nodes == nodes
        assert same(loaded(latest(tmp_path)), made)
        made = loaded(latest(tmp_path))


def test_a_node_may_own_no_row(tmp_path):
    """More nodes than rows: those without any write a part all the same."""
    save(tmp_path, "a", 1, 40)
    assert same(loaded(latest(tmp_path)), contents(1))


def test_the_files_are_arrow_files(tmp_path):
    """Any Arrow reader gets row numbers and values of one node."""
    save(tmp_path, "a", 1, 2)
    file = next(tmp_path.glob("*/node-0001-0000-items.arrow"))
    table = pa.ipc.open_file(file.read_bytes()).read_all()
    rows = table["row"].to_numpy()
    assert rows.tolist() == list(range(1, 23, 2))
    values = np.array(table["values"].combine_chunks().flatten()).reshape(-1, 3)
    assert values.tobytes() == contents(1)["items"][1::2].tobytes()


def test_views_of_larger_arrays_are_written_as_they_look(tmp_path):
    """Neither the values nor the numbers need to be contiguous."""
    wide = np.arange(60, dtype=np.float32).reshape(10, 6)
    writer = CheckpointWriter(tmp_path, "a", 0, 1, one_table())
    writer.write(1, {"t": (np.arange(10)[::2] // 2, wide[::2, ::3])})
    assert writer.complete(1, 60, lambda: False)
    assert same(loaded(latest(tmp_path)), {"t": wide[::2, ::3]})


def test_parts_of_two_attempts_never_make_a_checkpoint(tmp_path):
    """Of a job that died when node 1 had written clock 20, nothing serves the next life at that clock."""
    save(tmp_path, "one", 10, 2)
    dead = CheckpointWriter(tmp_path, "one", 1, 2, TABLES)
    dead.write(20, part_of(contents(666), 1, 2))
    alive = [CheckpointWriter(tmp_path, "one.two", rank, 2, TABLES) for rank in (0, 1)]
    alive[0].write(20, part_of(contents(20), 0, 2))
    with pytest.raises(CheckpointError, match=r"1 of 2 nodes did not write their parts in time: 1;"):
        alive[0].complete(20, 0, lambda: False)
    assert latest(tmp_path).clock == 10
    alive[0].write(20, part_of(contents(20), 0, 2))
    alive[1].write(20, part_of(contents(20), 1, 2))
    assert alive[0].complete(20, 60, lambda: False)
    assert same(loaded(latest(tmp_path)), contents(20))
    assert folders(tmp_path) == ["clock-000000000010-one", "clock-000000000020-one.two"]


def test_a_part_of_another_attempt_is_no_part_wherever_it_lies(tmp_path):
    """Moved into the folder of this attempt, the other's part is still the other's."""
    CheckpointWriter(tmp_path, "one", 1, 2, TABLES).write(20, part_of(contents(666), 1, 2))
    (tmp_path / "clock-000000000020-one").rename(tmp_path / "clock-000000000020-two")
    alive = CheckpointWriter(tmp_path, "two", 0, 2, TABLES)
    alive.write(20, part_of(contents(20), 0, 2))
    with pytest.raises(CheckpointError, match="attempt is 'one'; expected 'two'"):
        alive.complete(20, 0, lambda: False)


def test_an_attempt_is_not_used_twice(tmp_path):
    """A node that finds its own part, or a manifest, does not write over it."""
    save(tmp_path, "one", 10, 2)
    for rank in (0, 1, 2):
        writer = CheckpointWriter(tmp_path, "one", rank, 3, TABLES)
        with pytest.raises(CheckpointError, match="has written clock 10 already; each life of a job needs"):
            writer.write(10, part_of(contents(11), rank, 3))
    assert same(loaded(latest(tmp_path)), contents(10))


def test_the_newest_is_the_last_completed(tmp_path):
    """Who returns to an older checkpoint finds what was written since then, although the clocks are lower."""
    for attempt, clock in (("z", 100), ("z", 200), ("m", 120), ("a", 120), ("b", 110)):
        save(tmp_path, attempt, clock, 1, seed=clock)
        assert (latest(tmp_path).attempt, latest(tmp_path).clock) == (attempt, clock)


@pytest.mark.parametrize("keep", [1, 2])
def test_keep_removes_the_oldest_and_what_was_left_incomplete(keep, tmp_path):
    """As many stay as are to be kept, by when they were completed; strangers in the folder stay."""
    (tmp_path / "clock-12-mine").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    save(tmp_path, "job", 900, 1)
    save(tmp_path, "job", 800, 1)
    CheckpointWriter(tmp_path, "job.older", 1, 2, TABLES).write(950, part_of(contents(0), 1, 2))
    save(tmp_path, "job.new", 10, 1, keep=keep)
    expected = ["clock-000000000010-job.new", "clock-000000000800-job"][:keep]
    assert folders(tmp_path) == [*expected, "clock-12-mine", "notes.txt"]


def test_an_incomplete_later_clock_of_the_same_attempt_stays(tmp_path):
    """A node that is ahead has begun the next checkpoint before node 0 is done with this one."""
    writers = [CheckpointWriter(tmp_path, "a", rank, 2, TABLES, keep=1) for rank in (0, 1)]
    for clock in (1, 2):
        writers[1].write(clock, part_of(contents(clock), 1, 2))
    writers[0].write(1, part_of(contents(1), 0, 2))
    assert writers[0].complete(1, 60, lambda: False)
    writers[0].write(2, part_of(contents(2), 0, 2))
    assert writers[0].complete(2, 60, lambda: False)
    assert same(loaded(latest(tmp_path)), contents(2))


def test_an_incomplete_checkpoint_of_the_same_life_stays(tmp_path):
    """Attempts that begin alike up to the dash are one life: a part that is being written now is not swept away."""
    CheckpointWriter(tmp_path, "job.life-asked", 1, 2, TABLES).write(1, part_of(contents(1), 1, 2))
    CheckpointWriter(tmp_path, "job-asked", 1, 2, TABLES).write(1, part_of(contents(1), 1, 2))
    save(tmp_path, "job.life-every", 2, 2, keep=1)
    assert folders(tmp_path) == ["clock-000000000001-job.life-asked", "clock-000000000002-job.life-every"]


def test_nothing_is_complete_without_the_manifest(tmp_path):
    """All parts alone are no checkpoint; neither is what is left when the manifest is gone."""
    with pytest.raises(CheckpointError, match="expected a complete checkpoint, found nothing"):
        latest(tmp_path / "none")
    save(tmp_path, "a", 1, 2)
    next(tmp_path.glob("*/manifest-*")).unlink()
    writers = [CheckpointWriter(tmp_path, "a", rank, 2, TABLES) for rank in (0, 1)]
    for rank, writer in enumerate(writers):
        writer.write(2, part_of(contents(2), rank, 2))
    with pytest.raises(CheckpointError, match="found 2 incomplete: clock-000000000001-a, clock-000000000002-a"):
        latest(tmp_path)
    with pytest.raises(CheckpointError, match="found 1 incomplete"):
        latest(tmp_path / "clock-000000000002-a")


def test_the_manifest_is_written_after_all_parts(tmp_path):
    """While a part is missing there is no manifest; who gives up waiting leaves nothing."""
    writer = CheckpointWriter(tmp_path, "a", 0, 2, TABLES)
    writer.write(1, part_of(contents(1), 0, 2))
    asked = []

    def stop():
        asked.append(sorted(path.name for path in tmp_path.glob("*/*.json")))
        return len(asked) == 3

    assert not writer.complete(1, 60, stop)
    assert asked == [["node-0000.json"]] * 3
    assert folders(tmp_path) == []


@pytest.mark.parametrize("wrong", ["missing", "twice"])
def test_every_row_comes_from_exactly_one_node(wrong, tmp_path):
    """Rows that no node has are noticed when the checkpoint is completed, rows that two have when it is loaded."""
    writers = [CheckpointWriter(tmp_path, "a", rank, 2, one_table()) for rank in (0, 1)]
    values = contents(1, one_table())["t"]
    second = {"missing": [3], "twice": [2, 3]}[wrong]
    writers[0].write(1, {"t": (np.arange(3), values[:3])})
    writers[1].write(1, {"t": (np.array(second), values[second])})
    if wrong == "missing":
        with pytest.raises(CheckpointError, match="2 nodes have 4 rows of table 't'; expected 5: every row"):
            writers[0].complete(1, 60, lambda: False)
        assert folders(tmp_path) == []
    else:
        assert writers[0].complete(1, 60, lambda: False)
        with pytest.raises(CheckpointError, match="row 4 is missing, and another row is there twice"):
            loaded(latest(tmp_path))


def test_a_missing_or_shortened_file_is_found_at_once(tmp_path):
    """Before any table is loaded: files that are not there, or not of their size."""
    save(tmp_path, "a", 1, 2)
    for path in sorted(tmp_path.glob("*/node-*")):
        whole = path.read_bytes()
        path.unlink()
        with pytest.raises(
            CheckpointError, match=rf"expected the file {path.name} of [0-9,]+ bytes, but it is missing"
        ):
            latest(tmp_path)
        path.write_bytes(whole[:-1])
        with pytest.raises(
            CheckpointError, match=f"{path.name} of {len(whole):,} bytes, but it has {len(whole) - 1:,}"
        ):
            latest(tmp_path)
        path.write_bytes(whole)
    assert same(loaded(latest(tmp_path)), contents(1))


@pytest.mark.parametrize("small_bytes", [1, 1 << 20], ids=["threads", "alone"])
def test_a_flipped_bit_is_found_where_it_is(small_bytes, tmp_path, monkeypatch):
    """The message names the file and the bytes."""
    monkeypatch.setattr(checkpoint_rows, "_SMALL_BYTES", small_bytes)
    save(tmp_path, "a", 1, 1)
    path = next(tmp_path.glob("*/*items.arrow"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"items.arrow: bytes 0 to [0-9,]+ are not what was written"):
        loaded(latest(tmp_path))


def test_another_format_is_refused_with_a_word(tmp_path):
    """A checkpoint of another nbps says which format it has and what to do."""
    save(tmp_path, "a", 1, 1)
    path = next(tmp_path.glob("*/manifest-*"))
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "format": 2, "sha256": "of another kind"}))
    with pytest.raises(CheckpointError, match="has format 2; this nbps reads format 1: load it with the version"):
        latest(tmp_path)


def test_a_renamed_checkpoint_is_refused(tmp_path):
    """The name of the folder says clock and attempt, and the manifest must agree."""
    save(tmp_path, "a", 1, 1)
    (tmp_path / "clock-000000000001-a").rename(tmp_path / "clock-000000000002-a")
    with pytest.raises(CheckpointError, match="clock is 1; expected 2"):
        latest(tmp_path)


@pytest.mark.parametrize(
    ("table", "shape", "dtype", "message"),
    [
        ("u", (5, 2), "float32", r"it has no table 'u'; its tables: 't'"),
        ("t", (6, 2), "float32", r"table 't' is float32 \(5, 2\); expected by this job: float32 \(6, 2\)"),
        ("t", (5, 2), "int32", r"expected by this job: int32 \(5, 2\)"),
    ],
)
def test_another_table_is_refused(table, shape, dtype, message, tmp_path):
    """A job that resumes has the same tables."""
    save(tmp_path, "a", 1, 1, tables=one_table())
    with pytest.raises(CheckpointError, match=message):
        load(latest(tmp_path), table, np.zeros(shape, dtype))


@pytest.mark.parametrize(
    ("rows", "values", "message"),
    [
        (np.arange(5, dtype=np.int32), np.zeros((5, 2), np.float32), "row numbers are int32"),
        (np.arange(5), np.zeros((5, 3), np.float32), r"values are float32 \(5, 3\); expected float32 \(5, 2\)"),
        (np.arange(4), np.zeros((5, 2), np.float32), r"values are float32 \(5, 2\); expected float32 \(4, 2\)"),
        (np.arange(5), np.zeros((5, 2), ">f4"), "values are >f4"),
        (np.arange(1, 6), np.zeros((5, 2), np.float32), "rows are 1 to 5; expected 0 to 4"),
        (np.arange(-1, 4), np.zeros((5, 2), np.float32), "rows are -1 to 3"),
        (np.array([0, 3, 1, 3, 2]), np.zeros((5, 2), np.float32), "a row is given twice"),
    ],
)
def test_what_is_not_the_table_is_not_written(rows, values, message, tmp_path):
    """Wrong numbers and values are refused before anything is written."""
    writer = CheckpointWriter(tmp_path, "a", 0, 1, one_table())
    with pytest.raises(CheckpointError, match=message):
        writer.write(1, {"t": (rows, values)})
    with pytest.raises(CheckpointError, match="given the tables"):
        writer.write(1, {"t": (rows, values), "u": (rows, values)})
    assert folders(tmp_path) == []


@pytest.mark.parametrize(
    "state", [object(), {"a": {1, 2}}, {(1, 2): 3}, [10**5000]], ids=["object", "set", "key", "huge"]
)
def test_state_that_is_no_json_leaves_nothing(state, tmp_path):
    """What cannot be kept is told by the one who gave it."""
    writer = CheckpointWriter(tmp_path, "a", 0, 1, one_table())
    writer.write(1, part_of(contents(1, one_table()), 0, 1))
    with pytest.raises(CheckpointError, match="checkpoint of clock 1: state cannot be kept as JSON"):
        writer.complete(1, 60, lambda: False, state)
    assert folders(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attempt": "../x"}, "attempt is '../x'"),
        ({"attempt": ""}, "attempt is ''"),
        ({"rank": 2}, "rank is 2 of 2 nodes"),
        ({"keep": 0}, "keep is 0; expected at least 1"),
        ({"tables": {"t": {"rows": 5, "width": 2, "dtype": "float16"}}}, "table 't': dtype is 'float16'; expected"),
        ({"tables": {"t": {"rows": 5}}}, "table 't': dtype is missing"),
        ({"tables": {"t": {"rows": 5, "width": 2, "dtype": "int32", "init": len}}}, "cannot be kept as JSON"),
        ({"root": "nope://bucket/x"}, "cannot use 'nope://bucket/x'"),
        ({"root": "/proc/nothing/here"}, "cannot make /proc/nothing/here"),
        ({"root": __file__}, f"cannot make {__file__}"),
        ({"root": f"{__file__}/x"}, "cannot make"),
        ({"root": 7}, "root is 7; expected a local path, a URI"),
        ({"root": ""}, "root is ''"),
        ({"root": "a\0b"}, "root is 'a.x00b'"),
    ],
)
def test_what_cannot_work_is_told_before_training(change, message, tmp_path):
    """A writer that cannot write is not made."""
    arguments = {"root": tmp_path, "attempt": "a", "rank": 0, "nodes": 2, "tables": one_table(), **change}
    with pytest.raises(CheckpointError, match=message):
        CheckpointWriter(**arguments)


def test_only_node_0_completes(tmp_path):
    """Two nodes that both write manifests are a mistake that is told."""
    with pytest.raises(CheckpointError, match="node 1 was asked to complete clock 5; node 0 does that"):
        CheckpointWriter(tmp_path, "a", 1, 2, TABLES).complete(5, 60, lambda: False)


def test_nodes_write_at_the_same_time(tmp_path):
    """Three processes write twenty checkpoints, none waiting for another but node 0 for the parts."""
    clocks = ",".join(map(str, range(1, 21)))
    script = [sys.executable, checkpoint_cases.__file__, "node", str(tmp_path), "a"]
    nodes = [subprocess.Popen([*script, str(rank), "3", clocks, "2"]) for rank in range(3)]
    assert [node.wait() for node in nodes] == [0, 0, 0]
    assert folders(tmp_path) == ["clock-000000000019-a", "clock-000000000020-a"]
    for clock in (19, 20):
        manifest = latest(tmp_path / f"clock-{clock:012}-a")
        assert manifest.state == {"clock": clock}
        assert same(loaded(manifest), contents(clock))
