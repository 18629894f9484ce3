"""The contract of a transport as a test class: subclass it, say which transport and where, and pytest does the rest.

For instance::

    from nbps.testing.transport.contract import TransportContract


    class TestCarrierPigeons(TransportContract):
        def transport(self):
            return PigeonTransport()

        def address(self):
            return "loft-1"

The other methods and the attributes are what you may change. Transports and options must pickle, since some tests start
a process that connects back. Everything is driven by the loop that `nbps.transport.interface` asks for. Needs pytest.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import select
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection as Pipe
from typing import Any, ClassVar

import numpy as np
import pytest

from nbps.errors import ConnectionLostError, TransportError
from nbps.testing.transport.ends import LIMIT_S, SHORT, Echo, End, accepted, drive, left_behind, payload, serve
from nbps.transport.interface import Connection, Options, Transport

_FRAME_LIMIT = 64 << 20
_LENGTHS = (0, 1, 7, 8, 31, 32, 33, 127, 128, 129, 1000, 4096, 8191, 8193, 65_503, 65_537, 300_001, 1 << 20, 5_000_003)
# What a transport may hold at most besides its queue, in the buffers of the system.
_BEYOND_QUEUE = 64 << 20


class TransportContract:
    """What `nbps.transport.interface` promises, whatever carries the bytes.

    Attributes
    ----------
    crosses_processes : bool
        Whether the two ends can be in two processes.
    """

    crosses_processes: ClassVar[bool] = True

    def transport(self) -> Transport:
        """Return the transport."""
        raise NotImplementedError

    def address(self) -> str:
        """Return an address of this machine that nobody listens at; one where the system chooses will do."""
        raise NotImplementedError

    def options(self, **fields: Any) -> Options:
        """Return options with these fields, and with what the transport needs besides."""
        return Options(**{"frame_limit": _FRAME_LIMIT, **fields})

    @contextlib.contextmanager
    def ends(self, **fields: Any) -> Iterator[tuple[End, End]]:
        """Give the end of who connected and the one of who listened; options have these `fields`."""
        with contextlib.closing(self.transport().listen(self.address(), self.options(**fields))) as listener:
            first = self.transport().connect(listener.address, self.options(**fields), LIMIT_S)
            second = accepted(listener)
        with contextlib.closing(first), contextlib.closing(second):
            yield End(first), End(second)

    @contextlib.contextmanager
    def peer(self, task: str, listens: bool = False) -> Iterator[tuple[End, Any, Pipe]]:
        """Give a connection to another process that does `task`, the process, and a pipe on which it says ``done``."""
        if not self.crosses_processes:
            pytest.skip("this transport stays within a process")
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        with ours, contextlib.ExitStack() as stack:
            listener = None
            address = self.address()
            if not listens:
                listener = stack.enter_context(contextlib.closing(self.transport().listen(address, self.options())))
                address = listener.address
            arguments = (self.transport(), self.options(), address, listens, task, theirs)
            process = context.Process(target=serve, args=arguments)
            process.start()
            theirs.close()
            stack.callback(process.close)
            stack.callback(process.join)
            stack.callback(process.kill)
            if listener is not None:
                connection = accepted(listener)
            else:
                assert ours.poll(LIMIT_S)
                connection = self.transport().connect(ours.recv_bytes().decode(), self.options(), LIMIT_S)
            yield End(stack.enter_context(contextlib.closing(connection))), process, ours

    # ------------------------------------------------------------------ frames

    def test_frames_arrive_whole_and_in_order(self) -> None:
        """Frames from 0 bytes to 5 MB, in a wild order, in both directions at once."""
        lengths = random.Random(0).choices(_LENGTHS, k=60) + list(_LENGTHS)
        there = [payload(n, length) for n, length in enumerate(lengths)]
        back = [payload(-n - 1, length) for n, length in enumerate(reversed(lengths))]
        with self.ends() as (first, second):
            first.outbox.extend((frame,) for frame in there)
            second.outbox.extend((frame,) for frame in back)
            drive(first, second, until=lambda: len(first.frames) >= len(back) and len(second.frames) >= len(there))
            drive(first, second, until=lambda: first.idle and second.idle)
            assert [frame.tobytes() for frame in second.frames] == there
            assert [frame.tobytes() for frame in first.frames] == back

    def test_many_short_frames_arrive_once_and_in_order(self) -> None:
        """As many as are in one packet, and across the ends of every buffer."""
        sent = [payload(n, n * 31 % 211) for n in range(20_000)]
        with self.ends() as (first, second):
            first.outbox.extend((frame,) for frame in sent)
            drive(first, second, until=lambda: len(second.frames) >= len(sent) or second.lost is not None)
            assert [frame.tobytes() for frame in second.frames] == sent
            second.turn()
            assert len(second.frames) == len(sent)

    @pytest.mark.parametrize("length", [10, 100_000])
    def test_parts_of_every_kind_make_one_frame(self, length: int) -> None:
        """Bytes, byte arrays, views and arrays, writable or not, empty ones between: their concatenation arrives."""
        data = payload(1, length)
        array = np.frombuffer(data, np.uint8)
        parts = (data, b"", bytearray(data), memoryview(data), array, array.copy(), np.empty(0, np.uint8), data[:3])
        with self.ends() as (first, second):
            first.outbox.extend([parts, (), (b"",), parts[::-1]])
            drive(first, second, until=lambda: len(second.frames) == 4)
            assert [frame.tobytes() for frame in second.frames] == [5 * data + data[:3], b"", b"", data[:3] + 5 * data]

    def test_a_frame_may_have_many_parts(self) -> None:
        """More than a system takes at once."""
        rows = [payload(n, 100) for n in range(3000)]
        with self.ends() as (first, second):
            first.outbox.extend([tuple(rows), (b"next",)])
            drive(first, second, until=lambda: len(second.frames) == 2)
            assert [frame.tobytes() for frame in second.frames] == [b"".join(rows), b"next"]

    @pytest.mark.parametrize("length", [10, 100_000])
    def test_what_arrives_belongs_to_the_receiver(self, length: int) -> None:
        """It is a writable uint8 array that neither later frames nor the sender change."""
        sent = bytearray(payload(1, length))
        with self.ends() as (first, second):
            first.outbox.append((sent,))
            drive(first, second, until=lambda: first.idle and len(second.frames) == 1)
            (frame,) = second.frames
            before = bytes(sent)
            sent[:] = bytes(length)
            first.outbox.extend([(payload(n, length),) for n in range(20)])
            drive(first, second, until=lambda: len(second.frames) == 21)
            assert frame.tobytes() == before
            assert frame.dtype == np.uint8
            assert frame.shape == (length,)
            frame[:] = 0

    def test_counts_agree(self) -> None:
        """Both ends count the same bytes, headers included."""
        with self.ends() as (first, second):
            first.outbox.extend((payload(n, length),) for n, length in enumerate(_LENGTHS))
            drive(first, second, until=lambda: len(second.frames) == len(_LENGTHS))
            drive(first, second, until=lambda: first.idle)
            assert first.connection.bytes_sent == second.connection.bytes_received >= sum(_LENGTHS)
            assert second.connection.bytes_sent == first.connection.bytes_received == 0

    # ------------------------------------------------------------------ limits

    def test_a_receiver_that_does_not_read_stops_the_sender(self) -> None:
        """Frames are refused at some point; who reads then gets all that were taken, and there is room again."""
        length = 100_000
        sent = 0
        with self.ends(queue_bytes=1 << 20) as (first, second):
            second.reading = False
            # A connection that sets itself up when it is used needs both ends for that.
            drive(first, second, until=lambda: True)
            while first.connection.send(payload(sent, length)):
                sent += 1
                second.turn()
                assert sent * length < _BEYOND_QUEUE + (1 << 20), "the queue has no limit"
            first.outbox.append((payload(sent, length),))
            second.reading = True
            drive(first, second, until=lambda: len(second.frames) > sent)
            for number, frame in enumerate(second.frames):
                assert frame.tobytes() == payload(number, length)

    def test_refused_frames_are_not_sent(self) -> None:
        """Of two kinds of frames, only those arrive that were taken."""
        taken = []
        with self.ends(queue_bytes=1 << 16) as (first, second):
            second.reading = False
            for number in range(4000):
                frame = payload(number, (10, 40_000)[number % 2])
                if first.connection.send(frame):
                    taken.append(frame)
                second.turn()
            assert len(taken) < 4000
            first.outbox.append((b"the end",))
            second.reading = True
            drive(first, second, until=lambda: bool(second.frames) and second.frames[-1].tobytes() == b"the end")
            assert [frame.tobytes() for frame in second.frames[:-1]] == taken

    def test_one_frame_fits_always(self) -> None:
        """Also one that is longer than the whole queue may be."""
        sent = [payload(n, 3 << 20) for n in range(3)]
        with self.ends(queue_bytes=1) as (first, second):
            for n, frame in enumerate(sent):
                assert first.connection.send(frame)
                drive(first, second, until=lambda n=n: len(second.frames) > n)  # type: ignore[misc]
                drive(first, second, until=lambda: first.idle)
            assert [frame.tobytes() for frame in second.frames] == sent

    def test_a_frame_may_be_as_long_as_the_limit_and_no_longer(self) -> None:
        """One byte more ends the connection, at both ends, with an error that names the limit."""
        with self.ends(frame_limit=1000) as (first, second):
            first.outbox.extend([(payload(1, 1000),), (payload(2, 1001),), (payload(3, 10),)])
            drive(first, second, until=lambda: first.lost is not None and second.lost is not None)
            assert [frame.tobytes() for frame in second.frames] == [payload(1, 1000)]
            assert "1,001" in str(second.lost)
            assert "1,000" in str(second.lost)

    def test_the_limit_can_be_raised_between_two_frames(self) -> None:
        """Who greets and then raises it receives what may have arrived together with the greeting."""
        with self.ends(frame_limit=100) as (first, second):
            second.reading = False
            first.outbox.extend([(b"greeting",), (payload(1, 200_000),)])
            drive(first, second, until=lambda: not first.outbox)
            while (greeting := second.connection.receive()) is None:
                poller = select.poll()
                poller.register(second.connection.fileno(), select.POLLIN)
                poller.poll(10)
                first.turn()
            assert greeting.tobytes() == b"greeting"
            second.connection.frame_limit = 200_000
            second.reading = True
            drive(first, second, until=lambda: bool(second.frames) or second.lost is not None)
            assert [frame.tobytes() for frame in second.frames] == [payload(1, 200_000)]

    # ------------------------------------------------------------------ load

    @pytest.mark.parametrize("queue_bytes", [1 << 14, 1 << 24])
    def test_both_directions_at_once_from_two_threads(self, queue_bytes: int) -> None:
        """Two nodes that send as fast as they can do not block each other, however short their queues."""
        sent = [payload(n, n * 7919 % 60_000) for n in range(1000)]

        def work(end: End) -> None:
            drive(end, until=lambda: end.lost is not None or (end.idle and len(end.frames) >= len(sent)))

        with self.ends(queue_bytes=queue_bytes) as ends:
            for end in ends:
                end.outbox.extend((frame,) for frame in sent)
            threads = [threading.Thread(target=work, args=(end,)) for end in ends]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            for end in ends:
                assert [frame.tobytes() for frame in end.frames] == sent

    def test_many_connections_do_not_mix(self) -> None:
        """Thirty nodes connect to one; each frame comes back to who sent it."""
        count, rounds = 30, 20
        near, far = [], []
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(contextlib.closing(self.transport().listen(self.address(), self.options())))
            for n in range(count):
                sent = [(payload(n * rounds + k, 500 * k),) for k in range(rounds)]
                first = self.transport().connect(listener.address, self.options(), LIMIT_S)
                near.append(End(stack.enter_context(contextlib.closing(first)), sent))
                far.append(Echo(stack.enter_context(contextlib.closing(accepted(listener)))))
            drive(*near, *far, until=lambda: all(len(end.frames) == rounds for end in near))
        for n, end in enumerate(near):
            assert [f.tobytes() for f in end.frames] == [payload(n * rounds + k, 500 * k) for k in range(rounds)]

    def test_an_idle_connection_lets_its_loop_sleep(self) -> None:
        """When all has been received the descriptor does not poll readable, and nothing wants to be written."""
        with self.ends() as (first, second):
            first.outbox.append((b"x",))
            drive(first, second, until=lambda: len(second.frames) == 1)
            second.outbox.append((b"y",))
            drive(first, second, until=lambda: len(first.frames) == 1)
            for _ in range(10):
                poller = select.poll()
                first.register(poller)
                second.register(poller)
                events = poller.poll(20)
                first.turn()
                second.turn()
            assert events == []
            assert first.idle
            assert second.idle

    # ------------------------------------------------------------------ the end

    def test_close_wakes_a_reader(self) -> None:
        """A thread that sleeps until something arrives learns that the other end closed."""
        with self.ends() as (first, second):
            first.outbox.append((b"x",))
            drive(first, second, until=lambda: len(second.frames) == 1)
            reader = threading.Thread(target=drive, args=(second,), kwargs={"until": lambda: second.lost is not None})
            reader.start()
            first.connection.close()
            reader.join()
            assert first.connection.peer
            assert second.connection.peer in str(second.lost)

    @pytest.mark.parametrize("writes", [False, True])
    def test_what_was_sent_before_the_end_arrives(self, writes: bool) -> None:
        """Then, not before, comes the error: also if the receiver writes to who is gone, and was written to."""
        with self.ends() as (first, second):
            first.outbox.append((b"hello",))
            second.outbox.append((b"hello",))
            drive(first, second, until=lambda: bool(first.frames) and bool(second.frames))
            second.frames.clear()
            second.reading = False
            second.outbox.append((payload(1, 10_000),))
            drive(second, until=lambda: second.idle)  # what the end does not read
            first.reading = False
            first.outbox.extend(SHORT)
            drive(first, until=lambda: first.idle)
            first.connection.close()
            for n in range(20 if writes else 0):
                assert second.connection.send(payload(n, 1000))
                second.connection.flush()
            second.reading = True
            drive(second, until=lambda: second.lost is not None)
            assert [(frame.tobytes(),) for frame in second.frames] == SHORT

    @pytest.mark.parametrize("who", ["closed here", "closed there"])
    def test_after_the_end_every_call_raises(self, who: str) -> None:
        """Whichever end closed: sending, flushing, receiving and the descriptor raise, closing does nothing."""
        with self.ends() as (first, second):
            second.connection.close()
            end = second
            if who == "closed there":
                end = first
                drive(first, until=lambda: first.lost is not None)
            calls: list[Callable[[], object]] = [
                lambda: end.connection.send(b"x"),
                end.connection.flush,
                end.connection.receive,
                end.connection.fileno,
            ]
            for call in calls * 2:
                with pytest.raises(ConnectionLostError, match="closed"):
                    call()
                end.connection.close()

    @pytest.mark.parametrize("listens", [False, True], ids=["it connects", "it listens"])
    def test_a_killed_process_is_noticed(self, listens: bool) -> None:
        """What it had sent arrives, then the error; the kill happens before anything is read."""
        with self.peer("send", listens) as (end, process, pipe):
            end.outbox.append((b"begin",))
            drive(end, until=lambda: end.idle)
            while not pipe.poll(0.01):
                # Only the connection itself may need this end: frames stay where they are.
                end.connection.flush()
            process.kill()
            process.join()
            end.reading = True
            drive(end, until=lambda: end.lost is not None)
            assert [(frame.tobytes(),) for frame in end.frames] == SHORT

    def test_a_process_killed_while_it_sends_leaves_whole_frames(self) -> None:
        """A beginning of what it sent arrives in order, and of the frame in which it died nothing."""
        with self.peer("flood") as (end, process, _):
            drive(end, until=lambda: len(end.frames) > 300 or end.lost is not None)
            process.kill()
            drive(end, until=lambda: end.lost is not None)
            assert len(end.frames) > 300
            for number, frame in enumerate(end.frames):
                assert frame.tobytes() == payload(number, number * 997 % 50_000)

    def test_a_killed_process_ends_who_waits_to_send(self) -> None:
        """A queue that is full because the other process does not read does not hang when that is killed."""
        with self.peer("ignore") as (end, process, pipe):
            assert pipe.poll(LIMIT_S)
            length = 0
            while end.connection.send(bytes(100_000)):
                length += 100_000
                assert length < _BEYOND_QUEUE + Options().queue_bytes, "the queue has no limit"
                if not length % 10_000_000:
                    end.turn()
            process.kill()
            drive(end, until=lambda: end.lost is not None)
            assert end.frames == []

    def test_frames_cross_processes(self) -> None:
        """Another process sends back what it gets."""
        sent = [payload(n, length) for n, length in enumerate(_LENGTHS)]
        with self.peer("echo") as (end, _, _):
            end.outbox.extend((frame,) for frame in sent)
            drive(end, until=lambda: len(end.frames) == len(sent) or end.lost is not None)
            assert [frame.tobytes() for frame in end.frames] == sent

    # ------------------------------------------------------------------ finding each other

    def test_nobody_listens(self) -> None:
        """Connecting gives up in time, and says where it tried."""
        listener = self.transport().listen(self.address(), self.options())
        address = listener.address
        listener.close()
        for timeout_s in (0.0, 0.2):
            with pytest.raises(TransportError, match="nobody answers") as caught:
                self.transport().connect(address, self.options(), timeout_s)
            assert address in str(caught.value)

    def test_connecting_waits_for_a_listener(self) -> None:
        """Nodes start in any order."""
        listener = self.transport().listen(self.address(), self.options())
        address = listener.address
        listener.close()
        found: list[Connection] = []
        connecting = threading.Thread(
            target=lambda: found.append(self.transport().connect(address, self.options(), LIMIT_S))
        )
        connecting.start()
        time.sleep(0.1)
        with contextlib.closing(self.transport().listen(address, self.options())) as listener:
            with contextlib.closing(accepted(listener)) as connection:
                connecting.join()
                assert connection.send(b"welcome")
                end = End(found[0])
                other = End(connection)
                drive(end, other, until=lambda: bool(end.frames))
            found[0].close()

    def test_an_address_is_listened_at_once(self) -> None:
        """A second listener is refused while the first lives, not afterwards, also if connections of it remain."""
        first = self.transport().listen(self.address(), self.options())
        with pytest.raises(TransportError, match="cannot listen at"):
            self.transport().listen(first.address, self.options())
        one = self.transport().connect(first.address, self.options(), LIMIT_S)
        other = accepted(first)
        first.close()
        first.close()
        again = self.transport().listen(first.address, self.options())
        end = End(other, [(b"still here",)])
        back = End(one)
        drive(end, back, until=lambda: bool(back.frames))
        for thing in (again, one, other):
            thing.close()

    def test_nobody_to_accept(self) -> None:
        """Accepting does not wait, and the descriptor sleeps, before and after somebody came."""
        with contextlib.closing(self.transport().listen(self.address(), self.options())) as listener:
            for _ in range(2):
                assert listener.accept() is None
                assert not select.select([listener], [], [], 0)[0]
                first = self.transport().connect(listener.address, self.options(), LIMIT_S)
                accepted(listener).close()
                first.close()

    def test_who_was_not_accepted_learns_that_the_listener_closed(self) -> None:
        """A connection in front of a closed door ends."""
        listener = self.transport().listen(self.address(), self.options())
        end = End(self.transport().connect(listener.address, self.options(), LIMIT_S))
        listener.close()
        drive(end, until=lambda: end.lost is not None)

    def test_an_empty_address_is_refused(self) -> None:
        """As one where nobody can listen."""
        with pytest.raises(TransportError):
            self.transport().listen("", self.options())
        with pytest.raises(TransportError):
            self.transport().connect("", self.options(), 0.0)

    def test_nothing_is_left_behind(self) -> None:
        """No descriptor, thread or segment: after a close, after a loss without one, and after a failed attempt."""

        def once() -> None:
            with self.ends() as (first, second):
                first.outbox.append((payload(1, 100_000),))
                drive(first, second, until=lambda: bool(second.frames))
            with self.ends() as (first, second):
                first.outbox.append((payload(1, 10),))
                drive(first, second, until=lambda: bool(second.frames))
                first.connection.close()
                drive(second, until=lambda: second.lost is not None)
            listener = self.transport().listen(self.address(), self.options())
            with pytest.raises(TransportError):
                self.transport().listen(listener.address, self.options())
            listener.close()
            with pytest.raises(TransportError):
                self.transport().connect(listener.address, self.options(), 0.0)

        once()  # what a transport makes once and keeps
        before = left_behind()
        for _ in range(5):
            once()
        assert left_behind() <= before
