"""Random legal histories: the most adversarial system that still keeps every promise. Knows nothing of the checker."""

from __future__ import annotations

import math
import random

from nbps.testing import Add, History, Passed, Read


def legal(seed, workers=3, clocks=6, staleness=1, rows=2, events=120):
    """Let workers go on in random order; each read shows, of every other worker, any first part that it may."""
    draw = random.Random(seed)
    history = History(workers, staleness=staleness)
    now = [0] * workers
    time = 0.0
    added = {row: [[] for _ in range(workers)] for row in range(rows)}  # (clock, sum) of every addition
    shown = {}  # by reader, row and worker: how many additions it was shown
    history.entries += [Passed(worker, 0, time) for worker in range(workers)]
    for _ in range(events):
        time += draw.choice([0.0, 1.0])
        me, row = draw.randrange(workers), draw.randrange(rows)
        kind = draw.choice(["add", "read", "read", "clock"])
        if kind == "add":
            count = draw.randint(1, 4)
            mine = added[row][me]
            mine.append((now[me], count + (mine[-1][1] if mine else 0)))
            history.entries.append(Add(me, now[me], "t", row, count, time))
        elif kind == "read":
            values = []
            for worker in range(workers):
                theirs = added[row][worker]
                least = sum(clock < now[me] - staleness for clock, _ in theirs)
                least = len(theirs) if worker == me else max(least, shown.get((me, row, worker), 0))
                many = shown[me, row, worker] = draw.randint(least, len(theirs))
                values.append(theirs[many - 1][1] if many else 0)
            visible = max(0, now[me] - staleness) if math.isfinite(staleness) else None
            history.entries.append(Read(me, now[me], "t", row, tuple(values), staleness, time, visible))
        elif now[me] < clocks and now[me] + 1 - staleness <= min(now):
            now[me] += 1
            history.entries.append(Passed(me, now[me], time))
    history.final = {("t", row): tuple(one[-1][1] if one else 0 for one in added[row]) for row in range(rows)}
    return history
