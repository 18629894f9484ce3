"""The examples in the docstrings give what they say."""

from __future__ import annotations

import doctest

import pytest

from nbps.data.documents import documents, text
from nbps.data.documents import generation as generated_documents
from nbps.data.ratings import generation, ids, ratings


@pytest.mark.parametrize(
    "module",
    [generation, ids, ratings, documents, generated_documents, text],
    ids=lambda module: module.__name__,
)
def test_examples(module):
    """Each module has at least one example, and all of them hold."""
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
