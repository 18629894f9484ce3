"""Checkpoints for tests: two small tables with awkward names and numbers, saved by any number of nodes.

Run as a script, it is a process of a test: ``node`` writes the checkpoints of one node, ``kill`` writes one checkpoint
again and again, each time in a process that kills itself one step later, ``full`` fills a disk, ``memory`` measures.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np

from nbps.checkpoint import format as form
from nbps.checkpoint import store as checkpoint_store
from nbps.checkpoint.load import latest, load
from nbps.checkpoint.writer import CheckpointWriter

TABLES = {
    "items": {"rows": 23, "width": 3, "dtype": "float32", "access": "cached", "sharding": {"virtual": 64}},
    "../été/1": {"rows": 7, "width": 1, "dtype": "int64"},
}


@contextlib.contextmanager
def folder_in_memory():
    """Make a folder where thousands of small files are written in seconds, whatever the disk is doing."""
    with tempfile.TemporaryDirectory(prefix="nbps-test-", dir="/dev/shm") as folder:
        yield Path(folder)


def contents(seed, tables=TABLES):
    """Values of every table made of random bytes, NaN of all kinds among them."""
    made = {}
    for number, (name, table) in enumerate(tables.items()):
        size = table["rows"] * table["width"] * np.dtype(table["dtype"]).itemsize
        drawn = np.random.default_rng([seed, number]).integers(0, 256, size, np.uint8)
        made[name] = drawn.view(table["dtype"]).reshape(table["rows"], table["width"])
    return made


def part_of(made, rank, nodes):
    """Return the rows that node `rank` owns: every other row of the first table, the others in runs and backwards."""
    owned = {}
    for number, (name, values) in enumerate(made.items()):
        everything = np.arange(len(values))
        rows = everything[rank::nodes] if number == 0 else np.array_split(everything, nodes)[rank][::-1]
        owned[name] = (rows, values[rows])
    return owned


def save(root, attempt, clock, nodes, *, seed=None, keep=None, state=None, tables=TABLES):
    """Save one checkpoint from this process, by all its nodes one after the other; the clock is the seed."""
    made = contents(clock if seed is None else seed, tables)
    writers = [CheckpointWriter(root, attempt, rank, nodes, tables, keep) for rank in range(nodes)]
    for rank in reversed(range(nodes)):
        writers[rank].write(clock, part_of(made, rank, nodes))
    assert writers[0].complete(clock, 60, lambda: False, state)


def loaded(manifest):
    """Load every table, each into memory full of something else."""
    made = {}
    for name, table in manifest.tables.items():
        made[name] = np.full((table["rows"], table["width"]), 77, table["dtype"])
        load(manifest, name, made[name])
    return made


def same(found, expected):
    """Whether both have the same bytes in every table."""
    return found.keys() == expected.keys() and all(found[n].tobytes() == expected[n].tobytes() for n in expected)


def folders(root):
    """Names in a local root."""
    return sorted(path.name for path in Path(root).iterdir())


def reseal(folder, change_part=None, change_manifest=None):
    """Write the checksums of a local checkpoint anew, as somebody would who forges one; changes get decoded JSON.

    A change may return what stands instead of what it got.
    """
    manifest = next(path for path in Path(folder).iterdir() if form.MANIFEST.fullmatch(path.name))
    checkpoint = json.loads(manifest.read_text())["checkpoint"]
    for entry in checkpoint["parts"]:
        path = Path(folder) / entry["file"]
        part = json.loads(path.read_text())
        for table in part["tables"].values():
            data = (Path(folder) / table["file"]).read_bytes()
            cuts = np.cumsum([size for size, _ in table["pieces"]])[:-1].tolist()
            cuts = [0, *(cut for cut in cuts if cut < len(data)), len(data)]
            table["pieces"] = [[high - low, form.sha256(data[low:high])] for low, high in itertools.pairwise(cuts)]
        if change_part:
            part = change_part(part) or part
        text = json.dumps(part).encode()
        path.write_bytes(text)
        entry["size"], entry["sha256"] = len(text), form.sha256(text)
    if change_manifest:
        checkpoint = change_manifest(checkpoint) or checkpoint
    manifest.write_bytes(form.encode_manifest(checkpoint))


class KillingOs:
    """The module `os`, whose functions that change the disk kill this process before (a write: amid) the n-th call."""

    CHANGING = frozenset({"open", "write", "fsync", "close", "replace", "mkdir", "unlink", "rmdir"})

    def __init__(self, deadly):
        self.left = deadly

    def __getattr__(self, name):
        function = getattr(os, name)
        return self._counted(name, function) if name in self.CHANGING else function

    def _counted(self, name, function):
        def call(*args, **kwargs):
            self.left -= 1
            if self.left == 0:
                if name == "write":
                    os.write(args[0], args[1][: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call


def node(root, attempt, rank, nodes, clocks, keep):
    """Write the checkpoints of one node; node 0 completes them."""
    writer = CheckpointWriter(root, attempt, int(rank), int(nodes), TABLES, int(keep))
    for clock in map(int, clocks.split(",")):
        writer.write(clock, part_of(contents(clock), int(rank), int(nodes)))
        if rank == "0":
            assert writer.complete(clock, 60, lambda: False, {"clock": clock})


def kill(top):
    """In folder `top`/n, save a checkpoint beside an old one, killed at the n-th step, until it is not killed."""
    for number in range(1, 1000):
        root = Path(top) / f"{number}"
        save(root, "job", 100, 2)
        CheckpointWriter(root, "job.zero", 1, 2, TABLES).write(120, part_of(contents(1), 1, 2))
        child = os.fork()
        if child == 0:
            checkpoint_store.os = KillingOs(number)
            save(root, "job.two", 120, 2, seed=2, keep=1)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
    print(number - 1)  # noqa: T201


def full(root):
    """Print what happens as the disk fills up; the test mounted a small one at `root`."""
    wide = {"items": {"rows": 1000, "width": 250, "dtype": "float32"}}  # 1 MB of 8
    save(root, "one", 1, 1, tables=wide)

    def room():
        return os.statvfs(root).f_bavail * os.statvfs(root).f_frsize

    def tell(call, *args):
        try:
            call(*args)
        except checkpoint_store.CheckpointError as error:
            print(str(error))  # noqa: T201
        assert folders(root) == ["clock-000000000001-one", "filler"], folders(root)
        assert latest(root).clock == 1
        assert same(loaded(latest(root)), contents(1, wide))

    filler = Path(root) / "filler"
    filler.write_bytes(bytes(room() - 500_000))
    before = room()
    writer = CheckpointWriter(root, "two", 0, 1, wide)
    tell(writer.write, 2, part_of(contents(2, wide), 0, 1))
    checkpoint_store.LocalStore.free_bytes = lambda self: None  # as where a quota counts: nobody knows before
    tell(writer.write, 3, part_of(contents(3, wide), 0, 1))
    assert room() == before
    filler.write_bytes(bytes(2_000_000))
    writer.write(4, part_of(contents(4, wide), 0, 1))
    with filler.open("ab") as file:
        file.write(bytes(room()))
    tell(writer.complete, 4, 60, lambda: False)
    filler.unlink()
    save(root, "three", 5, 1, tables=wide)
    assert same(loaded(latest(root)), contents(5, wide))


def memory(root):
    """Print by how many MB writing and loading a table of 128 MB raise the peak of this process's memory."""
    large = {"items": {"rows": 1 << 18, "width": 128, "dtype": "float32"}}
    values = np.ones((1 << 18, 128), np.float32)
    writer = CheckpointWriter(root, "one", 0, 1, large)

    def peak():
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024

    small = CheckpointWriter(root, "small", 0, 1, {"items": {"rows": 2, "width": 1, "dtype": "float32"}})
    small.write(1, {"items": (np.arange(2), np.ones((2, 1), np.float32))})  # pyarrow imports pandas on first use
    first = peak()
    writer.write(1, {"items": (np.arange(1 << 18), values)})
    assert writer.complete(1, 60, lambda: False)
    second = peak()
    values[:] = 0
    load(latest(root), "items", values)
    assert (values == 1).all()
    print(second - first, peak() - second)  # noqa: T201


if __name__ == "__main__":
    {"node": node, "kill": kill, "full": full, "memory": memory}[sys.argv[1]](*sys.argv[2:])
