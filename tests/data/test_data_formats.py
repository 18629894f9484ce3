"""read_ratings: every format, plain and compressed, found by content and name."""

from __future__ import annotations

import bz2
import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbps.data import Ratings, read_ratings, read_test_ratings
from nbps.data.ratings import columnar
from nbps.data.source import HEAD_BYTES
from nbps.errors import ConfigError, DataError

ROWS = [(10, 7, 4.0), (3, 8, 3.5), (10, 8, 1.0), (3, 7, 5.0), (3, 7, 5.0)]


def rows_of(ratings: Ratings) -> list[tuple]:
    users = ratings.user_ids.decode(ratings.users).tolist()
    items = ratings.item_ids.decode(ratings.items).tolist()
    return list(zip(users, items, ratings.values.tolist(), strict=True))


def lines(separator: str, *, more: str = "", header: str = "", end: str = "\n") -> bytes:
    body = [header] * bool(header) + [separator.join(map(str, row)) + more for row in ROWS]
    return "".join(line + end for line in body).encode()


TEXTS = {
    "u.data": lines("\t", more="\t881250949"),
    "three.tsv": lines("\t"),
    "header.tsv": lines("\t", header="user_id:token\titem_id:token\trating:float"),
    "ratings.dat": lines("::", more="::978300760"),
    "ratings.csv": lines(",", more=",1112486027", header="userId,movieId,rating,timestamp"),
    "bare.csv": lines(",", more=",1112486027"),
    "quoted.csv": lines(",", header='"user","item","rating"'),
    "semicolons.csv": lines(";", more=";1112486027", header="user;item;rating;time"),
    "bare-semicolons": lines(";"),
    "quoted-semicolons.csv": lines(";", header='"User-ID";"ISBN";"Book-Rating"'),
    "libmf.txt": lines(" "),
    "blanks.txt": b"  10 7  4.0\n3\t8 3.5 \n10 8 1.0\n\n   \n3   7 5.0\r\n3 7 5",
    "windows.tsv": lines("\t", end="\r\n"),
    "old-mac.tsv": lines("\t", end="\r"),
    "byte-order-mark.csv": b"\xef\xbb\xbf" + lines(",", header="user,item,rating"),
    "empty-lines.tsv": b"\n\n" + lines("\t", end="\n\n"),
    "empty-lines.csv": b"\n" + lines(",", end="\n\n", header="user,item,rating"),
    "no-end.tsv": lines("\t").rstrip(b"\n"),
    "noname": lines("::"),
    "wrong-name.csv": lines("\t"),
}


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("name", TEXTS)
def test_text_formats_are_recognised(tmp_path, name, compressed):
    """Each text form is read without being told which it is; compressed under any name."""
    path = tmp_path / name
    path.write_bytes(gzip.compress(TEXTS[name]) if compressed else TEXTS[name])
    ratings = read_ratings(path)
    assert rows_of(ratings) == ROWS
    assert ratings.user_ids.ids.to_pylist() == [3, 10]


def arrow_table() -> pa.Table:
    users, items, values = zip(*ROWS, strict=True)
    return pa.table({"time": [0] * len(ROWS), "item_id": items, "user_id": users, "rating": values})


def write_arrow_file(path: Path, table: pa.Table) -> None:
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


def write_arrow_stream(path: Path, table: pa.Table) -> None:
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


WRITERS = [
    pytest.param(lambda path, table: pa.parquet.write_table(table, path), id="parquet"),
    pytest.param(write_arrow_file, id="arrow-file"),
    pytest.param(write_arrow_stream, id="arrow-stream"),
]


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("write", WRITERS)
def test_columnar_formats_are_recognised(tmp_path, write, compressed):
    """Parquet and both kinds of Arrow file are read whatever their name; columns are found by name."""
    path = tmp_path / "ratings.bin"
    write(path, arrow_table())
    if compressed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    assert rows_of(read_ratings(path)) == ROWS


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(
    "kind", [pa.int8(), pa.uint16(), pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]
)
def test_columnar_id_types(tmp_path, write, kind):
    """Ids of every integer and string type."""
    table = arrow_table()
    text = table["user_id"].cast(pa.string())
    column = text.cast(kind) if not pa.types.is_integer(kind) else table["user_id"].cast(kind)
    write(tmp_path / "x", table.set_column(2, "user_id", column))
    expected = ROWS if pa.types.is_integer(kind) else [(str(u), i, v) for u, i, v in ROWS]
    assert rows_of(read_ratings(tmp_path / "x")) == expected


