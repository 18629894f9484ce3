"""Every schedule of a few threads on the memory of one machine, each state visited once.

A thread is what `advance` says of it: what it does next, given what its accesses were answered so far.
`nbps.testing.consistency.interleave` makes such threads of kernels, and says what is covered.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from nbps.kernels import atomics, relaxed

Cells = tuple[Any, ...]
Answers = tuple[Any, ...]
_DEPTH_LIMIT = 2000  # accesses on one path; a kernel that spins would go on for good
# Accesses that are carried out by their plain Python meaning.
_MEANINGS = {
    meaning.__name__: meaning
    for meaning in (atomics.fetch_add, atomics.exchange, atomics.compare_exchange, relaxed.add_relaxed)
}


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


Advance = Callable[[int, Answers], tuple[Answers, Access | tuple[Any]]]
Check = Callable[[Cells, tuple[Any, ...]], str | None]


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


class _State(NamedTuple):
    """Everything that decides what can happen next."""

    threads: tuple[int, ...]  # where each one stands, as `_Thread` numbers it
    cells: Cells
    buffers: tuple[tuple[tuple[int, Any, bool], ...], ...]  # by thread: cell, value and whether it is a release
    asleep: tuple[int | None, ...]  # by thread: the cell on which it sleeps


class _Thread:
    """What a thread does next, for everything that it was answered so far: a number, since states are looked up.

    Attributes
    ----------
    doing : list
        Its next access, or what it has returned in a tuple, by number; 0 is its start.
    """

    def __init__(self, advance: Callable[[Answers], tuple[Answers, Access | tuple[Any]]]) -> None:
        self.doing: list[Access | tuple[Any]] = []
        self._advance = advance
        self._numbers: dict[Answers, int] = {}
        self._answers: list[Answers] = []
        self._after: dict[tuple[int, Any], int] = {}
        self._number(())

    def after(self, number: int, answer: Any) -> int:
        """Return where the thread stands when it was given one more answer."""
        following = self._after.get((number, answer))
        if following is None:
            following = self._after[number, answer] = self._number((*self._answers[number], answer))
        return following

    def _number(self, answers: Answers) -> int:
        answers, doing = self._advance(answers)
        number = self._numbers.get(answers)
        if number is None:
            number = self._numbers[answers] = len(self.doing)
            self._answers.append(answers)
            self.doing.append(doing)
        return number


@dataclass
class _Visit:
    """A state on the path that is followed."""

    state: _State
    moves: list[tuple[tuple[int, Access], _State]]  # not taken yet
    taken: tuple[int, Access] | None = None  # the last one that was
    schedules: int = 0  # from here to the end, over the moves taken


class Exploration:
    """All schedules of `threads` threads.

    Parameters
    ----------
    order : Order
    cells : tuple
        Memory before the first access.
    threads : int
    advance : callable
        Given a thread and its answers: these answers, shortened, and its next access, or what it returns in a tuple.
    check : callable
        Given the final memory and what the threads returned: what is wrong, or None.

    Attributes
    ----------
    result : Result
    """

    def __init__(self, order: Order, cells: Cells, threads: int, advance: Advance, check: Check) -> None:
        self._order = order
        self._threads = [_Thread(functools.partial(advance, thread)) for thread in range(threads)]
        self._check = check
        self._counts: dict[_State, int] = {}  # schedules from a state to the end
        self._ends: set[tuple[Any, ...]] = set()
        self.result = Result()
        self.result.schedules = self._follow(_State((0,) * threads, cells, ((),) * threads, (None,) * threads))
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
        doing = [thread.doing[number] for thread, number in zip(self._threads, state.threads, strict=True)]
        end = (state.cells, tuple(doing))
        if end in self._ends:
            return
        self._ends.add(end)
        stuck = [f"thread {n} sleeps in {found}" for n, found in enumerate(doing) if isinstance(found, Access)]
        if stuck:
            message: str | None = "deadlock: " + ", ".join(stuck)
        else:
            message = self._check(state.cells, tuple(found[0] for found in doing))
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
                access = self._threads[thread].doing[state.threads[thread]]
                if isinstance(access, Access) and self._may(access, buffer):
                    moves.append(((thread, access), self._perform(state, thread, access)))
        return moves

    def _drainable(self, buffer: Sequence[tuple[int, Any, bool]]) -> list[int]:
        """Return which stores of a buffer may become visible next."""
        if self._order is not Order.PSO:
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
        if self._order is Order.PSO and access.kind in ("add_relaxed", "add_pack_relaxed"):
            touched = range(access.cell, access.cell + len(access.arguments))
            return not any(cell in touched for cell, _, _ in buffer)
        return False

    def _perform(self, state: _State, thread: int, access: Access) -> _State:
        kind, cell, arguments = access
        threads, cells, buffers, asleep = state
        answer = None
        woken: list[int] = []
        match kind:
            case "load" | "load_acquire":
                own = [value for at, value, _ in buffers[thread] if at == cell]
                answer = own[-1] if own else cells[cell]
            case "store" | "store_release" if self._order is Order.SC:
                cells = _with(cells, cell, arguments[0])
            case "store" | "store_release":
                entry = (cell, arguments[0], kind == "store_release")
                buffers = _with(buffers, thread, (*buffers[thread], entry))
            case "fence":
                pass
            case "futex_wait":
                if cells[cell] == arguments[0]:
                    return state._replace(asleep=_with(asleep, thread, cell))  # answered by who wakes it
            case "futex_wake":
                woken = [n for n, at in enumerate(asleep) if at == cell]
            case "add_pack_relaxed":
                for lane, delta in enumerate(arguments):
                    cells = _with(cells, cell + lane, cells[cell + lane] + delta)
            case _:
                changed = list(cells)
                answer = _MEANINGS[kind](changed, cell, *arguments)
                cells = tuple(changed)
        for n in (thread, *woken):
            threads = _with(threads, n, self._threads[n].after(threads[n], answer))
        for n in woken:
            asleep = _with(asleep, n, None)
        return _State(threads, cells, buffers, asleep)


def _with(values: tuple[Any, ...], index: int, value: Any) -> tuple[Any, ...]:
    return (*values[:index], value, *values[index + 1 :])
