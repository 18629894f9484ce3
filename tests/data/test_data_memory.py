"""Ratings that do not fit the memory are refused before they are read, with the bytes needed and free."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest

from nbps.data import read_ratings
from nbps.data.memory import free_bytes
from nbps.data.ratings import text
from nbps.data.source import open_source
from nbps.errors import OutOfMemoryError

ROWS, FREE = 4_000_000, 20 << 20

_LIMITED = r"""
import io, re, resource, sys
import pyarrow, pyarrow.csv, pyarrow.ipc, pyarrow.json, pyarrow.parquet
from nbps.data import Ratings, generate_ratings, read_documents, read_ratings
from nbps.models import MatrixFactorization
from nbps.errors import OutOfMemoryError

# Arrow starts no more threads, whose stacks the limit may have no room for.
pyarrow.set_cpu_count(1)
pyarrow.set_io_thread_count(1)
pyarrow.csv.read_csv(io.BytesIO(b"a\n1\n"))
small = generate_ratings(30, 20, 300)
MatrixFactorization(epochs=1, rank=2, workers=1).fit(small)
used = 1024 * int(re.search(r"VmSize:\s+(\d+)", open("/proc/self/status").read())[1])
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    if sys.argv[1] == "train":
        MatrixFactorization(epochs=1, rank=10**6, workers=1).fit(small)
    elif sys.argv[1].endswith("documents"):
        read_documents(sys.argv[1])
    else:
        read_ratings(sys.argv[1])
except OutOfMemoryError as error:
    assert isinstance(error, MemoryError)
    print(error)
"""


def refusal(what: object, mapped: int = 0) -> str:
    """Return what is said about a file, or a large model, to a process that may get `FREE` bytes beside a file."""
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(what), str(FREE + mapped)], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", ["parquet", "arrow", "csv", "csv.gz", "jsonl"])
def test_a_file_of_too_many_ratings_is_refused(tmp_path, kind):
    """By the number that it states, or that its first lines let expect; nothing of it was read by then."""
    path = tmp_path / f"x.{kind}"
    table = pa.table({"user": [1, 2] * 1_000, "item": [3, 4] * 1_000, "rating": [5.0, 4.0] * 1_000})
    if kind == "parquet":
        with pa.parquet.ParquetWriter(path, table.schema) as writer:
            writer.write_table(pa.concat_tables([table] * (ROWS // 2_000)), row_group_size=ROWS)
    elif kind == "arrow":
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(pa.concat_tables([table] * (ROWS // 2_000)))
    else:
        line = b'{"user": 1, "item": 3, "rating": 5}\n' if kind == "jsonl" else b"1,3,5\n2,4,4\n"
        content = line * (ROWS if kind == "jsonl" else ROWS // 2)
        path.write_bytes(gzip.compress(content, 1) if kind == "csv.gz" else content)
    words = r"cannot read ratings from '(.*)': its (about )?([\d,]+) ratings need at least ([\d,]+) bytes of memory;"
    said = re.match(words, refusal(path, path.stat().st_size if kind == "arrow" else 0))
    assert said[1] == str(path)
    rows, needed = (int(number.replace(",", "")) for number in said.groups()[2:])
    assert needed == 16 * rows
    assert rows == ROWS or (said[2] and FREE / 16 < rows < 1.3 * ROWS)


def test_memory_that_ends_while_ratings_are_read(tmp_path, monkeypatch):
    """Beside other programs it may: every format says so alike."""
    path = tmp_path / "x.csv"
    path.write_text("1,2,3\n2,3,4\n")

    def run_out(*arguments):
        raise pa.ArrowMemoryError("malloc of size 64 failed")

    monkeypatch.setattr(text, "read_text", run_out)
    with pytest.raises(OutOfMemoryError, match=r"cannot read ratings from .*x\.csv': malloc of size 64 failed"):
        read_ratings(path)


def test_a_sorted_file_is_not_refused_for_its_short_first_lines(tmp_path):
    """Later lines are longer: no more lines are expected than there are."""
    path = tmp_path / "x.csv"
    path.write_text("".join(f"{user},{user + 1},5\n" for user in range(1, 10)) * 2_000 + "1234,12345,5\n" * 100_000)
    assert open_source(path).estimated_lines() <= 118_000


def test_a_model_that_does_not_fit_is_refused():
    """Before its first factors are made."""
    said = refusal("train")
    assert "training on 300 ratings of 20 items by 30 users at rank 1000000 needs at least 600," in said
    assert int(re.search(r"free are ([\d,]+)\.", said)[1].replace(",", "")) <= FREE


def test_free_memory_is_less_than_the_machine_has():
    """And some of it is free."""
    total = 1024 * int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[1])
    assert 0 < free_bytes() < total


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("3\n9000000\n1\n1 1 1\n", "a vocabulary of 9,000,000 numbers, .* needs at least 720,000,000 bytes"),
        ("1 8999999:1\n", "a vocabulary of 9,000,000 numbers, .* needs at least 720,000,000 bytes"),
        (
            "9000000\n3\n1\n1 1 1\n",
            "9,000,000 documents, as many as the first line says, need at least 144,000,000 bytes",
        ),
    ],
    ids=["words", "largest word", "documents"],
)
def test_more_documents_or_words_than_fit_are_refused(tmp_path, content, words):
    """A file of a few bytes may say that there are millions."""
    path = tmp_path / "documents"
    path.write_text(content)
    assert re.search(words, refusal(path))
