"""The end of a connection: by a close, by a kill, seen from both sides."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from nbps.errors import ConnectionLostError
from nbps.testing.transport.ends import LIMIT_S, SHORT, drive, payload
from nbps.testing.transport.subject import BEYOND_QUEUE, LENGTHS, Subject
from nbps.transport.interface import Options


class EndContract(Subject):
    """What was sent before the end arrives, then the error, also at an end that writes or sleeps."""

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
        """Then, not before, comes the error: also if the receiver writes to an end that is gone, and was written to."""
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
                assert length < BEYOND_QUEUE + Options().queue_bytes, "the queue has no limit"
                if not length % 10_000_000:
                    end.turn()
            process.kill()
            drive(end, until=lambda: end.lost is not None)
            assert end.frames == []

    def test_frames_cross_processes(self) -> None:
        """Another process sends back what it gets."""
        sent = [payload(n, length) for n, length in enumerate(LENGTHS)]
        with self.peer("echo") as (end, _, _):
            end.outbox.extend((frame,) for frame in sent)
            drive(end, until=lambda: len(end.frames) == len(sent) or end.lost is not None)
            assert [frame.tobytes() for frame in end.frames] == sent
