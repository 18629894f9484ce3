"""`LatentDirichletAllocation` as a user meets it: results, exact counts, habits of scikit-learn, errors."""

import numpy as np
import pyarrow as pa
import pytest

import nbps
from nbps.data import Documents, generate_documents
from nbps.errors import ConfigError, DataError, NotFittedError
from nbps.models import LatentDirichletAllocation
from nbps.models.lda import training
from nbps.models.lda.plan import TopicsPlan
from nbps.models.lda.state import Topics
from nbps.models.lda.training import TopicsTrainer
from nbps.models.phases import Phases

_SMALL = {"n_components": 4, "max_iter": 30, "workers": 2}


@pytest.fixture(scope="module")
def documents():
    """Train and test part of a small generated set with four topics."""
    made = generate_documents(
        documents=160, length=40, words=200, topics=4, topic_prior=0.1, concentration=30.0, seed=2
    )
    return made.split(0.2, seed=0)


@pytest.fixture(scope="module")
def fitted(documents):
    """Return a model trained on it."""
    return LatentDirichletAllocation(**_SMALL).fit(documents[0], validation=documents[1])


def unigram_perplexity(train: Documents, test: Documents) -> float:
    """Perplexity of the best that knows no topics."""
    shares = (train.word_counts + 0.01) / (train.word_counts + 0.01).sum()
    _, predicted = test.halves(0)
    return float(np.exp(-(predicted.counts @ np.log(shares[predicted.words])) / predicted.tokens))


@pytest.mark.parametrize(
    ("schedule", "consistency"),
    [
        ("rotate", None),
        ("rotate", nbps.SSP(1)),
        ("rotate", nbps.ESSP(2)),
        ("cached", nbps.BSP()),
        ("cached", nbps.SSP(2)),
        ("cached", None),
        ("cached", nbps.ASP()),
        ("cached", nbps.VAP(100.0)),
    ],
    ids=str,
)
def test_topics_predict_better_than_words_alone(documents, schedule, consistency):
    """Every schedule under every model learns, and counts are exact in the end, in tables and in documents."""
    train, test = documents
    model = LatentDirichletAllocation(**_SMALL, schedule=schedule, consistency=consistency)
    model.fit(train, validation=test)
    assert model.history_[-1].validation_perplexity < 0.85 * unigram_perplexity(train, test)
    assert model.perplexity(test) == pytest.approx(model.history_[-1].validation_perplexity, rel=1e-4)
    counts = np.rint(model.components_ - model.topic_word_prior_).astype(int)
    assert counts.sum(axis=0).tolist() == train.word_counts.tolist()
    shares = model.doc_topics() * (train.lengths + model.doc_topic_prior_.sum())[:, None] - model.doc_topic_prior_
    assert np.rint(shares).sum(axis=0).astype(int).tolist() == counts.sum(axis=1).tolist()
    assert np.rint(shares.sum(axis=1)).astype(int).tolist() == train.lengths.tolist()


def _check_counts(worker):
    """Sample one pass by hand; after every clock return the sums of the counts of all workers, as they then are."""
    from nbps.kernels.models import lda
    from nbps.models.lda import worker as lda_worker

    inputs, share = worker.state["inputs"], worker.state["share"]
    words, totals = worker.table("words"), worker.table("totals")
    random, found = np.array([99 + worker.rank], np.uint64), []
    for clock in range(inputs.rotation.blocks):
        rows = lda_worker._rows(inputs.rotation, worker.rank, clock)
        lda.sample_block(
            share.starts_of(rows), share.documents, share.assignments, *share.topic_lists, words.kernel.values[rows],
            totals.kernel.values[0], np.full(16, 0.5, np.float32), np.float32(0.1), np.float32(20),
            *worker.state["scratch"], random,
        )  # fmt: skip
        worker.clock()
        worker.barrier()
        halves = share.lists.dtype.itemsize * 4
        of_documents = np.zeros(16, np.int64)
        entries = share.lists[share.lists > 0]
        np.add.at(of_documents, (entries >> halves).astype(int), (entries & ((1 << halves) - 1)).astype(int))
        by_word = np.asarray(words.get(np.arange(words.shape[0])), np.int64)
        found.append((by_word.sum(axis=0), totals.get(0), worker.sum(of_documents), by_word.min()))
        worker.barrier()
    return found


