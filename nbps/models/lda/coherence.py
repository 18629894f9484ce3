"""Coherence of topics: how often the top words of a topic are in the same documents or windows.

The measures of Röder, Both and Hinneburg, "Exploring the space of topic coherence measures", WSDM 2015, as gensim
computes them; but a word counts as within a window as long as one of its occurrences is, while gensim drops it when the
first one leaves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nbps.data import Documents
from nbps.errors import ConfigError

MEASURES = ("c_v", "u_mass")
WINDOW = 110  # words, of c_v
_EPSILON = 1e-12  # beside probabilities of which logarithms are taken

Float64s = npt.NDArray[np.float64]


def coherence(measure: str, tops: Sequence[Sequence[str]], texts: Any) -> Float64s:
    """Return the coherence of each topic.

    Parameters
    ----------
    measure : {"c_v", "u_mass"}
    tops : sequence of sequences of str
        The top words of each topic, best first.
    texts : Documents, or iterable of sequences of str
        Documents are taken as wholes; of lists of words c_v looks at each `WINDOW` words in a row.

    Raises
    ------
    ConfigError
        If the measure is unknown.
    """
    if measure not in MEASURES:
        raise ConfigError(f"coherence: measure is {measure!r}; expected one of {', '.join(MEASURES)}")
    wanted = {word: n for n, word in enumerate(sorted({word for top in tops for word in top}))}
    together, size = _counts(texts, wanted, WINDOW if measure == "c_v" else None)
    of_topic = _c_v if measure == "c_v" else _u_mass
    return np.array([of_topic(together[np.ix_(codes, codes)], size) for codes in _codes(tops, wanted)])


def _codes(tops: Sequence[Sequence[str]], wanted: dict[str, int]) -> Iterable[list[int]]:
    return ([wanted[word] for word in top] for top in tops)


def _u_mass(together: Float64s, size: int) -> float:
    """Return the mean of ``log((P(later, earlier) + epsilon) / P(earlier))`` over pairs of top words."""
    later, earlier = np.tril_indices(len(together), -1)
    alone = together.diagonal()[earlier]
    known = alone > 0
    ratio = (together[later, earlier][known] / size + _EPSILON) / (alone[known] / size)
    return float(np.log(ratio).mean()) if ratio.size else 0.0


def _c_v(together: Float64s, size: int) -> float:
    """Return the mean cosine of each top word's vector of normalised pointwise mutual information with their sum."""
    alone = together.diagonal() / size
    joint = together / size
    with np.errstate(divide="ignore", invalid="ignore"):
        mutual = np.log((joint + _EPSILON) / np.outer(alone, alone)) / -np.log(joint + _EPSILON)
    mutual[~np.isfinite(mutual)] = 0.0
    whole = mutual.sum(axis=0)
    lengths = np.linalg.norm(mutual, axis=1) * np.linalg.norm(whole)
    return float(np.mean(np.divide(mutual @ whole, lengths, out=np.zeros(len(lengths)), where=lengths > 0)))


def _counts(texts: Any, wanted: dict[str, int], window: int | None) -> tuple[Float64s, int]:
    """Return how many documents or windows have both of two words, and how many there are."""
    if isinstance(texts, Documents):
        place = np.full(len(texts.vocabulary), -1)
        codes, where = _found(texts.vocabulary, wanted)
        place[where] = codes
        own = place[texts.words] >= 0
        has = np.zeros((len(texts), len(wanted)), np.float32)
        has[texts.document_of_entry[own], place[texts.words[own]]] = 1
        return (has.T @ has).astype(np.float64), len(texts)
    together, size = np.zeros((len(wanted), len(wanted))), 0
    for text in texts:
        codes = [wanted.get(word, -1) for word in text]
        windows = 1 if window is None else max(1, len(codes) - window + 1)
        size += windows
        together += _in_windows(np.array(codes, np.int64), windows, len(wanted))
    return together, size


def _in_windows(codes: npt.NDArray[np.int64], windows: int, size: int) -> Float64s:
    """Return how many of so many windows over a text have both of two words."""
    has, length = np.zeros((windows, size), np.float32), codes.size - windows + 1
    for at in np.flatnonzero(codes >= 0):
        has[max(0, at - length + 1) : at + 1, codes[at]] = 1
    return np.asarray((has.T @ has).astype(np.float64))


def _found(vocabulary: pa.Array, wanted: dict[str, int]) -> tuple[list[int], list[int]]:
    """Return the numbers of the wanted words that there are, and their codes."""
    codes = {word: code for code, word in enumerate(vocabulary.to_pylist()) if word in wanted}
    return [wanted[word] for word in codes], [*codes.values()]
