"""Topic models that are saved, trained on from checkpoints, and measured for coherence."""

import itertools
import json
import math

import numpy as np
import pyarrow as pa
import pytest

import nbps
from nbps.data import Documents, generate_documents, generate_ratings
from nbps.errors import CheckpointError, ConfigError, DataError
from nbps.models import LatentDirichletAllocation, MatrixFactorization

_SMALL = {"n_components": 3, "max_iter": 6, "workers": 2, "optimize_every": 2}


@pytest.fixture(scope="module")
def documents():
    """Train and test part of a tiny generated set."""
    return generate_documents(documents=60, length=20, words=80, topics=3, seed=2).split(0.2, seed=0)


@pytest.fixture(scope="module")
def whole(documents):
    """Return a model whose training was not cut off."""
    return LatentDirichletAllocation(**_SMALL).fit(documents[0], validation=documents[1])


def bits(model):
    return [each.tobytes() for each in (model.components_, model.doc_topics(), model.doc_topic_prior_)]


@pytest.mark.parametrize("prior", [None, 0.5, np.array([0.1, 0.2, 0.3]), (0.1, 0.2, 0.3)], ids=repr)
def test_a_saved_model_is_the_same(tmp_path, documents, prior):
    """A loaded model has the same counts and answers, parameters and history, and goes on training."""
    train, test = documents
    model = LatentDirichletAllocation(**_SMALL, doc_topic_prior=prior, consistency=nbps.SSP(1)).fit(train)
    model.save(tmp_path / "model")
    loaded = LatentDirichletAllocation.load(tmp_path / "model")
    assert bits(loaded) == bits(model)
    assert np.array_equal(loaded.doc_topic_prior, model.doc_topic_prior) or prior is None
    assert loaded.consistency == nbps.SSP(1)
    assert loaded.topics(4)[1][0] == model.topics(4)[1][0]
    assert loaded.perplexity(test) == model.perplexity(test)
    assert loaded.history_ == model.history_
    with pytest.raises(ConfigError, match="this model was loaded, without documents"):
        loaded.coherence()
    assert loaded.coherence("u_mass", test).shape == (3,)
    assert loaded.partial_fit(train, epochs=1).n_iter_ == 7
    table = pa.ipc.open_file(pa.memory_map(str(tmp_path / "model" / "words.arrow"))).read_all()
    assert table.column_names == ["word", "counts"]
    assert "callbacks" not in json.loads((tmp_path / "model" / "model.json").read_text())["parameters"]


def test_a_model_of_another_kind_is_refused(tmp_path, whole):
    """Each kind reads its own."""
    whole.save(tmp_path / "topics")
    ratings = generate_ratings(users=30, items=20, ratings=300, seed=0)
    MatrixFactorization(rank=2, epochs=1, workers=1).fit(ratings).save(tmp_path / "factors")
    with pytest.raises(DataError, match="expected the format 'nbps matrix factorization'"):
        MatrixFactorization.load(tmp_path / "topics")
    with pytest.raises(DataError, match="expected the format 'nbps latent dirichlet allocation'"):
        LatentDirichletAllocation.load(tmp_path / "factors")


class CutOffError(Exception):
    """What ends a training."""


def cut_off(model, record):
    if record.epoch == 3:
        raise CutOffError


cut_off.needs_model = False


@pytest.mark.parametrize("stopping", [None, 50])
def test_a_training_goes_on_to_the_bit(tmp_path, documents, whole, stopping):
    """Topics, the prior and perplexities are those of a training in one piece; also where the best pass is kept."""
    train, test = documents
    options = {"checkpoint": tmp_path, "early_stopping": stopping}
    with pytest.raises(CutOffError):
        LatentDirichletAllocation(**_SMALL, **options, callbacks=[cut_off]).fit(train, validation=test)
    epochs = []
    model = LatentDirichletAllocation(
        **_SMALL, **options, callbacks=[lambda model, record: epochs.append(record.epoch)]
    ).fit(train, validation=test)
    assert epochs == [4, 5, 6]
    expected = whole
    if stopping:
        expected = LatentDirichletAllocation(**_SMALL, early_stopping=stopping).fit(train, validation=test)
    assert bits(model) == bits(expected)
    assert [each.train_perplexity for each in model.history_] == [each.train_perplexity for each in expected.history_]
    with pytest.raises(CheckpointError, match=r"documents .* checksum"):
        LatentDirichletAllocation(**_SMALL, **options).fit(test, validation=test)
    with pytest.raises(CheckpointError, match="n_components 3; expected 4"):
        LatentDirichletAllocation(**_SMALL | {"n_components": 4}, **options).fit(train, validation=test)


