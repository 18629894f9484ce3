"""Settings of nodes: every bad argument, who may be reached and needs a secret, and how many workers fit."""

from __future__ import annotations

import dataclasses
import os
import pickle
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from nbps import Nodes
from nbps.errors import ConfigError
from nbps.job.settings import default_workers
from nbps.runtime import cores
from nbps.transport import Tls, get_transport
from support.launchers import OURS


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"count": 0}, "Nodes: count is 0; expected a whole number >= 1"),
        ({"count": True}, "Nodes: count is True"),
        ({"count": 2, "rank": 2}, "Nodes: rank is 2, but Nodes: count is 2"),
        ({"rank": -1}, "Nodes: rank is -1"),
        ({"count": 2}, "Nodes: rendezvous is not set, but Nodes: count is 2; give host:port of node 0"),
        ({"count": 2, "rendezvous": 5000}, "Nodes: rendezvous is 5000"),
        ({"count": 2, "rendezvous": "", "transport": "shm"}, "Nodes: rendezvous is ''; expected a name"),
        ({"transport": None}, "Nodes: transport is None"),
        ({"job": ""}, "Nodes: job is ''"),
        ({"job": "a\nb"}, "Nodes: job is 'a\\nb'"),
        ({"count": 2, "rendezvous": "x" * 41, "transport": "shm"}, "at most 40 letters"),
        ({"count": 2, "rendezvous": "a b", "transport": "shm"}, "at most 40 letters"),
        ({"secret": "text"}, "Nodes: secret is of type str; expected bytes"),
        ({"bind": "here"}, "Nodes: bind is 'here'"),
        ({"insecure": 1}, "Nodes: insecure is 1"),
        ({"tls": ("a", "b", "c")}, "Nodes: tls is"),
        ({"count": 2, "rendezvous": "host:1"}, "set the same secret on every node"),
    ],
)
def test_a_bad_argument_is_named(arguments, words):
    """As for variables, under the argument's name."""
    with pytest.raises(ConfigError) as caught:
        Nodes(**arguments)
    assert words in str(caught.value)


def listens(nodes: Nodes) -> str:
    """Where node 0 of a job listens: what the transport makes of `nodes`."""
    return get_transport(nodes.transport).entrance(str(nodes.rendezvous), nodes.bind)


@pytest.mark.parametrize(
    ("address", "bind", "private", "where"),
    [
        ("127.0.0.1:5000", "", True, "127.0.0.1:5000"),
        ("127.8.9.1:5000", "", True, "127.8.9.1:5000"),
        ("localhost:5000", "", True, "localhost:5000"),
        ("LocalHost:5000", "127.0.0.1", True, "127.0.0.1:5000"),
        ("[::1]:5000", "", True, "[::1]:5000"),
        ("[::1]:5000", "::1", True, "[::1]:5000"),
        ("10.0.0.1:5000", "", False, "10.0.0.1:5000"),
        ("10.0.0.1:5000", "0.0.0.0", False, "0.0.0.0:5000"),
        ("gpu01:5000", "", False, "0.0.0.0:5000"),
        ("gpu01:5000", "10.0.0.2", False, "10.0.0.2:5000"),
        ("gpu01:5000", "fd00::2", False, "[fd00::2]:5000"),
        ("[fd00::1]:5000", "", False, "[fd00::1]:5000"),
        ("127.0.0.1:5000", "0.0.0.0", False, "0.0.0.0:5000"),
        ("127.0.0.1:5000", "10.0.0.2", False, "10.0.0.2:5000"),
        ("localhost.example.org:5000", "", False, "0.0.0.0:5000"),
    ],
)
def test_other_machines_need_a_secret(address, bind, private, where):
    """Loopback is listened at only if all are there; any other address is refused without secret or insecure=True."""
    environ = {"NBPS_NODES": "2", "NBPS_RENDEZVOUS": address} | ({"NBPS_BIND": bind} if bind else {})
    for rank in range(2):
        arguments = {"count": 2, "rank": rank, "rendezvous": address, "bind": bind}
        environ["NBPS_NODE_RANK"] = str(rank)
        for trust in ({"secret": b"x"}, {"insecure": True}, *([{}] if private else [])):
            nodes = Nodes(**arguments, **trust)
            # Nodes other than 0 listen at the address from which they reach it.
            assert nodes.bind == bind if rank else listens(nodes) == where
        assert Nodes.from_environment(environ | {"NBPS_INSECURE": "yes"}) == Nodes(**arguments, insecure=True)
        if private:
            assert Nodes.from_environment(environ) == Nodes(**arguments)
            continue
        with pytest.raises(ConfigError, match=r"other machines can reach.*the same secret on.*token_hex\(32\)"):
            Nodes(**arguments)
        with pytest.raises(ConfigError, match=r"NBPS_SECRET or NBPS_SECRET_FILE, the same on .* or NBPS_INSECURE=1"):
            Nodes.from_environment(environ)


def test_names_on_this_machine_need_no_secret():
    """Nodes over shared memory meet at a name."""
    nodes = Nodes(3, 0, rendezvous="job-17.a", transport="shm")
    assert listens(nodes) == "job-17.a"
    assert not nodes.secret


def test_the_secret_is_kept(tmp_path):
    """It is in no text of the object, and comes along when pickled; who said so is not part of who one is."""
    nodes = Nodes.from_environment(OURS | {"NBPS_SECRET": "hush hush"})
    assert "hush" not in repr(nodes) + str(nodes)
    assert pickle.loads(pickle.dumps(nodes)) == nodes
    assert nodes == Nodes(4, 2, "127.0.0.1:29500", secret=b"hush hush")


