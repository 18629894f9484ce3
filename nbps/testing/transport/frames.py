"""Frames of a connection that lives: whole, in order, bounded, and many at a time."""

from __future__ import annotations

import contextlib
import random
import select
import threading

import numpy as np
import pytest

from nbps.testing.transport.ends import LIMIT_S, Echo, End, accepted, drive, payload
from nbps.testing.transport.subject import BEYOND_QUEUE, LENGTHS, Subject


class FrameContract(Subject):
    """Frames arrive whole, unchanged, in order, none twice; queues are bounded, and nobody blocks."""

    def test_frames_arrive_whole_and_in_order(self) -> None:
        """Frames from 0 bytes to 5 MB, in a wild order, in both directions at once."""
        lengths = random.Random(0).choices(LENGTHS, k=60) + list(LENGTHS)
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
            first.outbox.extend((payload(n, length),) for n, length in enumerate(LENGTHS))
            drive(first, second, until=lambda: len(second.frames) == len(LENGTHS))
            drive(first, second, until=lambda: first.idle)
            assert first.connection.bytes_sent == second.connection.bytes_received >= sum(LENGTHS)
            assert second.connection.bytes_sent == first.connection.bytes_received == 0

    def test_a_receiver_that_does_not_read_stops_the_sender(self) -> None:
        """Frames are refused at some point; a receiver that reads then gets all that were taken, and there is room."""
        length = 100_000
        sent = 0
        with self.ends(queue_bytes=1 << 20) as (first, second):
            second.reading = False
            # A connection that sets itself up when it is used needs both ends for that.
            drive(first, second, until=lambda: True)
            while first.connection.send(payload(sent, length)):
                sent += 1
                second.turn()
                assert sent * length < BEYOND_QUEUE + (1 << 20), "the queue has no limit"
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
        """One that greets and then raises it receives what may have arrived together with the greeting."""
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
        """Thirty nodes connect to one; each frame comes back to its sender."""
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
