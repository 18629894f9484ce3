"""Places of nodes: what is checked before anything is opened."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nbps.errors import ConfigError
from nbps.transport.addresses import is_loopback
from nbps.transport.mesh.mesh import Mesh
from support.meeting import (
    places,
)
from support.strangers import SECRET


@pytest.mark.parametrize("change", [{"rendezvous": "0.0.0.0:5000"}, {"rendezvous": "10.0.0.1:5000"}, {"bind": "::"}])
def test_open_addresses_need_a_secret(change):
    """Other machines could connect: refused, with what to do, unless there is a secret or the user insists."""
    place = replace(places(2)[1], **change)
    with pytest.raises(ConfigError, match="NBPS_SECRET"):
        Mesh(place, 1)
    for allowed in (replace(place, secret=SECRET), replace(place, insecure=True)):
        Mesh(allowed, 1).close()


def test_an_unknown_host_counts_as_open():
    """A name that does not resolve may resolve later, to anything."""
    with pytest.raises(ConfigError, match=r"would use nowhere\.invalid"):
        Mesh(replace(places(2)[1], rendezvous="nowhere.invalid:5000"), 1)


def test_a_loopback_bind_and_a_remote_rendezvous_do_not_go_together():
    """Nobody could connect to this node."""
    with pytest.raises(ConfigError, match="leave bind empty"):
        Mesh(replace(places(2)[1], rendezvous="10.0.0.1:5000", bind="127.0.0.1", secret=SECRET), 1)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
        ("10.0.0.1", False), ("8.8.8.8", False), ("fe80::1", False), ("nowhere.invalid", False),
    ],
)  # fmt: skip
def test_which_hosts_are_this_machine_only(host, loopback):
    """Addresses and names; what is not known is taken for open."""
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rank": 2}, "rank=2, nodes=2"),
        ({"rank": -1}, "rank=-1"),
        ({"nodes": 0, "rank": 0}, "nodes=0"),
        ({"job": ""}, "job=''"),
        ({"job": "a\nb"}, "printable"),
        ({"job": "x" * 201}, "1 to 200"),
        ({"incarnation": 2**64}, "incarnation"),
        ({"incarnation": -1}, "incarnation"),
        ({"start_timeout_s": 0}, "start_timeout_s=0"),
        ({"start_timeout_s": float("nan")}, "start_timeout_s=nan"),
    ],
)
def test_places_are_checked(change, message):
    """Each field alone, with what was found."""
    with pytest.raises(ConfigError, match=message):
        replace(places(2)[1], **change)


@pytest.mark.parametrize("rendezvous", ["", "here", "localhost", "localhost:x", "::1:5000", "host:70000"])
def test_a_rendezvous_is_an_address(rendezvous):
    """Named as what it is, with the variable that sets it."""
    with pytest.raises(ConfigError, match="NBPS_RENDEZVOUS"):
        Mesh(replace(places(2)[1], rendezvous=rendezvous), 1)


def test_a_place_does_not_print_its_secret():
    """Nor does an error or a log line that shows a place."""
    assert "the secret" not in repr(replace(places(2)[1], secret=SECRET))
