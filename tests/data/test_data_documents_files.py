"""read_documents: every format, plain and compressed; every error names the file and the line."""

from __future__ import annotations

import bz2
import gzip

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest

from nbps.data import Documents, read_documents
from nbps.errors import ConfigError, DataError

UCI = "3\n4\n4\n1 1 2\n1 4 1\n3 2 70000\n3 1 1\n"
LDA_C = "2 0:2 3:1\n0\n2 1:70000 0:1\n"
MATRIX = [[2, 0, 0, 1], [0, 0, 0, 0], [1, 70000, 0, 0]]
NAMES = "ant\nbee\ncat\ndog\n"


def dense(documents: Documents) -> list[list[int]]:
    out = np.zeros((len(documents), len(documents.vocabulary)), np.int64)
    np.add.at(out, (documents.document_of_entry, documents.words), documents.counts)
    return out.tolist()


def written(folder, content: str | bytes, name: str = "data", pack=None):
    path = folder / name
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(raw if pack is None else pack(raw))
    return path


@pytest.mark.parametrize("pack", [None, gzip.compress, bz2.compress], ids=["plain", "gzip", "bz2"])
@pytest.mark.parametrize("content", [UCI, LDA_C], ids=["uci", "lda-c"])
def test_coded_formats(tmp_path, content, pack):
    """Found by content, compressed or not, with a vocabulary or numbers as words; documents in order, some empty."""
    path, names = written(tmp_path, content, pack=pack), written(tmp_path, NAMES, "vocabulary", pack)
    made = read_documents(path, names)
    assert dense(made) == MATRIX
    assert made.vocabulary.to_pylist() == ["ant", "bee", "cat", "dog"]
    assert read_documents(path).vocabulary.to_pylist() == ["0", "1", "2", "3"]
    assert made.words.tolist() == [0, 3, 1, 0]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("content", [UCI, LDA_C], ids=["uci", "lda-c"])
def test_ends_of_lines(tmp_path, content, end):
    """Windows' are the same, and the last line needs none."""
    assert dense(read_documents(written(tmp_path, content.strip().replace("\n", end)))) == MATRIX


def test_documents_in_any_order(tmp_path):
    """Entries of a UCI file are sorted by document, and stay in order within one."""
    made = read_documents(written(tmp_path, "2\n3\n4\n2 1 5\n1 3 1\n2 3 2\n1 1 4\n"))
    assert dense(made) == [[4, 0, 1], [5, 0, 2]]
    assert made.words.tolist() == [2, 0, 0, 2]


def test_text(tmp_path):
    """A document a line, by the tokenizer or a function; it must be said that it is text."""
    path = written(tmp_path, "Bee, ant; bee\n\nCat\n")
    assert dense(read_documents(path, format="text")) == [[1, 2, 0], [0, 0, 0], [0, 0, 1]]
    assert read_documents(path, format="text", tokenizer=str.split).vocabulary.to_pylist() == [
        "Bee,", "Cat", "ant;", "bee",
    ]  # fmt: skip
    with pytest.raises(
        DataError, match=r"line 1: expected bags of words .* begins with 'Bee, ant; bee'. .*format='text'"
    ):
        read_documents(path)


