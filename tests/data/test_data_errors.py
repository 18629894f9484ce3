"""read_ratings: every error names the file, the line, what was expected and what was found."""

from __future__ import annotations

import bz2
import gzip
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbps.data import Ratings, read_ratings, read_test_ratings
from nbps.errors import DataError

GOOD = "1\t10\t5\t0\n2\t20\t4\t0\n3\t30\t3\t0\n"

_MILLION = np.ones((1 << 20) + 1, np.int64)  # a batch of a Parquet file, and one more


def refuse(path, words: str, **options) -> None:
    """Check that reading fails with `words` (a pattern) and the path in the message."""
    with pytest.raises(DataError, match=words) as caught:
        read_ratings(path, **options)
    assert str(path) in str(caught.value)


def test_missing_file(tmp_path):
    """The folder that was looked in is named: relative paths go wrong there."""
    refuse(tmp_path / "absent.csv", "there is no such file")


def test_folder(tmp_path):
    """A folder is not a file."""
    refuse(tmp_path, "expected a file, found a folder")


def test_pipe(tmp_path):
    """A pipe would block for ever."""
    os.mkfifo(tmp_path / "pipe")
    refuse(tmp_path / "pipe", "found a pipe or device")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser can read every file")
def test_unreadable_file(tmp_path):
    """Missing permission is said as such."""
    path = tmp_path / "secret"
    path.write_text(GOOD)
    path.chmod(0)
    refuse(path, "cannot be opened: Permission denied")


@pytest.mark.parametrize("content", [b"", gzip.compress(b"")], ids=["plain", "compressed"])
def test_empty_file(tmp_path, content):
    """Nothing in it, plain and compressed."""
    (tmp_path / "x").write_bytes(content)
    refuse(tmp_path / "x", "found an empty file")


def test_only_empty_lines(tmp_path):
    """Line ends alone are no ratings."""
    (tmp_path / "x.csv").write_text("\n\n\n")
    refuse(tmp_path / "x.csv", "only empty lines")


def test_only_a_header(tmp_path):
    """A header alone is no ratings."""
    (tmp_path / "x.csv").write_text("userId,movieId,rating\n")
    refuse(tmp_path / "x.csv", "only a header")


BAD_LINES = [
    ("3\t30", r"expected 4 fields separated by '\\t', found 2: '3\\t30'"),
    ("3\t30\t3\t0\t0", "expected 4 fields .* found 5"),
    ("3\t30\tgood\t0", "expected a number as rating, found 'good'"),
    ("3\t30\t\t0", "expected a number as rating, found ''"),
    ("3\t30\t1_0\t0", "expected a number as rating, found '1_0'"),
    ("3\t30\t0x10\t0", "expected a number as rating, found '0x10'"),
    ("3\t30\tNaN\t0", "expected a finite rating, found 'NaN'"),
    ("3\t30\t-inf\t0", "expected a finite rating, found '-inf'"),
    ("3\t30\t1e39\t0", "expected a rating that float32 holds, found '1e39'"),
    ("\t30\t3\t0", "expected the user's id, found an empty field"),
    ("3\t\t3\t0", "expected the item's id, found an empty field"),
]


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("at", [2, 4])
@pytest.mark.parametrize(("bad", "words"), BAD_LINES)
def test_a_bad_line_is_named(tmp_path, bad, words, at, compressed):
    """The first bad line's number, also after empty lines."""
    empty = 0 if at == 2 else 2
    good = "".join(f"{row % 50}\t{row % 30}\t3\t0\n" for row in range(at - 1 - empty))
    text = good + "\n" * empty + bad + "\n" + GOOD + bad + "\n"
    path = tmp_path / "u.data"
    path.write_bytes(gzip.compress(text.encode()) if compressed else text.encode())
    refuse(path, rf"u\.data', line {at}: {words}")


