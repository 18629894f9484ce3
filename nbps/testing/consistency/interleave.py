"""Every interleaving of a few threads that run kernels, with the memory orders of real machines.

A thread runs the Python form of a kernel on shared arrays (`Shared`). Every access to one is a switch point: the
atomics of `nbps.kernels.atomics` and `nbps.kernels.relaxed`, the futexes, and plain reads and writes, which
`atomics.step` alone would not show.

How it is complete and yet fast: what a thread does next depends only on what its accesses have returned so far. So a
thread is run again from its start for each new list of answers, stops at the access after the last, and is never run
twice for the same list. When a kernel returns, its accesses are forgotten and what it returned is kept in their place:
however `gate` came to open, the thread goes on in one and the same way. States of the whole (what each thread was
answered, memory, store buffers, who sleeps) are visited once; each schedule is a path through them.
`Result.schedules` counts those paths, exactly, without walking each: 3 threads that add 5 times have 756,756 schedules
and 216 states. What is judged is the end of a path: final memory and what the threads returned. What a thread saw on
its way it has to return.

What is covered, by `Order`:

- ``SC``: accesses happen one after the other. No missing fence can be seen.
- ``TSO`` (x86): a thread's stores wait in a buffer, in order, and become visible at any later time; its own loads see
  them. Locked operations and fences wait until the buffer is empty.
- ``PSO``: besides, plain stores to different places may overtake each other, but not a ``store_release`` that comes
  after them; relaxed additions wait for no store to another place. Shows a missing release on arm64.

Not covered: loads that are carried out early or out of order (a missing acquire, or the fence of a kernel that only
arm64 needs), what compilers reorder, packs and rows that tear, spurious wake-ups and time-outs of futexes (a thread
that nobody wakes is reported), and arrays that are not `Shared`.
"""

from __future__ import annotations

import functools
import math
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from nbps.kernels import atomics, futex, relaxed
from nbps.testing.consistency.exploration import Access, Answers, Check, Exploration, Failure, Order, Result

__all__ = ["Access", "Failure", "Machine", "Order", "Result", "Shared"]


class _Stop(BaseException):  # no kernel catches it
    """Ends a replayed thread at its next access."""

    def __init__(self, access: Access) -> None:
        self.access = access


class _Returned(NamedTuple):
    """Stands for the accesses of a call that has returned."""

    value: Any
    depth: int  # in how many calls that have not


class Shared:
    """A shared array, as kernels see it: the elements, shapes and views that they use, and no more."""

    def __init__(self, machine: Machine, first: int, shape: tuple[int, ...], itemsize: int) -> None:
        self.first = first
        self.shape = shape
        self.size = math.prod(shape)
        self.itemsize = itemsize
        self._machine = machine

    def __getitem__(self, index: int) -> Any:
        if len(self.shape) == 2:
            rows, width = self.shape
            assert 0 <= index < rows, f"row {index} of {rows}"
            return Shared(self._machine, self.first + index * width, (width,), self.itemsize)
        return self._machine._access("load", self.cell(index))

    def __setitem__(self, index: int, value: Any) -> None:
        self._machine._access("store", self.cell(index), value)

    def reshape(self, size: int) -> Shared:
        """Return the elements as one row."""
        assert size == self.size
        return Shared(self._machine, self.first, (size,), self.itemsize)

    def cell(self, index: int) -> int:
        """Return the number of an element."""
        assert 0 <= index < self.size, f"element {index} of {self.size}"
        return self.first + int(index)


_HARMLESS = (Shared, int, float, np.generic)


def _is_harmless(argument: Any) -> bool:
    """Whether nothing but shared memory can be changed through an argument."""
    return all(map(_is_harmless, argument)) if isinstance(argument, tuple) else isinstance(argument, _HARMLESS)