def test_a_prior_of_any_form(tmp_path):
    """A training with a prior as a tuple goes on, and a model with one of NumPy's numbers is saved."""
    documents = generate_documents(documents=20, length=10, words=30, topics=2, seed=0)
    for prior in ((0.5, 0.25), [np.float32(0.5), np.float32(0.25)]):
        model = LatentDirichletAllocation(2, prior, max_iter=1, workers=1, checkpoint=tmp_path / type(prior).__name__)
        once = bits(model.fit(documents))
        assert bits(model.fit(documents)) == once
        model.save(tmp_path / "model")
        assert LatentDirichletAllocation.load(tmp_path / "model").doc_topic_prior == [0.5, 0.25]


TEXTS = [["a", "b", "c", "a"], ["a", "b"], ["c", "d"], ["d", "a", "d"], ["b", "e"], ["e"], []]
TOPS = [["a", "b", "c"], ["d", "e", "a"]]


def shares(texts, *words):
    """Share of texts that have all of the words."""
    return sum(all(word in text for word in words) for text in texts) / len(texts)


def npmi(texts, one, other):
    joint = shares(texts, one, other) + 1e-12
    return math.log(joint / (shares(texts, one) * shares(texts, other))) / -math.log(joint)


def expected_c_v(texts, top):
    vectors = np.array([[npmi(texts, one, other) for other in top] for one in top])
    total = vectors.sum(axis=0)
    return np.mean([v @ total / np.linalg.norm(v) / np.linalg.norm(total) for v in vectors])


def expected_u_mass(texts, top):
    pairs = [(top[i], top[j]) for i in range(len(top)) for j in range(i)]
    return np.mean([math.log((shares(texts, *pair) + 1e-12) / shares(texts, pair[1])) for pair in pairs])


@pytest.fixture
def model_of_texts(monkeypatch):
    """Return a model with the top words of the test."""
    model = LatentDirichletAllocation(n_components=2, max_iter=1, workers=1).fit(TEXTS[:-1])
    monkeypatch.setattr(model, "topics", lambda n: [(top[:n], None) for top in TOPS])
    return model


@pytest.mark.parametrize(("measure", "expected"), [("c_v", expected_c_v), ("u_mass", expected_u_mass)])
def test_coherence_is_what_its_authors_define(model_of_texts, measure, expected):
    """Of texts, of documents, and of those that the model was trained on."""
    everything = [expected(TEXTS, top) for top in TOPS]
    np.testing.assert_allclose(model_of_texts.coherence(measure, TEXTS), everything, rtol=1e-6)
    np.testing.assert_allclose(model_of_texts.coherence(measure, Documents.from_texts(TEXTS)), everything, rtol=1e-6)
    own = [expected(TEXTS[:-1], top) for top in TOPS]
    np.testing.assert_allclose(model_of_texts.coherence(measure), own, rtol=1e-6)
    np.testing.assert_allclose(
        model_of_texts.coherence(measure, TEXTS, n=2), [expected(TEXTS, top[:2]) for top in TOPS], rtol=1e-6
    )


def test_c_v_slides_a_window_over_words(model_of_texts):
    """Words are together where some 110 in a row have both, in a long text; the first measure takes it as a whole."""
    random = np.random.default_rng(0)
    long = random.choice(["a", "b", "c", "d", "e", *["z"] * 60], 400).tolist()
    texts = [long, ["a", "b"]]
    windows = [long[first : first + 110] for first in range(400 - 109)] + [["a", "b"]]
    np.testing.assert_allclose(
        model_of_texts.coherence("c_v", texts), [expected_c_v(windows, top) for top in TOPS], rtol=1e-5
    )
    np.testing.assert_allclose(
        model_of_texts.coherence("u_mass", texts), [expected_u_mass(texts, top) for top in TOPS], rtol=1e-6
    )


def test_words_that_are_nowhere(model_of_texts):
    """Coherence stays finite; an unknown measure is refused."""
    for measure, texts in itertools.product(("c_v", "u_mass"), ([["q"]], [["a"], ["q"]])):
        assert np.isfinite(model_of_texts.coherence(measure, texts)).all()
    with pytest.raises(ConfigError, match="measure is 'umass'; expected one of c_v, u_mass"):
        model_of_texts.coherence("umass")
