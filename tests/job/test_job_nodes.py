"""Where a process stands among the nodes: every launcher's variables, every bad value, and who may be reached."""

from __future__ import annotations

import dataclasses
import itertools
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
from nbps.job import cluster
from nbps.nodes.launchers import slurm_hosts
from nbps.runtime import cores
from nbps.transport import Tls, get_transport

OURS = {"NBPS_NODES": "4", "NBPS_NODE_RANK": "2", "NBPS_RENDEZVOUS": "127.0.0.1:29500"}

# What torchrun 2.x sets with --nnodes=2 --nproc-per-node=1, on the second machine.
TORCHRUN = {
    "LOCAL_RANK": "0",
    "RANK": "1",
    "GROUP_RANK": "1",
    "ROLE_RANK": "1",
    "ROLE_NAME": "default",
    "LOCAL_WORLD_SIZE": "1",
    "WORLD_SIZE": "2",
    "GROUP_WORLD_SIZE": "2",
    "ROLE_WORLD_SIZE": "2",
    "MASTER_ADDR": "gpu01",
    "MASTER_PORT": "29400",
    "TORCHELASTIC_RESTART_COUNT": "0",
    "TORCHELASTIC_MAX_RESTARTS": "0",
    "TORCHELASTIC_RUN_ID": "7c1b",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
    "OMP_NUM_THREADS": "1",
}
# torchrun --standalone --nproc-per-node=4: the machine has a name, and is alone.
STANDALONE = TORCHRUN | {
    "LOCAL_RANK": "3",
    "RANK": "3",
    "GROUP_RANK": "0",
    "LOCAL_WORLD_SIZE": "4",
    "WORLD_SIZE": "4",
    "GROUP_WORLD_SIZE": "1",
    "MASTER_ADDR": "build-7.example.org",
    "MASTER_PORT": "41233",
}
# Kubernetes' operator: torchrun's main variables without torchrun.
OPERATOR = {
    "MASTER_ADDR": "train-master-0",
    "MASTER_PORT": "23456",
    "WORLD_SIZE": "3",
    "RANK": "2",
    "PYTHONUNBUFFERED": "0",
}
OPEN_MPI = {
    "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_RANK": "5",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_NODE_RANK": "1",
    "OMPI_UNIVERSE_SIZE": "8",
    "PMIX_NAMESPACE": "prterun-head-4711@1",
    "PMIX_RANK": "5",
}
_JOB = {
    "SLURM_CLUSTER_NAME": "alps",
    "SLURM_JOB_ID": "1731344",
    "SLURM_JOBID": "1731344",
    "SLURM_JOB_NODELIST": "gpu[01-04,07],login1",
    "SLURM_NODELIST": "gpu[01-04,07],login1",
    "SLURM_JOB_NUM_NODES": "6",
    "SLURM_NNODES": "6",
    "SLURM_NTASKS": "6",
    "SLURM_NPROCS": "6",
    "SLURM_TASKS_PER_NODE": "1(x6)",
    "SLURM_SUBMIT_HOST": "login1",
}
# A task of srun, on the third machine.
SRUN = _JOB | {
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "2",
    "SLURM_GTIDS": "2",
    "SLURM_STEP_ID": "0",
    "SLURM_STEPID": "0",
    "SLURM_STEP_NODELIST": "gpu[01-04,07],login1",
    "SLURM_STEP_NUM_NODES": "6",
    "SLURM_STEP_NUM_TASKS": "6",
    "SLURM_STEP_TASKS_PER_NODE": "1(x6)",
    "SLURM_SRUN_COMM_HOST": "10.0.0.1",
}
# The script of sbatch: task 0 of no step.
SBATCH = _JOB | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_GTIDS": "0"}
# The shell of salloc, where the cluster starts it on the first machine, and where it does not.
SALLOC = SBATCH | {
    "SLURM_JOB_NAME": "interactive",
    "SLURM_PTY_PORT": "39933",
    "SLURM_PTY_WIN_COL": "209",
    "SLURM_STEP_ID": "4294967290",
    "SLURM_STEPID": "4294967290",
    "SLURM_STEP_NODELIST": "gpu01",
    "SLURM_STEP_NUM_NODES": "1",
    "SLURM_STEP_NUM_TASKS": "1",
    "SLURM_STEP_TASKS_PER_NODE": "1",
}
SALLOC_ON_LOGIN = _JOB | {"SLURM_JOB_NAME": "interactive"}
# srun -N1 -n2 within that allocation: a small step of a large job.
SMALL_STEP = SALLOC | {
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_STEP_ID": "3",
    "SLURM_STEP_NODELIST": "gpu07",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_TASKS_PER_NODE": "2",
}