@pytest.mark.parametrize("kind", ["int32", "float16", "float64", pa.decimal128(5, 2)])
def test_columnar_rating_types(tmp_path, kind):
    """Ratings of every numeric type."""
    values = pa.array(np.array([1.0, 3.0], kind)) if isinstance(kind, str) else pa.array([1.0, 3.0]).cast(kind)
    table = pa.table({"user": [1, 2], "item": [1, 2], "rating": values})
    write_arrow_file(tmp_path / "x", table)
    assert read_ratings(tmp_path / "x").values.tolist() == [1.0, 3.0]


@pytest.mark.parametrize("columns", [("u", "i", "stars!"), (2, 0, 1), ["u", 0, "stars!"]])
def test_columns_chooses_by_name_and_position(tmp_path, columns):
    """Names of a header nobody knows, and positions."""
    path = tmp_path / "x.csv"
    path.write_text("i,stars!,u\n7,4,10\n8,3.5,3\n")
    expected = [(10, 7, 4.0), (3, 8, 3.5)]
    assert rows_of(read_ratings(path, columns=columns)) == expected
    pa.parquet.write_table(pa.table({"i": [7, 8], "stars!": [4, 3.5], "u": [10, 3]}), tmp_path / "x.parquet")
    assert rows_of(read_ratings(tmp_path / "x.parquet", columns=columns)) == expected


def test_columns_chooses_positions_without_a_header(tmp_path):
    """Positions work for the formats that have no names."""
    (tmp_path / "x.dat").write_text("0::4::7::10\n0::3.5::8::3\n")
    assert rows_of(read_ratings(tmp_path / "x.dat", columns=(3, 2, 1))) == [(10, 7, 4.0), (3, 8, 3.5)]


@pytest.mark.parametrize(
    "columns", ["abc", ("user", "item"), (0, 1, 1), (0, 1, -1), (0, 1, 2, 3)], ids=lambda value: repr(value)
)
def test_columns_are_checked(tmp_path, columns):
    """Anything but three different columns is refused before the file is opened."""
    with pytest.raises(ConfigError, match="three different columns"):
        read_ratings(tmp_path / "absent", columns=columns)


def test_format_can_be_given(tmp_path):
    """A name and first line that mislead are overruled."""
    path = tmp_path / "x.csv"
    path.write_text("a,b 1 4\na,b 2 3\nc 1 5\n")
    assert rows_of(read_ratings(path, format="libmf")) == [("a,b", 1, 4), ("a,b", 2, 3), ("c", 1, 5)]
    with pytest.raises(ConfigError, match="format: expected one of dat, tsv, csv, libmf, jsonl, parquet, arrow"):
        read_ratings(path, format="excel")


@pytest.mark.parametrize("delimiter", ["|", "^", "~~", "¦", " | ", "\t", ";", "::", " ", "\x01"])
def test_the_delimiter_can_be_given(tmp_path, delimiter):
    """Whatever stands between the columns, with a header or not; fields may be quoted where it is one character."""
    path = tmp_path / "x.txt"
    path.write_bytes(lines(delimiter))
    assert rows_of(read_ratings(path, delimiter=delimiter)) == ROWS
    if delimiter not in ("::", " "):
        path.write_bytes(lines(delimiter, header=delimiter.join(["userId", "movieId", "rating"])))
        assert rows_of(read_ratings(path, delimiter=delimiter)) == ROWS
    if delimiter in ("|", "^"):
        path.write_text(f'"a{delimiter}b"{delimiter}x{delimiter}1\nc{delimiter}y{delimiter}2\n')
        assert rows_of(read_ratings(path, delimiter=delimiter, format="csv")) == [
            (f"a{delimiter}b", "x", 1),
            ("c", "y", 2),
        ]


