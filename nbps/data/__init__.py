"""Ratings, documents and features: reading them from the files that people have, and generating some."""

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
    from nbps.data.features.features import Features
    from nbps.data.features.reading import read_features

__all__ = [
    "Documents",
    "Features",
    "IdMap",
    "Ratings",
    "generate_documents",
    "generate_ratings",
    "read_documents",
    "read_features",
    "read_ratings",
    "read_test_ratings",
    "tokenize",
]

# Who factorizes ratings need not load them.
_PLACES = {
    "Documents": "documents.documents",
    "Features": "features.features",
    "generate_documents": "documents.generation",
    "read_documents": "documents.reading",
    "read_features": "features.reading",
    "tokenize": "documents.text",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"nbps.data.{_PLACES[name]}"), name)
