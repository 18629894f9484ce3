"""A stand-in for a job of several nodes: ``talkers.py <what> ...`` runs once for each, and knows its place as nodes do.

Node 0 listens at the rendezvous; the others connect to it and send their rank and so many bytes, which it sends back.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

LIMIT_S = 60

nodes, rank = int(os.environ["NBPS_NODES"]), int(os.environ["NBPS_NODE_RANK"])
host, _, port = os.environ["NBPS_RENDEZVOUS"].rpartition(":")


def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def receive(source, count):
    got = b""
    while len(got) < count and (part := source.recv(count - len(got))):
        got += part
    return got


def listen(count):
    with socket.create_server((host, int(port))) as server:
        server.settimeout(LIMIT_S)
        say("listening")
        came = []
        for _ in range(nodes - 1):
            served, _ = server.accept()
            served.settimeout(LIMIT_S)
            with served:
                came.append(receive(served, 1)[0])
                served.sendall(receive(served, count))
        say("came", sorted(came))


def connect(count):
    limit = time.monotonic() + LIMIT_S
    while True:
        try:
            ours = socket.create_connection((host, int(port)), timeout=LIMIT_S)
            break
        except ConnectionRefusedError:
            if time.monotonic() > limit:
                raise
            time.sleep(0.01)
    with ours:
        ours.sendall(bytes([rank]))
        ours.sendall(bytes(count))
        say("back", len(receive(ours, count)))


def main(what, *arguments):
    if what == "talk":
        (listen if rank == 0 else connect)(int(arguments[0]))
    elif what == "family":  # a process that outlives its parent, and one that ignores what can be ignored
        subprocess.Popen([sys.executable, __file__, "orphan"])
        say("started")
    elif what == "orphan":
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        say("orphan")
        time.sleep(600)
    elif what == "once more":  # the first time it waits for ever, then it ends
        first = not Path(arguments[0]).exists()
        Path(arguments[0]).touch()
        say("first" if first else "second")
        time.sleep(600 if first else 0)
    elif what == "fail":
        say("about to")
        raise RuntimeError("as told")
    elif what == "job":
        import nbps

        def work(worker):
            say("worker", worker.rank, os.getpid())
            while True:
                worker.clock()

        with nbps.Job([nbps.Table("t", 4, 4)], workers=2) as job:
            job.run(work)


main(*sys.argv[1:])