@pytest.mark.parametrize("delimiter", ["", "a", "1", ".", "-", "\n", '"', "\0", 7])
def test_what_cannot_separate_columns_is_refused(tmp_path, delimiter):
    """Before the file is opened; so is a format that knows other separators."""
    with pytest.raises(ConfigError, match="delimiter: expected what stands between two columns"):
        read_ratings(tmp_path / "absent", delimiter=delimiter)
    for other in ("dat", "libmf", "jsonl", "parquet"):
        with pytest.raises(ConfigError, match=f"'|' is not what separates columns in the {other} format"):
            read_ratings(tmp_path / "absent", delimiter="|", format=other)


def test_json_lines(tmp_path):
    """An object on each line, its fields in any order, found by names; compressed or not, under any name."""
    rows = [
        {"userId": 10, "movieId": "x", "rating": 4, "at": "2020-01-01"},
        {"rating": 3.5, "movieId": "é", "userId": 3},
    ]
    text = "\n".join(map(json.dumps, rows)) + "\n\n"
    for name, content in (("x.jsonl", text.encode()), ("x.csv", gzip.compress(text.encode()))):
        (tmp_path / name).write_bytes(content)
        for options in ({}, {"format": "jsonl"}, {"columns": ("userId", "movieId", "rating")}, {"columns": (0, 1, 2)}):
            assert rows_of(read_ratings(tmp_path / name, **options)) == [(10, "x", 4.0), (3, "é", 3.5)]


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lambda raw: pa.compress(raw, "zstd", asbytes=True)])
@pytest.mark.parametrize("copies", [1, 60_000])
def test_every_compression_of_every_kind_of_format(tmp_path, compress, copies):
    """Text, JSON lines and Parquet, whatever the file is called, also beyond the first block."""
    table = pa.table({"user": [1, 2] * copies, "item": [3, 4] * copies, "rating": [5.0, 1.0] * copies})
    pa.parquet.write_table(table, tmp_path / "plain")
    for content in (
        b"1::3::5::0\n2::4::1::0\n" * copies,
        b'{"user": 1, "item": 3, "rating": 5}\n{"user": 2, "item": 4, "rating": 1}\n' * copies,
        (tmp_path / "plain").read_bytes(),
    ):
        (tmp_path / "x").write_bytes(compress(content))
        assert rows_of(read_ratings(tmp_path / "x")) == [(1, 3, 5.0), (2, 4, 1.0)] * copies


def test_text_may_begin_as_bzip2_does(tmp_path):
    """Three letters do not make a compressed file."""
    (tmp_path / "x").write_text("BZh9,x,1\nBZh9,y,2\n")
    assert rows_of(read_ratings(tmp_path / "x")) == [("BZh9", "x", 1), ("BZh9", "y", 2)]


@pytest.mark.parametrize("beyond", [False, True])
def test_whole_numbers_are_integers_however_they_are_written(tmp_path, beyond):
    """1 and 1.0 are one user, where all ids are numbers; where they are not, ids stay as they are written."""
    head = "1\t7.0\t3\n" * (HEAD_BYTES if beyond else 1)
    path = tmp_path / "x.tsv"
    path.write_text(head + "1.0\t7\t4\n2.00\t8.\t5\n-3\t0.0\t1\n")
    ratings = read_ratings(path)
    assert ratings.user_ids.ids.to_pylist() == [-3, 1, 2]
    assert ratings.item_ids.ids.to_pylist() == [0, 7, 8]
    path.write_text(head + "1.0\t7\t4\nx\t1.5\t1\n")
    ratings = read_ratings(path)
    assert ratings.user_ids.ids.to_pylist() == ["1", "1.0", "x"]
    assert ratings.item_ids.ids.to_pylist() == ["1.5", "7", "7.0"]