@pytest.mark.parametrize("schedule", ["rotate", "cached"])
@pytest.mark.parametrize("workers", [1, 3])
def test_counts_are_exact_after_every_clock(documents, schedule, workers):
    """Words, totals and documents have the same number of tokens of each topic, and as many as there are."""
    train, _ = documents
    parameters = LatentDirichletAllocation(
        **_SMALL | {"workers": workers}, schedule=schedule, consistency=nbps.BSP()
    ).get_params()
    plan = TopicsPlan.of(parameters)
    before = Topics.none(train.vocabulary, plan.prior, plan.topic_word_prior)
    with TopicsTrainer(plan, before, train, None, False, Phases()) as trainer:
        results = trainer._job.run(_check_counts)
    for found in results:
        assert len(found) == workers * plan.blocks_per_worker
        for by_word, totals, of_documents, least in found:
            assert by_word.tolist() == totals.tolist() == of_documents.tolist()
            assert totals.sum() == train.tokens
            assert least >= 0


def same(one, other) -> bool:
    """Whether two models have the same bits."""
    return np.array_equal(one.components_, other.components_) and np.array_equal(one.doc_topics(), other.doc_topics())


def test_a_fit_repeats_to_the_bit(documents, fitted, monkeypatch):
    """For one seed and number of workers, in whatever parts the documents are handed out; another seed differs."""
    train, test = documents
    monkeypatch.setattr(training, "_PART", 300)
    again = LatentDirichletAllocation(**_SMALL).fit(train, validation=test)
    assert same(again, fitted)
    assert [each.train_perplexity for each in again.history_] == [each.train_perplexity for each in fitted.history_]
    assert np.array_equal(again.doc_topic_prior_, fitted.doc_topic_prior_)
    assert not same(LatentDirichletAllocation(**_SMALL, random_state=1).fit(train), fitted)


def test_topics_are_found_again():
    """Documents of two vocabularies are of two topics, whose top words are these."""
    vocabulary = pa.array(["ape", "bee", "cat", "elm", "fir", "oak"])
    matrix = np.zeros((40, 6), int)
    matrix[:20, :3], matrix[20:, 3:] = 5, 5
    model = LatentDirichletAllocation(n_components=2, max_iter=50, workers=2, doc_topic_prior=0.1)
    shares = model.fit(Documents.from_matrix(matrix, vocabulary)).doc_topics()
    assert (shares.max(axis=1) > 0.95).all()
    assert len(set(shares[:20].argmax(axis=1))) == len(set(shares[20:].argmax(axis=1))) == 1
    tops = sorted(sorted(words) for words, _ in model.topics(3))
    assert tops == [["ape", "bee", "cat"], ["elm", "fir", "oak"]]
    assert model.transform([["cat", "bee", "unknown"]]).round()[0].tolist() == shares[0].round().tolist()


def test_attributes_are_scikit_learns(documents, fitted):
    """Shapes, sums, names; training perplexities fall."""
    _, test = documents
    assert fitted.components_.shape == (4, 200)
    assert (fitted.n_features_in_, fitted.n_iter_, fitted.best_epoch_) == (200, 30, 30)
    assert fitted.get_feature_names_out().tolist() == [f"latentdirichletallocation{k}" for k in range(4)]
    shares = fitted.transform(test)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)
    assert fitted.score(test) == pytest.approx(-np.log(fitted.perplexity(test)))
    assert fitted.history_[-1].train_perplexity < fitted.history_[0].train_perplexity
    measured = [each.epoch for each in fitted.history_ if each.validation_perplexity is not None]
    assert measured == [10, 20, 30]
    words, probabilities = fitted.topics(5)[2]
    assert probabilities.tolist() == sorted(probabilities, reverse=True)
    own = fitted.components_[2] / fitted.components_[2].sum()
    assert probabilities[0] == pytest.approx(own.max())
    assert words[0] == fitted.vocabulary_[int(own.argmax())].as_py()


def test_the_prior_is_learnt(documents):
    """A topic that few documents have gets less of it than one that most have; without learning it stays."""
    train = documents[0].take(np.arange(20))
    fixed = LatentDirichletAllocation(**_SMALL, optimize_every=None, doc_topic_prior=0.7).fit(train)
    assert fixed.doc_topic_prior_.tolist() == [0.7] * 4
    given = LatentDirichletAllocation(**_SMALL, optimize_every=None, doc_topic_prior=[0.1, 0.2, 0.3, 0.4]).fit(train)
    assert given.doc_topic_prior_.tolist() == [0.1, 0.2, 0.3, 0.4]
    matrix = np.zeros((40, 6), int)
    matrix[:36, :3], matrix[36:, 3:] = 5, 5
    matrix[30:36, 3] = 2
    learnt = LatentDirichletAllocation(n_components=2, max_iter=60, workers=2, doc_topic_prior=0.3).fit(matrix)
    frequent = int(learnt.components_[:, 0].argmax())
    prior = learnt.doc_topic_prior_
    assert prior[frequent] > 3 * prior[1 - frequent]