def test_a_secret_in_a_file(tmp_path):
    """White space around it does not count, so that echo can write it; modes for the owner alone are fine."""
    path = tmp_path / "secret"
    path.write_bytes(b"\n\xff\x00 0123 \r\n")
    for mode in (0o600, 0o400):
        path.chmod(mode)
        assert Nodes.from_environment(OURS | {"NBPS_SECRET_FILE": str(path)}).secret == b"\xff\x00 0123"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601, 0o610, 0o777])
def test_a_secret_that_others_can_read_is_refused(tmp_path, mode):
    """The message says what to type; typing it helps."""
    path = tmp_path / "my secret"
    path.write_text("hush")
    path.chmod(mode)
    environ = OURS | {"NBPS_SECRET_FILE": str(path)}
    with pytest.raises(ConfigError, match=f"NBPS_SECRET_FILE is .* has mode {mode:04o}: .*expected 0600") as caught:
        Nodes.from_environment(environ)
    assert "hush" not in str(caught.value)
    subprocess.run(str(caught.value).rpartition("; ")[2], shell=True, check=True)
    assert Nodes.from_environment(environ).secret == b"hush"


def make_fifo(path):
    os.mkfifo(path, 0o600)


def make_foreign(path):
    path.write_text("hush")
    path.chmod(0o600)
    os.chown(path, 12345, 12345)


def make_long(path):
    path.write_bytes(b"x" * 5000)
    path.chmod(0o600)


def make_empty(path):
    path.write_text(" \n")
    path.chmod(0o600)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "cannot be opened: No such file or directory"),
        (Path.mkdir, "not a regular file"),
        (make_fifo, "not a regular file"),
        (make_long, "more than 4096 bytes"),
        (make_empty, "holds no secret"),
        pytest.param(
            make_foreign,
            "belongs to user 12345; expected a file of user 0",
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away"),
        ),
    ],
)
def test_what_is_no_secret_file(tmp_path, make, words):
    """A pipe does not block, and a large file is not read."""
    make(tmp_path / "it's")
    with pytest.raises(ConfigError, match=words) as caught:
        Nodes.from_environment(OURS | {"NBPS_SECRET_FILE": str(tmp_path / "it's")})
    assert str(tmp_path) in str(caught.value)


def test_the_advice_makes_a_secret_file(tmp_path):
    """What a message says to type makes a file that is accepted, under any umask."""
    path = tmp_path / "it's"
    environ = OURS | {"NBPS_SECRET_FILE": str(path)}
    with pytest.raises(ConfigError) as caught:
        Nodes.from_environment(environ)
    command = str(caught.value).rpartition("make one: ")[2]
    folder = Path(sys.executable).parent
    subprocess.run(
        f"umask 000; {command}", shell=True, check=True, env=os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}
    )
    assert len(Nodes.from_environment(environ).secret) == 64


def test_certificates_are_files(tmp_path):
    """Three variables or none; as an argument, too."""
    paths = {name: tmp_path / name for name in ("certificate", "key", "authority")}
    for path in paths.values():
        path.touch()
    variables = dict(zip(("NBPS_TLS_CERT", "NBPS_TLS_KEY", "NBPS_TLS_CA"), map(str, paths.values()), strict=True))
    tls = Tls(**paths)
    assert Nodes.from_environment(OURS | variables).tls == tls == Nodes(tls=tls).tls
    paths["key"].unlink()
    with pytest.raises(ConfigError, match=r"NBPS_TLS_KEY is .*key'"):
        Nodes.from_environment(OURS | variables)
    with pytest.raises(ConfigError, match=r"Nodes: key is .*key'"):
        Nodes(tls=tls)


@hypothesis.given(st.ip_addresses(), st.integers(1, 65535))
def test_every_address_is_taken(address, port):
    """IPv4 and IPv6: node 0 listens exactly there, and needs a secret exactly if that is not loopback."""
    text = f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
    assert listens(Nodes(2, 0, text, secret=b"x")) == text
    if address.is_loopback:
        Nodes(2, 1, text)
    else:
        with pytest.raises(ConfigError, match="no secret"):
            Nodes(2, 1, text)


def test_nodes_of_one_machine_share_its_cores(monkeypatch):
    """As many workers as fit where rendezvous or launcher show that nodes run here, unless each is bound to its own."""
    monkeypatch.delenv("NBPS_WORKERS", raising=False)
    monkeypatch.setattr(cores, "quota_cores", lambda: None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    here = Nodes(count=4, rank=1, rendezvous="127.0.0.1:29500")
    there = Nodes(count=4, rank=1, rendezvous="10.0.0.1:29500", secret=b"of all nodes here")
    pair = dataclasses.replace(there, local_count=2)
    crowd = Nodes(count=20, rank=1, rendezvous="crowd", transport="shm")
    everyone = [here, there, pair, crowd, Nodes(), dataclasses.replace(here, count=2)]
    assert [default_workers(nodes) for nodes in everyone] == [2, 8, 4, 1, 8, 4]
    monkeypatch.setattr(os, "cpu_count", lambda: 32)
    assert [default_workers(nodes) for nodes in everyone] == [8] * 6
    monkeypatch.setenv("NBPS_WORKERS", "3")
    assert default_workers(here) == 3