@pytest.mark.parametrize("bad", ["3\t30", "3\t30\tgood\t0", "3\t30\tnan\t0", "\t30\t3\t0"])
def test_a_bad_line_is_named_beyond_the_first_block(tmp_path, bad):
    """The line's number does not start again in each of the blocks that are read at once."""
    lines = [f"{row % 50}\t{row % 30}\t3\t{row:020}" for row in range(60_000)]
    lines[50_000] = bad
    (tmp_path / "u.data").write_text("\n".join(lines))
    refuse(tmp_path / "u.data", "line 50001: ")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.dat", "1::2::3\n1:2:3\n", r"line 2: expected 3 fields separated by '::', found 1"),
        ("a.dat", "1::2::3\n2::1::x\n", r"line 2: expected a number as rating, found 'x'"),
        ("a.csv", "user,item,rating\n1,2,3\n2,,3\n", r"line 3: expected the item's id"),
        (
            "a.csv",
            'user,item,rating\n1,2,3\n2,"a,b"\n',
            r"line 3: expected 3 fields separated by ',', found 2",
        ),
        ("a.csv", "user,item,rating\n1,2,3\nuser,item,rating\n", r"line 3: .* found 'rating'"),
        ("a.csv", "1;2;3,5\n2;1;4\n", r"line 1: expected a rating with a decimal point, found '3,5'"),
        ("a.csv", "1;2;3\n2;1\n", r"line 2: expected 3 fields separated by ';', found 2"),
        ("a.csv", "1,2,3\n1,2,nan\n", r"line 2: expected a finite rating"),
        ("a.csv", "1,2,nan\n1,2,3\n", r"line 1: expected a finite rating"),
        ("a.tsv", "1\t2\tgood\n1\t2\t3\n", r"line 1: expected a number as rating, found 'good'"),
        ("a.tsv", "\n1\t2\n1\t2\t3\n", r"line 2: expected user, item and rating separated by '\\t'"),
        ("a.txt", "1 2 3\n  \n1  2\n", r"line 3: expected 3 fields separated by blanks, found 2"),
        ("a.txt", "1 2 3\n1 2 three\n", r"line 2: expected a number as rating, found 'three'"),
    ],
)
def test_a_bad_line_in_every_text_format(tmp_path, name, text, words):
    """Empty lines and headers count; each format names its own separator."""
    (tmp_path / name).write_text(text)
    refuse(tmp_path / name, words)


def test_bytes_that_are_not_utf8(tmp_path):
    """Latin-1 is refused with the line, not read as something else."""
    (tmp_path / "x.tsv").write_bytes(b"a\tb\t1\nb\tcaf\xe9\t2\n")
    refuse(tmp_path / "x.tsv", "line 2: expected UTF-8 text")


def test_utf16_and_other_binary(tmp_path):
    """Bytes that are no text in a known encoding are shown."""
    (tmp_path / "x.csv").write_bytes("user,item,rating\n1,2,3\n".encode("utf-16"))
    refuse(tmp_path / "x.csv", "found binary data that begins with ff fe 75 00")


def test_zip_archive(tmp_path):
    """The archives that MovieLens offers must be unpacked first."""
    (tmp_path / "ml-1m.zip").write_bytes(b"PK\x03\x04rest")
    refuse(tmp_path / "ml-1m.zip", "found a zip archive. Unpack it")


@pytest.mark.parametrize("text", ["hello\n", "1|2|3\n", "{hello}\n"])
def test_no_known_format(tmp_path, text):
    """What was found is shown beside what would have been understood."""
    (tmp_path / "x.txt").write_text(text)
    refuse(tmp_path / "x.txt", "line 1: expected a first line with user, item and rating .* found text")


def test_a_missing_column_lists_those_there_are(tmp_path):
    """The reader of the message can choose one of them."""
    (tmp_path / "x.csv").write_text("who,what,rating\n1,2,3\n")
    refuse(
        tmp_path / "x.csv",
        r"expected the user column, found the columns 'who', 'what', 'rating'\. .*columns=.*--columns user,item,rating",
    )
    refuse(tmp_path / "x.csv", r"expected the item column 'item', found", columns=("who", "item", "rating"))
    refuse(tmp_path / "x.csv", r"expected the rating column 5, found", columns=(0, 1, 5))
    (tmp_path / "x.csv").write_text(",".join(f"c{n}" for n in range(4000)) + "\n")
    refuse(tmp_path / "x.csv", r"'c18', 'c19', \.\.\. \(4,000 in all\)\. Say which")


