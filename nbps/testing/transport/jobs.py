"""Nodes of a job that meet over a transport: what its addresses mean, and a job from beginning to end."""

from __future__ import annotations

import json
import secrets
import threading
from pathlib import Path

import pytest

from nbps.testing.chaos.cluster import Cluster, eventually
from nbps.testing.transport.subject import Subject
from nbps.transport import get_transport
from nbps.transport.mesh.mesh import Mesh
from nbps.transport.mesh.place import Place

_NODES = 3
_CLOCKS = 20
_SCRIPT = f"""
import json
import nbps

def add(worker):
    table = worker.table("sums")
    for _ in range({_CLOCKS}):
        table.inc(range(4), [[worker.rank + 1]] * 4)
        worker.clock()
    return worker.size

with nbps.Job([nbps.Table("sums", 4, 1, dtype="int64", access="cached")], workers=1) as job:
    print(json.dumps([job.run(add), job.table("sums").to_numpy().ravel().tolist()]))
"""


class JobContract(Subject):
    """The transport is found by its name, says what its addresses mean, and carries a job."""

    def place(self, rank: int, nodes: int, rendezvous: str) -> Place:
        """Return the place of node `rank`."""
        options, name = self.options(), self.transport().name
        card = {"version": "of the contract"}
        return Place(rank, nodes, rendezvous, "contract", 1000 + rank, b"the secret", name, tls=options.tls, card=card)

    def rendezvous(self) -> str:
        """Return an address at which nodes on this machine may meet."""
        return self.transport().free_rendezvous(f"contract-{secrets.token_hex(8)}")

    def test_it_is_found_by_its_name(self) -> None:
        """As the nodes of a job find it."""
        assert type(get_transport(self.transport().name)) is type(self.transport())

    def test_an_address_is_compared_as_the_transport_writes_it(self) -> None:
        """A free rendezvous is on this machine, each is another one, and what is not an address has no such form."""
        transport = self.transport()
        first, second = self.rendezvous(), self.rendezvous()
        one, other = transport.canonical(first), transport.canonical(second)
        assert one is not None
        assert one != other
        assert transport.canonical(one) == one
        assert transport.is_local(first)
        assert transport.canonical("") is None
        assert transport.address_form

    def test_nodes_find_each_other(self) -> None:
        """Three nodes, in threads, have a connection to each other."""
        rendezvous = self.rendezvous()
        meshes = [Mesh(self.place(rank, _NODES, rendezvous), 1 << 20) for rank in range(_NODES)]
        found: list[set[int]] = [set() for _ in meshes]

        def open_(rank: int) -> None:
            meshes[rank].open()
            for other, connection in meshes[rank].poll():
                found[rank].add(other)
                connection.close()

        threads = [threading.Thread(target=open_, args=(rank,)) for rank in range(_NODES)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for mesh in meshes:
            mesh.close()
        assert found == [set(range(_NODES)) - {rank} for rank in range(_NODES)]

    def test_it_carries_a_job(self, tmp_path: Path) -> None:
        """Two nodes, each a process with a worker and tables of its own, end with the same sums, and leave nothing."""
        if not self.transport().crosses_processes:
            pytest.skip("this transport stays within a process, and nodes are processes")
        script = tmp_path / "job.py"
        script.write_text(_SCRIPT)
        tls = self.options().tls
        files = {} if tls is None else {"CERT": tls.certificate, "KEY": tls.key, "CA": tls.authority}
        environment = {f"NBPS_TLS_{name}": str(path) for name, path in files.items()}
        where, transport = self.rendezvous(), self.transport().name
        with Cluster(script, 2, transport=transport, rendezvous=where, environment=environment) as cluster:
            cluster.start()
            assert cluster.wait() == [0, 0]
            assert [json.loads(node.output) for node in cluster.nodes] == [[[2], [3 * _CLOCKS] * 4]] * 2
            eventually(lambda: not cluster.left_behind(), "all that the nodes left behind to go")