TRUSTED = {"NBPS_SECRET": "of all nodes"}


@pytest.mark.parametrize(
    ("environ", "source", "place", "rendezvous", "job"),
    [
        ({}, "default", (1, 0), None, "nbps"),
        ({"HOME": "/root", "RANK": "3"}, "default", (1, 0), None, "nbps"),
        ({"WORLD_SIZE": "3"}, "default", (1, 0), None, "nbps"),
        ({"NBPS_TRANSPORT": "none", "NBPS_SECRET_FILE": "/absent"}, "default", (1, 0), None, "nbps"),
        (OURS, "NBPS_*", (4, 2), "127.0.0.1:29500", "nbps"),
        (OURS | {"NBPS_JOB": "mine"}, "NBPS_*", (4, 2), "127.0.0.1:29500", "mine"),
        ({"NBPS_NODES": "1", "NBPS_NODE_RANK": "0"}, "NBPS_*", (1, 0), None, "nbps"),
        ({"NBPS_NODES": "1"}, "NBPS_*", (1, 0), None, "nbps"),
        (OURS | TORCHRUN | SRUN | OPEN_MPI, "NBPS_*", (4, 2), "127.0.0.1:29500", "nbps"),
        (TORCHRUN, "torchrun", (2, 1), "gpu01:29401", "torchrun-7c1b"),
        (TORCHRUN | SRUN, "torchrun", (2, 1), "gpu01:29401", "torchrun-7c1b"),
        (TORCHRUN | {"MASTER_ADDR": "fd00::1"}, "torchrun", (2, 1), "[fd00::1]:29401", "torchrun-7c1b"),
        (TORCHRUN | {"MASTER_ADDR": "[fd00::1]"}, "torchrun", (2, 1), "[fd00::1]:29401", "torchrun-7c1b"),
        (TORCHRUN | {"NBPS_RENDEZVOUS": "a:1"}, "torchrun", (2, 1), "a:1", "torchrun-7c1b"),
        (TORCHRUN | {"NBPS_JOB": "mine"}, "torchrun", (2, 1), "gpu01:29401", "mine"),
        (STANDALONE, "torchrun", (4, 3), "127.0.0.1:41234", "torchrun-7c1b"),
        (OPERATOR, "torchrun", (3, 2), "train-master-0:23457", "nbps"),
        (OPEN_MPI | {"NBPS_RENDEZVOUS": "head:5000"}, "Open MPI", (8, 5), "head:5000", "nbps"),
        (OPEN_MPI | SRUN | {"NBPS_RENDEZVOUS": "head:5000"}, "Open MPI", (8, 5), "head:5000", "nbps"),
        (SRUN, "Slurm", (6, 2), "gpu01:21344", "slurm-1731344.0"),
        (SRUN | {"SLURM_STEP_ID": "4"}, "Slurm", (6, 2), "gpu01:21748", "slurm-1731344.4"),
        (SRUN | {"NBPS_RENDEZVOUS": "login1:5000"}, "Slurm", (6, 2), "login1:5000", "slurm-1731344.0"),
        (SRUN | {"SLURM_NTASKS": "12"}, "Slurm", (6, 2), "gpu01:21344", "slurm-1731344.0"),
        (SMALL_STEP, "Slurm", (2, 1), "127.0.0.1:21647", "slurm-1731344.3"),
        (SBATCH, "default", (1, 0), None, "nbps"),
        (SALLOC, "default", (1, 0), None, "nbps"),
        (SALLOC_ON_LOGIN, "default", (1, 0), None, "nbps"),
    ],
)
def test_every_launcher_is_understood(environ, source, place, rendezvous, job):
    """Who said so, how many nodes, which one, where they meet: from environments as launchers really set them."""
    nodes = Nodes.from_environment(environ | TRUSTED)
    assert nodes.source == source
    assert (nodes.count, nodes.rank) == place
    assert nodes.rendezvous == rendezvous
    assert nodes.job == job
    assert nodes.secret == (b"" if source == "default" else b"of all nodes")


def test_older_slurm_says_less():
    """Without the numbers of the step those of the job count."""
    environ = {name: value for name, value in SRUN.items() if not name.startswith("SLURM_STEP_")}
    nodes = Nodes.from_environment(environ | {"SLURM_STEP_ID": "0"} | TRUSTED)
    assert (nodes.count, nodes.rank, nodes.rendezvous, nodes.local_count) == (6, 2, "gpu01:21344", 1)


