"""Documents: made of matrices, texts and tables, taken apart, put into another vocabulary."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbps.data import Documents, generate_documents, tokenize
from nbps.errors import ConfigError, DataError

WORDS = pa.array(["ant", "bee", "cat"])


def dense(documents: Documents) -> np.ndarray:
    """Return the matrix of counts."""
    out = np.zeros((len(documents), len(documents.vocabulary)), np.int64)
    np.add.at(out, (documents.document_of_entry, documents.words), documents.counts)
    return out


matrices = st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3), min_size=1, max_size=8).map(np.array)


@given(matrices)
def test_a_matrix_gives_what_is_in_it(matrix):
    """Dense or sparse, its counts are those of the documents, and sums are by document and by word."""
    sparse = pytest.importorskip("scipy.sparse").csr_array(matrix)
    for made in (
        Documents.from_matrix(matrix, WORDS),
        Documents.from_matrix(sparse),
        Documents.from_matrix(matrix / 1),
    ):
        assert np.array_equal(dense(made), matrix)
        assert made.lengths.tolist() == matrix.sum(axis=1).tolist()
        assert made.word_counts.tolist() == matrix.sum(axis=0).tolist()
        assert made.tokens == matrix.sum()


@given(matrices, st.integers(0, 99))
def test_halves_are_of_each_document(matrix, seed):
    """Of n tokens n // 2 are observed, together they are the document, and a seed repeats."""
    made = Documents.from_matrix(matrix)
    observed, predicted = made.halves(seed)
    assert np.array_equal(dense(observed) + dense(predicted), matrix)
    assert observed.lengths.tolist() == (made.lengths // 2).tolist()
    assert np.array_equal(dense(made.halves(seed)[0]), dense(observed))


def test_halves_differ_by_seed_and_take_any_token():
    """Each token of a document is as likely to be observed as any other."""
    made = Documents.from_matrix(np.full((400, 3), 2))
    observed = dense(made.halves(0)[0])
    assert not np.array_equal(observed, dense(made.halves(1)[0]))
    assert np.abs(observed.mean(axis=0) - 1).max() < 0.1


@given(matrices, st.data())
def test_take_keeps_the_vocabulary(matrix, data):
    """By a mask or by numbers, in any order, also twice."""
    made = Documents.from_matrix(matrix)
    which = np.array(data.draw(st.lists(st.integers(0, len(matrix) - 1), max_size=9)), np.int64)
    assert np.array_equal(dense(made.take(which)), matrix[which])
    mask = np.isin(np.arange(len(matrix)), which)
    assert np.array_equal(dense(made.take(mask)), matrix[mask])


def test_split_is_the_documented_one():
    """A document is test where NumPy's generator says so."""
    matrix = np.arange(1, 61).reshape(20, 3)
    train, test = Documents.from_matrix(matrix).split(0.3, seed=4)
    is_test = np.random.default_rng(4).random(20) < 0.3
    assert np.array_equal(dense(test), matrix[is_test])
    assert np.array_equal(dense(train), matrix[~is_test])
    for fraction in (0, 1, -0.1):
        with pytest.raises(ConfigError, match="between 0 and 1"):
            Documents.from_matrix(matrix).split(fraction)
    with pytest.raises(ConfigError, match=r"of 1 documents leaves . to train"):
        Documents.from_matrix(matrix[:1]).split(0.5)


def test_recode_drops_what_is_unknown():
    """Words are looked up by name; how many tokens were dropped is told."""
    made = Documents.from_matrix([[1, 2, 3], [0, 5, 0]], WORDS)
    other, dropped = made.recode(pa.array(["dog", "cat", "ant"]))
    assert dense(other).tolist() == [[0, 3, 1], [0, 0, 0]]
    assert dropped == 7
    assert made.recode(WORDS) == (made, 0)


def test_texts_are_tokenized():
    """Lower case, two letters and more, of any script; or by the caller's function; or they are words already."""
    assert tokenize("A big, BIG café_au 3lait! Жук") == ["big", "big", "café", "au", "lait", "жук"]
    made = Documents.from_texts(["bee ant bee", "", "cat"])
    assert dense(made).tolist() == [[1, 2, 0], [0, 0, 0], [0, 0, 1]]
    assert made.vocabulary.to_pylist() == ["ant", "bee", "cat"]
    split = Documents.from_texts(["b a,b", "c"], tokenizer=lambda text: text.replace(",", " ").split())
    assert dense(split).tolist() == [[1, 2, 0], [0, 0, 1]]
    assert dense(Documents.from_texts([["b", "a", "b"], ("c",)])).tolist() == [[1, 2, 0], [0, 0, 1]]


def test_words_are_chosen():
    """By how many documents have them, or by a vocabulary, whose order stays."""
    texts = ["ant bee cat", "ant bee", "ant"]
    assert Documents.from_texts(texts, min_documents=2).vocabulary.to_pylist() == ["ant", "bee"]
    assert Documents.from_texts(texts, max_share=0.7).vocabulary.to_pylist() == ["bee", "cat"]
    chosen = Documents.from_texts(texts, vocabulary=["cat", "dog", "ant"])
    assert dense(chosen).tolist() == [[1, 0, 1], [0, 0, 1], [0, 0, 1]]
    with pytest.raises(ConfigError, match="found no words in 3 documents"):
        Documents.from_texts(texts, min_documents=4)


CODED = pa.DictionaryArray.from_arrays(pa.array([1, 0, 1, 2]), pa.array(["ant", "bee", "cat"], pa.large_string()))


def views(values, kind):
    """Return texts, or lists of words, of the type as which Polars hands them out."""
    if not hasattr(pa, "string_view"):
        pytest.skip("this pyarrow does not know the strings of Polars")
    return pa.array(values, kind(pa.string_view()))


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["bee ant bee", "cat"]),
        pa.array(["bee ant bee", "cat"], pa.large_string()),
        pa.array([["bee", "ant", "bee"], ["cat"]]),
        pa.array([["bee", "ant", "bee"], ["cat"]], pa.large_list(pa.large_string())),
        pa.LargeListArray.from_arrays([0, 3, 4], CODED),
        lambda: views(["bee ant bee", "cat"], lambda text: text),
        lambda: views([["bee", "ant", "bee"], ["cat"]], pa.large_list),
    ],
    ids=["text", "large text", "lists", "large lists", "lists of categories", "views", "lists of views"],
)
def test_columns_of_tables(column):
    """Texts and lists of words; other columns are left alone; it may come in chunks."""
    table = pa.table({"id": [1, 2], "any": column() if callable(column) else column})
    for form in (table, pa.concat_tables([table.slice(0, 1), table.slice(1)]), table.to_reader()):
        assert dense(Documents.from_arrow(form)).tolist() == [[1, 2, 0], [0, 0, 1]]


