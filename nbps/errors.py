"""Errors of nbps.

Every error that a user can meet is an `Error`, and also the built-in kind that fits, so that
``except ValueError`` works as expected; only `AbortedError` stands apart. A message says what happened, to which
object, what was expected, what was found, and what to do. All of them pickle: they cross process boundaries.
"""

from __future__ import annotations


class Error(Exception):
    """Base class of all errors raised by nbps."""


class ConfigError(Error, ValueError):
    """An argument of a `Table`, `Job`, model or command cannot be used."""


class TableError(Error, ValueError):
    """A call on a table cannot be carried out: unknown name, bad ids, bad deltas."""


class DataError(Error, ValueError):
    """A data file cannot be read as what it should be."""


class NotFittedError(Error, ValueError, AttributeError):
    """A model is asked for what only training gives it."""


class SharedMemoryError(Error, MemoryError):
    """Shared memory is too small, or a segment is missing."""


class OutOfMemoryError(Error, MemoryError):
    """Data do not fit the memory that is free."""


class NotRecordedError(Error, LookupError):
    """A report is asked for what its job was told not to record."""


class JobClosedError(Error, RuntimeError):
    """A job or one of its tables is used before it started or after it ended."""


class WorkerError(Error, RuntimeError):
    """A worker failed in a way that cannot be raised here as it was raised there."""


class WorkerDiedError(WorkerError):
    """A worker process ended without an answer, for instance by ``kill -9``."""


class ClockTimeoutError(Error, TimeoutError):
    """A worker waited longer than the job's ``clock_timeout_s`` for the slowest one."""


class TransportError(Error, ConnectionError):
    """Nodes cannot reach each other, or do not accept each other."""


class ConnectionLostError(TransportError):
    """A connection to another node ended, or delivered what is not a frame; it is never used again."""


class NodeError(Error, RuntimeError):
    """The job ended on this node because of another one: lost, refused, or a failure there.

    Attributes
    ----------
    lost : int or None
        Rank of the node that was not heard any more, if that is why.
    """

    lost: int | None = None


class CheckpointError(Error, ValueError):
    """A checkpoint cannot be written, found or loaded."""


class ProtocolError(Error, RuntimeError):
    """The protocol between workers, nodes and their drivers was broken: here or elsewhere."""


class LocalProtocolError(ProtocolError):
    """A worker or node was driven against the protocol, or breaks an invariant: a bug of nbps or of its driver."""


class RemoteProtocolError(ProtocolError):
    """Another node sent what no node may send. It costs that node its connection, which is then made again."""


class AbortedError(BaseException):
    """Raised inside a worker when the job stops because of another worker or of the user.

    It may appear between any two lines of the user's function and ends the worker. Like `KeyboardInterrupt` it is not
    an `Exception`, so that a loop with ``except Exception`` does not go on; ``finally`` blocks run.
    """


class ConvergenceWarning(UserWarning):
    """A solver ended before it was as precise as it was asked to be."""
