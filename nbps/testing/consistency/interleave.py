"""Every interleaving of a few threads that run kernels, with the memory orders of real machines.

A thread runs the Python form of a kernel on shared arrays (`Shared`). Every access to one is a switch point: the
atomics of `nbps.kernels.atomics`, the futexes, and plain reads and writes, which `atomics.step` alone would not show.

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

import enum
import functools
import itertools
import math
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from nbps.kernels import atomics, futex

Cells = tuple[Any, ...]
Answers = tuple[Any, ...]
_DEPTH_LIMIT = 2000  # accesses on one path; a kernel that spins would go on for good


class Order(enum.Enum):
    """Which orders of memory a machine allows."""

    SC = "sequentially consistent"
    TSO = "total store order"
    PSO = "partial store order"


class Access(NamedTuple):
    """One access to shared memory.

    Attributes
    ----------
    kind : str
        Name of the atomic, or ``load``, ``store``, ``futex_wait``, ``futex_wake``.
    cell : int
        Which element; -1 for none.
    arguments : tuple
        Values to store, add or compare.
    """

    kind: str
    cell: int
    arguments: tuple[Any, ...] = ()


class Failure(NamedTuple):
    """A schedule that ends wrongly."""

    message: str
    schedule: tuple[str, ...]  # one line for each access


@dataclass
class Result:
    """What an exploration found.

    Attributes
    ----------
    schedules : int
        Different orders of accesses (and, with store buffers, of stores becoming visible), all of them covered.
    states : int
        Visited, each once.
    ends : int
        Different final states.
    failures : list of Failure
        One for each wrong final state: what `check` says, or a deadlock.
    """

    schedules: int = 0
    states: int = 0
    ends: int = 0
    failures: list[Failure] = field(default_factory=list)


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


_HARMLESS = (Shared, int, float, np.generic, tuple)


class _State(NamedTuple):
    """Everything that decides what can happen next."""

    answers: tuple[Answers, ...]  # by thread, shortened
    cells: Cells
    buffers: tuple[tuple[tuple[int, Any, bool], ...], ...]  # by thread: cell, value and whether it is a release
    asleep: tuple[int | None, ...]  # by thread: the cell on which it sleeps


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
        self._atomics = {
            **{
                getattr(atomics, kind): functools.partial(self._on_element, kind)
                for kind in (
                    "load_acquire",
                    "store_release",
                    "fetch_add",
                    "exchange",
                    "compare_exchange",
                    "add_relaxed",
                )
            },
            atomics.add_pack_relaxed: self._add_pack,
            atomics.fence: lambda: self._access("fence", -1),
            atomics.pause: lambda: None,  # accesses nothing
            atomics.pack_lanes: lambda array: atomics.PACK_BYTES // array.itemsize,
            atomics.address: lambda array, index: (array.first + index) * array.itemsize,
            futex.futex_wait: lambda array, index, expected, _: self._on_element("futex_wait", array, index, expected),
            futex.futex_wake: functools.partial(self._on_element, "futex_wake"),
        }

    def array(self, *shape: int, fill: Any = 0, itemsize: int = 8) -> Shared:
        """Return a shared array of one or two dimensions, at an address that is a multiple of `PACK_BYTES`."""
        lanes = atomics.PACK_BYTES // itemsize
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
            if all(isinstance(argument, _HARMLESS) for argument in arguments):
                return self.call(copied, *arguments)
            return copied(*arguments)

        return found

    def thread(self, body: Callable[[], Any]) -> None:
        """Have one more thread.

        `body` depends on nothing but shared arrays, changes nothing but them, and returns something hashable.
        """
        self._bodies.append(body)
        self._known.append({})

    def explore(self, check: Callable[[Cells, tuple[Any, ...]], str | None]) -> Result:
        """Follow every schedule; `check` says what is wrong with the final memory and the threads' return values."""
        return _Exploration(self, check).result

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
        lanes = range(atomics.PACK_BYTES // array.itemsize)
        array.cell(index + lanes[-1])
        self._access("add_pack_relaxed", array.cell(index), *[deltas[delta_index + lane] for lane in lanes])


@dataclass
class _Visit:
    """A state on the path that is followed."""

    state: _State
    moves: list[tuple[tuple[int, Access], _State]]  # not taken yet
    taken: tuple[int, Access] | None = None  # the last one that was
    schedules: int = 0  # from here to the end, over the moves taken


class _Exploration:
    """Visits every state once, depth first."""

    def __init__(self, machine: Machine, check: Callable[[Cells, tuple[Any, ...]], str | None]) -> None:
        self.machine = machine
        self.check = check
        self.result = Result()
        self._counts: dict[_State, int] = {}  # schedules from a state to the end
        self._ends: set[tuple[Any, ...]] = set()
        n = len(machine._bodies)
        answers = tuple(machine.advance(thread, ())[0] for thread in range(n))
        self.result.schedules = self._follow(_State(answers, tuple(machine._initial), ((),) * n, (None,) * n))
        self.result.states = len(self._counts)
        self.result.ends = len(self._ends)

    def _follow(self, start: _State) -> int:
        """Visit what can be reached from `start`; return the number of schedules."""
        path = [_Visit(start, self._moves(start))]
        while True:
            here = path[-1]
            if here.moves:
                here.taken, following = here.moves.pop()
                known = self._counts.get(following)
                if known is not None:
                    here.schedules += known
                elif len(path) > _DEPTH_LIMIT:
                    raise RecursionError(f"a schedule has more than {_DEPTH_LIMIT} accesses; does a kernel spin?")
                else:
                    path.append(_Visit(following, self._moves(following)))
                continue
            if here.schedules == 0:
                here.schedules = 1
                self._end(here.state, path[:-1])
            self._counts[here.state] = here.schedules
            path.pop()
            if not path:
                return here.schedules
            path[-1].schedules += here.schedules

    def _end(self, state: _State, path: Sequence[_Visit]) -> None:
        doing = [self.machine.advance(thread, answers)[1] for thread, answers in enumerate(state.answers)]
        end = (state.cells, tuple(doing))
        if end in self._ends:
            return
        self._ends.add(end)
        stuck = [f"thread {n} sleeps in {found}" for n, found in enumerate(doing) if isinstance(found, Access)]
        if stuck:
            message: str | None = "deadlock: " + ", ".join(stuck)
        else:
            message = self.check(state.cells, tuple(found[0] for found in doing))
        if message is not None:
            schedule = tuple(f"thread {visit.taken[0]}: {visit.taken[1]}" for visit in path if visit.taken)
            self.result.failures.append(Failure(message, schedule))

    def _moves(self, state: _State) -> list[tuple[tuple[int, Access], _State]]:
        """Return what each thread, or its store buffer, may do next; the first thread's last."""
        moves = []
        for thread, buffer in reversed(list(enumerate(state.buffers))):
            for n in self._drainable(buffer):
                cell, value, _ = buffer[n]
                cells = _with(state.cells, cell, value)
                rest = buffer[:n] + buffer[n + 1 :]
                following = state._replace(cells=cells, buffers=_with(state.buffers, thread, rest))
                moves.append(((thread, Access("becomes visible", cell, (value,))), following))
            if state.asleep[thread] is None:
                access = self.machine.advance(thread, state.answers[thread])[1]
                if isinstance(access, Access) and self._may(access, buffer):
                    moves.append(((thread, access), self._perform(state, thread, access)))
        return moves

    def _drainable(self, buffer: Sequence[tuple[int, Any, bool]]) -> list[int]:
        """Return which stores of a buffer may become visible next."""
        if self.machine.order is not Order.PSO:
            return [0] if buffer else []
        return [
            n
            for n, (cell, _, release) in enumerate(buffer)
            if not any(release or earlier == cell for earlier, _, _ in buffer[:n])
        ]

    def _may(self, access: Access, buffer: Sequence[tuple[int, Any, bool]]) -> bool:
        """Whether an access does not have to wait for stores of its own thread to become visible."""
        if access.kind in ("load", "load_acquire", "store", "store_release") or not buffer:
            return True
        if self.machine.order is Order.PSO and access.kind in ("add_relaxed", "add_pack_relaxed"):
            touched = range(access.cell, access.cell + len(access.arguments))
            return not any(cell in touched for cell, _, _ in buffer)
        return False

    def _perform(self, state: _State, thread: int, access: Access) -> _State:
        kind, cell, arguments = access
        cells, buffers, asleep, answer = state.cells, state.buffers, list(state.asleep), None
        woken: list[int] = []
        match kind:
            case "load" | "load_acquire":
                own = [value for at, value, _ in buffers[thread] if at == cell]
                answer = own[-1] if own else cells[cell]
            case "store" | "store_release" if self.machine.order is Order.SC:
                cells = _with(cells, cell, arguments[0])
            case "store" | "store_release":
                entry = (cell, arguments[0], kind == "store_release")
                buffers = _with(buffers, thread, (*buffers[thread], entry))
            case "fence":
                pass
            case "futex_wait":
                if cells[cell] == arguments[0]:
                    asleep[thread] = cell  # answered by who wakes it
                    return state._replace(asleep=tuple(asleep))
            case "futex_wake":
                woken = [n for n, at in enumerate(asleep) if at == cell]
            case "add_pack_relaxed":
                for lane, delta in enumerate(arguments):
                    cells = _with(cells, cell + lane, cells[cell + lane] + delta)
            case _:
                changed = list(cells)
                answer = getattr(atomics, kind)(changed, cell, *arguments)  # its plain Python meaning
                cells = tuple(changed)
        answers = list(state.answers)
        for n in itertools.chain([thread], woken):
            answers[n] = self.machine.advance(n, (*answers[n], answer))[0]
            asleep[n] = None
        return _State(tuple(answers), cells, buffers, tuple(asleep))


def _with(values: tuple[Any, ...], index: int, value: Any) -> tuple[Any, ...]:
    return (*values[:index], value, *values[index + 1 :])
