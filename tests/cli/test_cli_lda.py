"""nbps train lda and nbps topics, with real models on small files."""

import json

import numpy as np
import pytest

from nbps.cli.options import DocumentsFormatName, TopicsScheduleName
from nbps.data import generate_documents, generate_ratings, read_documents
from nbps.data.documents.reading import FORMATS
from nbps.models import LatentDirichletAllocation, MatrixFactorization
from nbps.models.lda.plan import _WORD_ACCESS

QUICK = ["--topics", 3, "--max-iter", 4, "--workers", 2]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return UCI files of 60 documents and an empty one, and of their words."""
    made, folder = generate_documents(documents=60, length=20, words=80, topics=3, seed=2), tmp_path_factory.mktemp("d")
    lines = zip(made.document_of_entry + 1, made.words + 1, made.counts, strict=True)
    head = f"61\n80\n{made.words.size}\n"
    (folder / "docword.txt").write_text(head + "".join(f"{d} {w} {c}\n" for d, w, c in lines))
    (folder / "vocab.txt").write_text("\n".join(made.vocabulary.to_pylist()))
    return ["--data", folder / "docword.txt", "--vocab", folder / "vocab.txt"]


def result(done):
    """Return the JSON that a command printed."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def saved(nbps, files, tmp_path_factory):
    """Return the folder of a model that the command saved, what it printed, and the JSON."""
    folder = tmp_path_factory.mktemp("model") / "topics"
    done = nbps("train", "lda", *files, *QUICK, "--out", folder, "--json")
    return folder, done, result(done)


def test_topics_are_trained_told_and_saved(files, saved):
    """The model is that of the estimator; perplexities, notes and topics are in what is read and in JSON."""
    folder, done, found = saved
    documents = read_documents(files[1], files[3])
    train, test = documents.take(documents.lengths > 0).split(0.1, 0)
    model = LatentDirichletAllocation(n_components=3, max_iter=4, workers=2).fit(train, validation=test)
    assert np.array_equal(LatentDirichletAllocation.load(folder).components_, model.components_)
    assert found["test_perplexity"] == model.history_[-1].validation_perplexity
    assert found["data"] == {
        "name": str(files[1]), "words": 80, "train_documents": len(train), "train_tokens": train.tokens,
        "test_documents": len(test), "empty_documents": 1,
    }  # fmt: skip
    assert found["parameters"]["consistency"] == "bsp"
    assert [record["epoch"] for record in found["history"]] == [1, 2, 3, 4]
    for words in ("test perplexity", "1 documents without words are left out", "topic 0", "BSP()", str(folder)):
        assert words in done.stderr


def test_topics_of_a_saved_model(nbps, saved):
    """As a table, and as JSON with probabilities."""
    folder, _, _ = saved
    model = LatentDirichletAllocation.load(folder)
    found = result(nbps("topics", folder, "--n", 4, "--json"))["topics"]
    assert [each["words"] for each in found] == [words for words, _ in model.topics(4)]
    assert sum(each["share"] for each in found) == pytest.approx(1)
    shown = nbps("topics", folder, "-n", 4)
    assert " ".join(model.topics(4)[2][0]) in shown.stdout


def test_a_model_of_another_kind_is_refused(nbps, saved, tmp_path):
    """By the command of each, with what makes one of its own."""
    MatrixFactorization(rank=2, epochs=1, workers=1).fit(generate_ratings(30, 20, 300)).save(tmp_path / "factors")
    done = nbps("topics", tmp_path / "factors")
    assert done.returncode != 0
    assert "expected the format 'nbps latent dirichlet allocation'" in done.stderr
    assert "nbps train lda --out DIR" in done.stderr
    assert "expected the format 'nbps matrix factorization'" in nbps("recommend", saved[0], "--user", "1").stderr
    assert "no saved model here" in nbps("topics", tmp_path).stderr


def test_copies_under_a_bound(nbps, files):
    """The papers' schedule, with its own default model and a prior that stays."""
    run = ["--schedule", "cached", "--optimize-every", 0, "--test-fraction", 0, "--alpha", 0.5]
    found = result(nbps("train", "lda", *files, *QUICK, *run, "--json", "-q"))
    assert found["report"]["consistency"] == "ESSP(staleness=2)"
    assert found["alpha"] == [0.5] * 3
    assert found["test_perplexity"] is None
    found = result(nbps("train", "lda", *files, *QUICK, "--staleness", 1, "--json", "-q"))
    assert found["report"]["consistency"] == "ESSP(staleness=1)"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--consistency", "asp"], "Add --schedule cached"),
        (["--early-stopping", 2, "--test-fraction", 0], "--early-stopping watches the test perplexity"),
        (["--alpha", 0], "expected a finite number > 0, found 0"),
        (["--column", "text"], "uci files have no columns"),
        (["--format", "lda-c"], "line 1: expected 61 words as the line says"),
    ],
)
def test_wrong_options_are_refused(nbps, files, options, words):
    """With what to do instead, and nothing is trained."""
    done = nbps("train", "lda", *files, *QUICK, *options)
    assert done.returncode != 0
    assert words in done.stderr


def test_names_are_those_of_the_package():
    """The command imports neither readers nor models to print its help."""
    assert {*DocumentsFormatName} == {*FORMATS}
    assert {*TopicsScheduleName} == {*_WORD_ACCESS}