@pytest.mark.parametrize(
    ("environ", "count", "advice"),
    [
        (STANDALONE, 4, "torchrun --nproc-per-node=1"),
        (OPEN_MPI | {"NBPS_RENDEZVOUS": "head:5000"}, 4, "mpirun --map-by ppr:1:node"),
        (SRUN | {"SLURM_STEP_TASKS_PER_NODE": "1(x2),3,2(x3)"}, 3, "srun --ntasks-per-node=1"),
        (SMALL_STEP, 2, "srun --ntasks-per-node=1"),
    ],
)
def test_several_processes_on_a_machine_are_said_to_be_nodes(environ, count, advice):
    """A user who wanted one node for each machine sees how to get it."""
    nodes = Nodes.from_environment(environ | TRUSTED)
    assert nodes.local_count == count
    assert f"{count} of the nodes run on this machine, each process is one: {advice}" in str(nodes)
    assert "on this machine" not in str(Nodes.from_environment(TORCHRUN | TRUSTED))


def without(environ, *names):
    return {name: value for name, value in environ.items() if name not in names}


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        # Ours, one by one.
        (OURS | {"NBPS_NODES": "zero"}, ["NBPS_NODES is 'zero'", "whole number >= 1"]),
        (OURS | {"NBPS_NODES": "0"}, ["NBPS_NODES is 0", "whole number >= 1"]),
        (OURS | {"NBPS_NODES": "-1"}, ["NBPS_NODES is '-1'", "whole number >= 1"]),
        (OURS | {"NBPS_NODES": ""}, ["NBPS_NODES is ''", "whole number >= 1"]),
        (OURS | {"NBPS_NODES": "1_0"}, ["NBPS_NODES is '1_0'", "whole number >= 1"]),
        (OURS | {"NBPS_NODES": "9" * 5000}, ["NBPS_NODES is '999", "whole number >= 1"]),
        (OURS | {"NBPS_NODE_RANK": "4"}, ["NBPS_NODE_RANK is 4, but NBPS_NODES is 4", "0 to 3"]),
        (OURS | {"NBPS_NODE_RANK": "1.0"}, ["NBPS_NODE_RANK is '1.0'"]),
        (without(OURS, "NBPS_NODE_RANK"), ["NBPS_NODES is set, but NBPS_NODE_RANK is not"]),
        (without(OURS, "NBPS_NODES"), ["NBPS_NODE_RANK is set, but NBPS_NODES is not"]),
        (without(OURS, "NBPS_RENDEZVOUS"), ["NBPS_RENDEZVOUS is not set, but NBPS_NODES is 4", "host:port of node 0"]),
        ({"NBPS_RENDEZVOUS": "127.0.0.1:5000"}, ["NBPS_RENDEZVOUS is set, but NBPS_NODES and NBPS_NODE_RANK are not"]),
        (OURS | {"NBPS_TRANSPORT": "pigeon"}, ["NBPS_TRANSPORT is 'pigeon'", "'shm', 'tcp'"]),
        (OURS | {"NBPS_TRANSPORT": ""}, ["NBPS_TRANSPORT is empty"]),
        (OURS | {"NBPS_JOB": " "}, ["NBPS_JOB is empty"]),
        (OURS | {"NBPS_JOB": "x" * 151}, ["NBPS_JOB is 'xxx", "1 to 150 printable"]),
        (OURS | {"NBPS_SECRET": " \n"}, ["NBPS_SECRET is empty", "token_hex"]),
        (OURS | {"NBPS_SECRET": "a", "NBPS_SECRET_FILE": "b"}, ["NBPS_SECRET and NBPS_SECRET_FILE are both set"]),
        (OURS | {"NBPS_BIND": "eth0"}, ["NBPS_BIND is 'eth0'", "expected an IP address", "0.0.0.0"]),
        (OURS | {"NBPS_BIND": "127.0.0.1:0"}, ["NBPS_BIND is '127.0.0.1:0'"]),
        (OURS | {"NBPS_BIND": "[::1]"}, ["NBPS_BIND is '[::1]'"]),
        (OURS | {"NBPS_INSECURE": "maybe"}, ["NBPS_INSECURE is 'maybe'", "1 or 0"]),
        (OURS | {"NBPS_TLS_CERT": "a", "NBPS_TLS_KEY": "b"}, ["NBPS_TLS_CA is not set", "all three"]),
        (
            OURS | {"NBPS_TLS_CERT": "/absent/cert.pem", "NBPS_TLS_KEY": "b", "NBPS_TLS_CA": "c"},
            ["NBPS_TLS_CERT is '/absent/cert.pem'", "PEM"],
        ),
        # Addresses.
        *(
            (OURS | {"NBPS_RENDEZVOUS": address}, [f"NBPS_RENDEZVOUS is {address!r}", "expected host:port"])
            for address in [
                "127.0.0.1", "5000", ":5000", "host:", "host:port", "host:0", "host:65536", "host:-1", "host:+1",
                "::1:5000", "[::1]", "[::1:5000", "::1]:5000", "[]:5000", "[host:1]:5000", "[1:2]:5000",
                "tcp://host:5000", "host/x:5000", "ho st:5000", "host:5000/x", "host: 5000", "host:\u0665", "host:1e3",
            ]
        ),
        (OURS | {"NBPS_RENDEZVOUS": ""}, ["NBPS_RENDEZVOUS is empty"]),
        # torchrun
        (without(TORCHRUN, "RANK"), ["RANK is not set"]),
        (without(TORCHRUN, "WORLD_SIZE"), ["WORLD_SIZE is not set"]),
        (TORCHRUN | {"RANK": "2"}, ["RANK is 2, but WORLD_SIZE is 2"]),
        (TORCHRUN | {"WORLD_SIZE": "two"}, ["WORLD_SIZE is 'two'"]),
        (TORCHRUN | {"LOCAL_WORLD_SIZE": "0"}, ["LOCAL_WORLD_SIZE is 0"]),
        (TORCHRUN | {"MASTER_PORT": "http"}, ["MASTER_PORT is 'http'", "from 1 to 65535"]),
        (TORCHRUN | {"MASTER_PORT": "65535"}, ["MASTER_PORT is 65535", "next port", "NBPS_RENDEZVOUS"]),
        (without(TORCHRUN, "MASTER_PORT"), ["MASTER_ADDR and MASTER_PORT", "NBPS_RENDEZVOUS=host:port"]),
        (TORCHRUN | {"MASTER_ADDR": ""}, ["MASTER_ADDR and MASTER_PORT", "NBPS_RENDEZVOUS=host:port"]),
        # Open MPI
        (OPEN_MPI, ["NBPS_RENDEZVOUS is not set", "Open MPI's variables hold no address", "mpirun -x"]),
        (without(OPEN_MPI, "OMPI_COMM_WORLD_RANK"), ["OMPI_COMM_WORLD_RANK is not set"]),
        (without(OPEN_MPI, "OMPI_COMM_WORLD_SIZE"), ["OMPI_COMM_WORLD_SIZE is not set"]),
        # Slurm
        (SRUN | {"SLURM_PROCID": "6"}, ["SLURM_PROCID is 6, but SLURM_STEP_NUM_TASKS is 6"]),
        (SRUN | {"SLURM_STEP_ID": "x"}, ["SLURM_STEP_ID is 'x'"]),
        (without(SRUN, "SLURM_JOB_ID"), ["SLURM_JOB_ID is not set"]),
        (SRUN | {"SLURM_STEP_NODELIST": "gpu[1-"}, ["SLURM_STEP_NODELIST is 'gpu[1-'", "NBPS_RENDEZVOUS"]),
        (
            without(SRUN, "SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"),
            ["SLURM_JOB_NODELIST is not set", "NBPS_RENDEZVOUS"],
        ),
        (SRUN | {"SLURM_STEP_TASKS_PER_NODE": "1(x2)"}, ["SLURM_STEP_TASKS_PER_NODE is '1(x2)'", "SLURM_NODEID is 2"]),
        (SRUN | {"SLURM_STEP_TASKS_PER_NODE": "1,,1"}, ["SLURM_STEP_TASKS_PER_NODE is '1,,1'"]),
    ],
)  # fmt: skip
def test_a_bad_variable_is_named(environ, words):
    """The message says which variable, what was found and what was expected."""
    with pytest.raises(ConfigError) as caught:
        Nodes.from_environment(environ if "NBPS_SECRET" in environ else environ | TRUSTED)
    for word in words:
        assert word in str(caught.value)


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


