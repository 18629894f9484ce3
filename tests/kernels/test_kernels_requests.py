"""What files of kernels ask for: everything that is called from Python, and nothing of it allocates."""

from __future__ import annotations

import importlib
import pkgutil
import re
import types

import numba
import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher
from numba.core.serialize import dumps

from nbps import kernels
from nbps.kernels import board, checksum, copies, presence, ring, rows, shards
from nbps.kernels.jit import code_file
from nbps.kernels.models import cells, dirichlet, folding, lasso, lda, mf, tokens, topic_lists
from nbps.kernels.turns import loop

REQUESTS = [
    *board.requests(bounded=True),
    *board.agent_requests(),
    *presence.requests(),
    *ring.requests(),
    *checksum.requests(),
    *loop.requests(),
    *mf.requests("direct"),
    *mf.requests("exclusive"),
    *cells.requests(),
    *lasso.requests("float32", is_sparse=False),
    *lasso.requests("float64", is_sparse=True),
    *(each for wide in (False, True) for file in (lda, tokens, topic_lists, dirichlet) for each in file.requests(wide)),
    *folding.requests(),
    *(
        request
        for dtype in ("float32", "int64")
        for is_claimed in (False, True)
        for requests in (
            rows.requests(dtype, "exclusive", False, True),
            rows.requests(dtype, "direct", is_claimed, False),
            copies.requests(dtype, is_claimed),
            shards.requests(dtype, is_claimed),
        )
        for request in requests
    ),
]
NAMES = [found.name for found in pkgutil.walk_packages(kernels.__path__, f"{kernels.__name__}.")]
MODULES = [importlib.import_module(name) for name in NAMES]


def all_kernels():
    """Return every kernel of the package."""
    return {
        value
        for module in MODULES
        for value in vars(module).values()
        if isinstance(value, Dispatcher) and value.py_func.__module__ == module.__name__
    }


def called_by(kernel):
    """Return the kernels that `kernel` calls, or one of which the compiler chooses: they are compiled with it."""
    function = getattr(kernel, "py_func", kernel)
    found = [function.__globals__.get(name) for name in function.__code__.co_names if name in function.__globals__]
    functions = {value for value in found if isinstance(value, types.FunctionType) and value.__module__ in NAMES}
    chosen = functions - {function}  # what it calls of a module may have its own name
    return {value for value in found if isinstance(value, Dispatcher)}.union(*map(called_by, chosen))


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")
def test_every_kernel_is_asked_for_or_part_of_one_that_is():
    """A kernel that nobody asked for would be compiled by all workers at once, in the middle of a run."""
    parts = set().union(*map(called_by, all_kernels()))
    asked = {kernel for kernel, _ in REQUESTS}
    assert len(asked) > 40
    assert {kernel.py_func.__qualname__ for kernel in all_kernels() - parts - asked} == set()


def allocations(code):
    """Return the functions of Numba's runtime that machine code calls to allocate memory."""
    return set(re.findall(rb"NRT_(?:Re)?[Aa]lloc|NRT_MemInfo_(?:varsize_)?(?:alloc|new)", code))


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")
def test_no_kernel_allocates():
    """None calls for memory: what it works in, its caller gives it."""
    found = {}
    for kernel, arguments in REQUESTS:
        kernel(*arguments)
        if calls := allocations(code_file((kernel, arguments)).read_bytes()):
            found[kernel.py_func.__qualname__] = calls
    assert found == {}


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")
def test_a_kernel_that_allocates_is_found():
    """Planted: scratch of its own."""

    @numba.njit
    def allocates(array):
        scratch = np.empty(array.size, array.dtype)
        scratch[:] = array
        return scratch[0]

    allocates(np.zeros(3))
    (compiled,) = allocates.overloads.values()
    assert allocations(dumps(compiled._reduce()))
