"""Ratings and documents: reading them from the files that people have, and generating them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nbps.data.ratings.generation import generate_ratings
from nbps.data.ratings.ids import IdMap
from nbps.data.ratings.ratings import Ratings
from nbps.data.ratings.reading import read_ratings, read_test_ratings

if TYPE_CHECKING:
    from nbps.data.documents.documents import Documents
    from nbps.data.documents.generation import generate_documents
    from nbps.data.documents.reading import read_documents
    from nbps.data.documents.text import tokenize

__all__ = [
    "Documents",
    "IdMap",
    "Ratings",
    "generate_documents",
    "generate_ratings",
    "read_documents",
    "read_ratings",
    "read_test_ratings",
    "tokenize",
]

# Who factorizes ratings need not load them.
_DOCUMENTS = {
    "Documents": "documents",
    "generate_documents": "generation",
    "read_documents": "reading",
    "tokenize": "text",
}


def __getattr__(name: str) -> Any:
    if name not in _DOCUMENTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"nbps.data.documents.{_DOCUMENTS[name]}"), name)
