"""Damaged and forged checkpoints: they give a `CheckpointError` or exactly what was written, and reach nothing else."""

from __future__ import annotations

import copy
import itertools
import json
import os
import random
import shutil

import numpy as np
import pyarrow as pa
import pytest

from nbps.checkpoint import format as form
from nbps.checkpoint import rows as checkpoint_rows
from nbps.checkpoint.load import latest
from nbps.checkpoint.store import Store
from nbps.errors import CheckpointError
from support.checkpoint_cases import TABLES, contents, folder_in_memory, folders, loaded, reseal, same, save

DAMAGED_FILES = 10_000
FORGED_FILES = 3_000


def outcome(root):
    """Return what a job that resumes gets: None, or clock, state and values."""
    try:
        manifest = latest(root)
        return manifest.clock, manifest.state, loaded(manifest)
    except CheckpointError:
        return None


def damage(draw, data, others):
    """Return `data`, damaged in one of the ways of disks, networks and people; `others` are whole files."""
    kind = draw.randrange(8)
    damaged = bytearray(data)
    if kind == 0 or not data:
        return draw.randbytes(draw.randrange(300))
    if kind <= 2:  # the likeliest to go unnoticed
        for _ in range(draw.choice([1, 1, 1, 2, 20])):
            damaged[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    elif kind == 3:
        del damaged[draw.randrange(len(data)) :]
    elif kind == 4:
        damaged += draw.randbytes(draw.randrange(1, 100))
    elif kind == 5:
        low = draw.randrange(len(data))
        damaged[low : low + draw.randrange(1, 64)] = bytes(draw.randrange(64))
    elif kind == 6:
        low, high = draw.randrange(len(data)), draw.randrange(len(data))
        size = draw.randrange(1, 32)
        damaged[low : low + size], damaged[high : high + size] = data[high : high + size], data[low : low + size]
    else:
        return draw.choice(others)
    return bytes(damaged)


@pytest.fixture
def two_checkpoints(monkeypatch):
    """Make a root with clocks 1 and 2 of different attempts, in pieces of a few rows."""
    monkeypatch.setattr(checkpoint_rows, "PIECE_BYTES", 100)
    with folder_in_memory() as root:
        save(root, "one", 1, 2, state={"clock": 1, "rate": 0.125})
        save(root, "two", 2, 2, state={"clock": 2, "rate": 0.0625})
        yield root


@pytest.mark.slow
def test_damaged_files_are_errors_or_do_not_matter(two_checkpoints):
    """10,000 files of the newest checkpoint, each damaged once: never wrong values, never another error."""
    draw = random.Random(4)
    paths = sorted(two_checkpoints.glob("*/*"))
    whole = {path: path.read_bytes() for path in paths}
    newest = [path for path in paths if path.parent.name.endswith("-two")]
    counts = {"error": 0, "newest": 0}
    for _ in range(DAMAGED_FILES):
        path = draw.choice(newest)
        path.write_bytes(damage(draw, whole[path], list(whole.values())))
        found = outcome(two_checkpoints)
        if found is None:
            counts["error"] += 1
        else:
            clock, state, values = found
            assert (clock, state) == (2, {"clock": 2, "rate": 0.0625}), path
            assert same(values, contents(2)), path
            counts["newest"] += 1
        path.write_bytes(whole[path])
    assert outcome(two_checkpoints)[0] == 2
    assert counts["error"] > 0.9 * DAMAGED_FILES, counts


def test_files_that_change_places_are_errors(two_checkpoints):
    """Every file of both checkpoints in the place of every other."""
    paths = sorted(two_checkpoints.glob("*/*"))
    whole = {path: path.read_bytes() for path in paths}
    for here, there in itertools.permutations(paths, 2):
        here.write_bytes(whole[there])
        there.write_bytes(whole[here])
        found = outcome(two_checkpoints)
        # Of the older checkpoint nobody reads; with its manifest gone wrong the newest is still the newest.
        assert found is None or (found[0] == 2 and same(found[2], contents(2)))
        assert found is None or all(path.parent.name.endswith("-one") for path in (here, there))
        for path in (here, there):
            path.write_bytes(whole[path])


@pytest.mark.parametrize("rank", [0, 1])
def test_parts_of_two_roots_are_not_mixed(rank, two_checkpoints, tmp_path):
    """Not even where clock, attempt, tables and sizes agree: the manifest knows its parts."""
    save(tmp_path, "two", 2, 2, seed=3)
    for path in tmp_path.glob(f"*/node-{rank:04}*"):
        shutil.copy(path, two_checkpoints / "clock-000000000002-two")
    with pytest.raises(CheckpointError, match=rf"node-{rank:04}.json: it is not what was written, by its SHA-256"):
        latest(two_checkpoints)


def strange(draw):
    """Draw a value that no checkpoint of ours has in that place, most likely."""
    deep = []
    for _ in range(900):
        deep = [deep]
    return draw.choice(
        [
            *(None, True, -1, 0, 1, 2**31, 2**63 - 1, 2**63, 2**200, -(2**70), 1.5, 1e308, float("nan"), "", "0" * 64),
            *("../../etc/passwd", "/etc/passwd", "node-0000-/../../x.arrow", "node-0000.json", "\ud800", [], {}, [[]]),
            *({"": 1}, deep, ["x"] * 1000),
        ]
    )


def swap_something(draw, record):
    """Replace, remove or repeat a random value somewhere in decoded JSON."""
    record = copy.deepcopy(record)
    place = record
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return record
        key = draw.choice(keys)
        if isinstance(place[key], dict | list) and place[key] and draw.random() < 0.8:
            place = place[key]
            continue
        kind = draw.randrange(6)
        if kind == 0:
            del place[key]
        elif kind == 1 and isinstance(place, list):
            place.append(place[key])
        elif kind == 2 and isinstance(place[key], int):
            place[key] += draw.choice([-1, 1, 8, 2**40])
        else:
            place[key] = strange(draw)
        return record


@pytest.mark.slow
def test_forged_checkpoints_cannot_do_harm(two_checkpoints):
    """Data files and JSON changed, all checksums made right again: an error, or values that are in the files."""
    draw = random.Random(5)
    folder = two_checkpoints / "clock-000000000002-two"
    whole = {path: path.read_bytes() for path in folder.iterdir()}
    data = [path for path in whole if path.suffix == ".arrow"]
    errors = 0
    for number in range(FORGED_FILES):
        if number % 3 == 0:
            path = draw.choice(data)
            path.write_bytes(damage(draw, whole[path], [whole[other] for other in data]))
            reseal(folder)
        elif number % 3 == 1:
            reseal(folder, change_part=lambda part: swap_something(draw, part))
        else:
            reseal(folder, change_manifest=lambda checkpoint: swap_something(draw, checkpoint))
        errors += outcome(two_checkpoints) is None
        for path, content in whole.items():
            path.write_bytes(content)
    assert errors > FORGED_FILES // 2
    assert outcome(two_checkpoints)[0] == 2


@pytest.mark.parametrize(
    "name", ["../../secret.arrow", "/etc/passwd", "node-0000-/../../../secret.arrow", "secret", ""]
)
def test_no_file_outside_is_opened(name, two_checkpoints, monkeypatch):
    """A forged part or manifest names files in its own folder, or it is refused before anything is opened."""
    opened = []
    real = Store.open
    monkeypatch.setattr(Store, "open", lambda self, path: opened.append(path) or real(self, path))
    folder = two_checkpoints / "clock-000000000002-two"
    whole = {path: path.read_bytes() for path in folder.iterdir()}

    def rename(part):
        part["tables"]["items"]["file"] = name

    reseal(folder, change_part=rename)
    with pytest.raises(CheckpointError, match=r"table 'items': file is .*; expected a string like node-"):
        latest(two_checkpoints)
    for path, content in whole.items():
        path.write_bytes(content)

    def point(checkpoint):
        checkpoint["parts"][1]["file"] = name

    reseal(folder, change_manifest=point)
    with pytest.raises(CheckpointError, match=r"part 1: file is .*; expected 'node-0001.json'"):
        latest(two_checkpoints)
    assert {path.rpartition("/")[0] for path in opened} == {folder.name}
    assert all(path.rpartition("/")[2] in {entry.name for entry in whole} for path in opened)


@pytest.mark.parametrize(
    "text",
    [b"", b"null", b"[" * 100_000, b'{"a":' * 100_000, b'{"format":' + b"9" * 5000 + b"}", b"\xff\xfe", b"NaN", b'"x"'],
    ids=["empty", "null", "deep", "deeper", "huge", "binary", "nan", "text"],
)
@pytest.mark.parametrize("name", ["manifest-000000002.json", "node-0001.json"])
def test_json_bombs_are_errors(name, text, two_checkpoints):
    """Depth, digits and bytes that exhaust parsers are an error in the manifest and in parts."""
    path = two_checkpoints / "clock-000000000002-two" / name
    path.write_bytes(text)
    with pytest.raises(CheckpointError, match=name if name.startswith("manifest") else "node-0001.json of"):
        latest(two_checkpoints)
    with pytest.raises(CheckpointError):
        form.decode_part(text, "part", clock=2, attempt="two", rank=1, nodes=2, tables={})


def test_a_file_too_large_to_be_json_is_not_read(two_checkpoints):
    """Sizes are looked at before memory is allocated: this file claims to have 1 TB."""
    path = two_checkpoints / "clock-000000000002-two" / "manifest-000000002.json"
    with path.open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(CheckpointError, match=r"has 1,099,511,627,776 bytes; expected at most 67,"):
        latest(two_checkpoints)


@pytest.mark.parametrize("name", ["manifest-000000002.json", "node-0001.json", "node-0001-0000-items.arrow"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(name, two_checkpoints):
    """What is no file is not there: the checkpoint is incomplete, or a file is missing."""
    path = two_checkpoints / "clock-000000000002-two" / name
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(CheckpointError, match=r"it is missing|found 1 incomplete"):
        latest(path.parent)


FORGED_ROWS = {
    "negative": ([-1, 1], "float32", "found rows -1 to 1; expected 0 to 22"),
    "outside": ([0, 23], "float32", "found rows 0 to 23"),
    "null": ([0, None], "float32", "found nulls"),
    "dtype": ([0, 1], "float64", "that does not fit"),
    "more": ([0, 1, 2], "float32", "has 3 rows; expected 2"),
    "twice": ([0, 0], "float32", "row 12 is missing, and another row is there twice"),
}


@pytest.mark.parametrize("case", FORGED_ROWS)
def test_forged_rows_are_errors(case, tmp_path):
    """A valid Arrow file with all checksums right, but with rows that cannot be."""
    rows, dtype, message = FORGED_ROWS[case]
    tables = {"items": TABLES["items"]}
    save(tmp_path, "a", 1, 12, tables=tables)
    path = next(tmp_path.glob("*/node-0000-*.arrow"))
    element = pa.field("item", pa.from_numpy_dtype(np.dtype(dtype)), nullable=False)
    values = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(3 * len(rows), dtype)), type=pa.list_(element, 3))
    schema = pa.schema(
        [pa.field("row", pa.int64(), nullable=False), pa.field("values", pa.list_(element, 3), nullable=False)]
    )
    with pa.ipc.new_file(str(path), schema) as writer:
        writer.write_batch(pa.record_batch([pa.array(rows, pa.int64()), values], schema=schema))

    def one_piece(part):
        for table in part["tables"].values():
            data = (path.parent / table["file"]).read_bytes()
            table["pieces"] = [[len(data), form.sha256(data)]]

    reseal(path.parent, change_part=one_piece)
    with pytest.raises(CheckpointError, match=message):
        loaded(latest(tmp_path))


def test_nothing_of_a_checkpoint_is_needed_but_its_folder(two_checkpoints, tmp_path):
    """Copied elsewhere, it is the same checkpoint."""
    shutil.copytree(two_checkpoints / "clock-000000000001-one", tmp_path / "copy" / "clock-000000000001-one")
    assert folders(tmp_path / "copy") == ["clock-000000000001-one"]
    assert same(loaded(latest(tmp_path / "copy")), contents(1))


def test_the_manifest_is_json_that_anybody_reads(two_checkpoints):
    """Clock, tables, state and parts stand in it as written."""
    manifest = json.loads((two_checkpoints / "clock-000000000002-two" / "manifest-000000002.json").read_text())
    assert manifest["format"] == 1
    checkpoint = manifest["checkpoint"]
    assert (checkpoint["clock"], checkpoint["tables"], checkpoint["nodes"]) == (2, TABLES, 2)
    assert [part["file"] for part in checkpoint["parts"]] == ["node-0000.json", "node-0001.json"]
