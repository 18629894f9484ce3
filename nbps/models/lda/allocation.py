"""`LatentDirichletAllocation`: the estimator."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from nbps.checks import whole
from nbps.consistency import Consistency
from nbps.data import Documents
from nbps.errors import ConfigError, DataError
from nbps.models.estimator import Estimator
from nbps.models.file import ModelFormat, parameters_to_json
from nbps.models.lda.coherence import coherence
from nbps.models.lda.history import PassRecord
from nbps.models.lda.inputs import as_documents, as_validation, both, check_trainable, in_words_of
from nbps.models.lda.plan import TopicsPlan
from nbps.models.lda.state import Topics
from nbps.models.lda.training import TopicsTrainer, even, warm_up
from nbps.models.lda.worker import FOLD_PASSES
from nbps.models.phases import Phases
from nbps.runtime.cores import usable_cores

Callback = Callable[["LatentDirichletAllocation", PassRecord], object]
Float64s = npt.NDArray[np.float64]


class LatentDirichletAllocation(Estimator[Topics, PassRecord]):
    """Topics of documents by collapsed Gibbs sampling on worker processes that share the counts in memory.

    With the default schedule and consistency a fit gives the same bits for the same `random_state` and number of
    workers.

    Parameters
    ----------
    n_components : int
        Number of topics.
    doc_topic_prior : float or array_like of shape (n_components,), optional
        Of each topic in a document (alpha); ``10 / n_components`` by default. It is where `optimize_every` begins.
    topic_word_prior : float
        Of each word in a topic (beta, eta).
    max_iter : int
        Passes over the tokens.
    optimize_every : int, optional
        Learn `doc_topic_prior`, a number for each topic, after each so many passes; None leaves it.
    evaluate_every : int, optional
        Measure the perplexity of `validation` after each so many passes, and after the last; None never. With
        `early_stopping` it is measured after each.
    schedule : {"rotate", "cached"}
        How workers share the counts of words. ``rotate``: each block of words has one writer at a time, and the
        staleness bound keeps it so (fastest). ``cached``: private copies that exchange differences at clocks, of
        which a pass has about ten, as in the papers.
    consistency : BSP, SSP, ESSP, ASP, VAP, optional
        ``BSP()`` by default for ``rotate``, which needs a finite staleness; runs under others do not repeat to the
        bit. ``ESSP(2)`` for ``cached``.
    workers : int, optional
        Processes; all usable cores by default.
    random_state : int, None, RandomState or Generator
        Seed of the first topics and of all draws. None takes another one for each fit, and a `RandomState` or
        `Generator` of NumPy is asked for one; with several nodes all must have the same.
    early_stopping : int, optional
        Stop when the perplexity of `validation` has not improved for so many passes, and keep the best one's counts.
    callbacks : sequence of callable
        Called as ``callback(model, record)`` after each pass; one that returns True stops the training. Where all have
        an attribute ``needs_model`` that is False, `model` is left as it was before, which saves a copy in each pass.
    verbose : bool
        Print a line for each pass.
    checkpoint : str or Path, optional
        A folder, or the URI of one, to save training in after each pass. A `fit` with the same parameters, data and
        number of workers that finds a training there goes on from its last pass, with the default schedule and
        consistency to the bit.

    Attributes
    ----------
    components_ : float64[n_components, words]
        Counts of words in topics plus `topic_word_prior`, as in scikit-learn: divided by their sums, probabilities.
    doc_topic_prior_ : float64[n_components]
        As it was given or learnt.
    topic_word_prior_ : float
    vocabulary_ : pyarrow.Array
        The words, in the order of the columns of `components_`.
    n_features_in_, n_iter_ : int
    history_ : list of PassRecord
    best_epoch_ : int
        Pass of the counts kept: the last, or with `early_stopping` the best.
    train_seconds_, seconds_, report_
        As `Estimator` says.

    Notes
    -----
    Up to 128 tokens of a word in a row are drawn with its counts of before them, of which each leaves out its own. Of 6
    tokens in two documents, two of the same word then had one topic in 85.5 % of all passes, where drawing with all
    counts as they are gives 89.0 %; on text perplexities are no higher for it (``bench/lda.py``).

    Griffiths and Steyvers, PNAS 2004 (the sampler); Wallach et al., ICML 2009 (document completion); Wallach, Mimno
    and McCallum, NIPS 2009 (asymmetric priors); Ho et al., NIPS 2013 (SSP).

    Examples
    --------
    >>> from nbps.data import generate_documents
    >>> from nbps.models import LatentDirichletAllocation
    >>> train, test = generate_documents(documents=200, length=50, words=300, topics=5).split(0.1, seed=0)
    >>> model = LatentDirichletAllocation(n_components=5, max_iter=20, workers=1).fit(train, validation=test)
    >>> words, probabilities = model.topics(3)[0]
    >>> len(words), probabilities.shape, model.transform(test).shape == (len(test), 5)
    (3, (3,), True)
    """

    _FORMAT = ModelFormat("nbps latent dirichlet allocation")
    _STATE, _RECORD = Topics, PassRecord

    def __init__(
        self,
        n_components: int = 10,
        doc_topic_prior: float | npt.ArrayLike | None = None,
        topic_word_prior: float = 0.01,
        max_iter: int = 200,
        optimize_every: int | None = 10,
        evaluate_every: int | None = 10,
        schedule: str = "rotate",
        consistency: Consistency | None = None,
        workers: int | None = None,
        random_state: int | np.random.RandomState | np.random.Generator | None = 0,
        early_stopping: int | None = None,
        callbacks: Sequence[Callback] = (),
        verbose: bool = False,
        checkpoint: str | Path | None = None,
    ) -> None:
        self.n_components = n_components
        self.doc_topic_prior = doc_topic_prior
        self.topic_word_prior = topic_word_prior
        self.max_iter = max_iter
        self.optimize_every = optimize_every
        self.evaluate_every = evaluate_every
        self.schedule = schedule
        self.consistency = consistency
        self.workers = workers
        self.random_state = random_state
        self.early_stopping = early_stopping
        self.callbacks = callbacks
        self.verbose = verbose
        self.checkpoint = checkpoint

    # ----------------------------------------------------------------------- training

    def fit(self, documents: Any, y: object = None, validation: Any = None) -> Self:
        """Train from scratch.

        Parameters
        ----------
        documents : Documents, matrix of counts, frame or table, texts, or lists of words
            A SciPy sparse matrix or an array has documents as rows and words as columns; of a frame see
            `Documents.from_arrow`, of texts and lists of words `Documents.from_texts`.
        y
            Not used; scikit-learn's pipelines pass it.
        validation : as `documents`, optional
            Its perplexity is measured by document completion: half of the tokens of each document say its topics, the
            others are predicted. Words that `documents` lack are left out.

        Returns
        -------
        self

        Raises
        ------
        ConfigError
            If a parameter cannot be used, or there is `early_stopping` without `validation`; the model is unchanged.
        DataError
            If there are no documents, an empty one, counts that are none, or fewer tokens than topics.
        OutOfMemoryError
            If the memory does not hold what training needs.
        """
        plan = TopicsPlan.of(self.get_params())
        plan.check_validation(validation)
        warm_up(plan)
        phases = Phases()
        with phases("schedule"):
            data = as_documents(documents)
            check_trainable(data, plan.n_components)
            before = Topics.none(data.vocabulary, plan.prior, plan.topic_word_prior)
            test = None if validation is None else as_validation(validation, data.vocabulary)
            trainer = TopicsTrainer(plan, before, data, test, self._is_watched, phases)
            if plan.checkpoint is not None:
                trainer.save_to(plan.checkpoint, parameters_to_json(self.get_params()))
        self._run(trainer, [None] * plan.max_iter)
        self._documents = data
        return self

    def warm_up(self) -> Self:
        """Start in the background what the first `fit` of this process waits for half a second; returns at once.

        Call it before reading the documents. `fit` alone does as much while it prepares them.
        """
        warm_up(TopicsPlan.of({**self.get_params(), "random_state": 0}))  # a generator is asked once a fit
        return self

    def partial_fit(self, documents: Any, y: object = None, epochs: int = 10) -> Self:
        """Train on more documents, with the counts of those before beside theirs; words that are new are added.

        Only the new documents' tokens are sampled, `epochs` times each, and `doc_topics` is about them. On a model that
        is not fitted this is `fit`.
        """
        whole("partial_fit: epochs", epochs, 1)
        if not self.__sklearn_is_fitted__():
            return self.fit(documents)
        plan = TopicsPlan.of({**self.get_params(), "checkpoint": None})
        phases = Phases()
        with phases("schedule"):
            vocabulary, data = both(self._state.vocabulary, as_documents(documents, self._state.vocabulary))
            check_trainable(data, 1)
            before = self._state.extended(vocabulary)
            trainer = TopicsTrainer(plan, before, data, None, self._is_watched, phases)
        self._run(trainer, [None] * epochs, self.history_)
        self._documents = data
        return self

    # ----------------------------------------------------------------------- what training gave

    @property
    def components_(self) -> Float64s:
        """Counts of words in topics plus the prior, float64[n_components, words]."""
        state = self._fitted()
        return np.asarray(state.word_topic.T + state.word_prior)

    @property
    def doc_topic_prior_(self) -> Float64s:
        """Prior of each topic in a document, float64[n_components]."""
        return self._fitted().prior

    @property
    def topic_word_prior_(self) -> float:
        """Prior of each word in a topic."""
        return self._fitted().word_prior

    @property
    def vocabulary_(self) -> Any:
        """The words, in the order of the columns of `components_`."""
        return self._fitted().vocabulary

    @property
    def n_features_in_(self) -> int:
        """Number of words."""
        return len(self._fitted().vocabulary)

    @property
    def n_iter_(self) -> int:
        """Number of passes."""
        self._fitted()
        return len(self.history_)

    def get_feature_names_out(self, input_features: object = None) -> npt.NDArray[np.object_]:
        """Return what `transform`'s columns are called, as scikit-learn's tools ask."""
        return np.array([f"latentdirichletallocation{k}" for k in range(self._fitted().count)], object)

    def topics(self, n: int = 10) -> list[tuple[list[str], Float64s]]:
        """Return the `n` most probable words of each topic, best first, and their probabilities."""
        state = self._fitted()
        whole("topics: n", n, 1)
        return [state.top_words(topic, n) for topic in range(state.count)]

    def doc_topics(self) -> Float64s:
        """Return the shares of topics of the documents last trained on, float64[documents, n_components]."""
        return self._fitted().document_shares()

    def coherence(self, measure: str = "c_v", documents: Any = None, n: int = 10) -> Float64s:
        """Return how coherent the `n` top words of each topic are, float64[n_components]; the more the better.

        Parameters
        ----------
        measure : {"c_v", "u_mass"}
        documents : Documents or sequence of lists of words, optional
            Where it is counted which words go together; by default the documents trained on, which a model that was
            loaded does not have. Bags of words are taken as wholes; in lists of words, which have an order, ``c_v``
            looks at each 110 words in a row, as its authors do.
        n : int
        """
        tops = [words for words, _ in self.topics(n)]
        texts = getattr(self, "_documents", None) if documents is None else documents
        if texts is None:
            raise ConfigError("coherence: this model was loaded, without documents; expected documents=...")
        return coherence(measure, tops, texts)

    # ----------------------------------------------------------------------- other documents

    def transform(self, documents: Any) -> Float64s:
        """Return the shares of topics of documents, float64[documents, n_components]; rows add up to 1.

        `documents` as in `fit`. Words that the model does not know are left out; a document without others has the
        shares of the prior.
        """
        shares, _ = self._folded(in_words_of(documents, self._fitted().vocabulary), None)
        return shares.astype(np.float64)

    def fit_transform(self, documents: Any, y: object = None) -> Float64s:
        """Train from scratch, and return the shares of topics of the documents as `transform` does."""
        return self.fit(documents).transform(documents)

    def perplexity(self, documents: Any) -> float:
        """Return the perplexity of documents by completion: half of the tokens of each say its topics.

        The others are predicted; which ones follows from `random_state` if that is a number.
        """
        return math.exp(-self.score(documents))

    def score(self, documents: Any, y: object = None) -> float:
        """Return the mean logarithm of the probability of the tokens that `perplexity` predicts: greater is better.

        Raises
        ------
        DataError
            If no document has a token of a word that the model knows.
        """
        seed = self.random_state if isinstance(self.random_state, (int, np.integer)) else 0
        observed, predicted = in_words_of(documents, self._fitted().vocabulary).halves(int(seed))
        if not predicted.tokens:
            raise DataError("documents: expected words of the training documents, found none")
        _, total = self._folded(observed, predicted)
        return total / predicted.tokens

    def _folded(self, documents: Documents, predicted: Documents | None) -> tuple[npt.NDArray[np.float32], float]:
        """Return the shares of topics of documents, and how well they predict others: the sum of logarithms."""
        from nbps.kernels.models import folding

        state = self._fitted()
        beta, alpha = np.float32(state.word_prior), state.prior.astype(np.float32)
        shares = np.empty((len(documents), state.count), np.float32)
        model = np.require(state.word_topic, requirements="W"), state.inverse

        def fold(first: int, last: int) -> float:
            own = documents.take(np.arange(first, last))
            rows = np.empty(int(np.diff(own.starts).max(initial=0)) * state.count, np.float32)
            scratch = shares[first:last], rows, np.empty_like(alpha)
            folding.fold_in(own.starts, own.words, own.counts, *model, alpha, beta, FOLD_PASSES, *scratch)
            if predicted is None:
                return 0.0
            rest = predicted.take(np.arange(first, last))
            total: float = folding.log_likelihood(
                rest.starts, rest.words, rest.counts, *model, beta, shares[first:last]
            )
            return total

        threads = usable_cores() if self.workers is None else self.workers
        firsts = even(documents, threads).tolist()
        with ThreadPoolExecutor(threads) as pool:  # the kernels let go of the interpreter
            return shares, sum(pool.map(fold, firsts[:-1], firsts[1:]))

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, Tags, TargetTags, TransformerTags

        return Tags(
            estimator_type=None,
            target_tags=TargetTags(required=False),
            transformer_tags=TransformerTags(),
            input_tags=InputTags(string=True, sparse=True, positive_only=True),
        )