# Hosts as Slurm compresses them: a model that expands by itself, with every pad width and several brackets.
_letters = st.text("abcxyz-.", min_size=1, max_size=4)


@st.composite
def _numbers(draw):
    """One bracket, and the texts that it stands for."""
    parts, texts = [], []
    for _ in range(draw(st.integers(1, 3))):
        width, low, more = draw(st.integers(1, 4)), draw(st.integers(0, 120)), draw(st.integers(0, 12))
        first = str(low).rjust(width, "0")
        parts.append(first if more == 0 else f"{first}-{str(low + more).rjust(len(first), '0')}")
        texts += [str(value).rjust(len(first), "0") for value in range(low, low + more + 1)]
    return f"[{','.join(parts)}]", texts


@st.composite
def _entry(draw):
    """One entry of a list, and its hosts."""
    name = draw(_letters)
    pieces: list[tuple[str, list[str]]] = [(name, [name])]
    for _ in range(draw(st.integers(0, 2))):
        pieces.append(draw(_numbers()))
        if draw(st.booleans()):
            tail = draw(_letters)
            pieces.append((tail, [tail]))
    return "".join(text for text, _ in pieces), ["".join(c) for c in itertools.product(*(t for _, t in pieces))]


@hypothesis.given(st.lists(_entry(), min_size=1, max_size=4))
def test_slurm_lists_are_expanded(entries):
    """Ranges, padding and several brackets give the hosts that they were made from, in order."""
    text = ",".join(text for text, _ in entries)
    assert list(slurm_hosts(text)) == [host for _, hosts in entries for host in hosts]


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("gpu[01-04,07],login1", ["gpu01", "gpu02", "gpu03", "gpu04", "gpu07", "login1"]),
        ("nid001096", ["nid001096"]),
        ("r[1-2]n[08-09]-ib", ["r1n08-ib", "r1n09-ib", "r2n08-ib", "r2n09-ib"]),
        ("n[9-11]", ["n9", "n10", "n11"]),
        ("a.example.org,b\n", ["a.example.org", "b"]),
    ],
)
def test_slurm_lists_by_hand(text, hosts):
    """The common forms, written out."""
    assert list(slurm_hosts(text)) == hosts


