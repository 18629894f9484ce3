"""Ratings: reading them from the files that people have, generating them, and mapping their ids."""