def test_columns(tmp_path):
    """Parquet and Arrow files, with a column of texts or of lists."""
    table = pa.table({"id": [1, 2], "text": ["Bee, ant; bee", "cat"]})
    pa.parquet.write_table(table, tmp_path / "parquet")
    with pa.ipc.new_file(tmp_path / "file", table.schema) as file:
        file.write_table(table)
    with pa.ipc.new_stream(tmp_path / "stream", table.schema) as file:
        file.write_table(table)
    for name in ("parquet", "file", "stream"):
        assert dense(read_documents(tmp_path / name)) == [[1, 2, 0], [0, 0, 1]]
        with pytest.raises(DataError, match="in the column 'id', found the columns 'id'"):
            read_documents(tmp_path / name, column="id")
    (tmp_path / "parquet").write_bytes((tmp_path / "parquet").read_bytes()[:-20])
    with pytest.raises(DataError, match="expected a whole parquet file, found damaged data"):
        read_documents(tmp_path / "parquet")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("3\n4\n1\n1 1 -2\n", "line 4: expected a count, a whole number from 1 to 2,147,483,647, found '-2'"),
        ("3\n4\n1\n1 1 0\n", "line 4: expected a count, .* found '0'"),
        ("3\n4\n2\n1 1 1\n1 2 2.5\n", "line 5: expected a count, .* found '2.5'"),
        ("3\n4\n1\n1 1 9999999999\n", "line 4: expected a count"),
        ("3\n4\n1\n1 5 1\n", "line 4: expected a word, a whole number from 1 to 4, found '5'"),
        ("3\n4\n1\n1 0 1\n", "line 4: expected a word"),
        ("3\n4\n1\n4 1 1\n", "line 4: expected a document, a whole number from 1 to 3, found '4'"),
        ("3\n4\n2\n1 1 1\n1 2\n", "line 5: expected document, word and count .*, found 2 fields: '1 2'"),
        ("3\n4\n2\n1 1 1\n1 2", "line 5: expected document, word and count .*, found 2 fields: '1 2'"),
        ("3\n4\n2\n1 1 1\n", "line 4: expected 2 entries as the third line says, found 1. The file may have been cut"),
        ("3\n4\n1\n1 1 1\n1 2 1\n", "expected 1 entries as the third line says, found 2"),
        (f"{10**15}\n4\n1\n1 1 1\n", "line 1: expected the number of documents, at most 2,147,483,647, found '10+'"),
        (f"{'9' * 5000}\n4\n1\n1 1 1\n", "line 1: expected the number of documents, at most 2,147,483,647, found '9+"),
        (f"3\n{10**15}\n1\n1 1 1\n", "line 2: expected the number of words, at most 2,147,483,647, found '10+'"),
        ("3\n4\n0\n", "expected documents with words, found none"),
        ("3\n4\n1\n1 1 \xff\n", "line 4: expected"),
        ("2 0:2 3:-1\n", "line 1: expected word:count, with a whole count of at least 1, found '3:-1'"),
        ("1 0:2\n1 3:1.5\n", "line 2: .* found '3:1.5'"),
        ("1 0:2\n1 3:0\n", "line 2: .* found '3:0'"),
        ("1 0:2\n1 -3:1\n", "line 2: expected word:count, with a word from 0, found '-3:1'"),
        ("1 0:2\n2 3:1\n", "line 2: expected 2 words as the line says, found 1"),
        ("1 0:2\n2 3:1 4:", "line 2: .* found '4:'"),
        ("1 0:2\n2 3:1 4", "line 2: .* found '4'"),
        ("1 0:2\n\n", "line 2: expected the number of words of a document"),
        ("0\n0\n", "expected documents with words, found none"),
    ],
)
def test_bad_lines_are_named(tmp_path, content, words):
    """Counts and words that cannot be, and a file that ends in the middle of a line or of what its header says."""
    path = written(tmp_path, content.encode("latin-1"))
    with pytest.raises(DataError, match=words) as caught:
        read_documents(path)
    assert f"cannot read documents from {str(path)!r}" in str(caught.value)


@pytest.mark.parametrize("content", [UCI, LDA_C], ids=["uci", "lda-c"])
def test_a_compressed_file_that_ends_early(tmp_path, content):
    """Said as such."""
    path = written(tmp_path, gzip.compress((content * 1).encode())[:-9])
    with pytest.raises(DataError, match="expected a whole gzip file, found a file that ends early"):
        read_documents(path)


