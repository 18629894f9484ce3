"""Strangers, slow clients and servers of others do not hold a job up."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from dataclasses import replace

import pytest

from nbps.errors import TransportError
from nbps.transport.addresses import split_address
from nbps.transport.mesh import calling as calling_module
from nbps.transport.mesh import reception as reception_module
from support.meeting import (
    Opening,
    close_links,
    links,
    opened,
    places,
)
from support.strangers import SECRET, announcement, running, said_to, stranger

STRANGERS = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "garbage": bytes(range(256)) * 10,
    "a frame of 2**63 bytes": announcement(2**63),
    "a frame of 64 KiB and one": announcement((1 << 16) + 1),
}


@pytest.mark.parametrize("said", STRANGERS.values(), ids=STRANGERS.keys())
def test_strangers_are_turned_away(said, caplog):
    """What is no frame ends that connection with a log line, at every node, and harms nothing."""
    caplog.set_level(logging.WARNING, "nbps.transport")
    with running() as (_, meshes, made):
        for member in meshes[0]._members:
            caller = stranger(member.address)
            caller.sendall(said)
            assert said_to(caller) == b""
    assert made == [[], []]
    for rank in (0, 1):
        assert f"node {rank} refused a connection from 127.0.0.1:" in caplog.text


def test_a_job_starts_among_strangers():
    """HTTP, garbage, long frames and silence at the rendezvous while the nodes come."""
    where = places(3, secret=SECRET)
    first = Opening(where[0])
    callers = []
    while not callers:
        with contextlib.suppress(ConnectionRefusedError):
            callers.append(stranger(where[0].rendezvous))
    for said in STRANGERS.values():
        callers.append(stranger(where[0].rendezvous))
        callers[-1].sendall(said)
    results = [opening.finish() for opening in [first, Opening(where[1]), Opening(where[2])]]
    close_links(links(results))
    for result in results:
        result.mesh.close()
    for caller in callers:
        caller.close()


def test_silent_and_slow_clients_are_dropped_at_the_deadline(monkeypatch, caplog):
    """Who says nothing, and who says a little for ever, has the same time as everybody."""
    monkeypatch.setattr(reception_module, "DEADLINE_S", 0.5)
    with running() as (where, meshes, _):
        silent, slow = stranger(where[0].rendezvous), stranger(where[0].rendezvous)
        header = announcement(60_000)
        ended = threading.Event()

        def drip():
            with contextlib.suppress(OSError):
                for byte in header + bytes(60_000):
                    slow.send(bytes([byte]))
                    if ended.wait(0.02):
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            assert said_to(silent) == b""
            assert said_to(slow) == b""
        finally:
            ended.set()
            thread.join()
        while meshes[0]._reception._guests:
            time.sleep(0.01)
    assert caplog.text.count("nothing proved within 0.5 s") == 2


def test_two_hundred_strangers_do_not_keep_a_node_out(monkeypatch):
    """Silent connections are bounded, the oldest make room, and a node gets back in while all of them wait."""
    monkeypatch.setattr(reception_module, "DEADLINE_S", 1000)
    with running() as (where, meshes, made):
        callers = [stranger(where[0].rendezvous) for _ in range(200)]
        meshes[1].lost(0)
        while not made[0] or not made[1]:
            assert len(meshes[0]._reception._guests) <= reception_module.GUESTS
        for caller in callers:
            caller.close()


def test_a_stream_of_strangers_does_not_keep_a_job_from_starting():
    """The same at the rendezvous, while they keep coming."""
    where = places(3, secret=SECRET)
    first = Opening(where[0])
    ended = threading.Event()

    def crowd():
        callers = []
        while not ended.is_set():
            with contextlib.suppress(ConnectionRefusedError, ConnectionResetError):
                callers.append(stranger(where[0].rendezvous))
            if len(callers) > 200:
                callers.pop(0).close()
        for caller in callers:
            caller.close()

    thread = threading.Thread(target=crowd)
    thread.start()
    try:
        results = [opening.finish() for opening in [first, Opening(where[1]), Opening(where[2])]]
        mine = links(results)
    finally:
        ended.set()
        while thread.is_alive():  # the last of them waits to be accepted
            if first.opened.error is None:
                first.opened.mesh.poll()
            thread.join(0.01)
    close_links(mine)
    for result in results:
        result.mesh.close()


def test_strangers_do_not_fill_the_log(caplog):
    """After a hundred refusals only each hundredth is logged, and that is said."""
    with running() as (where, meshes, _):
        for _ in range(350):
            caller = stranger(where[0].rendezvous)
            caller.sendall(STRANGERS["garbage"])
            said_to(caller)
        while meshes[0]._reception._guests:
            time.sleep(0.01)
    lines = [record.getMessage() for record in caplog.records if record.name == "nbps.transport"]
    assert len(lines) == 100 + 1 + 2
    assert lines[100] == "node 0 goes on to log each 100th refusal only"


def test_a_silent_server_at_the_rendezvous(monkeypatch):
    """Something else listens there and says nothing: an error that says so, after the time for the start."""
    monkeypatch.setattr(calling_module, "DEADLINE_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with opened([replace(places(2, start_timeout_s=0.5)[1], rendezvous=address)]) as (result,):
            assert type(result.error) is TransportError
            assert f"{address} took the connection, but said nothing for 0.3 s" in str(result.error)


def test_a_web_server_at_the_rendezvous():
    """What answers is quoted."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        opening = Opening(replace(places(2, start_timeout_s=2)[1], rendezvous=address))
        server.settimeout(0.1)
        while opening.waits:
            with contextlib.suppress(TimeoutError):
                accepted, _ = server.accept()
                with contextlib.suppress(OSError):
                    accepted.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                accepted.close()
        result = opening.finish()
        assert type(result.error) is TransportError
        assert address in str(result.error)


def test_no_descriptors_left_is_no_end_of_the_job(caplog):
    """When the system can give no socket, accepting pauses, says so, and goes on."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with running() as (where, meshes, made):
        callers = [socket.socket() for _ in range(3)]
        lowest_free = max(caller.fileno() for caller in callers) + 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        try:
            callers[0].connect(split_address(where[0].rendezvous))
            while "trying again" not in caplog.text:
                time.sleep(0.01)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        meshes[1].lost(0)
        while not made[0] or not made[1]:
            time.sleep(0.01)
        for caller in callers:
            caller.close()