@pytest.mark.parametrize(("name", "text"), [("x.csv", "user;item\n1;2\n"), ("x", "1\t2\n"), ("x.txt", "1 2\n")])
def test_implicit_feedback(tmp_path, name, text):
    """Two columns, of text or not, are no ratings; the message says so in whatever format."""
    (tmp_path / name).write_text(text)
    refuse(tmp_path / name, "found 2 fields.* no rating column: nbps needs explicit ratings")
    pa.parquet.write_table(pa.table({"user": [1, 2], "item": [1, 2]}), tmp_path / "x.parquet")
    refuse(
        tmp_path / "x.parquet", r"the rating column, found the columns 'user', 'item'.* no rating column: nbps needs"
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{}\n", "expected the user column, found no columns"),
        (
            '[{"user": 1, "item": 2, "rating": 3}]',
            "line 1: expected a JSON object, found list: .* on a line of its own",
        ),
        ("[\n", "line 1: expected a JSON object, found Expecting value"),
        ('{"user": 1, "item": 2, "rating": 3}\n{"user": 1,\n', "line 2: expected a JSON object, found Expecting"),
        ('{"user": 1, "item": 2, "rating": 3}\n7\n', "line 2: expected a JSON object, found int: '7'"),
        (
            '{"user": 1, "item": 2, "rating": 3}\n{"user": 1, "rating": 3}',
            "line 2: .*'item', an integer .*, found None",
        ),
        ('{"user": 1, "item": 2, "rating": 3}\n{"user": "a", "item": 2, "rating": 3}', "line 2: .*, found 'a'"),
        (
            '{"user": "b", "item": 2, "rating": 3}\n{"user": 5, "item": 2, "rating": 3}',
            "line 2: .* a string .* found 5",
        ),
        ('{"user": "", "item": 2, "rating": 3}\n', "line 1: expected the user's id in 'user', a string"),
        ('{"user": 1.0, "item": 2, "rating": 3}\n', "line 1: .* an integer or string .*, found 1.0"),
        ('{"user": null, "item": 2, "rating": 3}\n', "line 1: .* found None"),
        ('{"user": 9223372036854775808, "item": 2, "rating": 3}\n', "line 1: .* an integer of 64 bits"),
        (
            '{"user": 1, "item": 2, "rating": "3"}\n',
            "line 1: expected a rating that float32 holds in 'rating', found '3'",
        ),
        ('{"user": 1, "item": 2, "rating": true}\n', "line 1: expected a rating .* found True"),
        ('{"user": 1, "item": 2, "rating": 1e39}\n', "line 1: expected a rating .* found 1e\\+39"),
        ('{"user": 1, "item": 2, "rating": NaN}\n', "line 1: expected a rating .* found nan"),
        ('{"user": 1, "item": 2, "rating": 3}\n\n{"user": 1, "item": 2}\n', "line 3: expected a rating .* found None"),
        ('{"who": 1, "item": 2, "rating": 3}\n', "expected the user column, found the columns 'who', 'item', 'rating'"),
    ],
)
def test_bad_json_lines(tmp_path, content, words):
    """What is no object on a line, and what is no id or rating in it; ids are what they are in the first line."""
    (tmp_path / "x.jsonl").write_text(content)
    refuse(tmp_path / "x.jsonl", words)


@pytest.mark.parametrize("word", ["nan", "NaN", "NA", "<NA>", "null", "None"])
def test_a_missing_number_among_ids_is_named(tmp_path, word):
    """What other programs write for a missing integer is not one more user; where ids are words, it may be one."""
    path = tmp_path / "x.csv"
    path.write_text(f"user,item,rating\n1.0,10,5\n{word},20,4\n3.0,{word},3\n")
    refuse(path, f"line 3: expected the user's id, found a missing value, '{word}' among numbers")
    path.write_text(f"user,item,rating\n1,10,5\n4,20,4\n3,{word},3\n")
    refuse(path, f"line 4: expected the item's id, found a missing value, '{word}' among numbers")
    path.write_text(f"user,item,rating\nann,10,5\n{word},20,4\n1,30,3\n")
    assert read_ratings(path).user_ids.ids.to_pylist() == sorted(["ann", word, "1"])


