"""Watch parameters from another program while they are trained: a table is a live Arrow IPC file."""

import subprocess
import sys
import time

import nbps

WATCHER = """
import sys, time, pyarrow as pa
batch = pa.ipc.open_file(pa.memory_map(sys.argv[1])).get_batch(0)
for _ in range(3):
    time.sleep(0.2)
    print("the watcher sees", batch.column("counts")[0].as_py(), flush=True)
"""


def count(worker):
    """Add 1 to the worker's own column a thousand times, a millisecond apart."""
    table = worker.table("counts")
    for _ in range(1_000):
        table.inc(0, [1 if column == worker.rank else 0 for column in range(worker.size)])
        worker.clock()
        time.sleep(0.001)


with nbps.Job([nbps.Table("counts", rows=1, width=2, dtype="int64")], workers=2) as job:
    table = job.table("counts")
    watcher = subprocess.Popen([sys.executable, "-c", WATCHER, table.path])
    job.run(count)
    watcher.wait()
    final = table.to_numpy()

print("in the end", final[0].tolist())
assert final.tolist() == [[1_000, 1_000]]