def test_the_name_decides_where_content_allows_two(tmp_path):
    """Commas inside the fields of a tab-separated file do not matter, and the other way round."""
    (tmp_path / "x.data").write_text("a,,\tb\t3\nc,,\td\t4\n")
    assert rows_of(read_ratings(tmp_path / "x.data")) == [("a,,", "b", 3), ("c,,", "d", 4)]
    (tmp_path / "x.csv").write_text("a\t\t,b,3\nc\t\t,d,4\n")
    assert rows_of(read_ratings(tmp_path / "x.csv")) == [("a\t\t", "b", 3), ("c\t\t", "d", 4)]


def test_string_ids(tmp_path):
    """Ids that are not integers stay as they are written."""
    path = tmp_path / "x.csv"
    path.write_text('user,item,rating\nA3X,"Heat, 1995",5\nÅsa,"say ""hi""",4\n7,x,1\n')
    expected = [
        ("A3X", "Heat, 1995", 5.0),
        ("Åsa", 'say "hi"', 4.0),
        ("7", "x", 1.0),
    ]
    assert rows_of(read_ratings(path)) == expected
    path.write_text(path.read_text().replace(",", ";").replace("; 1995", ", 1995"))
    assert rows_of(read_ratings(path)) == expected


def test_leading_zeros_are_kept(tmp_path):
    """An ISBN is a string, even where all are digits."""
    path = tmp_path / "x.tsv"
    path.write_text("1\t0195153448\t5\n2\t1195153448\t4\n")
    assert rows_of(read_ratings(path)) == [(1, "0195153448", 5), (2, "1195153448", 4)]


@pytest.mark.parametrize("separator", ["\t", "::", ",", " "])
def test_a_string_id_after_the_sample(tmp_path, separator):
    """Ids that look like integers in the part that is sampled may still be strings."""
    count = HEAD_BYTES // 4
    rows = [separator.join([str(row % 9), str(row % 7), "3"]) for row in range(count)]
    path = tmp_path / "x"
    path.write_text("\n".join([*rows, separator.join(["last", "6", "2"])]))
    ratings = read_ratings(path)
    assert rows_of(ratings)[-1] == ("last", 6, 2.0)
    assert rows_of(ratings)[0] == ("0", 0, 3.0)


def test_blanks_after_the_sample(tmp_path):
    """Runs of blanks are read wherever in the file they begin."""
    path = tmp_path / "x.txt"
    path.write_text("\n".join(["1 2 3", "2 1 4"] * HEAD_BYTES + ["2  2   5 "]))
    assert rows_of(read_ratings(path))[-1] == (2, 2, 5.0)


def test_ids_beyond_32_bits_after_the_sample(tmp_path):
    """The file is read again with longer integers, and other columns stay as they are."""
    path = tmp_path / "x.csv"
    path.write_text("1,7,3\n" * 20_000 + "5000000000,7,4\n-5000000000,8,5\n")
    found = read_ratings(path)
    assert found.user_ids.ids.to_pylist() == [-5_000_000_000, 1, 5_000_000_000]
    assert found.item_ids.ids.to_pylist() == [7, 8]
    assert found.users[-3:].tolist() == [1, 2, 0]


@pytest.mark.parametrize("ids", [[3, 1, 2, 2**40], ["c", "a", "b", "d"], np.array([3, 1, 2, 4], np.uint8)], ids=str)
def test_parquet_is_read_in_batches(tmp_path, monkeypatch, ids):
    """Of which some need longer integers than others; the row of an error counts from the first batch."""
    monkeypatch.setattr(columnar, "_BATCH_ROWS", 3)
    path, table = tmp_path / "x.parquet", pa.table({"user": ids, "item": [5, 6, 5, 6], "rating": [1.0, 2.5, 3.0, 4.0]})
    pq.write_table(table, path)
    found = read_ratings(path)
    assert found.to_arrow().to_pydict() == {**table.to_pydict(), "user": list(table["user"].to_pylist())}
    pq.write_table(table.set_column(2, "rating", pa.array([1.0, 2.0, 3.0, np.inf])), path)
    with pytest.raises(DataError, match="row 4: expected a finite rating"):
        read_ratings(path)
    pq.write_table(table.slice(0, 0), path)
    with pytest.raises(DataError, match="a table without rows"):
        read_ratings(path)