@pytest.mark.parametrize("head", ["", "a\t10\t5\n" * 20_000])
def test_a_nul_byte_is_named_by_its_line(tmp_path, head):
    """In the first block and beyond it, where an id is text; one in a column that is not read does not matter."""
    (tmp_path / "x.tsv").write_text(head + "a\t10\t5\nb\t20\t4\nc\0d\t30\t3\n")
    refuse(tmp_path / "x.tsv", rf"line {3 + head.count(chr(10))}: expected .* found a NUL byte")


@pytest.mark.parametrize("size", [30, 100_000, 400_000])
def test_truncated_gzip(tmp_path, size):
    """A download that broke off, in the head and beyond it; the line where it ends is named beyond it."""
    rows = "".join(f"{row}\t{row * 7 % 1000}\t{row % 5}\n" for row in range(200_000))
    content = gzip.compress(rows.encode())
    assert len(content) > 500_000
    (tmp_path / "x.gz").write_bytes(content[:size])
    line = r", line \d+" if size > 50_000 else ""
    refuse(tmp_path / "x.gz", rf"x\.gz'{line}: expected a whole gzip file, found a file that ends early")


@pytest.mark.parametrize("flipped", [0xFF, 0x01])
def test_corrupt_gzip(tmp_path, flipped):
    """Flipped bits are named as such, also where they leave text that could be ratings."""
    content = bytearray(gzip.compress(GOOD.encode() * 10_000, compresslevel=0))
    place = content.index(b"20", 200_000)
    content[place] ^= flipped
    (tmp_path / "x.gz").write_bytes(content)
    refuse(tmp_path / "x.gz", "expected a whole gzip file, found damaged data")


@pytest.mark.parametrize("name", ["bz2", "zstd"])
@pytest.mark.parametrize("size", [30, 20_000, 400_000])
def test_other_compressions_that_end_early(tmp_path, name, size):
    """As with gzip: a part of the file is never taken for the whole."""
    random = np.random.default_rng(0).integers(0, 10**9, (60_000, 2))
    rows = "".join(f"{user}\t{item}\t3\n" for user, item in random).encode()
    content = bz2.compress(rows) if name == "bz2" else pa.compress(rows, name, asbytes=True)
    assert len(content) > 400_000
    (tmp_path / "x").write_bytes(content[:size])
    refuse(tmp_path / "x", rf"x'(, line \d+)?: expected a whole {name} file, found a file that ends early")


def test_not_the_format_claimed(tmp_path):
    """The format asked for is compared with the content."""
    (tmp_path / "x").write_text(GOOD)
    refuse(tmp_path / "x", r"expected the parquet format as asked for, found text that begins", format="parquet")
    refuse(tmp_path / "x", r"expected the arrow format as asked for, found text", format="arrow")
    refuse(tmp_path / "x", r"line 1: .*separated by '::' \(dat format\), found 1 field:", format="dat")
    pa.parquet.write_table(pa.table({"a": [1]}), tmp_path / "y")
    refuse(tmp_path / "y", r"expected the csv format as asked for, found a file in the parquet", format="csv")