@pytest.mark.parametrize("form", ["lda-c", "text"])
def test_a_compressed_file_that_is_damaged(tmp_path, form):
    """In the middle, beyond what is looked at to find the format."""
    digits = np.random.default_rng(0).integers(0, 10, 400_000)
    packed = bytearray(gzip.compress("".join(map(str, digits)).encode()))
    packed[100_000:103_000] = np.random.default_rng(1).bytes(3000)
    path = written(tmp_path, bytes(packed))
    with pytest.raises(DataError, match=r"expected a whole gzip file, found damaged data"):
        read_documents(path, format=form)


def test_a_vocabulary_that_ends_early(tmp_path):
    """Said as such, with its name; beyond what is looked at before it is read."""
    many = "".join(f"word{n}\n" for n in range(200_000))
    names = written(tmp_path, gzip.compress(many.encode())[:-9], "names")
    with pytest.raises(DataError, match=r"cannot read words from .*names.*found a file that ends early"):
        read_documents(written(tmp_path, UCI), names)


def test_lines_end_where_files_have_them_end(tmp_path):
    """What Unicode separates lines with is white space within a document, or part of a word."""
    text = "\ufeffant\x0cbee\u2028cat\r\nant\x85dog\n"
    made = read_documents(written(tmp_path, text), format="text")
    assert dense(made) == [[1, 1, 1, 0], [1, 0, 0, 1]]
    coded = read_documents(written(tmp_path, UCI), written(tmp_path, "a\u2028b\nc\nd\x1ce\nf\n", "names"))
    assert coded.vocabulary.to_pylist() == ["a\u2028b", "c", "d\x1ce", "f"]


@pytest.mark.parametrize("content", [UCI, LDA_C], ids=["uci", "lda-c"])
def test_words_beyond_the_vocabulary(tmp_path, content):
    """The vocabulary has to be the one that belongs to the file."""
    with pytest.raises(DataError, match=r"expected words from a vocabulary of 3 as .* has, found 4"):
        read_documents(written(tmp_path, content), written(tmp_path, "ant\nbee\ncat\n", "vocabulary"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("ant\n\ncat\ndog\n", "cannot read words from .*, line 2: expected a word, found an empty line"),
        ("ant\nbee\nant\ndog\n", "line 3: expected different words, found 'ant' for the second time"),
        ("ant\nb\xe9\n", "line 2: expected UTF-8 text"),
        ("", "expected words, found an empty file"),
    ],
)
def test_bad_vocabularies(tmp_path, content, words):
    """Lines that are none, or repeat another one."""
    with pytest.raises(DataError, match=words):
        read_documents(written(tmp_path, UCI), written(tmp_path, content.encode("latin-1"), "vocabulary"))


def test_options_are_checked(tmp_path):
    """A format that there is not, and options of other formats."""
    uci, text = written(tmp_path, UCI), written(tmp_path, "ant bee", "text")
    with pytest.raises(ConfigError, match="format: expected one of uci, lda-c, text, parquet, arrow, found 'csv'"):
        read_documents(uci, format="csv")
    with pytest.raises(ConfigError, match="column: uci files have no columns"):
        read_documents(uci, column="text")
    with pytest.raises(ConfigError, match="vocabulary: text files have the words themselves"):
        read_documents(text, uci, format="text")
    with pytest.raises(DataError, match="expected documents, found an empty file"):
        read_documents(written(tmp_path, "", "empty"))


def test_real_files(shared_data):
    """The two sets have the sizes that their publishers state."""
    kos = read_documents(shared_data / "kos" / "docword.kos.txt.gz", shared_data / "kos" / "vocab.kos.txt")
    assert (len(kos), kos.tokens, len(kos.vocabulary)) == (3_430, 467_714, 6_906)
    reuters = read_documents(shared_data / "reuters" / "reuters.ldac", shared_data / "reuters" / "reuters.tokens")
    assert (len(reuters), reuters.tokens, len(reuters.vocabulary)) == (395, 84_010, 4_258)
    assert reuters.vocabulary[int(reuters.word_counts.argmax())].as_py() in ("year", "pope", "church")