def test_a_table_of_documents_gives_them_back():
    """Lists of words with lists of counts, also after something was cut off before them."""
    made = Documents.from_matrix([[1, 2, 0], [0, 0, 0], [0, 7, 1]], WORDS)
    again = Documents.from_arrow(made.to_arrow())
    assert dense(again).tolist() == [[1, 2, 0], [0, 0, 0], [0, 7, 1]]
    assert dense(Documents.from_arrow(made.to_arrow().slice(1))).tolist() == [[0, 0], [7, 1]]


def test_the_column_is_named_where_there_are_more():
    """A usual name wins; without one the error lists the columns."""
    both = pa.table({"title": ["ant"], "text": ["bee"]})
    assert Documents.from_arrow(both).vocabulary.to_pylist() == ["bee"]
    assert Documents.from_arrow(both, column="title").vocabulary.to_pylist() == ["ant"]
    with pytest.raises(DataError, match=r"found the columns 'a' \(string\), 'b' \(string\)"):
        Documents.from_arrow(pa.table({"a": ["x"], "b": ["y"]}))
    with pytest.raises(DataError, match=r"in the column 'n', found the columns 'n' \(int64\)"):
        Documents.from_arrow(pa.table({"n": [1]}), column="n")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"text": ["ant", None]}, "row 2: expected no missing values in the column 'text'"),
        ({"words": [["ant"], ["bee", None]]}, "within a list"),
        (
            {"words": [["ant"], ["bee"]], "counts": [[1], [1, 2]]},
            "row 2: expected 1 counts, one for each word, found 2",
        ),
        (
            {"words": [["ant"], ["bee", "cat"]], "counts": [[1], [2, 0]]},
            "row 2: expected counts of at least 1, found 0",
        ),
        ({"words": [["ant"]], "counts": [[0.5]]}, "expected lists of whole numbers in the column 'counts'"),
    ],
)
def test_bad_rows_of_tables_are_named(table, words):
    """Missing values, and counts that are none."""
    with pytest.raises(DataError, match=words):
        Documents.from_arrow(pa.table(table))