@pytest.mark.parametrize(
    "text",
    ["", ",", "a,", ",a", "a,,b", "n[", "n[]", "n]", "n[1", "n[1-]", "n[-1]", "n[2-1]", "n[1,]", "n[a]", "a b",
     "n[[1]]", "n[1-2-3]", "n" + "[1]" * 9, "n[" + "1" * 19 + "]", "n[1]]"],
)  # fmt: skip
def test_what_is_no_slurm_list(text):
    """Anything else is an error, which shows it."""
    with pytest.raises(ConfigError, match="Slurm"):
        list(slurm_hosts(text))


def test_a_huge_slurm_list_is_not_expanded():
    """The first host of a billion takes no time and no memory."""
    assert next(slurm_hosts("n[000000000-999999999]x[0-999999999]")) == "n000000000x0"


@hypothesis.given(st.text(st.characters(codec="utf-8"), max_size=30) | st.text("n[]-,01", max_size=30))
def test_any_slurm_list_is_read_or_refused(text):
    """No text whatever leads to another error."""
    try:
        assert all(itertools.islice(slurm_hosts(text), 100))
    except ConfigError as error:
        assert repr(text.strip()) in str(error)  # noqa: PT017


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


@hypothesis.given(
    st.dictionaries(
        st.sampled_from(sorted({*OURS, *TORCHRUN, *OPEN_MPI, *SRUN, "NBPS_TRANSPORT", "NBPS_BIND", "NBPS_TLS_CA"})),
        st.sampled_from(
            ["", "0", "1", "2", "4", "x", "::1", "a:1", "127.0.0.1:5000", "shm", "n[1-2]", "\u0663", "\x00"]
        )
        | st.text(max_size=6),
    )
)
def test_no_environment_crashes(environ):
    """Whatever variables hold, the answer is a place that makes sense, or a ConfigError that names a variable."""
    try:
        nodes = Nodes.from_environment(environ)
    except ConfigError as error:
        assert any(name in str(error) for name in (*environ, *SRUN, "NBPS_", "RANK", "WORLD_SIZE"))  # noqa: PT017
    else:
        assert 0 <= nodes.rank < nodes.count
        assert nodes.count == 1 or nodes.rendezvous


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
    assert [cluster.default_workers(nodes) for nodes in everyone] == [2, 8, 4, 1, 8, 4]
    monkeypatch.setattr(os, "cpu_count", lambda: 32)
    assert [cluster.default_workers(nodes) for nodes in everyone] == [8] * 6
    monkeypatch.setenv("NBPS_WORKERS", "3")
    assert cluster.default_workers(here) == 3