class Machine:
    """Shared memory and threads.

    Parameters
    ----------
    order : Order

    Examples
    --------
    >>> machine = Machine(Order.SC)
    >>> word = machine.array(1)
    >>> def increment():
    ...     word[0] = word[0] + 1
    >>> machine.thread(increment)
    >>> machine.thread(increment)
    >>> result = machine.explore(lambda cells, returned: None if cells == (2,) else f"found {cells[0]}")
    >>> result.schedules, result.states, [failure.message for failure in result.failures]
    (6, 13, ['found 1'])
    """

    def __init__(self, order: Order = Order.SC) -> None:
        self.order = order
        self._initial: list[Any] = []
        self._bodies: list[Callable[[], Any]] = []
        self._known: list[dict[Answers, tuple[Answers, Access | tuple[Any]]]] = []  # by thread and answers
        self._answers: list[Any] | None = None  # what is left of them in the thread that is being replayed
        self._used: list[Any] = []  # those that were used, shortened
        self._depth = 0  # of calls in it
        self._atomics: dict[Any, Callable[..., Any]] = {
            **{
                atomic: functools.partial(self._on_element, atomic.__name__)
                for atomic in (
                    atomics.load_acquire,
                    atomics.store_release,
                    atomics.fetch_add,
                    atomics.exchange,
                    atomics.compare_exchange,
                    relaxed.add_relaxed,
                )
            },
            relaxed.add_pack_relaxed: self._add_pack,
            atomics.fence: lambda: self._access("fence", -1),
            atomics.pause: lambda: None,  # accesses nothing
            relaxed.pack_lanes: lambda array: relaxed.PACK_BYTES // array.itemsize,
            atomics.address: lambda array, index: (array.first + index) * array.itemsize,
            futex.futex_wait: lambda array, index, expected, _: self._on_element("futex_wait", array, index, expected),
            futex.futex_wake: functools.partial(self._on_element, "futex_wake"),
        }

    def array(self, *shape: int, fill: Any = 0, itemsize: int = 8) -> Shared:
        """Return a shared array of one or two dimensions, at an address that is a multiple of `PACK_BYTES`."""
        lanes = relaxed.PACK_BYTES // itemsize
        self._initial += [0] * (-len(self._initial) % lanes)
        found = Shared(self, len(self._initial), shape, itemsize)
        self._initial += [fill] * found.size
        return found

    def plain(self, kernel: Any, **replaced: Any) -> Callable[..., Any]:
        """Return the Python form of `kernel` with this machine's atomics, in the kernels that it calls as well.

        They are found by name in the kernel's module (``from .atomics import fence``, not ``atomics.fence``).
        `replaced` puts something else in the place of a name that they use: a bug that has to be found.

        Raises
        ------
        ValueError
            If none of them uses a name of `replaced`.
        """
        used: set[str] = set()
        found = self._plain(kernel, replaced, used)
        if unused := replaced.keys() - used:
            raise ValueError(
                f"{found.__name__}: expected it to use {sorted(unused)}, found neither it nor its kernels do"
            )
        return found

    def _plain(self, kernel: Any, replaced: dict[str, Any], used: set[str]) -> Callable[..., Any]:
        function = getattr(kernel, "py_func", kernel)
        scope = dict(function.__globals__)
        for name in function.__code__.co_names:
            value = scope.get(name)
            if name in replaced and name in scope:
                scope[name] = replaced[name]
                used.add(name)
            elif isinstance(value, types.FunctionType) and value in self._atomics:
                scope[name] = self._atomics[value]
            elif hasattr(value, "py_func") or (isinstance(value, types.FunctionType) and value is not function):
                scope[name] = self._plain(value, replaced, used)
        copied = types.FunctionType(function.__code__, scope, function.__name__, function.__defaults__)

        @functools.wraps(copied)
        def found(*arguments: Any) -> Any:
            # What gets only numbers and shared arrays can change nothing else.
            if all(map(_is_harmless, arguments)):
                return self.call(copied, *arguments)
            return copied(*arguments)

        return found

    def thread(self, body: Callable[[], Any]) -> None:
        """Have one more thread.

        `body` depends on nothing but shared arrays, changes nothing but them, and returns something hashable.
        """
        self._bodies.append(body)
        self._known.append({})

    def explore(self, check: Check) -> Result:
        """Follow every schedule; `check` says what is wrong with the final memory and the threads' return values."""
        return Exploration(self.order, tuple(self._initial), len(self._bodies), self.advance, check).result

    # ----------------------------------------------------------------- replaying a thread

    def advance(self, thread: int, answers: Answers) -> tuple[Answers, Access | tuple[Any]]:
        """Return these answers, shortened, and what a thread does next: an access, or what it returns in a tuple."""
        known = self._known[thread].get(answers)
        if known is None:
            self._answers, self._used, self._depth = list(reversed(answers)), [], 0
            try:
                doing: Access | tuple[Any] = (self._bodies[thread](),)
            except _Stop as stop:
                doing = stop.access
            finally:
                self._answers = None
            known = self._known[thread][answers] = tuple(self._used), doing
        return known

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return ``function(*arguments)``, and forget afterwards how it came about.

        Only for a `function` that changes nothing but shared arrays, and returns something hashable.
        """
        assert self._answers is not None
        if self._answers and isinstance(done := self._answers[-1], _Returned) and done.depth == self._depth:
            self._used.append(self._answers.pop())
            return done.value
        start = len(self._used)
        self._depth += 1
        value = function(*arguments)
        self._depth -= 1
        self._used[start:] = [_Returned(value, self._depth)]
        return value

    def _access(self, kind: str, cell: int, *arguments: Any) -> Any:
        assert self._answers is not None, "shared arrays are for threads; look at their ends in `check`"
        if self._answers:
            self._used.append(self._answers.pop())
            return self._used[-1]
        raise _Stop(Access(kind, cell, arguments))

    def _on_element(self, kind: str, array: Shared, index: int, *arguments: Any) -> Any:
        return self._access(kind, array.cell(index), *arguments)

    def _add_pack(self, array: Shared, index: int, deltas: Any, delta_index: int) -> None:
        lanes = range(relaxed.PACK_BYTES // array.itemsize)
        array.cell(index + lanes[-1])
        self._access("add_pack_relaxed", array.cell(index), *[deltas[delta_index + lane] for lane in lanes])