@pytest.mark.parametrize("value", [-1, 0.5, np.nan, np.inf, 2.0**31])
def test_bad_counts_of_matrices_are_named(value):
    """Negative, fractional, not finite or too large: row and column are in the message, sparse or dense."""
    matrix = np.array([[1, 0, 2], [0, 3, value]])
    for form in (matrix, pytest.importorskip("scipy.sparse").csr_matrix(matrix)):
        with pytest.raises(DataError, match=r"the count in row 1, column 2 is .*; expected a whole number"):
            Documents.from_matrix(form)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"starts": np.array([0, 1])}, "expected ascending numbers from 0 to 2"),
        ({"starts": np.array([0, 2], np.int32)}, "Documents.starts: expected contiguous int64"),
        ({"starts": np.array([0, 3, 2])}, "expected ascending numbers"),
        ({"words": np.array([0, 3], np.int32)}, "expected codes from 0 to 2, found 0 to 3"),
        ({"words": np.array([-1, 1], np.int32)}, "found -1 to 1"),
        ({"counts": np.array([1, 0], np.int32)}, "expected at least 1, found 0"),
        ({"counts": np.array([1], np.int32)}, "expected 2 as there are words, found 1"),
        ({"vocabulary": ["ant"]}, "expected an Arrow array of strings without nulls, found list"),
        ({"vocabulary": pa.array(["ant", "bee", "ant"])}, "found 'ant' twice"),
    ],
)
def test_arrays_are_checked(change, words):
    """What does not fit together is refused when it is put together."""
    good = {
        "starts": np.array([0, 2]),
        "words": np.array([0, 1], np.int32),
        "counts": np.array([1, 1], np.int32),
        "vocabulary": WORDS,
    }
    assert len(Documents(**good)) == 1
    with pytest.raises(ConfigError, match=words):
        Documents(**good | change)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Documents.from_matrix([1, 2]), r"expected counts of documents x words, found int64 of shape \(2,\)"),
        (lambda: Documents.from_matrix([["a"]]), "expected counts of documents x words"),
        (lambda: Documents.from_matrix(np.empty((2, 0))), "at least one column"),
        (lambda: Documents.from_matrix([[1]], ["a", "b"]), "expected 1 words, one for each column, found 2"),
        (lambda: Documents.from_matrix([[1]], [1]), "expected a sequence of words"),
        (lambda: Documents.from_texts("one text"), "texts is a single string"),
        (lambda: Documents.from_texts([3]), "expected a text or a list of words as document 0, found int"),
        (lambda: Documents.from_texts([["a"], [3]]), "expected words that are strings"),
        (lambda: Documents.from_texts(["ab"], max_share=0), "max_share is 0"),
        (lambda: Documents.from_texts(["ab"], min_documents=0), "min_documents is 0"),
        (lambda: Documents.from_arrow([1]), "expected a frame or table"),
    ],
)
def test_arguments_are_checked(make, words):
    """What cannot be made into documents is said in words."""
    with pytest.raises(ConfigError, match=words):
        make()


def test_generated_documents_have_topics():
    """They repeat by seed, have the sizes asked for, and few words make most of a document of one topic."""
    made, same, other = (
        generate_documents(documents=40, length=60, words=300, topics=5, seed=seed) for seed in (1, 1, 2)
    )
    assert np.array_equal(dense(made), dense(same))
    assert not np.array_equal(dense(made), dense(other))
    assert made.lengths.tolist() == [60] * 40
    shuffled = dense(made).sum(axis=0) > 0
    assert np.diff(made.starts).mean() < 0.5 * shuffled.sum()
