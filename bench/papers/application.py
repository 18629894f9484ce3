"""What an application is to the experiments: tables, what a worker does in a clock, and an objective.

Data are dealt out to the workers. Each worker learns from its own against copies of the ``cached`` tables, so that
staleness is real; what only its own data need (factors of users, topics of tokens, coefficients of columns) is in
``exclusive`` tables, each row with one writer. A worker goes through its data in each epoch, in the same order whatever
the consistency model; a clock is a fixed fraction of them.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

import nbps

Values = Mapping[str, npt.NDArray[Any]]  # of tables, by name


class Share(Protocol):
    """What a worker has of an application."""

    def advance(self, clock: int) -> None:
        """Do the work of one clock, on the worker's copies of shared tables as they are."""


class Application(abc.ABC):
    """What is trained, dealt out to some number of workers.

    Attributes
    ----------
    name : str
        Of the data.
    shared : str
        The table whose staleness is reported; all workers read and change it.
    observed : tuple of str
        The tables from which the objective follows.
    quantity : str
        What the objective is, for axes of figures.
    rising : bool
        Whether training makes the objective larger.
    """

    name: str
    shared: ClassVar[str]
    observed: ClassVar[tuple[str, ...]]
    quantity: ClassVar[str]
    rising: ClassVar[bool] = False

    @abc.abstractmethod
    def tables(self, access: str) -> list[nbps.Table]:
        """Return the tables with their first values, those that all workers change with this access."""

    @staticmethod
    @abc.abstractmethod
    def preload() -> None:
        """Compile the loops for the arrays that workers will give them."""

    @abc.abstractmethod
    def share(self, worker: Any, step: float, clocks_per_epoch: int, seed: int) -> Share:
        """Return the share of `worker`, in memory of its own, and touch what the first clock will touch.

        Parameters
        ----------
        worker : nbps.Worker
        step : float
            Size of steps, where the application has any.
        clocks_per_epoch : int
            A clock is this fraction of a worker's data.
        seed : int
            Of random numbers, where the application draws any.
        """

    @abc.abstractmethod
    def objective(self, values: Values) -> float:
        """Return the objective at these values of the tables observed."""

    @abc.abstractmethod
    def check(self, values: Values) -> None:
        """Raise `AssertionError` unless the values of all tables after the last clock fit each other."""


def deal(weights: npt.NDArray[np.int64], workers: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """Deal things out, in random order: return the worker of each, equally much for all, give or take a thing's."""
    order = random.permutation(weights.size)
    owner = np.empty(weights.size, np.int64)
    middle = np.cumsum(weights[order]) - weights[order] / 2
    owner[order] = np.minimum((middle * workers / weights.sum()).astype(np.int64), workers - 1)
    return owner


def cuts(count: int, parts: int) -> npt.NDArray[np.int64]:
    """Return where `count` things in order are cut into `parts` of equal size, shape (parts + 1,)."""
    return np.linspace(0, count, parts + 1).astype(np.int64)
