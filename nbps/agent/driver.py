"""The driver's side of the agent: tells it when runs begin, and learns how they end."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from multiprocessing.connection import Connection, wait

from nbps.agent.spec import AgentSpec, Close, Ended, Fail, Joined, Run, RunDone, Terminate, Traffic
from nbps.errors import CheckpointError, NodeError
from nbps.runtime.group import Listen, WorkerGroup
from nbps.transport.mesh.place import Place

_DYING_S = 5.0


def serve_agent(rank: int, spec: AgentSpec) -> None:
    """Be the agent of this node, in a process of its own, until the job is over."""
    from nbps.agent.process import serve

    serve(spec)


class AgentControl:
    """What a driver holds of its node's agent: the sockets to it, and the descriptor that wakes it.

    Attributes
    ----------
    doorbell : int
        An eventfd that workers and agent inherit.
    remote : int
        The agent's end of the sockets, until the agent has it and nobody else.
    traffic : Traffic
        As told after the last run.
    attempt : str
        What all nodes call this life of the job.
    addresses : tuple of str
        Where each node listens.
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.connection = Connection(ours.detach())
        self.remote = theirs.detach()
        self.doorbell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.traffic = Traffic()
        self.attempt = ""
        self.addresses: tuple[str, ...] = ()
        self._place: Place | None = None
        self._is_closed = False
        self._process = -1  # descriptor that polls readable when the agent has ended
        self._workers: tuple[int, ...] | None = None
        self._done = True

    def begin(self) -> None:
        """Tell the agent that a run begins; the board has been reset."""
        self._done = False
        self._say(Run())

    def fail(self, reason: str, gone: bool) -> None:
        """Have all nodes told why this one cannot go on, and end the agent; if `gone`, they may go on without it.

        An agent that was killed can tell nobody: then this process does.
        """
        self._say(Fail(reason, gone))
        if gone and self._place is not None and self.addresses and self._has_died():
            from nbps.transport.mesh.farewell import say_farewell

            say_farewell(self._place, self.addresses, reason)

    def _has_died(self) -> bool:
        """Whether the agent ends without an answer to `Fail`; where the supervisor was killed, it is about to."""
        if self.connection.closed:  # `listen` has found its end
            return True
        until = time.monotonic() + _DYING_S
        while ready := wait([self._process, self.connection], max(0.0, until - time.monotonic())):
            if self._process in ready:
                return True
            try:
                if isinstance(self.connection.recv(), Ended):
                    return False
            except (EOFError, OSError):
                return True
        return False

    def terminate(self) -> None:
        """Have the job saved as soon as it can be, on all nodes, and ended; a signal handler may call this."""
        self._say(Terminate())  # one system call: what it interrupts is said before or after it

    def _say(self, message: Run | Fail | Terminate | Close) -> None:
        with contextlib.suppress(OSError):  # it has ended, which is noticed where its answers are awaited
            self.connection.send(message)

    def listen(self) -> None:
        """Take one message of the agent, which is there.

        Raises
        ------
        NodeError
            If the job has ended and a run is not done; else the next one is told again.
        CheckpointError
            If it has because some node could not write its part of a checkpoint.
        """
        try:
            message = self.connection.recv()
        except (EOFError, OSError):
            self.connection.close()  # its process has ended: the supervisor tells how
            return
        if isinstance(message, Joined):
            self._workers = message.workers
            self.attempt, self.addresses = message.attempt, message.addresses
        elif isinstance(message, RunDone):
            self.traffic = message.traffic
            self._done = True
        elif isinstance(message, Ended) and not self._done:
            if message.unsaved:
                raise CheckpointError(message.reason)
            error = NodeError(message.reason)
            error.lost = message.lost
            raise error

    @property
    def listener(self) -> Listen:
        """What `WorkerGroup` is to listen to while it waits."""
        return self.connection, self.listen

    def is_done(self) -> bool:
        """Whether the run that began last is over everywhere."""
        return self._done

    def join(self, group: WorkerGroup, rank: int, spec: AgentSpec) -> tuple[int, ...]:
        """Start the agent as companion `rank` of `group`; return the workers of each node when all have been found.

        Raises
        ------
        NodeError, TransportError
            If nodes are missing, refuse each other, or define other tables.
        """
        self._close_remote()
        self._place = spec.place
        self._process = os.pidfd_open(group.pids[rank])
        group.accompany(rank, serve_agent, spec)
        group.wait_for(self.listener, lambda: self._workers is not None)
        assert self._workers is not None
        return self._workers

    def close(self) -> None:
        """Have the agent end. Idempotent."""
        if not self._is_closed:
            self._is_closed = True
            self._say(Close())
            self.connection.close()
            self._close_remote()
            os.close(self.doorbell)
            if self._process >= 0:
                os.close(self._process)

    def _close_remote(self) -> None:
        """Close the agent's side here: else this process would not hear that the agent has ended."""
        if self.remote >= 0:
            os.close(self.remote)
            self.remote = -1