@pytest.mark.parametrize("kind", ["parquet", "arrow", "stream"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_truncated_columnar_file(tmp_path, kind, part):
    """A file that was cut off is an error, never fewer ratings."""
    table = pa.table({"user": list(range(5000)), "item": list(range(5000)), "rating": [1.0] * 5000})
    path = tmp_path / "x"
    if kind == "parquet":
        pa.parquet.write_table(table, path)
    else:
        make = pa.ipc.new_file if kind == "arrow" else pa.ipc.new_stream
        with make(path, table.schema) as writer:
            writer.write_table(table)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    refuse(path, "expected a whole (parquet|arrow) file, found damaged data")


def test_bad_columnar_rows(tmp_path):
    """Missing and infinite values are named by row."""
    path = tmp_path / "x.parquet"
    for table, words in (
        (
            {"user": [1, None], "item": [1, 2], "rating": [1.0, 2.0]},
            "row 2: expected the user's id in column 'user', found a missing value",
        ),
        (
            {"user": [1.0, float("nan"), None], "item": [1, 2, 3], "rating": [1.0, 2.0, 3.0]},
            r"row 2: .* in column 'user', found a missing value \(null or NaN\), and 1 more",
        ),
        ({"user": ["a", "b"], "item": ["", "c"], "rating": [1.0, 2.0]}, "row 1: .* found an empty string"),
        (
            {"user": [1, 2], "item": [1, 2], "rating": [None, 2.0]},
            "row 1: expected the rating in column 'rating', found a missing",
        ),
        (
            {"user": [1, 2], "item": [1, 2], "rating": [1.0, float("inf")]},
            "row 2: expected a finite rating in column 'rating'",
        ),
        ({"user": [1, 2], "item": [1, 2], "rating": ["1", "2"]}, "expected numbers in the rating column"),
        (
            {"user": [1.5, 2], "item": [1, 2], "rating": [1, 2]},
            "integers or strings in the user column 'user', found float64",
        ),
        (
            {"user": pa.array([2**63], pa.uint64()), "item": [1], "rating": [1]},
            "does not fit 64-bit integers",
        ),
        (
            {"user": pa.array([1] * (1 << 20) + [2**63], pa.uint64()), **dict.fromkeys(("item", "rating"), _MILLION)},
            "does not fit 64-bit integers",
        ),
        ({"user": pa.array([], pa.int64()), "item": [], "rating": []}, "found a table without rows"),
    ):
        pa.parquet.write_table(pa.table(table), path)
        refuse(path, words)


def test_a_test_file_of_other_data(tmp_path):
    """Nothing in common with the training data: its ids are shown beside theirs."""
    train = Ratings.from_columns([1, 2], [1, 2], [1, 2])
    (tmp_path / "x").write_text("100\t1\t5\n200\t2\t5\n")
    with pytest.raises(DataError, match=r"found none among 2\. .* begin with user 100 .* with user 1 and item 1"):
        read_test_ratings(tmp_path / "x", train)


@given(st.binary(max_size=200), st.sampled_from([None, "tsv", "dat", "csv", "libmf", "jsonl", "parquet", "arrow"]))
def test_arbitrary_bytes_are_read_or_refused(tmp_path_factory, content, format_name):
    """No bytes make anything but ratings or a DataError."""
    path = tmp_path_factory.mktemp("bytes") / "x"
    for start in (b"", b"1\t2\t3\n", b"PAR1", b"ARROW1\0\0", b"\xff\xff\xff\xff", b"\x1f\x8b\x08\0"):
        path.write_bytes(start + content)
        message = _refusal(path, format_name)
        assert message is None or str(path) in message


@given(
    st.lists(st.text(st.sampled_from('12ax.-"\t, :\r'), max_size=12), max_size=12),
    st.sampled_from(["tsv", "dat", "csv", "libmf"]),
)
def test_almost_good_text_is_read_or_its_line_named(tmp_path_factory, lines, format_name):
    """The fast reader and the line by line diagnosis agree on what is bad."""
    mark = {"tsv": "\t", "dat": "::", "csv": ",", "libmf": " "}[format_name]
    good = [mark.join(row) for row in (("1", "2", "3"), ("2", "1", "4"))]
    path = tmp_path_factory.mktemp("text") / "x"
    path.write_bytes("\n".join([*good, *lines]).encode())
    message = _refusal(path, format_name)
    assert message is None or "', line " in message


def _refusal(path, format_name: str) -> str | None:
    try:
        read_ratings(path, format=format_name)
    except DataError as error:
        return str(error)
    return None
