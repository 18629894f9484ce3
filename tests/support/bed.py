"""A test that is killed in the middle, as a script: a node in each of two hosts, which wait for ever."""

import os
import sys
import time
from pathlib import Path

from nbps.testing.chaos.cluster import Cluster
from support import lan

with lan.Lan(2) as network, Cluster(sys.argv[1], 2, ["orphan"], hosts=network.hosts) as cluster:
    cluster.start()
    for node in cluster.nodes:
        node.until("orphan")
    namespaces = [Path(host.namespace).readlink() for host in network.hosts]
    said = [*map(str, namespaces), *[str(node.pid) for node in cluster.nodes]]
    os.write(1, (" ".join(said) + "\n").encode())
    time.sleep(600)
