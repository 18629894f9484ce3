"""Examples in docstrings run."""

import doctest
import importlib
import pkgutil

import pytest

import nbps

MODULES = [info.name for info in pkgutil.walk_packages(nbps.__path__, "nbps.") if "runtime" not in info.name]


@pytest.mark.parametrize("name", ["nbps", *MODULES])
def test_examples_of(name):
    """Each example in the module's docstrings gives what it says."""
    assert doctest.testmod(importlib.import_module(name)).failed == 0
