"""Ratings: reading them from the files that people have, generating them, and mapping their ids."""

from nbps.data.generation import generate_ratings
from nbps.data.ids import IdMap
from nbps.data.ratings import Ratings
from nbps.data.reading import read_ratings, read_test_ratings

__all__ = ["IdMap", "Ratings", "generate_ratings", "read_ratings", "read_test_ratings"]