def test_ids_beyond_64_bits_are_strings(tmp_path):
    """Long digit strings, hashes for instance, lose nothing."""
    path = tmp_path / "x.tsv"
    path.write_text(f"{10**30}\t1\t5\n{10**30 + 1}\t2\t4\n")
    assert rows_of(read_ratings(path)) == [(str(10**30), 1, 5), (str(10**30 + 1), 2, 4)]


def test_negative_and_scientific_numbers(tmp_path):
    """Ratings may be any finite number (LIBMF does not ask for stars); ids may be negative."""
    path = tmp_path / "x.txt"
    path.write_text("-1 5 -2.5\n0 6 1e-3\n")
    assert rows_of(read_ratings(path)) == [(-1, 5, -2.5), (0, 6, np.float32(1e-3))]


id_texts = st.text(st.characters(codec="utf-8", categories=["L", "N", "P"], exclude_characters='",:;'), min_size=1)
ids = st.one_of(
    st.lists(st.integers(-(10**17), 10**17), min_size=2, max_size=40, unique=True),
    st.lists(id_texts.filter(lambda text: not text.isdecimal()), min_size=2, max_size=40, unique=True),
)
numbers = st.floats(-1e6, 1e6, width=32)


@given(
    users=ids,
    items=ids,
    data=st.data(),
    form=st.sampled_from([("tsv", "\t"), ("dat", "::"), ("csv", ","), ("csv", ";"), ("libmf", " ")]),
    compressed=st.booleans(),
    more=st.sampled_from(["", "99"]),
)
def test_what_is_written_is_read_back(tmp_path_factory, users, items, data, form, compressed, more):
    """Random ratings in every text format come back as they were."""
    name, separator = form
    size = max(len(users), len(items))
    values = data.draw(st.lists(numbers, min_size=size, max_size=size))
    rows = [(users[k % len(users)], items[k % len(items)], value) for k, value in enumerate(values)]
    text = "".join(separator.join([*map(str, row), *([more] if more else [])]) + "\n" for row in rows)
    path = tmp_path_factory.mktemp("written") / "file"
    path.write_bytes(gzip.compress(text.encode()) if compressed else text.encode())
    assert rows_of(read_ratings(path, format=name, columns=(0, 1, 2))) == rows


def test_test_ratings_use_the_codes_of_the_training_ratings(tmp_path):
    """Unknown users and items are dropped and counted; one user alone is enough."""
    (tmp_path / "train").write_text("1\t10\t5\n2\t20\t4\n3\t30\t3\n")
    (tmp_path / "test").write_text("3\t10\t1\n3\t99\t2\n")
    train = read_ratings(tmp_path / "train")
    test, dropped = read_test_ratings(tmp_path / "test", train)
    assert dropped == 1
    assert rows_of(test) == [(3, 10, 1.0)]
    assert test.users.tolist() == [2]


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("ml-100k/u.data.gz", (100_000, 943, 1_682)),
        ("ml-100k/u1.test", (20_000, 459, 1_410)),
        ("ml-1m/ratings_notime.tsv.gz", (1_000_209, 6_040, 3_706)),
        ("libmf-demo/real_matrix.tr.txt", (5_000, 1_525, 177)),
        ("filmtrust/ratings.txt", (35_497, 1_508, 2_071)),
    ],
)
def test_real_data_sets(shared_data, name, counts):
    """The published files give the published counts."""
    ratings = read_ratings(shared_data / name)
    assert (len(ratings), *ratings.shape) == counts
