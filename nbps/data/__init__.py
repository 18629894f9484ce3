"""Ratings: reading them from the files that people have, generating them, and mapping their ids."""

from nbps.data.ratings.generation import generate_ratings
from nbps.data.ratings.ids import IdMap
from nbps.data.ratings.ratings import Ratings
from nbps.data.ratings.reading import read_ratings, read_test_ratings

__all__ = ["IdMap", "Ratings", "generate_ratings", "read_ratings", "read_test_ratings"]