@pytest.mark.parametrize(
    "form",
    [
        lambda each: pytest.importorskip("scipy.sparse").csr_matrix(_dense(each)),
        lambda each: _dense(each),
        lambda each: _dense(each).tolist(),
        lambda each: each.to_arrow(),
        lambda each: [_words(each, d) for d in range(len(each))],
        lambda each: [" ".join(_words(each, d)) for d in range(len(each))],
    ],
    ids=["scipy", "array", "lists of counts", "arrow", "lists of words", "texts"],
)
def test_documents_in_any_form(documents, form):
    """The model learns from them, and takes others in the same form."""
    train, test = documents
    letters = pa.array([f"w{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(200)])
    train, test = (Documents(each.starts, each.words, each.counts, letters) for each in (train, test))
    model = LatentDirichletAllocation(**_SMALL | {"max_iter": 3}).fit(form(train), validation=form(test))
    assert model.transform(form(test)).shape == (len(test), 4)
    assert np.rint(model.components_ - 0.01).sum() == train.tokens


def _dense(documents):
    out = np.zeros((len(documents), len(documents.vocabulary)), int)
    np.add.at(out, (documents.document_of_entry, documents.words), documents.counts)
    return out


def _words(documents, number):
    own = slice(*documents.starts[number : number + 2])
    names = documents.vocabulary.to_pylist()
    pairs = zip(documents.words[own], documents.counts[own], strict=True)
    return [names[word] for word, count in pairs for _ in range(count)]


def test_more_workers_than_documents():
    """Those that have none take part without tokens."""
    made = Documents.from_matrix([[3, 1, 0], [0, 2, 4]])
    model = LatentDirichletAllocation(n_components=2, max_iter=5, workers=5).fit(made, validation=made)
    assert np.rint(model.components_ - 0.01).sum() == 10
    assert model.doc_topics().shape == (2, 2)


def test_partial_fit_adds_documents_and_words(documents, fitted):
    """Counts of before stay beside those of new tokens; the model knows the new words."""
    train, test = documents
    model = LatentDirichletAllocation(**_SMALL).fit(train, validation=test)
    more = Documents.from_texts([["w1", "new", "new"], ["w2", "other"]])
    model.partial_fit(more, epochs=3)
    assert model.vocabulary_.to_pylist() == [*train.vocabulary.to_pylist(), "new", "other"]
    assert np.rint(model.components_ - 0.01).sum() == train.tokens + 5
    assert model.doc_topics().shape == (2, 4)
    assert model.n_iter_ == 33
    np.testing.assert_allclose(model.components_[:, :200].sum(), fitted.components_.sum() + 2, rtol=1e-6)
    fresh = LatentDirichletAllocation(**_SMALL).partial_fit(train)
    assert same(fresh, fitted)


def test_early_stopping_keeps_the_best_pass(documents):
    """With topics for everything predictions get worse in the end; counts and the prior are those of the best pass."""
    train, test = documents
    model = LatentDirichletAllocation(
        n_components=60, max_iter=200, workers=2, doc_topic_prior=5.0, optimize_every=2, early_stopping=3
    ).fit(train, validation=test)
    found = [each.validation_perplexity for each in model.history_]
    assert model.best_epoch_ == int(np.argmin(found)) + 1
    assert len(found) == model.best_epoch_ + 3
    assert model.perplexity(test) == pytest.approx(min(found), rel=1e-4)
    assert np.rint(model.components_ - 0.01).sum() == train.tokens


def test_callbacks_see_the_model_and_may_stop(documents):
    """A callback gets the model as of its pass and each record; returning True ends the training."""
    train, test = documents
    seen = []

    def stop(model, record):
        seen.append((record.epoch, model.perplexity(test), record.validation_perplexity))
        return record.epoch == 4

    model = LatentDirichletAllocation(**_SMALL, evaluate_every=2, callbacks=[stop]).fit(train, validation=test)
    assert [epoch for epoch, _, _ in seen] == [1, 2, 3, 4]
    assert [expected is None for _, _, expected in seen] == [True, False, True, False]
    assert seen[1][1] == pytest.approx(seen[1][2], rel=1e-4)
    assert model.n_iter_ == 4


def test_scikit_learns_tools_take_it(documents):
    """It is cloned, searched and put into a pipeline."""
    text = pytest.importorskip("sklearn.feature_extraction.text")
    from sklearn.base import clone
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline

    texts = ["cats and dogs", "dogs and cats and mice", "stocks and bonds", "bonds or stocks fell"] * 5
    model = LatentDirichletAllocation(n_components=2, max_iter=3, workers=1)
    assert clone(model).get_params() == model.get_params()
    assert make_pipeline(text.CountVectorizer(), model).fit_transform(texts).shape == (20, 2)
    counts = text.CountVectorizer().fit_transform(texts)
    search = GridSearchCV(model, {"n_components": [2, 3]}, cv=2).fit(counts)
    assert search.best_params_["n_components"] in (2, 3)
    assert repr(clone(model).set_params(doc_topic_prior=np.ones(2))).startswith(
        "LatentDirichletAllocation(n_components=2"
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_components": 0}, "n_components is 0; expected a whole number from 1"),
        ({"doc_topic_prior": 0.0}, "doc_topic_prior is 0.0; expected a finite number > 0"),
        ({"doc_topic_prior": -1}, "doc_topic_prior is -1"),
        ({"doc_topic_prior": [0.1, 0.0, 0.1, 0.1]}, "expected a finite number > 0, 4 of them"),
        ({"doc_topic_prior": [0.1, 0.2]}, "expected a finite number > 0, 4 of them"),
        ({"topic_word_prior": 0}, "topic_word_prior is 0; expected a finite number > 0"),
        ({"topic_word_prior": np.nan}, "topic_word_prior is nan"),
        ({"topic_word_prior": 1e-46}, r"from 1e-46 to .*; expected numbers from 1e-12 to 1e\+12"),
        ({"doc_topic_prior": 1e30}, r"from 0.01 to 1e\+30; expected numbers from 1e-12 to 1e\+12"),
        ({"max_iter": 0}, "max_iter is 0"),
        ({"optimize_every": 0}, "optimize_every is 0"),
        ({"schedule": "direct"}, "schedule is 'direct'; expected one of rotate, cached"),
        ({"consistency": nbps.ASP()}, "a word has one writer only under a staleness bound"),
        ({"consistency": nbps.VAP(1.0)}, "a word has one writer only under a staleness bound"),
        ({"early_stopping": 2}, "there is no validation error to watch"),
        ({"workers": 0}, "workers is 0"),
    ],
)
def test_options_are_checked(documents, options, words):
    """What cannot be used is named."""
    with pytest.raises(ConfigError, match=words):
        LatentDirichletAllocation(**_SMALL | options).fit(documents[0])


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ([[1, 2], [0, 0], [0, 0]], DataError, r"the one in row 1 has no words, and 1 more; .* documents.take"),
        ([[1, -2]], DataError, "the count in row 0, column 1 is -2"),
        ([[1, 0.5]], DataError, "the count in row 0, column 1 is 0.5"),
        ([[np.nan, 1.0]], DataError, "the count in row 0, column 0 is nan"),
        ([[1, 2]], DataError, "n_components is 4; expected at most one topic for each of 3 tokens.* --topics"),
        (np.empty((0, 3)), DataError, "expected at least one document, found none"),
        ("docword.txt", ConfigError, "not the name of a file. Read it first"),
        (3, ConfigError, "found int"),
    ],
)
def test_bad_documents_are_named(given, error, words):
    """Rows and columns are told, and nothing is trained."""
    model = LatentDirichletAllocation(**_SMALL)
    with pytest.raises(error, match=words):
        model.fit(given)
    with pytest.raises(NotFittedError):
        model.topics()


def test_what_does_not_fit_the_model_is_refused(documents, fitted):
    """Matrices of another width, documents without a known word, validation sets of none."""
    with pytest.raises(DataError, match="found a matrix with 7 columns; expected 200, one for each word of the model"):
        fitted.transform(np.ones((2, 7)))
    with pytest.raises(DataError, match="expected words of the training documents, found none"):
        fitted.perplexity([["unknown", "words"]])
    unknown = fitted.transform([["unknown"]])[0]
    np.testing.assert_allclose(unknown, fitted.doc_topic_prior_ / fitted.doc_topic_prior_.sum(), rtol=1e-5)
    with pytest.raises(DataError, match="validation: expected documents with two tokens"):
        LatentDirichletAllocation(**_SMALL).fit(documents[0], validation=[["unknown", "words"]])


def test_many_topics():
    """More than 16 bits hold."""
    made = Documents.from_matrix(np.full((4, 2), 10_000))
    model = LatentDirichletAllocation(n_components=70_000, max_iter=2, workers=1, optimize_every=1).fit(made)
    assert np.rint(model.components_ - 0.01).sum() == 80_000
    assert (model.components_.sum(axis=1) > 1)[65_536:].any()
